//! What the tests with real servers share: stores beside any gateway, and what every store must do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tollgate_observe::Metrics;
use tollgate_store::{Count, Place, Places, Reservation, Settings, Settlement, Store, Stores, Surroundings};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Where servers and services are; all others are where their names say.
#[derive(Default)]
pub(crate) struct Map {
    pub(crate) servers: HashMap<(String, u16), SocketAddr>,
    pub(crate) services: HashMap<(String, u16), Place>,
}

impl Places for Map {
    fn service(&self, name: &str, port: u16) -> Option<Place> {
        self.services.get(&(name.to_owned(), port)).cloned()
    }

    fn server(&self, host: &str, port: u16) -> Place {
        match self.servers.get(&(host.to_owned(), port)) {
            Some(address) => Place {
                addresses: vec![*address],
                ..Place::default()
            },
            None => Place {
                names: vec![(host.to_owned(), port)],
                ..Place::default()
            },
        }
    }
}

pub(crate) fn stores_in(map: Map) -> (Stores, Arc<Metrics>) {
    let metrics = Metrics::new();
    let surroundings = Surroundings {
        background: Handle::current(),
        places: Arc::new(map),
        metrics: metrics.clone(),
    };
    (Stores::new(surroundings, None), metrics)
}

pub(crate) fn stores() -> (Stores, Arc<Metrics>) {
    stores_in(Map::default())
}

pub(crate) fn settings(url: &str) -> Settings {
    url.parse().unwrap()
}

/// The same that memory does.
pub(crate) async fn semantics(stores: &Stores, store: &Arc<dyn Store>) {
    let take = || store.take("taken", 2, MINUTE);
    let first = take().await.unwrap();
    assert_eq!((first.current, first.reset), (1, MINUTE));
    assert_eq!(take().await.unwrap().current, 2);
    assert_eq!(take().await.unwrap().current, 3);
    assert_eq!(
        take().await.unwrap().current,
        3,
        "above the limit nothing is counted"
    );
    assert_eq!(
        store.read("unknown", MINUTE).await.unwrap(),
        Count {
            current: 0,
            reset: MINUTE
        }
    );

    let granted = store.reserve("reserved", 100, MINUTE, 60).await.unwrap();
    let Reservation::Granted { amount: 60, ends } = granted else {
        panic!("{granted:?}");
    };
    let refused = store.reserve("reserved", 100, MINUTE, 41).await.unwrap();
    assert!(matches!(refused, Reservation::Refused(Count { current: 60, .. })));
    let (key, delta) = (Arc::from("reserved"), -50);
    store.settle(Settlement::Correct { key, delta, ends });
    for amount in [10, 5, 5] {
        stores.flush(MINUTE).await;
        store.settle(Settlement::Charge {
            key: "charged".into(),
            limit: 10,
            window: MINUTE,
            amount,
        });
    }
    assert_eq!(store.get("quota").await.unwrap(), None);
    store.set("quota", 7).await.unwrap();
    assert_eq!(store.add("quota", -3).await.unwrap(), 4);
    store.settle(Settlement::Spend {
        key: "quota".into(),
        amount: 10,
    });
    stores.flush(MINUTE).await;
    assert_eq!(store.read("reserved", MINUTE).await.unwrap().current, 10);
    assert_eq!(store.read("charged", MINUTE).await.unwrap().current, 15);
    assert_eq!(store.get("quota").await.unwrap(), Some(-6));
}
