//! EndpointSlice (discovery.k8s.io/v1), and the older Endpoints read into the same shape: the addresses of a Service.

use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::resource::{Body, Resource, read};

/// The label of a slice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Addresses of a Service.
pub type EndpointSlice = Resource<EndpointSet>;

/// Content of an EndpointSlice or Endpoints object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSet {
    /// The Service, in the object's namespace; empty when a slice has no label for it.
    pub service: String,
    /// Addresses with the ports they listen on. A slice has one group, Endpoints one for each subset.
    pub groups: Vec<EndpointGroup>,
}

/// Addresses that listen on the same ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointGroup {
    /// IP addresses, or host names in a slice of type `FQDN`.
    pub endpoints: Vec<Endpoint>,
    /// Ports that all of them listen on.
    pub ports: Vec<EndpointPort>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address or host name.
    pub address: String,
    /// Whether it may get requests.
    pub ready: bool,
}

/// A port of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the Service port that it belongs to; may be empty.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP` when empty.
    pub protocol: String,
    /// What is spoken there.
    pub app_protocol: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SliceLayout {
    endpoints: Vec<SliceEndpoint>,
    ports: Vec<EndpointPort>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct EndpointsLayout {
    subsets: Vec<Subset>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subset {
    addresses: Vec<SubsetAddress>,
    not_ready_addresses: Vec<SubsetAddress>,
    ports: Vec<EndpointPort>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SubsetAddress {
    ip: String,
}

pub(crate) fn parse_slice(document: &Document, namespace: Option<&str>) -> Result<EndpointSlice, Diagnostic> {
    let slice: Resource<SliceLayout> = read(document, "EndpointSlice", namespace, Body::TopLevel)?;
    let service = slice
        .metadata
        .labels
        .get(SERVICE_LABEL)
        .cloned()
        .unwrap_or_default();
    slice.try_map(|layout| {
        let mut endpoints = Vec::new();
        for endpoint in layout.endpoints {
            // "Unknown" counts as ready, as the API says.
            let ready = endpoint.conditions.ready.unwrap_or(true);
            endpoints.extend(
                endpoint
                    .addresses
                    .into_iter()
                    .map(|address| Endpoint { address, ready }),
            );
        }
        Ok(EndpointSet {
            service,
            groups: vec![EndpointGroup {
                endpoints,
                ports: layout.ports,
            }],
        })
    })
}

pub(crate) fn parse_endpoints(
    document: &Document,
    namespace: Option<&str>,
) -> Result<EndpointSlice, Diagnostic> {
    let object: Resource<EndpointsLayout> = read(document, "Endpoints", namespace, Body::TopLevel)?;
    let service = object.metadata.name.clone();
    object.try_map(|layout| {
        let group = |subset: Subset| {
            let ready = subset.addresses.into_iter().map(|address| Endpoint {
                address: address.ip,
                ready: true,
            });
            let waiting = subset.not_ready_addresses.into_iter().map(|address| Endpoint {
                address: address.ip,
                ready: false,
            });
            EndpointGroup {
                endpoints: ready.chain(waiting).collect(),
                ports: subset.ports,
            }
        };
        Ok(EndpointSet {
            service,
            groups: layout.subsets.into_iter().map(group).collect(),
        })
    })
}
