//! The ledger's thread: writes what the queue holds, prunes when there is time, and lives with a disk that does not.
//!
//! A failure is told once until it ends. Rows that could not be written wait, up to the queue's bound, for the next try;
//! a file that is broken is moved aside, so that new rows have one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tollgate_base::clock::{self, Instant};
use tollgate_observe::Entry;
use tollgate_snapshot::settings;

use crate::failure::{Failure, Reason};
use crate::queue::{MOST, Queue};
use crate::schema;
use crate::sink::{Means, Sinks};
use crate::store::{Store, milliseconds_of};

/// What the process asks of the ledger's thread.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) settings: settings::Ledger,
    pub(crate) means: Option<Means>,
    /// Grows with each change.
    pub(crate) version: u64,
}

/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Between two looks for what is to be pruned.
const PRUNE_EVERY: Duration = Duration::from_mins(1);
/// Between two steps of pruning.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// How long sinks get for what they have at the end.
const LAST_ROWS: Duration = Duration::from_millis(1_500);
/// Broken files that are kept for a look.
const ASIDE: u32 = 3;

pub(crate) struct Writer {
    data: PathBuf,
    queue: Arc<Queue>,
    orders: Arc<Mutex<Orders>>,
    /// The orders in force.
    settings: settings::Ledger,
    means: Option<Means>,
    version: u64,
    sinks: Sinks,
    store: Option<Store>,
    /// Not written yet.
    held: Vec<Entry>,
    failing: Option<Failing>,
    prune_at: Instant,
}

/// What keeps rows from being written, and when to try again.
struct Failing {
    reason: Reason,
    pause: Duration,
    again: Instant,
}

impl Writer {
    pub(crate) fn new(data: PathBuf, queue: Arc<Queue>, orders: Arc<Mutex<Orders>>, sinks: Sinks) -> Self {
        Self {
            data,
            queue,
            orders,
            settings: settings::Ledger::default(),
            means: None,
            version: 0,
            sinks,
            store: None,
            held: Vec::new(),
            failing: None,
            prune_at: clock::now() + PRUNE_EVERY,
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let next = self
                .failing
                .as_ref()
                .map_or(self.prune_at, |failing| failing.again);
            let mut batch = self.queue.next(next.saturating_duration_since(clock::now()));
            self.obey();
            self.take(std::mem::take(&mut batch.entries));
            let due = |failing: &Failing| batch.urgent() || failing.again <= clock::now();
            if self.failing.as_ref().is_none_or(due) {
                self.write();
            }
            let moved_aside = |failing: &Failing| failing.reason == Reason::Corrupt;
            if batch.closing && self.failing.as_ref().is_some_and(moved_aside) {
                self.write();
            }
            if self.failing.is_none() && !batch.closing && self.prune_at <= clock::now() {
                self.prune();
            }
            if batch.closing {
                self.give_up();
                self.sinks.close(LAST_ROWS, self.means.as_ref());
                self.put_away();
            }
            let waiting = i64::try_from(self.held.len()).unwrap_or(i64::MAX);
            self.queue.counts.waiting.set(waiting);
            self.queue
                .finished(&batch, self.failing.as_ref().map(|failing| failing.reason));
            if batch.closing {
                return;
            }
        }
    }

