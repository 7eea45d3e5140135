//! The connection to one Redis: made when first needed, replaced when it breaks, its state known to all.
//!
//! A broken connection is replaced at once; if that fails, or a command finds no answer in its time, the store is down:
//! requests are told so without waiting, while one task tries again, less and less often. Each change is one line in
//! the log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::sync::{Notify, mpsc, watch};
use tollgate_base::clock::{self, Instant};
use tollgate_base::task;
use tollgate_observe::metrics::{Counter, Gauge, Kind as MetricKind};

use super::address::Settings;
use super::connect::{CONNECT, Way, connect};
use crate::Failure;
use crate::place::Surroundings;

/// Pause after the first failed attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause: one that is back is found within a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection to a cluster that is younger has just looked for all nodes.
const FRESH: Duration = Duration::from_secs(1);

/// How it stands with a Redis.
#[derive(Clone)]
enum State {
    /// Nobody has needed it yet.
    Idle,
    /// A first attempt is under way.
    Connecting,
    /// Usable.
    Up(Connection),
    /// Not usable, for this reason.
    Down(Arc<str>),
}

/// A usable connection; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    number: u64,
    since: Instant,
    way: Way,
}

impl Connection {
    /// Whether an error may be the connection's as a whole. One of a cluster mends itself when a node is lost; a fresh
    /// one that fails all the same would not help.
    fn is_settled(&self) -> bool {
        match self.way {
            Way::Single(_) => true,
            Way::Cluster(_) => clock::now().saturating_duration_since(self.since) > FRESH,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.way {
            Way::Single(single) => single.req_packed_command(command),
            Way::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.way {
            Way::Single(single) => single.req_packed_commands(pipeline, offset, count),
            Way::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.way {
            Way::Single(single) => single.get_db(),
            Way::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// What breaks a connection: its number, and whether a fresh one must be had before anybody waits for it.
struct Broken {
    number: u64,
    silent: bool,
}

/// One Redis's connection.
pub(crate) struct Link {
    pub(super) settings: Settings,
    surroundings: Surroundings,
    state: watch::Sender<State>,
    broken: mpsc::UnboundedSender<Broken>,
    /// Taken by the task that keeps the connection, when the first request comes.
    reports: std::sync::Mutex<Option<mpsc::UnboundedReceiver<Broken>>>,
    /// Settlements not yet sent.
    waiting: AtomicUsize,
    settled: Notify,
    up: Gauge,
    failures: Counter,
    lost: Counter,
}

impl Link {
    pub(super) fn new(settings: Settings, surroundings: Surroundings) -> Arc<Self> {
        let (broken, reports) = mpsc::unbounded_channel();
        let name = settings.address.to_string();
        let metrics = &surroundings.metrics;
        let labels = [("store", name.as_str())];
        let counter = |name| {
            let family = metrics.family(name, MetricKind::Counter);
            family.map_or_else(|_| Counter::default(), |family| family.counter(&labels))
        };
        let gauge = metrics.family("tollgate_store_up", MetricKind::Gauge);
        let up = gauge.map_or_else(|_| Gauge::default(), |family| family.gauge(&labels));
        // Until something else is known.
        up.set(1);
        Arc::new(Self {
            up,
            failures: counter("tollgate_store_failures_total"),
            lost: counter("tollgate_store_lost_settlements_total"),
            settings,
            surroundings,
            state: watch::Sender::new(State::Idle),
            broken,
            reports: std::sync::Mutex::new(Some(reports)),
            waiting: AtomicUsize::new(0),
            settled: Notify::new(),
        })
    }

    /// Why it is down, if it is.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        match &*self.state.borrow() {
            State::Down(reason) => Some(reason.clone()),
            State::Idle | State::Connecting | State::Up(_) => None,
        }
    }

    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn settled(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.settled.notify_waiters();
        }
    }

    pub(super) fn lost(&self) {
        self.lost.increment();
    }

    /// Waits until every settlement is sent or lost.
    pub(crate) async fn flushed(&self) {
        loop {
            let notified = self.settled.notified();
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Runs one command within the settings' time. One whose connection turns out to be closed is tried again, once,
    /// on a fresh one.
    pub(super) async fn run<T, F>(self: &Arc<Self>, work: impl Fn(Connection) -> F) -> Result<T, Failure>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut number = None;
        let attempts = async {
            let mut retried = false;
            loop {
                let connection = self.connection().await?;
                number = Some(connection.number);
                let (used, is_settled) = (connection.number, connection.is_settled());
                match self.until_down(work(connection)).await? {
                    Ok(done) => return Ok(done),
                    Err(cause) if is_broken(&cause) => {
                        if is_settled {
                            self.report(used, false);
                        }
                        if std::mem::replace(&mut retried, true) {
                            return Err(Failure::Unavailable(cause.to_string().into()));
                        }
                    }
                    Err(cause) => return Err(Failure::Refused(cause.to_string())),
                }
            }
        };
        let outcome = match tokio::time::timeout(self.settings.timeout, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Some(number) = number {
                    self.report(number, true);
                }
                Err(Failure::Timeout)
            }
        };
        if outcome.is_err() {
            self.failures.increment();
        }
        outcome
    }

    /// The connection, waiting for the first attempt to make one.
    async fn connection(self: &Arc<Self>) -> Result<Connection, Failure> {
        {
            let state = self.state.borrow();
            match &*state {
                State::Up(connection) => return Ok(connection.clone()),
                State::Down(reason) => return Err(Failure::Unavailable(reason.clone())),
                State::Idle | State::Connecting => {}
            }
        }
        self.begin();
        let mut states = self.state.subscribe();
        let settled = |state: &State| matches!(state, State::Up(_) | State::Down(_));
        match states.wait_for(settled).await.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(reason)) => Err(Failure::Unavailable(reason.clone())),
            _ => Err(Failure::Unavailable("closed".into())),
        }
    }

    /// `work`, unless the store is found to be down meanwhile.
    async fn until_down<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut states = self.state.subscribe();
        tokio::select! {
            biased;
            done = work => Ok(done),
            down = states.wait_for(|state| matches!(state, State::Down(_))) => {
                let reason = match down.as_deref() {
                    Ok(State::Down(reason)) => reason.clone(),
                    _ => "closed".into(),
                };
                Err(Failure::Unavailable(reason))
            }
        }
    }

