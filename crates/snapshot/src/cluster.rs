//! Clusters: where a destination's bytes go, and how to speak there.
//!
//! `Cluster::identity` names the pool; a reload that leaves it equal keeps the connections.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// One destination service.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// `outbound|<port>|<subset>|<fqdn>`.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub endpoints: Endpoints,
    /// Protocol towards it.
    pub protocol: UpstreamProtocol,
    /// TLS towards it, if any.
    pub tls: Option<ClusterTls>,
    /// The endpoints are forward proxies, which are asked for a tunnel.
    pub tunnel: Option<Tunnel>,
    /// How an endpoint is picked.
    pub load_balance: LoadBalance,
    /// Most connections, and most requests under way, per worker; above it 503 `UO`.
    pub max_connections: u32,
    /// See `max_connections`.
    pub max_requests: u32,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
}

/// Where endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoints {
    /// Fixed addresses with weights (at least 1). Empty: 503 `UH`.
    Static(Vec<(SocketAddr, u32)>),
    /// Names resolved at run time, each with its port; the answer's TTL counts, at most `refresh`.
    Dns {
        /// Host names and ports.
        names: Vec<(Arc<str>, u16)>,
        /// Longest time between two look-ups.
        refresh: Duration,
    },
}

/// Protocol towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: over TLS by ALPN, in the clear by prior knowledge.
    Http2,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterTls {
    /// Server name sent and verified; `None` sends no SNI and verifies against the host name of a dns endpoint.
    pub server_name: Option<Arc<str>>,
    /// Whose certificates are believed.
    pub verification: Verification,
    /// Client certificate: PEM chain and PEM key.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// What a forward proxy is asked for (`CONNECT`, RFC 9110 §9.3.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Where it leads, as `host:port`.
    pub authority: Arc<str>,
    /// How long the proxy may take to be reached and to open it.
    pub timeout: Duration,
}

/// A client certificate for mutual TLS.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM chain.
    pub chain: Vec<u8>,
    /// PEM key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ClientCertificate(***)")
    }
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verification {
    /// The system's roots, or `SSL_CERT_FILE`.
    SystemRoots,
    /// This PEM bundle only.
    Bundle(Arc<[u8]>),
    /// Nobody's: `proxy-ssl-verify: "off"`.
    Off,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum LoadBalance {
    /// The less loaded of two random ones.
    #[default]
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// Always the same one for the same requester while it can be used; at random for who shows nothing to tell it by.
    Sticky(Requester),
}

/// What tells one requester of a service from another (routing spec §8.12).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requester {
    /// A cookie, which the gateway hands out to who has none.
    Cookie(Arc<StickyCookie>),
    /// The address of the client.
    Address,
    /// Path and query, as they go upstream.
    Path,
    /// The authority, as it goes upstream.
    Authority,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a query parameter.
    Query(Arc<str>),
}

/// The cookie that ties a client to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StickyCookie {
    /// Its name, a token.
    pub name: Box<str>,
    /// Its path; holds nothing that could end the attribute.
    pub path: Box<str>,
    /// Its age in seconds; 0 ends with the browser's session.
    pub max_age: u64,
}

impl Cluster {
    /// A cluster with Higress's defaults: HTTP/1.1 in the clear, 10,000 connections and requests, 10 s idle.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, endpoints: Endpoints) -> Self {
        Self {
            name: name.into(),
            endpoints,
            protocol: UpstreamProtocol::default(),
            tls: None,
            tunnel: None,
            load_balance: LoadBalance::default(),
            max_connections: 10_000,
            max_requests: 10_000,
            idle_timeout: Duration::from_secs(10),
        }
    }

    /// Equal for two generations exactly when their connections may be shared.
    #[must_use]
    pub fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            &self.name,
            &self.endpoints,
            self.protocol,
            &self.tls,
            &self.tunnel,
            self.idle_timeout,
        )
            .hash(&mut hasher);
        hasher.finish()
    }
}
