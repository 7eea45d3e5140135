//! The home in a Redis, under Higress's keys and with its semantics, so that both gateways can share one.
//!
//! One connection a Redis, made on the background runtime when first used; commands of all requests go down it
//! without waiting for each other. What is told after an exchange goes through a bounded queue.

mod address;
mod connect;
mod link;
mod scripts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{FromRedisValue, RedisResult, ScriptInvocation, cmd};
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tollgate_base::clock::{self, Instant};
use tollgate_base::task;

pub use address::{Address, Settings};
use link::{Connection, Link};
use scripts::Scripts;

use crate::place::Surroundings;
use crate::{Count, Failure, Reservation, Settlement, Store};

/// Settlements that wait to be sent; beyond it they are lost.
const QUEUE: usize = 65_536;
/// Settlements under way at once.
const UNDER_WAY: usize = 256;

/// Counters in a Redis.
pub(crate) struct Redis {
    link: Arc<Link>,
    queue: mpsc::Sender<Settlement>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Redis({})", self.link.settings.address)
    }
}

impl Redis {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: Settings, surroundings: Surroundings) -> Arc<Self> {
        let background = surroundings.background.clone();
        let link = Link::new(settings, surroundings);
        let (queue, waiting) = mpsc::channel(QUEUE);
        let worker = link.clone();
        let _runtime = background.enter();
        drop(task::spawn(
            "settlements towards redis",
            settle_all(worker, waiting),
        ));
        Arc::new(Self { link, queue })
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    async fn run<T, F>(&self, work: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = RedisResult<T>>,
    {
        self.link.run(work).await
    }

    async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        self.run(|mut connection| async move { script.invoke_async(&mut connection).await })
            .await
    }
}

/// Sends what comes until nobody can send any more.
async fn settle_all(link: Arc<Link>, waiting: mpsc::Receiver<Settlement>) {
    let settlements = stream::unfold(waiting, |mut waiting| async {
        waiting.recv().await.map(|settlement| (settlement, waiting))
    });
    settlements
        .for_each_concurrent(UNDER_WAY, |settlement| {
            let link = link.clone();
            async move {
                if let Err(failure) = send(&link, &settlement).await {
                    link.lost();
                    tracing::debug!(store = %link.settings.address, %failure, "a settlement is lost");
                }
                link.settled();
            }
        })
        .await;
}

async fn send(link: &Arc<Link>, settlement: &Settlement) -> Result<(), Failure> {
    let scripts = Scripts::get();
    match settlement {
        Settlement::Charge {
            key,
            limit,
            window,
            amount,
        } => {
            let mut script = scripts.charge.key(&**key);
            script.arg(*limit).arg(window.as_secs()).arg(*amount);
            let script = &script;
            link.run(|mut connection| async move { script.invoke_async(&mut connection).await })
                .await
        }
        Settlement::Correct { key, delta, ends } => {
            let left = ends.saturating_duration_since(clock::now());
            if left.is_zero() || *delta == 0 {
                return Ok(());
            }
            let mut script = scripts.correct.key(&**key);
            script.arg(*delta).arg(milliseconds(left));
            let script = &script;
            link.run(|mut connection| async move { script.invoke_async(&mut connection).await })
                .await
        }
        Settlement::Spend { key, amount } => {
            link.run(|mut connection| async move {
                cmd("DECRBY")
                    .arg(&**key)
                    .arg(*amount)
                    .query_async(&mut connection)
                    .await
            })
            .await
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(current: i64, reset: Duration) -> Count {
    Count {
        current: u64::try_from(current).unwrap_or(0),
        reset,
    }
}

/// Whole seconds as Redis tells them; the whole window where it has none.
fn seconds(left: i64, window: Duration) -> Duration {
    u64::try_from(left).map_or(window, Duration::from_secs)
}

#[async_trait]
impl Store for Redis {
    async fn take(&self, key: &str, limit: u64, window: Duration) -> Result<Count, Failure> {
        let mut script = Scripts::get().take.key(key);
        script.arg(limit).arg(window.as_secs());
        let (current, left): (i64, i64) = self.script(&script).await?;
        Ok(count(current, seconds(left, window)))
    }

    async fn read(&self, key: &str, window: Duration) -> Result<Count, Failure> {
        let mut script = Scripts::get().read.key(key);
        script.arg(window.as_secs());
        let (current, left): (i64, i64) = self.script(&script).await?;
        Ok(count(current, seconds(left, window)))
    }

    async fn reserve(
        &self,
        key: &str,
        limit: u64,
        window: Duration,
        amount: u64,
    ) -> Result<Reservation, Failure> {
        let amount = amount.min(limit);
        let mut script = Scripts::get().reserve.key(key);
        script.arg(limit).arg(window.as_secs()).arg(amount);
        let (granted, current, left): (bool, i64, i64) = self.script(&script).await?;
        let left = u64::try_from(left).map_or(window, Duration::from_millis);
        Ok(match granted {
            true => Reservation::Granted {
                amount,
                ends: ends(left),
            },
            false => Reservation::Refused(count(current, left)),
        })
    }

    async fn get(&self, key: &str) -> Result<Option<i64>, Failure> {
        self.run(|mut connection| async move { cmd("GET").arg(key).query_async(&mut connection).await })
            .await
    }

    async fn set(&self, key: &str, value: i64) -> Result<(), Failure> {
        self.run(
            |mut connection| async move { cmd("SET").arg(key).arg(value).query_async(&mut connection).await },
        )
        .await
    }

    async fn add(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        let (name, amount) = match delta {
            ..0 => ("DECRBY", delta.unsigned_abs()),
            0.. => ("INCRBY", delta.unsigned_abs()),
        };
        self.run(
            |mut connection| async move { cmd(name).arg(key).arg(amount).query_async(&mut connection).await },
        )
        .await
    }

    fn settle(&self, settlement: Settlement) {
        self.link.queued();
        if self.queue.try_send(settlement).is_err() {
            self.link.lost();
            self.link.settled();
        }
    }
}

fn ends(left: Duration) -> Instant {
    clock::now() + left
}
