//! `/config_dump`: the configuration in force, as compiled, and what was refused.
//!
//! Plugin configs and secrets are not part of a snapshot's description, so none can leak from here.

use serde_json::{Value, json};
use tollgate_snapshot::cluster::{Endpoints, Verification};
use tollgate_snapshot::route::{Action, Destination, PathMatch, Route};
use tollgate_snapshot::{Cluster, Settings, Snapshot, VirtualHost};

use crate::Status;

/// Describes a generation.
#[must_use]
pub fn config_dump(snapshot: &Snapshot, status: &Status) -> Value {
    let hosts = &snapshot.hosts;
    let virtual_hosts = hosts
        .exact
        .values()
        .chain(hosts.wildcard.iter().map(|row| &row.1))
        .chain(hosts.any.as_ref());
    let mut host_values: Vec<Value> = virtual_hosts.map(host).collect();
    host_values.sort_by_key(|value| value["name"].to_string());
    let mut clusters: Vec<Value> = snapshot.clusters.values().map(|found| cluster(found)).collect();
    clusters.sort_by_key(|value| value["name"].to_string());
    let certificates = &snapshot.certificates;
    json!({
        "generation": snapshot.generation,
        "read_at": status.at,
        "objects": status.objects,
        "diagnostics": &*status.diagnostics,
        "hosts": host_values,
        "clusters": clusters,
        "certificates": {
            "exact": certificates.exact.keys().collect::<Vec<_>>(),
            "wildcard": certificates.wildcard.iter().map(|(suffix, _)| format!("*{suffix}")).collect::<Vec<_>>(),
            "fallback": certificates.fallback.is_some(),
        },
        "settings": settings(&snapshot.settings),
    })
}

/// Field by field: what is added to the settings shows here only once somebody has decided that it may.
fn settings(settings: &Settings) -> Value {
    json!({
        "downstream_idle_seconds": settings.downstream_idle.as_secs_f64(),
        "max_request_head_bytes": settings.max_request_head,
        "request_head_timeout_seconds": settings.request_head_timeout.as_secs_f64(),
        "buffer_limit_bytes": settings.buffer_limit,
        "http2_max_streams": settings.http2_max_streams,
        "http2_stream_window_bytes": settings.http2_stream_window,
        "http2_connection_window_bytes": settings.http2_connection_window,
        "alpn_h2": settings.alpn_h2,
        "connect_timeout_seconds": settings.connect_timeout.as_secs_f64(),
        "envoy_headers": settings.envoy_headers,
        "real_ip_header": settings.real_ip_header,
    })
}

fn host(virtual_host: &VirtualHost) -> Value {
    json!({
        "name": virtual_host.name,
        "routes": virtual_host.routes.iter().map(|found| route(found)).collect::<Vec<_>>(),
    })
}

fn route(route: &Route) -> Value {
    let plugins = route.links.iter().map(|link| {
        let origins = link
            .candidates
            .iter()
            .map(|candidate| &*candidate.origin.place)
            .collect::<Vec<_>>();
        json!({ "name": &*link.name, "configs": origins })
    });
    json!({
        "name": &*route.name,
        "object": &*route.origin.object,
        "place": &*route.origin.place,
        "path": path(&route.matcher.path),
        "methods": route.matcher.methods.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "action": action(&route.action),
        "plugins": plugins.collect::<Vec<_>>(),
    })
}

fn path(path: &PathMatch) -> Value {
    match path {
        PathMatch::Any => json!({ "prefix": "/" }),
        PathMatch::Exact(text) => json!({ "exact": text }),
        PathMatch::Prefix(text) => json!({ "prefix": text }),
        PathMatch::Regex(pattern) => json!({ "regex": pattern.as_str() }),
    }
}

fn action(action: &Action) -> Value {
    let redirect = |status: &tollgate_snapshot::policy::Redirect| json!(status.status.as_u16());
    match action {
        Action::Forward(destinations) => json!({ "forward": weights(destinations) }),
        Action::Redirect(target) => json!({ "redirect": redirect(target) }),
        Action::RedirectPlain(target, destinations) => {
            json!({ "redirect_plain": redirect(target), "forward": weights(destinations) })
        }
    }
}

fn weights(destinations: &[Destination]) -> Vec<Value> {
    let row = |destination: &Destination| json!({ "cluster": &**destination.name(), "weight": destination.weight, "exists": destination.cluster.is_ok() });
    destinations.iter().map(row).collect()
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoints = match &cluster.endpoints {
        Endpoints::Static(addresses) => addresses
            .iter()
            .map(|(address, _)| address.to_string())
            .collect::<Vec<_>>(),
        Endpoints::Dns { names, .. } => names
            .iter()
            .map(|(name, port)| format!("{name}:{port}"))
            .collect(),
    };
    let tls = cluster.tls.as_ref().map(|tls| {
        let verification = match tls.verification {
            Verification::SystemRoots => "system",
            Verification::Bundle(_) => "bundle",
            Verification::Off => "off",
        };
        json!({
            "server_name": tls.server_name.as_deref(),
            "verification": verification,
            "client_certificate": tls.client_certificate.is_some(),
        })
    });
    json!({
        "name": &*cluster.name,
        "endpoints": endpoints,
        "protocol": format!("{:?}", cluster.protocol),
        "tls": tls,
    })
}
