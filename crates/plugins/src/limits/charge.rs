//! What an exchange has cost in tokens, told to a store once it is over, however it ends.
//!
//! Usage comes from the record, where whoever reads the answer first has noted it; nobody waits for the store.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_base::clock::Instant;
use tollgate_body::{Request, Response, path};
use tollgate_observe::Record;
use tollgate_plugin::Exchange;
use tollgate_store::{Settlement, Store};

use crate::answer_watch::{self, Asked, Observer, Watch, Weight};
use crate::table::ParseContext;

/// Largest request body that is read for an estimate, in bytes; `ai-proxy` reads as much.
const BODY_LIMIT: usize = 100 * 1024 * 1024;
const BODY_LIMIT_NAME: &str = "admission body limit";
/// Answer tokens that are taken to come until the config's first answer has.
const FIRST_GUESS: u64 = 1024;

/// The charge for an exchange under way.
pub(crate) struct Charge(Rc<Account>);

impl Charge {
    /// Has `spend` told the tokens of this exchange at its end: input and output, as Higress charges them; without usage
    /// 0. Call it before the rest of the chain runs: a client that leaves there has had rounds that cost.
    pub(crate) fn at_the_end(
        record: &Rc<Record>,
        request: &Request,
        spend: impl FnOnce(&Record, u64) + 'static,
    ) -> Self {
        let estimable = answer_watch::is_estimable(request);
        let account = Rc::new(Account {
            estimable,
            asked: RefCell::new(match estimable {
                true => Asked::at_hand(record, request.body()),
                false => Asked::default(),
            }),
            watch: RefCell::default(),
            record: Rc::downgrade(record),
        });
        let settled = account.clone();
        record.on_settle_last(move |record, _| {
            settled.settle(record);
            let usage = record.usage.borrow();
            let tokens = usage
                .source
                .map_or(0, |_| usage.tokens.input.saturating_add(usage.tokens.output));
            drop(usage);
            spend(record, tokens);
        });
        Self(account)
    }

    /// Reads the answer where nobody further in does.
    pub(crate) fn answered(&self, record: &Record, response: &mut Response) {
        if record.usage.borrow().answers > 0 || !response.status().is_success() {
            self.0.asked.take();
            return;
        }
        let watch = Watch::begin(record, response).for_usage();
        let kind = watch.kind();
        if watch.streamed {
            self.0.asked.borrow_mut().weigh();
        }
        self.0.watch.replace(Some(Box::new(watch)));
        answer_watch::observe(response, kind, self.0.clone());
    }
}

/// What a charge knows.
struct Account {
    /// The request is one whose tokens may be estimated.
    estimable: bool,
    /// Texts of the request, if its body was at hand.
    asked: RefCell<Asked>,
    /// `None` where somebody further in reads the answer.
    watch: RefCell<Option<Box<Watch>>>,
    record: Weak<Record>,
}

impl Account {
    fn settle(&self, record: &Record) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        drop(watch.finish(record));
        if self.estimable && watch.lacks_usage(record) {
            watch.supply(record, &self.asked.take().read());
        }
    }
}

impl Observer for Rc<Account> {
    fn event(&self, data: &[u8]) {
        if let (Some(record), Some(watch)) = (self.record.upgrade(), &mut *self.watch.borrow_mut()) {
            watch.event(&record, data);
        }
    }

    fn frame(&self, data: &Bytes) {
        if let Some(watch) = &mut *self.watch.borrow_mut() {
            watch.frame(data);
        }
    }
}

/// What requests of one config are taken to cost before they are answered.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    /// Answer tokens of late, times 8, plus 1 once there was any.
    typical: AtomicU64,
}

