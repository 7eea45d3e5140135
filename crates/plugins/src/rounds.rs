//! Rounds: requests that a plugin makes for one exchange besides the one that passes, to repair an answer or use a
//! tool. They go through the rest of the chain or to a service by its name.
//!
//! Each is an attempt of the exchange and its tokens are the exchange's. Time and tokens of all of them together have
//! an end. Dropping the future, as when the client goes away, stops the round that is under way.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Flag};
use tollgate_body::{Request, Response};
use tollgate_observe::Record;
use tollgate_observe::metrics::Kind;
use tollgate_observe::usage::Source;
use tollgate_plugin::{Caller, Exchange, Next};

use crate::answer_watch::Weight;
use crate::token_usage::{self, Reading};

/// Counts what became of exchanges that a plugin took over.
const OUTCOMES: &str = "tollgate_plugin_outcomes_total";

/// What all rounds of one exchange may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Time of all rounds together.
    pub(crate) time: Duration,
    /// Tokens of all rounds together.
    pub(crate) tokens: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            time: Duration::from_mins(5),
            tokens: 200_000,
        }
    }
}

/// Where a round goes.
#[derive(Clone)]
pub(crate) enum Way<'w> {
    /// Through the plugins behind this one to the route's upstream.
    Chain(Next<'w>),
    /// To a cluster by name.
    Service(Rc<dyn Caller>, Cow<'w, str>),
}

/// A round's limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Time to the end of the answer.
    pub(crate) time: Duration,
    /// Bytes of the answer.
    pub(crate) bytes: usize,
}

/// The answer of a round, read whole.
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Bytes,
}

/// Why a round has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not sent: the exchange's rounds have used up their time or tokens.
    Spent,
    /// It was sent and failed.
    Failed(Error),
    /// It was sent and its time was over.
    Late,
}

/// The rounds of one exchange.
pub(crate) struct Rounds {
    record: Rc<Record>,
    ends: Option<Instant>,
    tokens: u64,
    budget: Budget,
}

impl Rounds {
    pub(crate) fn begin(exchange: &Exchange, budget: Budget) -> Self {
        Self {
            record: exchange.record.clone(),
            ends: clock::now().checked_add(budget.time),
            tokens: 0,
            budget,
        }
    }

    /// Asks a model: an attempt of the exchange, and what it costs is the exchange's.
    pub(crate) async fn ask(
        &mut self,
        exchange: &mut Exchange,
        way: &Way<'_>,
        request: Request,
        limits: Limits,
    ) -> Result<Answer, Failure> {
        if self.tokens >= self.budget.tokens {
            return Err(Failure::Spent);
        }
        let asked = request.body().known_bytes();
        let record = self.record.clone();
        let is_counted = matches!(way, Way::Service(..));
        if is_counted {
            record.attempts.set(record.attempts.get() + 1);
            record.timings.upstream_started.set(Some(clock::now()));
        }
        let read = async |response: Response| {
            record.timings.response_head.set(Some(clock::now()));
            let (head, mut body) = response.into_parts();
            let read = body.buffer("answer limit of a round", limits.bytes).await;
            Ok(Answer { head, body: read? })
        };
        let answered = self.fetch(exchange, way, request, limits.time, read).await;
        if is_counted && answered.as_ref().is_err_and(Failure::is_unknown_cluster) {
            // Nobody was asked.
            record.attempts.set(record.attempts.get().saturating_sub(1));
        }
        let answer = answered?;
        self.charge(
            asked.as_deref().unwrap_or_default(),
            answer.head.status,
            &answer.body,
        );
        Ok(answer)
    }

    /// Asks anybody else; `read` takes in the answer, within the time.
    pub(crate) async fn fetch<T>(
        &mut self,
        exchange: &mut Exchange,
        way: &Way<'_>,
        request: Request,
        time: Duration,
        read: impl AsyncFnOnce(Response) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let left = self.time_left().min(time);
        if left.is_zero() {
            return Err(Failure::Spent);
        }
        let round = async {
            let response = match way {
                Way::Chain(next) => next.run(exchange, request).await?,
                Way::Service(caller, cluster) => caller.call(cluster, request, left).await?,
            };
            read(response).await
        };
        match tokio::time::timeout(left, round).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(Failure::Failed(failure)),
            Err(_) => Err(Failure::Late),
        }
    }

    /// Takes in what an answer has cost.
    pub(crate) fn charge(&mut self, asked: &[u8], status: StatusCode, body: &[u8]) {
        let mut reading = Reading::default();
        let is_told = reading.update(body) && reading.tokens.total > 0;
        if !is_told && !status.is_success() {
            return;
        }
        let source = if is_told {
            Source::Provider
        } else {
            let tokens = &mut reading.tokens;
            tokens.input = Weight::of_json(asked).tokens();
            tokens.output = Weight::of_json(body).tokens();
            tokens.total = tokens.input + tokens.output;
            Source::Estimated
        };
        self.tokens = self.tokens.saturating_add(reading.tokens.total);
        let model = token_usage::Outline::of(body).model().map(String::into_boxed_str);
        self.record
            .usage
            .borrow_mut()
            .spend(reading.tokens, source, model);
    }

    /// Whether another round may be asked.
    pub(crate) fn may_go_on(&self) -> bool {
        self.tokens < self.budget.tokens && !self.time_left().is_zero()
    }

    fn time_left(&self) -> Duration {
        let now = clock::now();
        self.ends
            .map_or(Duration::MAX, |ends| ends.saturating_duration_since(now))
    }
}

impl Failure {
    /// The configuration has no such cluster.
    pub(crate) fn is_unknown_cluster(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.flag() == Some(Flag::NoCluster),
            _ => false,
        }
    }
}

/// Counts, once the exchange is over, what became of it.
pub(crate) fn count(exchange: &Exchange, plugin: &'static str, outcome: &'static str) {
    exchange.record.on_settle(move |_, ending| {
        if let Ok(family) = ending.metrics.family(OUTCOMES, Kind::Counter) {
            family
                .counter(&[("plugin", plugin), ("outcome", outcome)])
                .increment();
        }
    });
}
