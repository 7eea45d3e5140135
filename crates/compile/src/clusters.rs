//! Clusters: every port of every service, with the protocol, TLS and balancing that Ingresses ask for.
//!
//! Those wishes count per service and port: the first Ingress that has one decides for all routes, since a cluster
//! is shared. A wish for a destination without port counts for the whole service.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_kinds::ingress::{IngressBackend, ServicePortRef};
use tollgate_kinds::{Diagnostic, Secret};
use tollgate_snapshot::cluster::ClientCertificate;
use tollgate_snapshot::{Cluster, ClusterTls, Verification};

use crate::Input;
use crate::annotations::UpstreamTls;
use crate::ingress::Plan;
use crate::secrets;
use crate::services::{KnownPort, KnownTls, ServiceTable, kubernetes_host};

/// All clusters by name.
pub(crate) type Clusters = HashMap<Arc<str>, Arc<Cluster>>;

/// Which Ingress decides about a service (`None`: all its ports).
type Wishes<'p, 'a> = HashMap<(String, Option<u16>), &'p Plan<'a>>;

/// `outbound|<port>|<subset>|<host>`.
pub(crate) fn cluster_name(host: &str, port: u16, subset: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Makes the clusters of all services, those without a route included: plugins call them by name.
pub(crate) fn build(
    input: &Input<'_>,
    plans: &[Plan<'_>],
    services: &ServiceTable,
    diagnostics: &mut Vec<Diagnostic>,
) -> Clusters {
    let wishes = wishes(input, plans);
    let mut clusters = Clusters::new();
    let mut told = Vec::new();
    for (host, service) in services.iter() {
        for port in &service.ports {
            let wish = wishes
                .get(&(host.to_string(), Some(port.number)))
                .or_else(|| wishes.get(&(host.to_string(), None)));
            let name: Arc<str> = cluster_name(host, port.number, "").into();
            let cluster = cluster(input, &name, port, wish.copied(), &mut told);
            clusters.insert(name, Arc::new(cluster));
        }
    }
    // Services come out of a hash map, and one Ingress may concern several of them.
    told.sort_by(|left: &Diagnostic, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    told.dedup();
    diagnostics.append(&mut told);
    clusters
}

fn wishes<'p, 'a>(input: &Input<'_>, plans: &'p [Plan<'a>]) -> Wishes<'p, 'a> {
    let mut wishes = Wishes::new();
    for plan in plans.iter().filter(|plan| plan.features.concerns_services()) {
        let backends = plan
            .hosts
            .iter()
            .flat_map(|host| host.paths)
            .map(|path| &path.backend);
        for backend in plan.ingress.spec.default_backend.iter().chain(backends) {
            for key in concerned(input, plan, backend) {
                wishes.entry(key).or_insert(plan);
            }
        }
    }
    wishes
}

/// The services that a backend means.
fn concerned(input: &Input<'_>, plan: &Plan<'_>, backend: &IngressBackend) -> Vec<(String, Option<u16>)> {
    if let Some(service) = &backend.service {
        let namespace = &plan.ingress.metadata.namespace;
        let port = match &service.port {
            ServicePortRef::Number(number) => Some(*number),
            named => input
                .objects
                .service(namespace, &service.name)
                .and_then(|found| found.spec.port(named))
                .map(|port| port.port),
        };
        let host = kubernetes_host(namespace, &service.name, input);
        return port.map(|port| (host, Some(port))).into_iter().collect();
    }
    let written = plan
        .features
        .destination
        .iter()
        .flat_map(|written| &written.destinations);
    written
        .map(|destination| (destination.host.clone(), destination.port))
        .collect()
}

fn cluster(
    input: &Input<'_>,
    name: &Arc<str>,
    port: &KnownPort,
    wish: Option<&Plan<'_>>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Cluster {
    let mut cluster = Cluster::new(name.clone(), port.endpoints.clone());
    cluster.idle_timeout = input.global.upstream_idle;
    cluster.protocol = port.protocol;
    cluster.tunnel = port.tunnel.clone();
    cluster.tls = port.tls.as_ref().map(|known| ClusterTls {
        server_name: known.server_name.clone(),
        verification: Verification::SystemRoots,
        client_certificate: None,
    });
    let Some(plan) = wish else { return cluster };
    if let Some(policy) = &plan.features.load_balance {
        cluster.load_balance = policy.clone();
    }
    if let Some(wanted) = &plan.features.upstream_tls {
        cluster.protocol = wanted.protocol;
        if wanted.tls {
            let known = port.tls.as_ref();
            cluster.tls = Some(wanted_tls(input, plan, wanted, known, diagnostics));
        }
    }
    cluster
}

fn wanted_tls(
    input: &Input<'_>,
    plan: &Plan<'_>,
    wanted: &UpstreamTls,
    known: Option<&KnownTls>,
    diagnostics: &mut Vec<Diagnostic>,
) -> ClusterTls {
    let from_registry = || known.and_then(|known| known.server_name.clone());
    let mut compiled = ClusterTls {
        server_name: wanted
            .server_name
            .as_deref()
            .map(Arc::from)
            .or_else(from_registry),
        verification: match wanted.verify {
            true => Verification::SystemRoots,
            false => Verification::Off,
        },
        client_certificate: None,
    };
    let Some((namespace, name)) = &wanted.secret else {
        return compiled;
    };
    let namespace = namespace.as_deref().unwrap_or(&plan.ingress.metadata.namespace);
    match client_certificate(input, namespace, name) {
        Ok((certificate, authority)) => {
            compiled.client_certificate = Some(Arc::new(certificate));
            if let (true, Some(authority)) = (wanted.verify, authority) {
                compiled.verification = Verification::Bundle(authority);
            }
        }
        Err(message) => {
            let message = format!("{message}: no client certificate is sent");
            diagnostics.push(plan.ingress.error(&plan.annotation("proxy-ssl-secret"), message));
        }
    }
    compiled
}

/// PEM certificates.
type Bundle = Arc<[u8]>;

/// The client certificate of a Secret, and its authority's certificate if it holds one.
fn client_certificate(
    input: &Input<'_>,
    namespace: &str,
    name: &str,
) -> Result<(ClientCertificate, Option<Bundle>), String> {
    let secret: &Secret = input
        .objects
        .secret(namespace, name)
        .ok_or_else(|| format!("the Secret {namespace}/{name} does not exist"))?;
    // Built once to know that it can be used; the upstream builds its own.
    secrets::certified_key(secret)?;
    let pem = |keys: &[&str]| secret.spec.first(keys).map(|value| value.expose().to_vec());
    let certificate = ClientCertificate {
        chain: pem(secrets::CERTIFICATE_KEYS).unwrap_or_default(),
        key: pem(secrets::PRIVATE_KEY_KEYS).unwrap_or_default(),
    };
    let authority = secret.spec.first(secrets::AUTHORITY_KEYS);
    Ok((certificate, authority.map(|value| value.expose().into())))
}
