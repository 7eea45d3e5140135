//! The process's stores, and where their servers are: by the configuration in force, and by `--resolve`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tollgate_observe::Metrics;
use tollgate_plugin::cluster_name;
use tollgate_snapshot::Live;
use tollgate_snapshot::cluster::{ClusterTls, Endpoints, Verification};
use tollgate_store::{Identity, Place, Places, Settings, Stores, Surroundings, Tls, Trust};
use tollgate_upstream::Override;

use crate::failure::Failure;

/// The stores; `redis` is what `--redis` says. Connects to nothing yet.
pub(crate) fn stores(
    redis: Option<&str>,
    overrides: &[Override],
    live: &Live,
    metrics: &Arc<Metrics>,
) -> Result<Stores, Failure> {
    // The URL is not repeated: it may hold a password.
    let default = redis
        .filter(|url| !url.is_empty())
        .map(str::parse::<Settings>)
        .transpose()
        .map_err(|cause| Failure::usage(format!("--redis: {cause}")))?;
    let entries = overrides.iter();
    let places = Configured {
        live: live.clone(),
        overrides: entries
            .map(|entry| ((entry.host.clone(), entry.port), entry.address))
            .collect(),
    };
    let surroundings = Surroundings {
        background: Handle::current(),
        places: Arc::new(places),
        metrics: metrics.clone(),
    };
    Ok(Stores::new(surroundings, default))
}

struct Configured {
    live: Live,
    overrides: HashMap<(String, u16), SocketAddr>,
}

impl Configured {
    fn add(&self, place: &mut Place, host: &str, port: u16) {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        match self.overrides.get(&(name, port)) {
            Some(address) => place.addresses.push(*address),
            None => place.names.push((host.to_owned(), port)),
        }
    }
}

impl Places for Configured {
    fn service(&self, name: &str, port: u16) -> Option<Place> {
        let snapshot = self.live.load();
        let cluster = snapshot.clusters.get(cluster_name(name, port).as_str())?;
        let mut place = Place {
            tls: cluster.tls.as_ref().map(tls),
            ..Place::default()
        };
        match &cluster.endpoints {
            Endpoints::Static(addresses) => place.addresses.extend(addresses.iter().map(|entry| entry.0)),
            Endpoints::Dns { names, .. } => {
                for (host, port) in names {
                    self.add(&mut place, host, *port);
                }
            }
        }
        Some(place)
    }

    fn server(&self, host: &str, port: u16) -> Place {
        let mut place = Place::default();
        self.add(&mut place, host, port);
        place
    }
}

/// What holds for requests to a service holds for its Redis.
fn tls(known: &ClusterTls) -> Tls {
    Tls {
        trust: match &known.verification {
            Verification::SystemRoots => Trust::System,
            Verification::Bundle(pem) => Trust::Bundle(pem.clone()),
            Verification::Off => Trust::Anybody,
        },
        server_name: known.server_name.as_deref().map(str::to_owned),
        identity: known.client_certificate.as_ref().map(|certificate| Identity {
            chain: certificate.chain.clone(),
            key: certificate.key.clone(),
        }),
    }
}
