//! `Pipeline`: cuts batches, sends them, tries again with growing pauses, gives up in the end.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tollgate_base::clock::{self, Instant};

use super::counts::Counts;
use super::queue::{Item, Queue, Receiver, channel};
use super::{Encoder, Failure, Transport};

/// Units of one report.
const BATCH_UNITS: u64 = 512;
/// How long the first item of a batch waits for others.
const LINGER: Duration = Duration::from_millis(500);
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a report is tried.
const GIVE_UP: Duration = Duration::from_secs(30);

/// When the process must be done with exporting; `None` while it runs.
pub type Ending = watch::Receiver<Option<Instant>>;

/// One exporter: a queue, a format, a way.
pub struct Pipeline<T, E, W> {
    name: String,
    items: Receiver<T>,
    encoder: E,
    way: W,
    counts: Counts,
    ending: Ending,
    /// The last report failed: only changes are told in the log.
    failing: bool,
}

impl<T: Item, E: Encoder<T>, W> Pipeline<T, E, W> {
    /// A pipeline and the queue into it. `name` is for the program's log.
    pub fn new(name: String, encoder: E, way: W, counts: Counts, ending: Ending) -> (Self, Queue<T>) {
        let (queue, items) = channel(counts.clone());
        let pipeline = Self {
            name,
            items,
            encoder,
            way,
            counts,
            ending,
            failing: false,
        };
        (pipeline, queue)
    }

    /// The same towards another way; for one that only its own thread can make.
    pub fn along<V>(self, way: V) -> Pipeline<T, E, V> {
        Pipeline {
            name: self.name,
            items: self.items,
            encoder: self.encoder,
            way,
            counts: self.counts,
            ending: self.ending,
            failing: self.failing,
        }
    }
}

impl<T: Item, E: Encoder<T>, W: Transport> Pipeline<T, E, W> {
    /// Runs until all queues are gone or the process ends, and everything is sent or given up.
    pub async fn run(mut self) {
        while let Some(batch) = self.batch().await {
            self.report(&batch).await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        *self.ending.borrow()
    }

    /// The next batch: full, or the first item has waited long enough, or the end is near.
    async fn batch(&mut self) -> Option<Vec<T>> {
        let first = match self.items.ready() {
            Some(item) => item,
            None if self.deadline().is_some() => return None,
            None => tokio::select! {
                item = self.items.next() => item?,
                _ = self.ending.wait_for(Option::is_some) => self.items.ready()?,
            },
        };
        let (mut units, until) = (first.units(), clock::now() + LINGER);
        let mut batch = vec![first];
        while units < BATCH_UNITS {
            let more = match self.items.ready() {
                Some(item) => Some(item),
                None if self.deadline().is_some() => None,
                None => tokio::select! {
                    item = self.items.next() => item,
                    () = sleep_until(until) => None,
                    _ = self.ending.wait_for(Option::is_some) => self.items.ready(),
                },
            };
            let Some(item) = more else { break };
            units += item.units();
            batch.push(item);
        }
        Some(batch)
    }

    async fn report(&mut self, batch: &[T]) {
        let units: u64 = batch.iter().map(Item::units).sum();
        let report = self.encoder.encode(batch);
        let (give_up, mut pause) = (clock::now() + GIVE_UP, FIRST_PAUSE);
        loop {
            match self.attempt(&report).await {
                Ok(refused) => {
                    self.counts.exported.add(units - units.min(refused));
                    self.counts.refused.add(units.min(refused));
                    return self.note(None);
                }
                Err(Failure::Final(why)) => {
                    self.counts.refused.add(units);
                    return self.note(Some(&why));
                }
                Err(Failure::Passing(why)) => self.note(Some(&why)),
            }
            let half = pause / 2;
            let again = clock::now() + half + half.mul_f64(fastrand::f64());
            pause = (pause * 2).min(LONGEST_PAUSE);
            if again > give_up {
                return self.counts.unreachable.add(units);
            }
            if self.deadline().is_none() {
                tokio::select! {
                    () = sleep_until(again) => {}
                    _ = self.ending.wait_for(Option::is_some) => {}
                }
            } else if self.deadline().is_some_and(|deadline| again > deadline) {
                return self.counts.shutdown.add(units);
            } else {
                sleep_until(again).await;
            }
        }
    }

    /// One try; the answer is how many units the collector refused.
    async fn attempt(&self, report: &http::Request<Bytes>) -> Result<u64, Failure> {
        let sent = self.way.send(report.clone());
        let outcome = match self.deadline() {
            None => sent.await,
            Some(deadline) => match timeout_at(deadline, sent).await {
                Ok(outcome) => outcome,
                Err(_) => Err("the gateway ends".to_owned()),
            },
        };
        let answer = outcome.map_err(Failure::Passing)?;
        self.encoder.judge(&answer).map(|accepted| accepted.refused)
    }

    fn note(&mut self, failure: Option<&str>) {
        match failure {
            Some(why) if !self.failing => {
                tracing::warn!(exporter = self.name, why, "reports do not arrive; trying again");
            }
            None if self.failing => tracing::info!(exporter = self.name, "reports arrive again"),
            _ => {}
        }
        self.failing = failure.is_some();
    }
}
