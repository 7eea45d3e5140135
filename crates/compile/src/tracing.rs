//! `tracing` of `higress-config`: from what is written to a format, a sampling and the cluster that takes the spans.

use std::sync::Arc;
use std::time::Duration;

use tollgate_base::Secret;
use tollgate_kinds::Diagnostic;
use tollgate_kinds::higress_config::{Collector, Tracing as Written};
use tollgate_observe::trace::{Settings, Wire};
use tollgate_snapshot::{Cluster, Tracing, UpstreamProtocol};

use crate::Input;
use crate::clusters::{Clusters, cluster_name};
use crate::settings::CONFIG;

/// Host that Higress has Zipkin's reports carry.
const ZIPKIN_AUTHORITY: &str = "higress-gateway";

/// Where traces go; a service that does not exist is told, and nothing is traced.
pub(crate) fn compile(
    input: &Input<'_>,
    clusters: &Clusters,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Arc<Tracing>> {
    let written = input.global.tracing.as_ref()?;
    let (section, wire, collector) = chosen(written)?;
    let name = cluster_name(&collector.service, collector.port, "");
    let Some(cluster) = clusters.get(name.as_str()) else {
        let namespace = &input.options.system_namespace;
        let config_map = input.objects.config_map(namespace, CONFIG)?;
        let message = format!(
            "no service {} has the port {}: nothing is traced",
            collector.service, collector.port
        );
        let field = format!("data[higress].tracing.{section}.service");
        diagnostics.push(config_map.warning("data[higress]", message).at_field(&field));
        return None;
    };
    let token = collector.access_token.expose();
    let settings = Settings {
        wire,
        sampling: written.sampling,
        timeout: Duration::from_millis(u64::try_from(written.timeout).unwrap_or(1)),
        service: format!("higress-gateway.{}", input.options.system_namespace).into(),
        token: (!token.is_empty()).then(|| Secret::new(token)),
    };
    let authority = match wire {
        Wire::Zipkin => ZIPKIN_AUTHORITY.to_owned(),
        Wire::OtlpGrpc | Wire::OtlpHttp | Wire::SkyWalking => {
            format!("{}:{}", collector.service, collector.port)
        }
    };
    Some(Arc::new(Tracing {
        settings,
        cluster: reached_by(wire, cluster),
        authority: authority.into(),
    }))
}

fn chosen(written: &Written) -> Option<(&'static str, Wire, &Collector)> {
    if let Some(collector) = &written.skywalking {
        return Some(("skywalking", Wire::SkyWalking, collector));
    }
    if let Some(collector) = &written.zipkin {
        return Some(("zipkin", Wire::Zipkin, collector));
    }
    let collector = written.opentelemetry.as_ref()?;
    let wire = match collector.protocol.as_str() {
        "http/protobuf" => Wire::OtlpHttp,
        _ => Wire::OtlpGrpc,
    };
    Some(("opentelemetry", wire, collector))
}

/// gRPC needs HTTP/2, whatever the service says of itself.
fn reached_by(wire: Wire, cluster: &Arc<Cluster>) -> Arc<Cluster> {
    match wire {
        Wire::OtlpGrpc | Wire::SkyWalking => Arc::new(Cluster {
            protocol: UpstreamProtocol::Http2,
            ..Cluster::clone(cluster)
        }),
        Wire::OtlpHttp | Wire::Zipkin => Arc::clone(cluster),
    }
}
