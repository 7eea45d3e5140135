//! Ingress (networking.k8s.io/v1), and the older v1beta1 layout read into the same shape.
//!
//! Only layout is settled here. What counts, which path type is in force, and what annotations mean is the compiler's
//! business.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::resource::{Body, Resource, read};

/// An Ingress.
pub type Ingress = Resource<IngressSpec>;

/// `spec` of an Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    /// Name of the class; the annotation `kubernetes.io/ingress.class` beats it.
    pub ingress_class_name: Option<String>,
    /// Where everything goes that no rule matches; v1beta1 calls it `backend`.
    #[serde(alias = "backend")]
    pub default_backend: Option<IngressBackend>,
    /// One entry a host.
    pub rules: Vec<IngressRule>,
    /// Certificates.
    pub tls: Vec<IngressTls>,
}

/// One host of an Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, from = "RuleLayout")]
pub struct IngressRule {
    /// Host, possibly `*.example.com`; empty means any.
    pub host: String,
    /// The paths in file order; the field path of the nth is `spec.rules[m].http.paths[n]`.
    pub paths: Vec<IngressPath>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuleLayout {
    host: String,
    http: HttpLayout,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HttpLayout {
    paths: Vec<IngressPath>,
}

impl From<RuleLayout> for IngressRule {
    fn from(layout: RuleLayout) -> Self {
        Self {
            host: layout.host,
            paths: layout.http.paths,
        }
    }
}

/// One path of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressPath {
    /// Path as written; empty means `/`.
    pub path: String,
    /// Path type; none means Prefix, with a trailing `/*` or `.*` cut off.
    pub path_type: Option<PathType>,
    /// Where matching requests go.
    pub backend: IngressBackend,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum PathType {
    /// Byte equality.
    Exact,
    /// Whole path segments from the start.
    Prefix,
    /// Treated as Prefix.
    ImplementationSpecific,
}

/// A Service or another resource.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, from = "BackendLayout")]
pub struct IngressBackend {
    /// A Service and its port.
    pub service: Option<ServiceBackend>,
    /// For Higress the McpBridge `default`; the annotation `higress.io/destination` then names the services.
    pub resource: Option<ResourceBackend>,
}

/// A Service and its port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ServiceBackend {
    /// Name of the Service, in the namespace of the Ingress.
    pub name: String,
    /// Port of the Service.
    #[serde(deserialize_with = "port_layout")]
    pub port: ServicePortRef,
}

/// A port of a Service, by number or name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ServicePortRef {
    /// Neither was given.
    #[default]
    Unset,
    /// By number.
    Number(u16),
    /// By name, to be looked up in the Service.
    Name(String),
}

/// An object that stands in for a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResourceBackend {
    /// `networking.higress.io` for the McpBridge.
    pub api_group: String,
    /// `McpBridge`.
    pub kind: String,
    /// `default`.
    pub name: String,
}

/// A certificate and the hosts it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressTls {
    /// Hosts; empty means `*`.
    pub hosts: Vec<String>,
    /// Secret in the namespace of the Ingress; empty lets `higress-https` supply one.
    pub secret_name: String,
}

/// v1 and v1beta1 in one.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BackendLayout {
    service: Option<ServiceBackend>,
    resource: Option<ResourceBackend>,
    service_name: Option<String>,
    service_port: ServicePortRef,
}

impl From<BackendLayout> for IngressBackend {
    fn from(layout: BackendLayout) -> Self {
        let old = layout.service_name.map(|name| ServiceBackend {
            name,
            port: layout.service_port,
        });
        Self {
            service: layout.service.or(old),
            resource: layout.resource,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PortLayout {
    name: Option<String>,
    number: Option<u16>,
}

fn port_layout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ServicePortRef, D::Error> {
    let layout = PortLayout::deserialize(deserializer)?;
    Ok(match (layout.number, layout.name) {
        (Some(number), _) if number > 0 => ServicePortRef::Number(number),
        (_, Some(name)) if !name.is_empty() => ServicePortRef::Name(name),
        _ => ServicePortRef::Unset,
    })
}

/// Kubernetes's `IntOrString`.
impl<'de> Deserialize<'de> for ServicePortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = ServicePortRef;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a port number or name")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<ServicePortRef, E> {
        let number =
            u16::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
        Ok(ServicePortRef::Number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ServicePortRef, E> {
        Ok(match text.parse::<u16>() {
            Ok(number) => ServicePortRef::Number(number),
            Err(_) if text.is_empty() => ServicePortRef::Unset,
            Err(_) => ServicePortRef::Name(text.to_owned()),
        })
    }
}

pub(crate) fn parse(document: &Document, namespace: Option<&str>) -> Result<Ingress, Diagnostic> {
    let ingress: Ingress = read(document, "Ingress", namespace, Body::Spec)?;
    if ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_none() {
        return Err(ingress.error(
            "spec",
            "neither `rules` nor `defaultBackend`, so it routes nothing",
        ));
    }
    Ok(ingress)
}
