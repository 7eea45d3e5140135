//! Sinks: the ledger's rows once more, for an engine that exists: a file, an HTTP endpoint, an OpenTelemetry collector.
//!
//! The ledger's thread hands each batch to every sink and never waits; a task a sink, on the background runtime, delivers.
//! What cannot be delivered is tried again with growing pauses while there is room, then dropped and counted. A row may
//! come twice after a failure half-way, it never comes torn.

mod deliver;
mod render;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tollgate_base::clock;
use tollgate_observe::Entry;
use tollgate_observe::metrics::{Counter, Family, Kind, Metrics};
use tollgate_snapshot::settings;
use tollgate_upstream::Shared;

use deliver::{Outcome, Outlet};

/// Rows that may wait for one sink.
const MOST: usize = 32_768;
/// A delivery waits so long for more rows, or until it has this many.
const GATHER: Duration = Duration::from_secs(1);
const PLENTY: usize = 4_096;
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What sinks need of the process.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(crate) runtime: Handle,
    pub(crate) upstream: Shared,
}

/// All sinks of the configuration in force; belongs to the ledger's thread.
#[derive(Debug)]
pub(crate) struct Sinks {
    rows: Option<Family>,
    dropped: Option<Family>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    sink: settings::Sink,
    line: Arc<Line>,
    batches: mpsc::UnboundedSender<Arc<Vec<Entry>>>,
    /// Set at the end: one more try, no more pauses.
    ending: watch::Sender<bool>,
    /// Closed when the task is over.
    over: watch::Receiver<()>,
}

/// What a sink counts. The bound is in rows, so the channel needs none.
#[derive(Debug)]
struct Line {
    waiting: AtomicUsize,
    rows: Counter,
    dropped: Option<Family>,
    name: String,
}

impl Line {
    fn drop_rows(&self, reason: &str, count: usize) {
        if let Some(family) = &self.dropped {
            let labels = [("sink", self.name.as_str()), ("reason", reason)];
            family.counter(&labels).add(count as u64);
        }
    }
}

impl Sinks {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let family = |name| metrics.family(name, Kind::Counter).ok();
        Self {
            rows: family("tollgate_ledger_sink_rows_total"),
            dropped: family("tollgate_ledger_sink_dropped_total"),
            running: Vec::new(),
        }
    }

    /// Takes the sinks of a new configuration: those that stay the same go on, those that are gone deliver what they have.
    pub(crate) fn configure(&mut self, wanted: &[settings::Sink], means: Option<&Means>) {
        self.running.retain(|running| wanted.contains(&running.sink));
        let Some(means) = means else { return };
        for sink in wanted {
            if self.running.iter().any(|running| running.sink == *sink) {
                continue;
            }
            self.running.push(self.start(sink, means));
        }
    }

    fn start(&self, sink: &settings::Sink, means: &Means) -> Running {
        let labels = [("sink", sink.name.as_str())];
        let line = Arc::new(Line {
            waiting: AtomicUsize::new(0),
            rows: self
                .rows
                .as_ref()
                .map(|family| family.counter(&labels))
                .unwrap_or_default(),
            dropped: self.dropped.clone(),
            name: sink.name.clone(),
        });
        let (batches, incoming) = mpsc::unbounded_channel();
        let (ending, ends) = watch::channel(false);
        let (alive, over) = watch::channel(());
        let task = Task {
            line: line.clone(),
            incoming,
            ends,
            outlet: Outlet::new(&sink.target, means.upstream.clone()),
        };
        let entered = means.runtime.enter();
        drop(tollgate_base::task::spawn("ledger sink", async move {
            task.run().await;
            drop(alive);
        }));
        drop(entered);
        Running {
            sink: sink.clone(),
            line,
            batches,
            ending,
            over,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Hands a batch to every sink.
    pub(crate) fn give(&self, entries: &[Entry]) {
        let batch = Arc::new(entries.to_vec());
        for Running { line, batches, .. } in &self.running {
            let waiting = line.waiting.load(Ordering::Relaxed);
            if waiting + batch.len() > MOST.max(batch.len()) {
                line.drop_rows("overflow", batch.len());
                continue;
            }
            line.waiting.fetch_add(batch.len(), Ordering::Relaxed);
            if batches.send(batch.clone()).is_err() {
                line.drop_rows("ended", batch.len());
            }
        }
    }

    /// The process ends: every sink delivers what it has, within `patience` in all.
    pub(crate) fn close(&mut self, patience: Duration, means: Option<&Means>) {
        let Some(means) = means else { return };
        let running = std::mem::take(&mut self.running);
        let mut overs = Vec::new();
        for one in running {
            one.ending.send_replace(true);
            overs.push(one.over);
        }
        let all = async {
            for mut over in overs {
                while over.changed().await.is_ok() {}
            }
        };
        let entered = means.runtime.enter();
        let waited = tokio::time::timeout(patience, all);
        drop(entered);
        if means.runtime.block_on(waited).is_err() {
            tracing::warn!("the last rows could not be delivered to every ledger sink");
        }
    }
}

/// One sink at work.
struct Task {
    line: Arc<Line>,
    incoming: mpsc::UnboundedReceiver<Arc<Vec<Entry>>>,
    ends: watch::Receiver<bool>,
    outlet: Outlet,
}

impl Task {
    async fn run(mut self) {
        let mut failing = false;
        while let Some(rows) = self.gather().await {
            let count: usize = rows.iter().map(|batch| batch.len()).sum();
            self.deliver(&rows, count, &mut failing).await;
            self.line.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// The next rows, and those that come a little later; `None` at the end.
    async fn gather(&mut self) -> Option<Vec<Arc<Vec<Entry>>>> {
        let ends = &mut self.ends;
        let first = tokio::select! {
            biased;
            batch = self.incoming.recv() => batch?,
            _ = ends.wait_for(|ends| *ends) => self.incoming.try_recv().ok()?,
        };
        let mut count = first.len();
        let mut rows = vec![first];
        let until = clock::now() + GATHER;
        while count < PLENTY {
            let next = tokio::select! {
                biased;
                batch = self.incoming.recv() => batch,
                () = tokio::time::sleep_until(until) => None,
                _ = ends.wait_for(|ends| *ends) => self.incoming.try_recv().ok(),
            };
            let Some(batch) = next else { break };
            count += batch.len();
            rows.push(batch);
        }
        Some(rows)
    }

    async fn deliver(&mut self, rows: &[Arc<Vec<Entry>>], count: usize, failing: &mut bool) {
        let entries: Vec<&Entry> = rows.iter().flat_map(|batch| batch.iter()).collect();
        let payload = self.outlet.payload(&entries);
        let mut pause = PAUSES.0;
        loop {
            let (cause, again) = match self.outlet.send(payload.clone()).await {
                Outcome::Done => {
                    self.line.rows.add(count as u64);
                    if std::mem::take(failing) {
                        tracing::info!(sink = self.line.name, "the ledger sink takes rows again");
                    }
                    return;
                }
                Outcome::Refused(cause) => (cause, false),
                Outcome::Failed(cause) => (cause, true),
            };
            if !std::mem::replace(failing, true) {
                tracing::warn!(sink = self.line.name, cause, "a ledger sink does not take rows");
            }
            let ending = *self.ends.borrow() || self.ends.has_changed().is_err();
            if !again || ending {
                self.line
                    .drop_rows(if again { "failed" } else { "refused" }, count);
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.ends.wait_for(|ends| *ends) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
