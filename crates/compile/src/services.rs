//! Every service that can be named, whatever it came from: Kubernetes Services with their endpoints, and the
//! registries of the McpBridge. Stands before routes and clusters; knows neither.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tollgate_kinds::endpoint_slice::{EndpointGroup, EndpointPort};
use tollgate_kinds::ingress::ServicePortRef;
use tollgate_kinds::service::ServicePort;
use tollgate_kinds::{Diagnostic, EndpointSlice, Service};
use tollgate_snapshot::cluster::Tunnel;
use tollgate_snapshot::{Endpoints, UpstreamProtocol};

use crate::Input;

/// A service and its ports.
#[derive(Debug, Clone)]
pub(crate) struct KnownService {
    /// In the order written.
    pub(crate) ports: Vec<KnownPort>,
}

/// One port of a service.
#[derive(Debug, Clone)]
pub(crate) struct KnownPort {
    pub(crate) number: u16,
    pub(crate) endpoints: Endpoints,
    pub(crate) protocol: UpstreamProtocol,
    /// TLS that the service itself declares (a registry with protocol `https`).
    pub(crate) tls: Option<KnownTls>,
    /// The endpoints are forward proxies.
    pub(crate) tunnel: Option<Tunnel>,
}

/// TLS that a registry declares.
#[derive(Debug, Clone)]
pub(crate) struct KnownTls {
    pub(crate) server_name: Option<Arc<str>>,
}

/// All services by host name.
#[derive(Debug, Default)]
pub(crate) struct ServiceTable {
    by_host: HashMap<Arc<str>, KnownService>,
}

impl ServiceTable {
    /// Adds a service; the name must be new.
    pub(crate) fn insert(&mut self, host: impl Into<Arc<str>>, service: KnownService) {
        self.by_host.insert(host.into(), service);
    }

    /// The service with this host name.
    pub(crate) fn find(&self, host: &str) -> Option<&KnownService> {
        self.by_host.get(host)
    }

    /// All services.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &KnownService)> {
        self.by_host.iter()
    }
}

/// Host name of a Kubernetes Service.
pub(crate) fn kubernetes_host(namespace: &str, name: &str, input: &Input<'_>) -> String {
    format!("{name}.{namespace}.svc.{}", input.options.cluster_domain)
}

/// Kubernetes Services, each port with the endpoints that are ready.
pub(crate) fn from_kubernetes(input: &Input<'_>, diagnostics: &mut Vec<Diagnostic>) -> ServiceTable {
    let mut slices: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in input.objects.endpoint_slices() {
        if slice.spec.service.is_empty() {
            diagnostics.push(slice.warning(
                "metadata.labels",
                "no label `kubernetes.io/service-name`, so the addresses belong to no Service",
            ));
            continue;
        }
        let key = (slice.metadata.namespace.as_str(), slice.spec.service.as_str());
        slices.entry(key).or_default().push(slice);
    }
    let mut table = ServiceTable::default();
    for service in input.objects.services() {
        let metadata = &service.metadata;
        let own = slices
            .get(&(metadata.namespace.as_str(), metadata.name.as_str()))
            .map_or(&[][..], Vec::as_slice);
        let ports = service
            .spec
            .ports
            .iter()
            .filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
        let known = KnownService {
            ports: ports.map(|port| known_port(service, port, own, input)).collect(),
        };
        table.insert(kubernetes_host(&metadata.namespace, &metadata.name, input), known);
    }
    table
}

fn known_port(
    service: &Service,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    input: &Input<'_>,
) -> KnownPort {
    let spec = &service.spec;
    let endpoints = if spec.service_type == "ExternalName" {
        let target = match &port.target_port {
            ServicePortRef::Number(number) => *number,
            _ => port.port,
        };
        named(vec![(spec.external_name.as_str().into(), target)], input)
    } else {
        let only_port = spec.ports.len() == 1;
        let groups = slices.iter().flat_map(|slice| &slice.spec.groups);
        let addresses = groups.flat_map(|group| {
            let found = group_port(group, port, only_port);
            found.into_iter().flat_map(move |found| {
                let ready = group.endpoints.iter().filter(|endpoint| endpoint.ready);
                ready.map(move |endpoint| (endpoint.address.as_str(), found.port))
            })
        });
        endpoints_of(addresses.collect(), input)
    };
    KnownPort {
        number: port.port,
        endpoints,
        protocol: port_protocol(port),
        tls: None,
        tunnel: None,
    }
}

/// The port of a group that belongs to a Service port: by name, or the only one there is.
fn group_port<'a>(group: &'a EndpointGroup, port: &ServicePort, only_port: bool) -> Option<&'a EndpointPort> {
    let by_name = group.ports.iter().find(|candidate| candidate.name == port.name);
    match (by_name, group.ports.as_slice()) {
        (None, [single]) if only_port => Some(single),
        (found, _) => found,
    }
}

/// Fixed addresses, or names if one of them is none.
pub(crate) fn endpoints_of(mut addresses: Vec<(&str, u16)>, input: &Input<'_>) -> Endpoints {
    addresses.sort_unstable();
    addresses.dedup();
    let sockets: Option<Vec<(SocketAddr, u32)>> = addresses
        .iter()
        .map(|(address, port)| {
            let ip: IpAddr = address.parse().ok()?;
            Some((SocketAddr::new(ip, *port), 1))
        })
        .collect();
    match sockets {
        Some(sockets) => Endpoints::Static(sockets),
        None => named(
            addresses
                .iter()
                .map(|(name, port)| ((*name).into(), *port))
                .collect(),
            input,
        ),
    }
}

fn named(names: Vec<(Arc<str>, u16)>, input: &Input<'_>) -> Endpoints {
    Endpoints::Dns {
        names,
        refresh: input.global.dns_refresh,
    }
}

/// Istio's rule: `appProtocol`, else the port name up to its first `-`.
fn port_protocol(port: &ServicePort) -> UpstreamProtocol {
    let from_name = port.name.split('-').next().unwrap_or_default();
    let written = port.app_protocol.as_deref().unwrap_or(from_name);
    match written.to_ascii_lowercase().as_str() {
        "http2" | "grpc" | "h2c" | "kubernetes.io/h2c" => UpstreamProtocol::Http2,
        _ => UpstreamProtocol::Http1,
    }
}