impl Estimates {
    /// Prompt and largest answer of this request; 0 for one that asks no model.
    pub(crate) async fn of(
        &self,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<u64, tollgate_base::Error> {
        // Uploads and the like have no prompt to read; what they cost is added when they are over.
        if !answer_watch::is_estimable(request) {
            return Ok(0);
        }
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        let is_embedding = request.uri().path().ends_with("/embeddings");
        let body = request.body_mut();
        let document = match body.json(BODY_LIMIT_NAME, BODY_LIMIT).await {
            Ok(document) => document,
            Err(tollgate_body::JsonBodyError::NotJson(_)) => return Ok(self.typical()),
            Err(tollgate_body::JsonBodyError::Unread(error)) => return Err(error),
        };
        let text = document.as_str().as_bytes();
        let prompt = Weight::of_json(text).tokens();
        let answer = match is_embedding {
            true => 0,
            false => largest_answer(text).unwrap_or_else(|| self.typical()),
        };
        Ok(prompt.saturating_add(answer))
    }

    /// Answer tokens where the request sets no bound: what answers of late had.
    fn typical(&self) -> u64 {
        match self.typical.load(Ordering::Relaxed) {
            0 => FIRST_GUESS,
            known => known / 8,
        }
    }

    /// An answer had so many tokens.
    pub(crate) fn learn(&self, output: u64) {
        let output = output.min(1 << 32);
        let learnt = |known: u64| match known {
            0 => output * 8 + 1,
            known => known - known / 8 + output,
        };
        // A lost race costs one lesson.
        let known = self.typical.load(Ordering::Relaxed);
        self.typical.store(learnt(known).max(1), Ordering::Relaxed);
    }
}

/// The bound that the request sets on its answer, in every dialect.
fn largest_answer(text: &[u8]) -> Option<u64> {
    const BOUNDS: [&str; 5] = [
        "max_completion_tokens",
        "max_tokens",
        "max_output_tokens",
        "generationConfig.maxOutputTokens",
        "max_tokens_to_sample",
    ];
    let number = |at: &str| {
        path::get(text, at)
            .map(|value| value.uint())
            .filter(|number| *number > 0)
    };
    let bound = BOUNDS.into_iter().find_map(number)?;
    let choices = number("n").unwrap_or(1);
    Some(bound.saturating_mul(choices))
}

/// Tokens set aside for an exchange under way; what it does not use goes back, also when it is dropped.
pub(crate) struct Reserved {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Arc<str>,
    pub(crate) amount: u64,
    pub(crate) ends: Instant,
}

impl Reserved {
    /// The exchange has used so much.
    pub(crate) fn used(mut self, tokens: u64) {
        self.correct(tokens);
        self.amount = 0;
    }

    fn correct(&self, tokens: u64) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let delta = signed(tokens).saturating_sub(signed(self.amount));
        if delta != 0 {
            self.store.settle(Settlement::Correct {
                key: self.key.clone(),
                delta,
                ends: self.ends,
            });
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.correct(0);
        }
    }
}

/// How requests are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// While the counter is not above the limit; the cost is added afterwards.
    Check,
    /// While the estimated cost fits; corrected afterwards.
    Reserve,
}

/// The member of a config, and the annotation of a WasmPlugin that stands for it.
pub(crate) const ADMISSION: &str = "tollgate.dev/admission";

impl Admission {
    pub(crate) fn parse(config: &Value, context: &ParseContext) -> Result<Self, ConfigError> {
        let written = match config.get(ADMISSION) {
            None => context.annotation(ADMISSION).or(Some("check")),
            Some(value) => value.as_str(),
        };
        match written {
            Some("check") => Ok(Self::Check),
            Some("reserve") => Ok(Self::Reserve),
            _ => Err(ConfigError::new(ADMISSION, "must be check or reserve")),
        }
    }
}

/// Whole seconds of a wait, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_every_dialect() {
        for (body, expected) in [
            (r#"{"max_tokens":5}"#, Some(5)),
            (r#"{"max_completion_tokens":7,"max_tokens":5,"n":3}"#, Some(21)),
            (r#"{"max_output_tokens":9}"#, Some(9)),
            (r#"{"generationConfig":{"maxOutputTokens":11}}"#, Some(11)),
            (r#"{"max_tokens":0}"#, None),
            (r#"{"max_tokens":-1}"#, None),
            (r#"{}"#, None),
        ] {
            assert_eq!(largest_answer(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn estimates_follow_the_answers() {
        let estimates = Estimates::default();
        assert_eq!(estimates.typical(), FIRST_GUESS);
        estimates.learn(100);
        assert_eq!(estimates.typical(), 100);
        for _ in 0..100 {
            estimates.learn(10);
        }
        assert!((9..=17).contains(&estimates.typical()), "{}", estimates.typical());
        estimates.learn(u64::MAX);
        assert!(estimates.typical() > 0);
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(60)), 60);
        assert_eq!(seconds(Duration::ZERO), 0);
    }
}
