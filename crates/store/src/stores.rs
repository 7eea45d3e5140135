//! `Stores`: which store a plugin gets, and how it stands with all of them. One a process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;

use crate::place::Surroundings;
use crate::redis::{Redis, Settings};
use crate::{Count, Failure, Memory, Reservation, Settlement, Store};

/// The process's stores; clones are one.
#[derive(Clone, Default)]
pub struct Stores(Arc<Inner>);

#[derive(Default)]
struct Inner {
    memory: Arc<Memory>,
    /// `None`: where configuration is only read. Nothing is ever connected.
    surroundings: Option<Surroundings>,
    default: Option<Arc<Redis>>,
    own: Mutex<HashMap<Settings, Weak<Redis>>>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stores").finish_non_exhaustive()
    }
}

impl Stores {
    /// Stores that can be connected to. `default` (`--redis`) is used where a config names none; without it memory is.
    #[must_use]
    pub fn new(surroundings: Surroundings, default: Option<Settings>) -> Self {
        let default = default.map(|settings| Redis::new(settings, surroundings.clone()));
        Self(Arc::new(Inner {
            memory: Arc::default(),
            surroundings: Some(surroundings),
            default,
            own: Mutex::default(),
        }))
    }

    /// The store of configs that name none.
    #[must_use]
    pub fn default_store(&self) -> Arc<dyn Store> {
        match &self.0.default {
            Some(redis) => redis.clone(),
            None => self.0.memory.clone(),
        }
    }

    /// The Redis with these settings: one for all configs that have the same.
    #[must_use]
    pub fn redis(&self, settings: Settings) -> Arc<dyn Store> {
        let Some(surroundings) = &self.0.surroundings else {
            return Arc::new(Unconnected);
        };
        let mut own = self.lock();
        own.retain(|_, redis| redis.strong_count() > 0);
        if let Some(known) = own.get(&settings).and_then(Weak::upgrade) {
            return known;
        }
        let redis = Redis::new(settings.clone(), surroundings.clone());
        own.insert(settings, Arc::downgrade(&redis));
        redis
    }

    /// Stores that are down, and why: one line each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let troubles = self.connected().into_iter().filter_map(|redis| {
            let reason = redis.link().trouble()?;
            Some(format!("store {:?} is down: {reason}", *redis))
        });
        troubles.collect()
    }

    /// Waits until what was told to the stores has arrived, at most so long.
    pub async fn flush(&self, patience: Duration) {
        let all = async {
            for redis in self.connected() {
                redis.link().flushed().await;
            }
        };
        // What has not arrived by then is lost.
        drop(tokio::time::timeout(patience, all).await);
    }

    fn connected(&self) -> Vec<Arc<Redis>> {
        let own: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        self.0.default.iter().cloned().chain(own).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Settings, Weak<Redis>>> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Redis of a process that only reads configuration.
#[derive(Debug)]
struct Unconnected;

fn unconnected<T>() -> Result<T, Failure> {
    Err(Failure::Unavailable("nothing is connected here".into()))
}

#[async_trait]
impl Store for Unconnected {
    async fn take(&self, _: &str, _: u64, _: Duration) -> Result<Count, Failure> {
        unconnected()
    }

    async fn read(&self, _: &str, _: Duration) -> Result<Count, Failure> {
        unconnected()
    }

    async fn reserve(&self, _: &str, _: u64, _: Duration, _: u64) -> Result<Reservation, Failure> {
        unconnected()
    }

    async fn get(&self, _: &str) -> Result<Option<i64>, Failure> {
        unconnected()
    }

    async fn set(&self, _: &str, _: i64) -> Result<(), Failure> {
        unconnected()
    }

    async fn add(&self, _: &str, _: i64) -> Result<i64, Failure> {
        unconnected()
    }

    fn settle(&self, _: Settlement) {}
}
