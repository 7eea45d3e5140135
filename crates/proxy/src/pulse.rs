//! What the sweep knows of a client connection, and what it tells it: one cell per connection, looked through once a
//! second and worker, so that a request arms no timer for idle and slow clients.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate_base::clock::{self, Instant};
use tollgate_base::{Flag, Termination, Timer};
use tollgate_observe::Record;
use tollgate_snapshot::Settings;

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    Serve,
    /// Finish what is open, then close.
    Drain,
    /// Close now.
    Close,
    /// Close now, telling an HTTP/1 client that its request head did not come in time.
    CloseSlow,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Waiting for a request.
    Idle,
    /// Part of a request head has come.
    Head,
    /// Requests are under way.
    Busy,
}

/// How long an idle HTTP/2 client gets to answer that it has understood that its connection closes.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection's state, shared with the sweep.
pub(crate) struct Pulse {
    activity: Cell<Activity>,
    /// When the activity changed last.
    since: Cell<Instant>,
    /// When the client stopped taking bytes; `None` while it takes them.
    blocked: Cell<Option<Instant>>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    /// The requests under way.
    open: RefCell<Vec<Rc<Record>>>,
    /// Bytes that had passed, both ways, when they were last looked at.
    passed: Cell<u64>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            activity: Cell::new(Activity::Idle),
            since: Cell::new(clock::now()),
            blocked: Cell::new(None),
            order: Cell::new(Order::Serve),
            waker: RefCell::default(),
            open: RefCell::default(),
            passed: Cell::new(0),
        }
    }

    /// What the connection is to do; this task is woken when that changes.
    pub(crate) fn poll_order(&self, context: &Context<'_>) -> Order {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        self.order.get()
    }

    /// What the connection is to do.
    pub(crate) fn ordered(&self) -> Order {
        self.order.get()
    }

    pub(crate) fn order(&self, order: Order) {
        if self.order.replace(order) != order {
            let waker = self.waker.borrow_mut().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// That request is under way.
    pub(crate) fn begin(&self, record: &Rc<Record>) {
        self.open.borrow_mut().push(record.clone());
        // Whatever passes of it is new.
        self.passed.set(u64::MAX);
        self.enter_busy();
    }

    /// That request is over.
    pub(crate) fn end(&self, record: &Rc<Record>) {
        let mut open = self.open.borrow_mut();
        open.retain(|other| !Rc::ptr_eq(other, record));
        let is_last = open.is_empty();
        drop(open);
        if is_last {
            self.enter_idle();
        }
    }

    /// A request has begun. Its head came in time after all: nobody is turned away for it, nor for a later one.
    pub(crate) fn enter_busy(&self) {
        self.activity.set(Activity::Busy);
        if self.order.get() == Order::CloseSlow {
            self.order.set(Order::Serve);
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn enter_idle(&self) {
        self.enter(Activity::Idle);
    }

    /// Part of a request head is there.
    pub(crate) fn bytes_came(&self) {
        if self.activity.get() == Activity::Idle {
            self.enter(Activity::Head);
        }
    }

    fn enter(&self, activity: Activity) {
        self.since.set(clock::now());
        self.activity.set(activity);
    }

    /// Notes whether the client took bytes; looks at the clock only when that changes.
    pub(crate) fn wrote<T>(&self, outcome: &Poll<T>) {
        if outcome.is_pending() != self.blocked.get().is_some() {
            self.blocked.set(outcome.is_pending().then(clock::now));
        }
    }

    fn sweep(&self, now: Instant, settings: &Settings) {
        let waited = now.saturating_duration_since(self.since.get());
        let blocked = self.blocked.get();
        let idle = settings.downstream_idle;
        let over = |time: Duration, limit: Duration| !limit.is_zero() && time >= limit;
        match self.activity.get() {
            _ if blocked.is_some_and(|since| over(now.saturating_duration_since(since), idle)) => {
                self.order(Order::Close);
            }
            Activity::Idle if over(waited, idle) && waited >= idle + GOODBYE => self.order(Order::Close),
            Activity::Idle if over(waited, idle) => self.order(Order::Drain),
            Activity::Busy
                if self.is_still(now) && over(now.saturating_duration_since(self.since.get()), idle) =>
            {
                self.give_up();
            }
            Activity::Head if over(waited, settings.request_head_timeout) => self.order(Order::CloseSlow),
            _ => {}
        }
    }
}

impl Pulse {
    /// Whether nothing has passed since the last look, though all requests under way have an answer. One that has none
    /// waits for its upstream under a timer of its own.
    fn is_still(&self, now: Instant) -> bool {
        let open = self.open.borrow();
        if open.is_empty() {
            return false;
        }
        let passed = open
            .iter()
            .map(|record| record.bytes_sent.get() + record.bytes_received.get())
            .sum();
        let is_still =
            self.passed.replace(passed) == passed && open.iter().all(|record| record.status.get() != 0);
        if !is_still {
            self.since.set(now);
        }
        is_still
    }

    /// Ends what has gone silent: a stream, a tunnel.
    fn give_up(&self) {
        for record in &*self.open.borrow() {
            record.flag(Flag::StreamIdle);
            record.details.replace("stream_idle_timeout".into());
            record.terminate(Termination::Timeout(Timer::Silence));
        }
        self.order(Order::Close);
    }
}

/// All client connections of a worker.
#[derive(Default)]
pub(crate) struct Clients(RefCell<Vec<Weak<Pulse>>>);

impl Clients {
    pub(crate) fn add(&self, pulse: &Rc<Pulse>) {
        self.0.borrow_mut().push(Rc::downgrade(pulse));
    }

    /// Closes what has been idle or slow for too long, forgets what is gone.
    pub(crate) fn sweep(&self, settings: &Settings) {
        let now = clock::now();
        self.0.borrow_mut().retain(|weak| match weak.upgrade() {
            Some(pulse) => {
                pulse.sweep(now, settings);
                true
            }
            None => false,
        });
    }

    /// Tells every connection to finish what is open.
    pub(crate) fn drain(&self) {
        for pulse in self.0.borrow().iter().filter_map(Weak::upgrade) {
            pulse.order(Order::Drain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truncation::tests::record;

    /// What is ordered so many seconds from now.
    fn ordered_after(pulse: &Pulse, seconds: u64) -> Order {
        pulse.sweep(clock::now() + Duration::from_secs(seconds), &Settings::default());
        pulse.ordered()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_asked_to_go_and_then_closed() {
        let pulse = Pulse::new();
        assert_eq!(ordered_after(&pulse, 179), Order::Serve);
        assert_eq!(ordered_after(&pulse, 180), Order::Drain);
        assert_eq!(ordered_after(&pulse, 184), Order::Drain);
        assert_eq!(ordered_after(&pulse, 185), Order::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_closed_unless_it_came_after_all() {
        let pulse = Pulse::new();
        pulse.bytes_came();
        assert_eq!(ordered_after(&pulse, 9), Order::Serve);
        assert_eq!(ordered_after(&pulse, 10), Order::CloseSlow);
        pulse.enter_busy();
        assert_eq!(pulse.ordered(), Order::Serve);
        assert_eq!(ordered_after(&pulse, 10_000), Order::Serve);
        // The next head has its own time.
        tokio::time::advance(Duration::from_secs(20)).await;
        pulse.enter_idle();
        pulse.bytes_came();
        assert_eq!(ordered_after(&pulse, 9), Order::Serve);
        assert_eq!(ordered_after(&pulse, 10), Order::CloseSlow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_closed_one_that_is_slow_is_not() {
        let pulse = Pulse::new();
        pulse.enter_busy();
        pulse.wrote(&Poll::<()>::Pending);
        assert_eq!(ordered_after(&pulse, 179), Order::Serve);
        tokio::time::advance(Duration::from_secs(100)).await;
        pulse.wrote(&Poll::Ready(()));
        pulse.wrote(&Poll::<()>::Pending);
        assert_eq!(ordered_after(&pulse, 179), Order::Serve);
        assert_eq!(ordered_after(&pulse, 180), Order::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_and_still_is_closed_what_moves_or_waits_is_not() {
        let pulse = Pulse::new();
        let (one, other) = (Rc::new(record()), Rc::new(record()));
        pulse.begin(&one);
        pulse.begin(&other);
        // One has no answer yet, and may wait for it.
        one.status.set(200);
        assert_eq!(ordered_after(&pulse, 0), Order::Serve);
        assert_eq!(ordered_after(&pulse, 1_000), Order::Serve);
        other.status.set(200);
        assert_eq!(ordered_after(&pulse, 1_179), Order::Serve);
        one.bytes_sent.set(1);
        assert_eq!(ordered_after(&pulse, 1_180), Order::Serve);
        other.bytes_received.set(1);
        assert_eq!(ordered_after(&pulse, 1_300), Order::Serve);
        // What leaves takes its bytes along.
        pulse.end(&one);
        assert_eq!(ordered_after(&pulse, 1_301), Order::Serve);
        assert_eq!(ordered_after(&pulse, 1_480), Order::Serve);
        assert_eq!(ordered_after(&pulse, 1_481), Order::Close);
        assert_eq!(
            other.termination.get(),
            Some(Termination::Timeout(Timer::Silence))
        );
        assert_eq!(one.termination.get(), None);
    }
}
