//! The McpBridge: static and dns registries become services; the other types are told to be missing.
//!
//! Only the object named `default` in the system namespace counts. A registry with a fault is left out, the others
//! stay.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tollgate_kinds::mcp_bridge::{Registry, RegistryType};
use tollgate_kinds::{Diagnostic, McpBridge};
use tollgate_snapshot::cluster::Tunnel;
use tollgate_snapshot::{Endpoints, UpstreamProtocol};

use crate::Input;
use crate::services::{KnownPort, KnownService, KnownTls, ServiceTable, endpoints_of};

/// The only McpBridge that counts.
pub(crate) const BRIDGE_NAME: &str = "default";

/// How long a forward proxy may take, where its `connectTimeout` is not set.
const PROXY_TIMEOUT: Duration = Duration::from_millis(1200);

/// Adds the services of all registries to `table`.
pub(crate) fn add(input: &Input<'_>, table: &mut ServiceTable, diagnostics: &mut Vec<Diagnostic>) {
    for bridge in input.objects.mcp_bridges() {
        let metadata = &bridge.metadata;
        if metadata.name != BRIDGE_NAME || metadata.namespace != input.options.system_namespace {
            let message = format!(
                "only the McpBridge `{BRIDGE_NAME}` in namespace `{}` counts: this one is ignored",
                input.options.system_namespace
            );
            diagnostics.push(bridge.warning("metadata", message));
            continue;
        }
        add_bridge(bridge, input, table, diagnostics);
    }
}

fn add_bridge(
    bridge: &McpBridge,
    input: &Input<'_>,
    table: &mut ServiceTable,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut seen = HashSet::new();
    for (index, registry) in bridge.spec.registries.iter().enumerate() {
        let field = format!("spec.registries[{index}]");
        let (suffix, read): (_, ReadEndpoints) = match registry.registry_type {
            Some(RegistryType::Static) => ("static", static_endpoints),
            Some(RegistryType::Dns) => ("dns", dns_endpoints),
            Some(RegistryType::Unknown) => {
                let message = "expected static, dns, nacos, nacos2, nacos3, zookeeper, consul or eureka: this registry is left out";
                diagnostics.push(bridge.error(&format!("{field}.type"), message));
                continue;
            }
            Some(_) => {
                let message = "this registry type is not supported yet: its services are not known";
                diagnostics.push(bridge.warning(&format!("{field}.type"), message));
                continue;
            }
            None => {
                diagnostics.push(bridge.error(&format!("{field}.type"), "missing"));
                continue;
            }
        };
        if !seen.insert((suffix, registry.name.as_str())) {
            let message = "another registry has the same type and name: this one replaces it";
            diagnostics.push(bridge.warning(&field, message));
        }
        match service(registry, input, read) {
            Ok(mut service) => {
                if let Err(message) = send_through_proxy(&mut service, registry, bridge, input) {
                    let message = format!("{message}: the service is reached directly");
                    diagnostics.push(bridge.warning(&format!("{field}.proxyName"), message));
                }
                table.insert(format!("{}.{suffix}", registry.name), service);
            }
            Err(fault) => {
                diagnostics.push(bridge.error(&format!("{field}.{}", fault.field), fault.message));
            }
        }
    }
}

/// Reads the endpoints out of `domain`.
type ReadEndpoints = fn(&Registry, &Input<'_>) -> Result<Endpoints, Fault>;

struct Fault {
    field: &'static str,
    message: String,
}

fn fault<T>(field: &'static str, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault {
        field,
        message: message.into(),
    })
}

fn service(registry: &Registry, input: &Input<'_>, read: ReadEndpoints) -> Result<KnownService, Fault> {
    if registry.name.is_empty() {
        return fault("name", "missing");
    }
    if registry.domain.trim().is_empty() {
        return fault("domain", "missing");
    }
    let Some(number) = u16::try_from(registry.port).ok().filter(|port| *port > 0) else {
        return fault("port", "expected a port from 1 to 65535");
    };
    let (protocol, has_tls) = protocol(&registry.protocol)?;
    let tls = has_tls.then(|| KnownTls {
        server_name: server_name(registry),
    });
    let endpoints = read(registry, input)?;
    let port = KnownPort {
        number,
        endpoints,
        protocol,
        tls,
        tunnel: None,
    };
    Ok(KnownService { ports: vec![port] })
}

