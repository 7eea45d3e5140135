//! The compiled world: listener → host → route → {policies, plugin chain, destinations}, clusters, certificates.
//!
//! Immutable; made by `compile`, published by `control`, read by `proxy` (one generation per request) and `upstream`.
//! No serde, no I/O, and no Option that was a default.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod cluster;
pub mod host;
pub mod live;
pub mod policy;
pub mod route;
pub mod settings;

pub use certificate::Certificates;
pub use cluster::{
    Cluster, ClusterTls, Endpoints, LoadBalance, Requester, StickyCookie, UpstreamProtocol, Verification,
};
pub use host::{Hosts, VirtualHost};
pub use live::Live;
pub use policy::Policy;
pub use route::{Matcher, Route};
pub use settings::{Settings, Tracing};

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_plugin::Link;

/// One generation of the configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with each publication.
    pub generation: u64,
    /// Virtual hosts and their routes.
    pub hosts: Hosts,
    /// Every cluster by name, those that no route uses included (plugins call them).
    pub clusters: HashMap<Arc<str>, Arc<Cluster>>,
    /// Chain of a request that no route matches: global configs only.
    pub unrouted: Vec<Link>,
    /// Server certificates by name.
    pub certificates: Certificates,
    /// Limits and switches of the listeners.
    pub settings: Settings,
}
