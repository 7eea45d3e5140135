//! `Shared`: what all workers have in common. Made once, on the background runtime's side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tollgate_observe::Metrics;

use crate::dns::{self, Names, Nameservers};
use crate::resolve::Override;
use crate::tls::TlsConfigs;

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--resolve`; of two for the same host and port the last wins.
    pub overrides: Vec<Override>,
    /// Who resolves names.
    pub nameservers: Nameservers,
    /// Shortest time between two look-ups of a name, whatever its TTL. Default 1 s.
    pub shortest_ttl: Duration,
    /// Where each cluster's attempts, connections and bytes are counted. Default: a registry that nobody reads.
    pub metrics: Arc<Metrics>,
    /// PEM bundles believed besides the system's roots. Default none.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overrides: Vec::new(),
            nameservers: Nameservers::default(),
            shortest_ttl: Duration::from_secs(1),
            metrics: Metrics::new(),
            extra_roots: Vec::new(),
        }
    }
}

/// What all workers have in common; cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    tls: TlsConfigs,
    names: Names,
    overrides: HashMap<(String, u16), SocketAddr>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Look-ups will run on `background`, which must outlive the workers.
    #[must_use]
    pub fn new(background: Handle, options: &Options) -> Self {
        let lookup = dns::system(&options.nameservers);
        Self::with_lookup(lookup, background, options)
    }

    pub(crate) fn with_lookup(lookup: Arc<dyn dns::Lookup>, background: Handle, options: &Options) -> Self {
        let overrides = options
            .overrides
            .iter()
            .map(|entry| ((entry.host.clone(), entry.port), entry.address))
            .collect();
        Self(Arc::new(Inner {
            tls: TlsConfigs::new(options.extra_roots.clone()),
            names: Names::new(lookup, background, options.shortest_ttl),
            overrides,
            metrics: Arc::clone(&options.metrics),
        }))
    }

    pub(crate) fn tls(&self) -> &TlsConfigs {
        &self.0.tls
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Where `--resolve` sends `host:port`.
    pub(crate) fn overridden(&self, host: &str, port: u16) -> Option<SocketAddr> {
        if self.0.overrides.is_empty() {
            return None;
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.overrides.get(&(name, port)).copied()
    }
}