/// Puts the proxy that the registry names in front of its service. As in Higress, only where TLS hides from it what
/// passes.
fn send_through_proxy(
    service: &mut KnownService,
    registry: &Registry,
    bridge: &McpBridge,
    input: &Input<'_>,
) -> Result<(), String> {
    let wanted = registry.proxy_name.as_str();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut known = bridge.spec.proxies.iter();
    let proxy = known
        .find(|proxy| proxy.name == wanted)
        .ok_or_else(|| format!("there is no `{wanted}` in spec.proxies"))?;
    if !proxy.proxy_type.eq_ignore_ascii_case("HTTP") {
        return Err(format!("proxy `{wanted}`: only the type HTTP is known"));
    }
    let port = u16::try_from(proxy.server_port).ok().filter(|port| *port > 0);
    let (Some(port), false) = (port, proxy.server_address.trim().is_empty()) else {
        return Err(format!(
            "proxy `{wanted}`: serverAddress or serverPort is missing"
        ));
    };
    let is_one_host = only_domain(registry).is_some();
    for behind in &mut service.ports {
        let name = behind.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let (Some(name), true) = (name, is_one_host) else {
            return Err("only a dns service with TLS and a single domain goes through a proxy".to_owned());
        };
        behind.tunnel = Some(Tunnel {
            authority: format!("{name}:{}", behind.number).into(),
            timeout: match proxy.connect_timeout {
                0 => PROXY_TIMEOUT,
                milliseconds => Duration::from_millis(milliseconds.into()),
            },
        });
        behind.endpoints = endpoints_of(vec![(proxy.server_address.trim(), port)], input);
    }
    Ok(())
}

fn protocol(written: &str) -> Result<(UpstreamProtocol, bool), Fault> {
    Ok(match written.to_ascii_lowercase().as_str() {
        "" | "http" | "tcp" => (UpstreamProtocol::Http1, false),
        "https" => (UpstreamProtocol::Http1, true),
        "grpc" | "http2" | "triple" | "tri" => (UpstreamProtocol::Http2, false),
        "grpcs" => (UpstreamProtocol::Http2, true),
        "dubbo" => return fault("protocol", "dubbo is not supported yet"),
        _ => return fault("protocol", "expected http, https, grpc, grpcs, http2 or tcp"),
    })
}

/// `sni`, else the only domain.
fn server_name(registry: &Registry) -> Option<Arc<str>> {
    match registry.sni.as_str() {
        "" => only_domain(registry).map(Into::into),
        sni => Some(sni.into()),
    }
}

/// The domain of a dns registry that has exactly one.
fn only_domain(registry: &Registry) -> Option<&str> {
    let mut all = domains(&registry.domain);
    let first = all
        .next()
        .filter(|_| registry.registry_type == Some(RegistryType::Dns));
    first.filter(|_| all.next().is_none())
}

fn domains(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// `ip:port[,ip:port]`; one bad entry discards the service.
fn static_endpoints(registry: &Registry, _: &Input<'_>) -> Result<Endpoints, Fault> {
    let mut addresses = Vec::new();
    for text in domains(&registry.domain) {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => addresses.push((address, 1)),
            _ => {
                return fault(
                    "domain",
                    format!("`{text}` is not an address with a port, such as 10.0.0.1:80"),
                );
            }
        }
    }
    Ok(Endpoints::Static(addresses))
}

/// `a.com[,b.com]`, all on the registry's port.
fn dns_endpoints(registry: &Registry, input: &Input<'_>) -> Result<Endpoints, Fault> {
    let port = u16::try_from(registry.port).unwrap_or_default();
    let mut names = Vec::new();
    for text in domains(&registry.domain) {
        if !is_domain(text) {
            return fault(
                "domain",
                format!("`{text}` is not a domain name, such as api.example.com"),
            );
        }
        names.push((text.into(), port));
    }
    Ok(Endpoints::Dns {
        names,
        refresh: input.global.dns_refresh,
    })
}

/// At least two labels, the last one of 2 to 63 letters.
fn is_domain(text: &str) -> bool {
    let Some((labels, top)) = text.rsplit_once('.') else {
        return false;
    };
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (2..=63).contains(&top.len())
        && top.bytes().all(|byte| byte.is_ascii_alphabetic())
        && labels.split('.').all(label_is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_need_two_labels_and_a_top_of_letters() {
        for good in [
            "dashscope.aliyuncs.com",
            "a.io",
            "a-b.c1.example.com",
            "_x.foo.com",
        ] {
            assert!(is_domain(good), "{good}");
        }
        for bad in [
            "localhost",
            "10.0.0.1",
            "a.com.",
            "a..com",
            "-a.com",
            "a.c",
            "a.com:443",
            "",
        ] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
