//! Tokens: which one a request uses, which are set aside after failures, which others a retry may use (spec §6).
//!
//! Higress probes a token that was set aside with a request of its own. Here one real request per interval tries it,
//! and goes on with a good token when the trial fails, so that no client notices.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Secret, headers};
use tollgate_llm::providers::Provider;
use tollgate_llm::providers::config::{Failover, RetryOnFailure};
use tollgate_llm::providers::tokens::{at_random, by_consumer};

use super::request::Plan;

/// Longest time that another token's attempt may take where `retryOnFailure` sets no other.
const TRIAL_FALLBACK_LIMIT: Duration = Duration::from_secs(60);

/// The tokens of one provider.
pub(super) struct TokenPool {
    tokens: Vec<Secret>,
    retry: Option<RetryOnFailure>,
    /// Only with failover.
    health: Option<(Failover, Mutex<Vec<Health>>)>,
}

/// What is known of one token.
#[derive(Debug, Clone, Copy)]
struct Health {
    available: bool,
    failures: u64,
    successes: u64,
    /// When it may be tried again, while it is set aside.
    due: Instant,
}

/// The token of a request.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) index: usize,
    /// It was set aside, and this request tries it.
    trial: bool,
    /// The tokens that another attempt may use.
    others: Vec<usize>,
}

impl Choice {
    /// The token's text; empty if the provider has none.
    pub(super) fn token<'a>(&self, provider: &'a Provider) -> &'a str {
        provider.tokens.get(self.index).map_or("", Secret::expose)
    }
}

impl TokenPool {
    pub(super) fn new(provider: &Provider) -> Self {
        let fresh = Health {
            available: true,
            failures: 0,
            successes: 0,
            due: clock::now(),
        };
        let count = provider.tokens.len();
        let health = provider
            .failover
            .clone()
            .map(|failover| (failover, Mutex::new(vec![fresh; count])));
        Self {
            tokens: provider.tokens.clone(),
            retry: provider.retry.clone(),
            health,
        }
    }

    /// The text of one token.
    pub(super) fn token(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", Secret::expose)
    }

    /// The token for a request.
    pub(super) fn choose(&self, plan: &Plan, request_headers: &HeaderMap) -> Choice {
        let count = self.tokens.len();
        if let Some((failover, health)) = &self.health {
            return choose_healthy(failover, &mut lock(health), plan.repeatable);
        }
        let consumer = request_headers
            .get(headers::X_MSE_CONSUMER)
            .and_then(|value| value.to_str().ok())
            .filter(|name| !name.is_empty());
        let index = match consumer {
            Some(name) if plan.api.is_some_and(tollgate_llm::Api::is_stateful) => by_consumer(name, count),
            _ => at_random(count),
        };
        let others = match self.retry {
            Some(_) => (0..count).filter(|other| *other != index).collect(),
            None => Vec::new(),
        };
        Choice {
            index,
            trial: false,
            others,
        }
    }

    /// Whether a copy of the request may be needed.
    pub(super) fn needs_spare(&self, choice: &Choice) -> bool {
        !choice.others.is_empty() && (self.retry.is_some() || choice.trial)
    }

    /// Keeps the books after an answer of the vendor; says whether it was good.
    pub(super) fn settle(&self, index: usize, status: StatusCode) -> bool {
        if let Some((failover, health)) = &self.health
            && let Some(token) = lock(health).get_mut(index)
        {
            token.settle(failover, status);
        }
        status == StatusCode::OK
    }

    /// The attempts that may follow an answer with `status`.
    pub(super) fn retries(&self, choice: Choice, status: StatusCode) -> Retries {
        let retry = self.retry.as_ref().filter(|retry| retry.statuses.matches(status));
        let (count, limit) = match retry {
            Some(retry) => (retry.max_retries, retry.timeout),
            None if choice.trial => (1, TRIAL_FALLBACK_LIMIT),
            None => (0, Duration::ZERO),
        };
        Retries {
            others: choice.others,
            left: count,
            limit,
        }
    }
}

fn lock(health: &Mutex<Vec<Health>>) -> MutexGuard<'_, Vec<Health>> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A good token; now and then one that was set aside, if the request can be sent again when that goes wrong.
fn choose_healthy(failover: &Failover, health: &mut [Health], may_try: bool) -> Choice {
    let now = clock::now();
    let select = |available: bool| -> Vec<usize> {
        let each = health.iter().enumerate();
        each.filter(|(_, token)| token.available == available)
            .map(|(index, _)| index)
            .collect()
    };
    let (good, aside) = (select(true), select(false));
    let due = aside.iter().copied().find(|index| health[*index].due <= now);
    if let (Some(index), false, true) = (due, good.is_empty(), may_try) {
        health[index].due = now + failover.health_check_interval;
        return Choice {
            index,
            trial: true,
            others: good,
        };
    }
    let mut pool = if good.is_empty() { aside } else { good };
    let index = match pool.is_empty() {
        true => 0,
        false => pool.swap_remove(at_random(pool.len())),
    };
    Choice {
        index,
        trial: false,
        others: pool,
    }
}

impl Health {
    fn settle(&mut self, failover: &Failover, status: StatusCode) {
        if status == StatusCode::OK {
            self.failures = 0;
            if !self.available {
                self.successes += 1;
                self.available = self.successes >= failover.success_threshold;
            }
            return;
        }
        if !self.available || !failover.statuses.matches(status) {
            return;
        }
        self.failures += 1;
        if self.failures >= failover.failure_threshold {
            *self = Health {
                available: false,
                failures: 0,
                successes: 0,
                due: clock::now() + failover.health_check_interval,
            };
        }
    }
}

/// The tokens that are still to be tried, in random order.
pub(super) struct Retries {
    others: Vec<usize>,
    left: u64,
    limit: Duration,
}

impl Retries {
    /// Another token and the limit of its attempt.
    pub(super) fn next_token(&mut self) -> Option<(usize, Duration)> {
        if self.left == 0 || self.others.is_empty() {
            return None;
        }
        self.left -= 1;
        let position = at_random(self.others.len());
        Some((self.others.swap_remove(position), self.limit))
    }
}
