//! The queue between workers and the ledger's thread: bounded, a push never waits for more than a swap.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tollgate_observe::Entry;
use tollgate_observe::metrics::{Counter, Gauge, Kind, Metrics};

use crate::failure::Reason;

/// Entries that may wait, about 8 MB; more are dropped.
pub(crate) const MOST: usize = 32_768;
/// An entry waits at most this long for others to share its transaction.
const GATHER: Duration = Duration::from_millis(200);
/// This many are written at once.
const PLENTY: usize = 2_048;

/// What the ledger counts.
#[derive(Debug)]
pub(crate) struct Counts {
    /// `tollgate_ledger_rows_total`.
    pub(crate) rows: Counter,
    /// `tollgate_ledger_rows_waiting`.
    pub(crate) waiting: Gauge,
    dropped: Vec<(Reason, Counter)>,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let family = |name| metrics.family(name, Kind::Counter);
        let rows = family("tollgate_ledger_rows_total").map(|family| family.counter(&[]));
        let waiting = metrics.family("tollgate_ledger_rows_waiting", Kind::Gauge);
        let dropped = family("tollgate_ledger_dropped_total").map(|family| {
            let counter = |reason: Reason| (reason, family.counter(&[("reason", reason.name())]));
            Reason::ALL.map(counter).to_vec()
        });
        Self {
            rows: rows.unwrap_or_default(),
            waiting: waiting.map(|family| family.gauge(&[])).unwrap_or_default(),
            dropped: dropped.unwrap_or_default(),
        }
    }

    pub(crate) fn dropped(&self, reason: Reason, count: usize) {
        if let Some((_, counter)) = self.dropped.iter().find(|(known, _)| *known == reason) {
            counter.add(count as u64);
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes those who wait for the thread.
    done: Condvar,
    pub(crate) counts: Counts,
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    /// Why the thread writes nothing at the moment: what is dropped is dropped for that.
    failing: Option<Reason>,
    closing: bool,
    closed: bool,
    /// Rounds asked for and finished.
    asked: u64,
    finished: u64,
}

/// What the thread is given.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) closing: bool,
    /// Rounds asked for when it was taken, and before.
    asked: (u64, u64),
}

impl Batch {
    /// Somebody waits for it.
    pub(crate) fn urgent(&self) -> bool {
        self.closing || self.asked.0 > self.asked.1
    }
}

impl Queue {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            state: Mutex::new(State {
                entries: Vec::new(),
                failing: None,
                closing: false,
                closed: false,
                asked: 0,
                finished: 0,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            counts: Counts::new(metrics),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A push either happened or did not: a panic elsewhere leaves nothing torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry, or counts it as dropped.
    pub(crate) fn push(&self, entry: Entry) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            self.counts.dropped(Reason::Shutdown, 1);
            return;
        }
        if state.entries.len() >= MOST {
            let reason = state.failing.unwrap_or(Reason::Overflow);
            drop(state);
            self.counts.dropped(reason, 1);
            return;
        }
        state.entries.push(entry);
        let count = state.entries.len();
        drop(state);
        if count == 1 || count == PLENTY {
            self.work.notify_one();
        }
    }

    /// Waits for entries, at most `patience`, and a little longer for more of them.
    pub(crate) fn next(&self, patience: Duration) -> Batch {
        let urgent = |state: &State| state.closing || state.asked > state.finished;
        let idle = |state: &mut State| state.entries.is_empty() && !urgent(state);
        let waited = self.work.wait_timeout_while(self.lock(), patience, idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let gathering =
            |state: &mut State| !state.entries.is_empty() && state.entries.len() < PLENTY && !urgent(state);
        let waited = self.work.wait_timeout_while(state, GATHER, gathering);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // The next batch is about as large: a push finds room.
        let room = Vec::with_capacity(state.entries.len().min(PLENTY));
        Batch {
            entries: std::mem::replace(&mut state.entries, room),
            closing: state.closing,
            asked: (state.asked, state.finished),
        }
    }

    /// The thread is through with a batch; `failing` says why it holds entries back.
    pub(crate) fn finished(&self, batch: &Batch, failing: Option<Reason>) {
        let mut state = self.lock();
        state.failing = failing;
        state.finished = batch.asked.0;
        state.closed = batch.closing;
        if state.closed {
            let left = std::mem::take(&mut state.entries).len();
            self.counts.dropped(Reason::Shutdown, left);
        }
        drop(state);
        self.done.notify_all();
    }

    /// Has everything written that was pushed before; false when that took longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        // A round under way may have taken its entries already: the one after it is the first that is surely whole.
        state.asked += 1;
        let wanted = state.asked;
        self.work.notify_one();
        self.wait(state, patience, |state| state.finished >= wanted || state.closed)
    }

    /// The same, and the thread ends.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_one();
        self.wait(state, patience, |state| state.closed)
    }

    fn wait(&self, state: MutexGuard<'_, State>, patience: Duration, holds: impl Fn(&State) -> bool) -> bool {
        let waited = self
            .done
            .wait_timeout_while(state, patience, |state| !holds(state));
        waited.is_ok_and(|(state, _)| holds(&state))
    }
}
