//! Service (v1): ports that an Ingress names.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::ingress::ServicePortRef;
use crate::resource::Resource;

/// A Service.
pub type Service = Resource<ServiceSpec>;

/// `spec` of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` when empty; also `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Host that an `ExternalName` Service stands for.
    pub external_name: String,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; may be empty when it is the only port.
    pub name: String,
    /// Number that clients and Ingresses use.
    pub port: u16,
    /// Port of the pods; the same as `port` when unset.
    pub target_port: ServicePortRef,
    /// `TCP` when empty.
    pub protocol: String,
    /// What is spoken there, such as `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

impl ServiceSpec {
    /// The number of the port that a reference means.
    pub fn port(&self, wanted: &ServicePortRef) -> Option<&ServicePort> {
        self.ports.iter().find(|port| match wanted {
            ServicePortRef::Unset => false,
            ServicePortRef::Number(number) => port.port == *number,
            ServicePortRef::Name(name) => port.name == *name,
        })
    }
}
