//! Names to addresses, once per process: TTLs are kept, an old answer outlives a failed look-up.
//!
//! Look-ups run on the background runtime; a worker watches a name and sees a changed answer without a lock. Nobody
//! waits for a look-up except the first request to a name, or one to a name that nobody asked for in a long time.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tollgate_base::clock::{self, Instant};

/// Who resolves names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Nameservers {
    /// As the system says (`/etc/resolv.conf`, `/etc/hosts`).
    #[default]
    System,
    /// These, over UDP, then TCP.
    At(Vec<SocketAddr>),
}

/// Longest a failed look-up is believed before the next try.
const NEGATIVE: Duration = Duration::from_secs(5);

/// An answer: at least one address, and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ttl: Duration,
}

pub(crate) type Looking = Pin<Box<dyn Future<Output = Result<Found, String>> + Send>>;

/// Who answers; the tests bring their own.
pub(crate) trait Lookup: Send + Sync {
    fn lookup(&self, host: Arc<str>) -> Looking;
}

/// What is known of a name.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Empty as long as no look-up succeeded.
    pub(crate) addresses: Arc<[IpAddr]>,
    /// When the last look-up ended; `None` before the first.
    pub(crate) looked_up: Option<Instant>,
    /// How long that result holds.
    pub(crate) ttl: Duration,
    /// Why the last look-up failed, if it did.
    pub(crate) failure: Option<Arc<str>>,
}

/// One name, shared by every pool that has an endpoint of that name.
pub(crate) struct Name {
    host: Arc<str>,
    known: watch::Sender<Known>,
    looking: AtomicBool,
}

/// All names in use.
pub(crate) struct Names {
    in_use: Mutex<HashMap<Arc<str>, Weak<Name>>>,
    lookup: Arc<dyn Lookup>,
    background: Handle,
    /// Shortest time between two look-ups of a name, whatever its TTL.
    shortest: Duration,
}

impl Names {
    pub(crate) fn new(lookup: Arc<dyn Lookup>, background: Handle, shortest: Duration) -> Self {
        Self {
            in_use: Mutex::default(),
            lookup,
            background,
            shortest,
        }
    }

    /// The shared state of `host`; called when a pool is made.
    pub(crate) fn of(&self, host: &Arc<str>) -> Arc<Name> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = in_use.get(host).and_then(Weak::upgrade) {
            return name;
        }
        let unknown = Known {
            addresses: Arc::default(),
            looked_up: None,
            ttl: Duration::ZERO,
            failure: None,
        };
        let name = Arc::new(Name {
            host: Arc::clone(host),
            known: watch::Sender::new(unknown),
            looking: AtomicBool::new(false),
        });
        in_use.retain(|_, weak| weak.strong_count() > 0);
        in_use.insert(Arc::clone(host), Arc::downgrade(&name));
        name
    }

    /// Starts a look-up of `name` unless one is under way.
    pub(crate) fn refresh(&self, name: &Arc<Name>) {
        if name.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let asked = self.lookup.lookup(Arc::clone(&name.host));
        let asking = Arc::clone(name);
        let shortest = self.shortest;
        let entered = self.background.enter();
        tollgate_base::task::spawn("name look-up", async move {
            let done = Looked(asking);
            let outcome = asked.await;
            done.0.learn(outcome, shortest);
        });
        drop(entered);
    }
}

/// Allows the next look-up however this one ended.
struct Looked(Arc<Name>);

impl Drop for Looked {
    fn drop(&mut self) {
        self.0.looking.store(false, Ordering::Release);
    }
}

impl Name {
    pub(crate) fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    fn learn(&self, outcome: Result<Found, String>, shortest: Duration) {
        // Released before the news is out: whoever sees the news may ask again.
        self.looking.store(false, Ordering::Release);
        self.known.send_modify(|known| {
            known.looked_up = Some(clock::now());
            match outcome {
                Ok(found) => {
                    known.ttl = found.ttl.max(shortest);
                    known.failure = None;
                    if *known.addresses != *found.addresses {
                        known.addresses = found.addresses.into();
                    }
                }
                Err(reason) => {
                    tracing::warn!(host = %self.host, reason, kept = known.addresses.len(), "name look-up failed");
                    known.ttl = NEGATIVE;
                    known.failure = Some(reason.into());
                }
            }
        });
    }
}

/// The system's resolver, or given name servers. A resolver that cannot be set up answers every look-up with why.
pub(crate) fn system(nameservers: &Nameservers) -> Arc<dyn Lookup> {
    match resolver(nameservers) {
        Ok(resolver) => Arc::new(Hickory(resolver)),
        Err(reason) => {
            tracing::warn!(reason, "no name resolver");
            Arc::new(Nobody(reason))
        }
    }
}

fn resolver(nameservers: &Nameservers) -> Result<TokioResolver, String> {
    let mut builder = match nameservers {
        Nameservers::System => TokioResolver::builder_tokio()
            .map_err(|cause| format!("system resolver configuration: {cause}"))?,
        Nameservers::At(addresses) => {
            let servers = addresses.iter().map(|address| {
                let mut udp = ConnectionConfig::udp();
                udp.port = address.port();
                let mut tcp = ConnectionConfig::tcp();
                tcp.port = address.port();
                NameServerConfig::new(address.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    set_options(builder.options_mut());
    builder.build().map_err(|cause| format!("resolver: {cause}"))
}

fn set_options(options: &mut ResolverOpts) {
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    // `Names` keeps answers itself, failed look-ups included.
    options.cache_size = 0;
}

struct Hickory(TokioResolver);

impl Lookup for Hickory {
    fn lookup(&self, host: Arc<str>) -> Looking {
        let resolver = self.0.clone();
        Box::pin(async move {
            let answer = resolver
                .lookup_ip(host.as_ref())
                .await
                .map_err(|cause| format!("DNS: {host}: {cause}"))?;
            let addresses: Vec<_> = answer.iter().collect();
            let shortest = answer.as_lookup().answers().iter().map(|record| record.ttl).min();
            if addresses.is_empty() {
                return Err(format!("DNS: {host}: no address"));
            }
            Ok(Found {
                addresses,
                ttl: Duration::from_secs(shortest.unwrap_or(0).into()),
            })
        })
    }
}

struct Nobody(String);

impl Lookup for Nobody {
    fn lookup(&self, host: Arc<str>) -> Looking {
        let reason = format!("DNS: {host}: {}", self.0);
        Box::pin(async move { Err(reason) })
    }
}
