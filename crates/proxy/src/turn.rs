//! Whose turn it is on a worker: a request that has had nothing of its answer yet does not wait behind a burst of other
//! streams' events.
//!
//! The runtime keeps one queue, first come, first served. A seated task that is [`served`] does not enter it when it is
//! woken but stands in line outside; the usher lets in a few of them, has the sockets looked at, and lets in the next. So
//! the queue is short for whoever enters it directly, which are requests without an answer and all that is not
//! seated, and no stream is starved: the usher's turn comes like everybody's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;
use tollgate_base::task::spawn_local;

/// How many streams have their turn between two looks at the sockets. A look costs about a tenth of such a turn; with 8 a
/// first event comes a third later and the others no sooner, with 1 a stream costs 6 % more.
const AT_ONCE: usize = 3;
/// A stream more has its turn for this many of requests without an answer since the last look: where the queue never
/// empties, the sockets are looked at far less often.
const REQUESTS_A_STREAM: usize = 4;

thread_local! {
    static LINE: Line = const { Line::new() };
    /// Whether the task whose turn it is has something of its answer.
    static IS_SERVED: Cell<bool> = const { Cell::new(false) };
    /// Turns since the last look of those who have not.
    static UNSERVED: Cell<usize> = const { Cell::new(0) };
}

static NEXT_WORKER: AtomicU64 = AtomicU64::new(1);

/// The task whose turn it is waits for an answer (again).
pub(crate) fn waits() {
    IS_SERVED.set(false);
}

/// The task whose turn it is has the beginning of its answer.
pub(crate) fn served() {
    IS_SERVED.set(true);
}

/// The turns of one worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns {
    worker: u64,
}

impl Turns {
    /// Takes this thread, on whose runtime the seated tasks will be.
    pub(crate) fn begin() -> Self {
        let worker = NEXT_WORKER.fetch_add(1, Ordering::Relaxed);
        LINE.with(|line| line.worker.set(worker));
        drop(spawn_local("usher", usher()));
        Self { worker }
    }

    /// The same future, as one that waits for an answer until it says otherwise.
    pub(crate) fn seat<F>(self, future: F) -> Seated<F> {
        Seated {
            future,
            worker: self.worker,
            seat: None,
        }
    }
}

/// Lets those in who stand in line.
async fn usher() {
    loop {
        poll_fn(|context| LINE.with(|line| line.poll_anyone(context))).await;
        for _ in 0..AT_ONCE + UNSERVED.take() / REQUESTS_A_STREAM {
            match LINE.with(Line::next) {
                Some(seat) => seat.enter(),
                None => break,
            }
        }
        if LINE.with(|line| !line.seats.borrow().is_empty()) {
            // Comes back once the queue is empty, or long, and the sockets have been looked at.
            tokio::task::yield_now().await;
        }
    }
}

/// Those of a thread who were woken and stand outside.
struct Line {
    /// 0 is nobody's.
    worker: Cell<u64>,
    seats: RefCell<VecDeque<Arc<Seat>>>,
    usher: Cell<Option<Waker>>,
}

impl Line {
    const fn new() -> Self {
        Self {
            worker: Cell::new(0),
            seats: RefCell::new(VecDeque::new()),
            usher: Cell::new(None),
        }
    }

    /// Takes one in, if it belongs here.
    fn join(&self, seat: &Arc<Seat>) -> bool {
        if self.worker.get() != seat.worker {
            return false;
        }
        if !seat.is_in_line.swap(true, Ordering::Relaxed) {
            self.seats.borrow_mut().push_back(seat.clone());
            self.usher.take().into_iter().for_each(Waker::wake);
        }
        true
    }

    fn next(&self) -> Option<Arc<Seat>> {
        self.seats.borrow_mut().pop_front()
    }

