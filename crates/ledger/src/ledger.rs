//! `Ledger`: the handle that the process holds: takes entries from the workers, knows the settings, ends the thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tollgate_observe::entry::Journal;
use tollgate_observe::metrics::Metrics;
use tollgate_observe::{Books, Entry, Spend};
use tollgate_snapshot::settings;
use tollgate_upstream::Shared;

use crate::query::Reader;
use crate::queue::Queue;
use crate::sink::{Means, Sinks};
use crate::writer::{Orders, Writer};

/// The usage ledger of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Arc<Queue>,
    settings: Arc<Mutex<Orders>>,
}

impl Ledger {
    /// Starts the ledger's thread. The file in `data` is opened when the first row comes.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(data: &Path, metrics: &Metrics) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(metrics));
        let settings = Arc::default();
        let sinks = Sinks::new(metrics);
        let writer = Writer::new(data.to_owned(), Arc::clone(&queue), Arc::clone(&settings), sinks);
        std::thread::Builder::new()
            .name("ledger".into())
            .stack_size(512 * 1024)
            .spawn(move || writer.run())?;
        Ok(Self(Arc::new(Inner { queue, settings })))
    }

    /// The books that enter requests here, with what each consumer has used of the current day and month so far. A
    /// ledger that cannot be read leaves them empty, and says so.
    #[must_use]
    pub fn books(&self, data: &Path) -> Books {
        let spend = Spend::default();
        match Reader::open(data) {
            Ok(reader) => {
                if let Err(error) = reader.restore(&spend) {
                    tracing::warn!(%error, "the usage ledger cannot be read: budgets begin at zero");
                }
            }
            Err(error) if error.is_absence() => {}
            Err(error) => tracing::warn!(%error, "the usage ledger cannot be read: budgets begin at zero"),
        }
        Books::new(spend, Arc::new(self.clone()))
    }

    /// Takes the settings of a new configuration.
    pub fn configure(&self, settings: settings::Ledger) {
        self.order(|orders| orders.settings = settings);
    }

    /// Gives sinks their way out: tasks on `runtime`, connections as `upstream` makes them. Until then there are none.
    pub fn connect(&self, runtime: Handle, upstream: Shared) {
        self.order(|orders| orders.means = Some(Means { runtime, upstream }));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.0.settings.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut orders);
        orders.version += 1;
    }

    /// Writes everything that has come so far; false when that took longer than `patience`. Blocks.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.queue.flush(patience)
    }

    /// Writes what is left and ends the thread, waiting at most `patience`. Blocks.
    pub fn close(&self, patience: Duration) {
        if !self.0.queue.close(patience) {
            tracing::warn!("the last rows of the usage ledger could not be written");
        }
    }
}

impl Journal for Ledger {
    fn enter(&self, entry: Entry) {
        self.0.queue.push(entry);
    }
}
