//! McpBridge (networking.higress.io/v1): the registries that services outside of Kubernetes come from.
//!
//! Higress looks only at the object named `default` in the system namespace; that is for the compiler to say.

use serde::Deserialize;
use serde::de::Deserializer;

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::resource::{Body, Resource, read};

/// An McpBridge.
pub type McpBridge = Resource<McpBridgeSpec>;

/// `spec` of an McpBridge.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct McpBridgeSpec {
    /// Where services come from.
    pub registries: Vec<Registry>,
    /// Forward proxies that registries refer to by `proxyName`.
    pub proxies: Vec<ForwardProxy>,
}

/// One registry. Fields that a type does not use are ignored.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Registry {
    /// What it is; none when the field is missing.
    #[serde(rename = "type")]
    pub registry_type: Option<RegistryType>,
    /// Name; part of the service name of a static or dns registry.
    pub name: String,
    /// Host of the registry; for static `ip:port[,ip:port]`, for dns `a.com[,b.com]`.
    pub domain: String,
    /// Port of the registry; for static and dns the port in the cluster name.
    pub port: u32,
    /// Protocol of the services as written (`http`, `https`, `grpc`, `grpcs`, `http2`, `tcp`, `dubbo`, `triple`, `tri`);
    /// empty means `http`.
    pub protocol: String,
    /// Server name for https and grpcs.
    pub sni: String,
    /// Name of an entry of `proxies` (dns only).
    pub proxy_name: String,
    /// Overrides service ports (nacos, eureka).
    pub vport: Option<Vport>,
    /// Namespace id; empty means `public`.
    pub nacos_namespace_id: String,
    /// Namespace name; empty means the id.
    pub nacos_namespace: String,
    /// Groups; none means that nothing is discovered.
    pub nacos_groups: Vec<String>,
    /// Nanoseconds; 0 means the default of 30 s, the least is 10 s.
    #[serde(deserialize_with = "nanoseconds")]
    pub nacos_refresh_interval: u64,
    /// Address server that names the Nacos cluster.
    pub nacos_address_server: String,
    /// Key id for Nacos on Alibaba Cloud.
    pub nacos_access_key: String,
    /// Key for Nacos on Alibaba Cloud.
    pub nacos_secret_key: MaskedText,
    /// Whether MCP servers are discovered too (nacos3).
    #[serde(rename = "enableMCPServer")]
    pub enable_mcp_server: Option<bool>,
    /// Hosts that discovered MCP servers are served on.
    pub mcp_server_export_domains: Vec<String>,
    /// Path prefix of discovered MCP servers.
    pub mcp_server_base_url: String,
    /// Whether MCP servers are limited to `allowMcpServers`.
    pub enable_scope_mcp_servers: Option<bool>,
    /// MCP servers that may be discovered.
    pub allow_mcp_servers: Vec<String>,
    /// Free-form, as in the document (nacos3).
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Spring Cloud roots besides `/services` (zookeeper).
    pub zk_services_path: Vec<String>,
    /// Datacenter; empty means the agent's.
    pub consul_datacenter: String,
    /// Only services with this tag; empty means all.
    pub consul_service_tag: String,
    /// Nanoseconds; 0 means the default of 30 s, the least is 10 s.
    #[serde(deserialize_with = "nanoseconds")]
    pub consul_refresh_interval: u64,
    /// Namespace (Consul Enterprise).
    pub consul_namespace: String,
    /// Secret of the system namespace with the credentials.
    pub auth_secret_name: String,
}

/// Kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the products")]
pub enum RegistryType {
    Static,
    Dns,
    Nacos,
    Nacos2,
    Nacos3,
    Zookeeper,
    Consul,
    Eureka,
    /// A type that there is not: the registry is none, the others of its bridge stay.
    #[serde(other)]
    Unknown,
}

/// Ports that replace those a registry reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Vport {
    /// For every service that has no entry; 0 means none.
    pub default: u32,
    /// By full service host, compared without case.
    pub services: Vec<VportService>,
}

/// The port of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct VportService {
    /// Full service host.
    pub name: String,
    /// Port.
    pub value: u32,
}

/// A forward proxy for dns registries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ForwardProxy {
    /// Only `HTTP` means something.
    #[serde(rename = "type")]
    pub proxy_type: String,
    /// Name that registries refer to.
    pub name: String,
    /// Host of the proxy.
    pub server_address: String,
    /// Port of the proxy.
    pub server_port: u32,
    /// Local port that Higress would use; read and not needed.
    pub listener_port: u32,
    /// Milliseconds; 0 means 1200.
    pub connect_timeout: u32,
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct MaskedText(String);

impl MaskedText {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for MaskedText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// A 64-bit number, which protobuf's JSON writes as text. Negative means unset.
fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    i64::deserialize(deserializer).map(|number| u64::try_from(number).unwrap_or(0))
}

pub(crate) fn parse(document: &Document, namespace: Option<&str>) -> Result<McpBridge, Diagnostic> {
    read(document, "McpBridge", namespace, Body::Spec)
}
