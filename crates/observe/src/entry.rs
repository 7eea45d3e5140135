//! `Entry`: one request in the usage ledger, made at settlement, and `Books`, where it is entered.
//!
//! The data path's share ends here: an entry is handed on in a few hundred nanoseconds; files belong to the ledger's own
//! thread (crate `ledger`). No text of a request or an answer is in it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tollgate_base::Termination;
use tollgate_base::clock::Instant;

use crate::Record;
use crate::conversation::{Asked, Conversations, Place};
use crate::cost::{Amount, Prices};
use crate::spend::{Spend, Spent};
use crate::usage::{Source, Tokens};

/// One request in the ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Arrival.
    pub time: SystemTime,
    /// `x-request-id`.
    pub request_id: HeaderValue,
    /// Consumer that an authentication plugin recognised.
    pub consumer: Option<Arc<str>>,
    /// Route.
    pub route: Option<Arc<str>>,
    /// Model that the client asked for.
    pub model_requested: Option<Box<str>>,
    /// Model that answered.
    pub model: Option<Box<str>>,
    /// `ai-proxy`'s name of the vendor.
    pub vendor: Option<&'static str>,
    /// Counts; all 0 without a source.
    pub tokens: Tokens,
    /// Where the counts come from.
    pub source: Option<Source>,
    /// Arrival to the end of the answer.
    pub duration: Duration,
    /// Arrival to the first content of a streamed answer.
    pub first_token: Option<Duration>,
    /// What it cost; `None` without counts or without a price.
    pub cost: Option<Amount>,
    /// Currency of the cost.
    pub currency: Option<Arc<str>>,
    /// Status sent to the client; 0: none was.
    pub status: u16,
    /// How it ended.
    pub termination: Option<Termination>,
    /// Upstream attempts.
    pub attempts: u32,
    /// Arm of an experiment.
    pub arm: Option<Arc<str>>,
    /// Where it stands in a conversation.
    pub place: Option<Place>,
}

impl Entry {
    /// The entry of an exchange that is over, which takes its place among `conversations`.
    #[must_use]
    pub fn of(record: &Record, ended: Instant, prices: &Prices, conversations: &Conversations) -> Self {
        let usage = record.usage.borrow();
        let consumer = record.consumer.borrow().clone();
        let asked = Asked {
            consumer: consumer.as_deref(),
            request: record.request_id.to_str().unwrap_or_default(),
            answer: usage.answer_id.as_deref(),
            answered: usage.answered,
        };
        let turn = record.turn.take();
        let place = match record.unplaced.get() {
            true => None,
            false => conversations.place(&turn, asked),
        };
        let since = |at: Instant| at.saturating_duration_since(record.started);
        let cost = usage.source.and_then(|_| {
            let names = [usage.model.as_deref(), usage.model_requested.as_deref()];
            let rates = names.into_iter().flatten().find_map(|name| prices.rates(name));
            rates.map(|rates| rates.cost(&usage.tokens))
        });
        let answered = usage.model_name().filter(|_| usage.answered);
        Self {
            time: record.start_time,
            request_id: record.request_id.clone(),
            consumer,
            route: record.route.borrow().clone(),
            model_requested: usage.model_requested.clone(),
            model: answered.map(Into::into),
            vendor: record.vendor.get(),
            tokens: usage.tokens,
            source: usage.source,
            duration: since(ended),
            first_token: usage.first_token.map(since),
            cost,
            currency: cost.map(|_| prices.currency.clone()),
            status: record.status.get(),
            termination: record.termination.get(),
            attempts: record.attempts.get(),
            arm: record.arm.borrow().clone(),
            place,
        }
    }

    fn spent(&self) -> Spent {
        Spent {
            requests: 1,
            tokens: self.tokens.total,
            cost: self.cost.unwrap_or_default(),
        }
    }

    /// When it was settled.
    #[must_use]
    pub fn settled(&self) -> SystemTime {
        self.time.checked_add(self.duration).unwrap_or(self.time)
    }
}

/// Who takes entries. Called on the data path: returns at once, whatever the state of disk or network.
pub trait Journal: Send + Sync {
    /// Takes one entry.
    fn enter(&self, entry: Entry);
}

/// Where requests are entered; cheap to clone, shared by the process.
#[derive(Clone, Default)]
pub struct Books {
    /// Use by consumer.
    pub spend: Spend,
    /// Requests that later ones may go on from.
    pub conversations: Conversations,
    journal: Option<Arc<dyn Journal>>,
}

impl Books {
    /// Books that hand every entry to `journal`.
    #[must_use]
    pub fn new(spend: Spend, journal: Arc<dyn Journal>) -> Self {
        Self {
            spend,
            conversations: Conversations::default(),
            journal: Some(journal),
        }
    }

    /// Enters one request.
    pub fn enter(&self, entry: Entry) {
        if let Some(consumer) = &entry.consumer {
            self.spend.add(consumer, entry.settled(), entry.spent());
        }
        if let Some(journal) = &self.journal {
            journal.enter(entry);
        }
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Books").finish_non_exhaustive()
    }
}