    fn poll_anyone(&self, context: &Context<'_>) -> Poll<()> {
        if !self.seats.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.usher.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// What wakes a task, from wherever.
struct Seat {
    task: Waker,
    worker: u64,
    is_served: AtomicBool,
    is_in_line: AtomicBool,
}

impl Seat {
    fn of(task: &Waker, worker: u64) -> (Arc<Self>, Waker) {
        let seat = Arc::new(Self {
            task: task.clone(),
            worker,
            is_served: AtomicBool::new(false),
            is_in_line: AtomicBool::new(false),
        });
        (seat.clone(), Waker::from(seat))
    }

    /// Enters the runtime's queue.
    fn enter(&self) {
        self.is_in_line.store(false, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // From another thread, or one that ends, there is no line to join.
        let joins = self.is_served.load(Ordering::Relaxed);
        if !joins || !LINE.try_with(|line| line.join(self)).unwrap_or(false) {
            self.task.wake_by_ref();
        }
    }
}

pin_project! {
    /// A task that takes part.
    pub(crate) struct Seated<F> {
        #[pin]
        future: F,
        worker: u64,
        // `None` before the first turn.
        seat: Option<(Arc<Seat>, Waker)>,
    }
}

impl<F: Future> Future for Seated<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let task = context.waker();
        let moved = |(seat, _): &mut (Arc<Seat>, Waker)| !seat.task.will_wake(task);
        drop(this.seat.take_if(moved));
        let (seat, waker) = this.seat.get_or_insert_with(|| Seat::of(task, *this.worker));
        let is_served = seat.is_served.load(Ordering::Relaxed);
        IS_SERVED.set(is_served);
        if !is_served {
            UNSERVED.set(UNSERVED.get() + 1);
        }
        let polled = this.future.poll(&mut Context::from_waker(waker));
        seat.is_served.store(IS_SERVED.get(), Ordering::Relaxed);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::runtime::LocalOptions;
    use tokio::sync::Notify;

    use super::*;

    /// Who has had a turn, in order.
    type Log = Rc<RefCell<Vec<&'static str>>>;

    /// Runs on a worker's runtime.
    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(test);
    }

    async fn until(log: &Log, enough: impl Fn(&[&str]) -> bool) {
        while !enough(&log.borrow()) {
            tokio::task::yield_now().await;
        }
    }

    fn count(log: &[&str], who: &str) -> usize {
        log.iter().filter(|entry| **entry == who).count()
    }

    /// Takes a turn whenever it is told to.
    fn told(turns: Turns, log: &Log, who: &'static str, is_stream: bool) -> Rc<Notify> {
        let (log, bell) = (log.clone(), Rc::new(Notify::new()));
        let told = bell.clone();
        drop(spawn_local(
            "test",
            turns.seat(async move {
                if is_stream {
                    served();
                }
                loop {
                    log.borrow_mut().push(who);
                    told.notified().await;
                }
            }),
        ));
        bell
    }

    /// Takes all turns that it can get.
    fn busy(turns: Turns, log: &Log, who: &'static str, is_stream: bool) {
        let log = log.clone();
        drop(spawn_local(
            "test",
            turns.seat(async move {
                if is_stream {
                    served();
                }
                poll_fn(|context| {
                    log.borrow_mut().push(who);
                    context.waker().wake_by_ref();
                    Poll::<()>::Pending
                })
                .await;
            }),
        ));
    }

    #[test]
    fn a_request_goes_before_the_events_that_were_there_first() {
        run(async {
            let (turns, log) = (Turns::begin(), Log::default());
            let streams: Vec<_> = (0..100).map(|_| told(turns, &log, "stream", true)).collect();
            let request = told(turns, &log, "request", false);
            until(&log, |log| log.len() == 101).await;
            log.borrow_mut().clear();
            streams.iter().for_each(|stream| stream.notify_one());
            request.notify_one();
            until(&log, |log| log.len() == 101).await;
            assert_eq!(log.borrow()[0], "request");
        });
    }

    #[test]
    fn a_task_is_what_it_said_last() {
        run(async {
            let (turns, log) = (Turns::begin(), Log::default());
            let stream = told(turns, &log, "stream", true);
            let again = Rc::new(Notify::new());
            let (bell, order) = (again.clone(), log.clone());
            drop(spawn_local(
                "test",
                turns.seat(async move {
                    served();
                    bell.notified().await;
                    waits();
                    bell.notified().await;
                    order.borrow_mut().push("request");
                }),
            ));
            until(&log, |log| log.len() == 1).await;
            again.notify_one();
            tokio::task::yield_now().await;
            stream.notify_one();
            again.notify_one();
            until(&log, |log| log.len() == 3).await;
            assert_eq!(log.borrow()[1..], ["request", "stream"]);
        });
    }

    #[test]
    fn streams_are_late_but_never_starved() {
        run(async {
            let (turns, log) = (Turns::begin(), Log::default());
            (0..10).for_each(|_| busy(turns, &log, "request", false));
            (0..10).for_each(|_| busy(turns, &log, "stream", true));
            until(&log, |log| log.len() >= 10_000).await;
            let (streams, requests) = (count(&log.borrow(), "stream"), count(&log.borrow(), "request"));
            assert!(streams * 5 > requests, "{streams} to {requests}");
            assert!(streams < requests, "{streams} to {requests}");
        });
    }

    #[test]
    fn a_request_that_comes_during_a_burst_is_soon_seen() {
        run(async {
            let (turns, log) = (Turns::begin(), Log::default());
            let (mut here, there) = UnixStream::pair().expect("a pair");
            let reading = log.clone();
            drop(spawn_local(
                "test",
                turns.seat(async move {
                    reading.borrow_mut().push("waits");
                    let byte = here.read_u8().await;
                    reading.borrow_mut().push("request");
                    byte
                }),
            ));
            until(&log, |log| log.len() == 1).await;
            (0..200).for_each(|_| busy(turns, &log, "stream", true));
            until(&log, |log| log.len() > 500).await;
            there.try_write(b"1").expect("room");
            let before = log.borrow().len();
            until(&log, |log| count(log, "request") == 1).await;
            let answered = log.borrow().iter().position(|entry| *entry == "request");
            let streams = answered.expect("it was there") - before;
            assert!(streams <= AT_ONCE, "{streams} turns of streams");
        });
    }

    #[test]
    fn one_that_is_woken_from_elsewhere_has_its_turn() {
        run(async {
            let (turns, log) = (Turns::begin(), Log::default());
            let (bell, waiting) = tokio::sync::oneshot::channel();
            let order = log.clone();
            drop(spawn_local(
                "test",
                turns.seat(async move {
                    served();
                    order.borrow_mut().push("waits");
                    waiting.await.expect("a word");
                    order.borrow_mut().push("woken");
                }),
            ));
            until(&log, |log| log.len() == 1).await;
            std::thread::spawn(move || bell.send(()).expect("somebody listens"));
            until(&log, |log| log.len() == 2).await;
        });
    }
}