    /// Takes new orders, if there are any.
    fn obey(&mut self) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.version == self.version {
            return;
        }
        self.version = orders.version;
        self.settings = orders.settings.clone();
        self.means = orders.means.clone();
        drop(orders);
        self.sinks.configure(&self.settings.sinks, self.means.as_ref());
    }

    /// Takes entries in behind those that are held; what is too much is dropped.
    fn take(&mut self, entries: Vec<Entry>) {
        if !self.settings.enable || entries.is_empty() {
            return;
        }
        if !self.sinks.is_empty() {
            self.sinks.give(&entries);
        }
        if self.held.is_empty() {
            self.held = entries;
            return;
        }
        let room = MOST.saturating_sub(self.held.len());
        let excess = entries.len().saturating_sub(room);
        if excess > 0 {
            let reason = self
                .failing
                .as_ref()
                .map_or(Reason::Overflow, |failing| failing.reason);
            self.queue.counts.dropped(reason, excess);
        }
        self.held.extend(entries.into_iter().take(room));
    }

    fn write(&mut self) {
        if self.held.is_empty() {
            return;
        }
        match self.try_to_write() {
            Ok(()) => {
                self.queue.counts.rows.add(self.held.len() as u64);
                self.held = Vec::new();
                if self.failing.take().is_some() {
                    tracing::info!(data = %self.data.display(), "the usage ledger is written again");
                }
            }
            Err(failure) => self.failed(&failure),
        }
    }

    fn try_to_write(&mut self) -> Result<(), Failure> {
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::open(&self.data)?),
        };
        store.add(&self.held)
    }

    fn failed(&mut self, failure: &Failure) {
        let reason = failure.reason();
        // Whatever state the connection is in, the next try begins with a new one.
        self.store = None;
        let aside = (reason == Reason::Corrupt).then(|| set_aside(&self.data));
        let pause = match &self.failing {
            Some(failing) => (failing.pause * 2).min(PAUSES.1),
            None => PAUSES.0,
        };
        if self
            .failing
            .as_ref()
            .is_none_or(|failing| failing.reason != reason)
        {
            let data = self.data.display();
            match aside {
                Some(Ok(to)) => {
                    tracing::error!(%data, error = %failure, aside = %to.display(), "the usage ledger is broken: it is moved aside, a new one begins");
                }
                Some(Err(error)) => {
                    tracing::error!(%data, error = %failure, aside = %error, "the usage ledger is broken and cannot be moved aside: requests are not entered");
                }
                None => {
                    tracing::error!(%data, error = %failure, "the usage ledger cannot be written: rows wait, then are dropped");
                }
            }
        }
        self.failing = Some(Failing {
            reason,
            pause,
            again: clock::now() + pause,
        });
    }

    /// At the end: one more try has been made.
    fn give_up(&mut self) {
        let left = std::mem::take(&mut self.held).len();
        if left > 0 {
            let reason = self
                .failing
                .as_ref()
                .map_or(Reason::Shutdown, |failing| failing.reason);
            self.queue.counts.dropped(reason, left);
        }
    }

    /// At the end: closing puts what is in the side file where it belongs.
    fn put_away(&mut self) {
        let Some(mut store) = self.store.take() else {
            return;
        };
        if let Err(failure) = store.settle() {
            // The next process adds them up from the rows.
            tracing::warn!(error = %failure, "the sums of the usage ledger are not written");
        }
    }

    fn prune(&mut self) {
        self.prune_at = clock::now() + PRUNE_EVERY;
        if self.store.is_none() && !schema::path(&self.data).exists() {
            return;
        }
        let retention = self.settings.retention;
        let pruned = match &mut self.store {
            Some(store) => Ok(store),
            none => Store::open(&self.data).map(|store| none.insert(store)),
        }
        .and_then(|store| store.prune(&retention, milliseconds_of(clock::wall())));
        match pruned {
            Ok(true) => self.prune_at = clock::now() + PRUNE_PAUSE,
            Ok(false) => {}
            Err(failure) => self.failed(&failure),
        }
    }
}

/// Moves a broken file out of the way, with what belongs to it.
fn set_aside(data: &Path) -> std::io::Result<PathBuf> {
    let file = schema::path(data);
    let place = |number: u32| file.with_extension(format!("db.broken-{number}"));
    let number = (1..=ASIDE)
        .find(|number| !place(*number).exists())
        .unwrap_or(ASIDE);
    std::fs::rename(&file, place(number))?;
    for end in ["db-wal", "db-shm"] {
        let left = file.with_extension(end);
        if left.exists() {
            std::fs::remove_file(left)?;
        }
    }
    Ok(place(number))
}