    /// Says that a connection is of no use. Before the task hears of it, nobody takes it any more.
    fn report(&self, number: u64, silent: bool) {
        let is_current = |state: &State| matches!(state, State::Up(current) if current.number == number);
        self.state.send_if_modified(|state| {
            let current = is_current(state);
            if current {
                *state = match silent {
                    true => State::Down("no answer in time".into()),
                    false => State::Connecting,
                };
            }
            current
        });
        // Nobody hears it when everything ends.
        drop(self.broken.send(Broken { number, silent }));
    }

    /// Starts the task that keeps the connection, at the first call.
    fn begin(self: &Arc<Self>) {
        let reports = {
            let mut slot = self
                .reports
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            slot.take()
        };
        let Some(reports) = reports else { return };
        self.state.send_if_modified(|state| {
            let idle = matches!(state, State::Idle);
            if idle {
                *state = State::Connecting;
            }
            idle
        });
        let keeper = Keeper {
            link: Arc::downgrade(self),
            name: self.settings.address.to_string(),
            reports,
            number: 0,
            was_down: false,
        };
        let _runtime = self.surroundings.background.enter();
        drop(task::spawn("connection to redis", keeper.keep()));
    }
}

/// An error after which the connection is of no use.
fn is_broken(cause: &RedisError) -> bool {
    cause.is_io_error() || cause.is_connection_dropped() || cause.is_unrecoverable_error()
}

/// Keeps one link connected until nobody needs it.
struct Keeper {
    link: Weak<Link>,
    name: String,
    reports: mpsc::UnboundedReceiver<Broken>,
    number: u64,
    was_down: bool,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(link) = self.link.upgrade() else { return };
            self.number += 1;
            let attempt = tokio::time::timeout(CONNECT, connect(&link.settings, &link.surroundings.places));
            let outcome = match attempt.await {
                Ok(outcome) => outcome,
                Err(_) => Err("no answer in time".to_owned()),
            };
            match outcome {
                Ok(way) => {
                    pause = FIRST_PAUSE;
                    self.is_up(&link, way);
                    drop(link);
                    match self.next_break().await {
                        None => return,
                        Some(Broken { silent: true, .. }) => self.is_down("no answer in time"),
                        Some(_) => {}
                    }
                }
                Err(reason) => {
                    drop(link);
                    self.is_down(&reason);
                    tokio::time::sleep(pause + pause.mul_f32(fastrand::f32() / 4.0)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits until the connection in force is reported; `None` when nobody can any more.
    async fn next_break(&mut self) -> Option<Broken> {
        loop {
            let broken = self.reports.recv().await?;
            if broken.number == self.number {
                return Some(broken);
            }
        }
    }

    fn is_up(&mut self, link: &Link, way: Way) {
        let number = self.number;
        link.up.set(1);
        let since = clock::now();
        link.state
            .send_replace(State::Up(Connection { number, since, way }));
        if std::mem::replace(&mut self.was_down, false) {
            tracing::info!(store = %self.name, "the store is back");
        }
    }

    fn is_down(&mut self, reason: &str) {
        let Some(link) = self.link.upgrade() else { return };
        link.up.set(0);
        link.state.send_replace(State::Down(reason.into()));
        if !std::mem::replace(&mut self.was_down, true) {
            tracing::warn!(store = %self.name, reason, "the store is down");
        }
    }
}
