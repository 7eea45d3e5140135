//! `Conversations`: the requests of late, by what their messages hash to, and where a new one stands among them.
//!
//! Asked once a request, at its settlement, with the [`Turn`] that was read on the way. Bounded, in memory, no text.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tollgate_base::clock;

use super::{SEED, Turn};

/// Requests that are remembered; the oldest are forgotten.
pub(super) const MOST: usize = 32_768;

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The conversation's id: the session's, else one of ours.
    pub conversation: Arc<str>,
    /// The id is one of ours and new: this request is the conversation's first.
    pub opens: bool,
    /// `x-request-id` of the request whose answer this one goes on from.
    pub parent: Option<Arc<str>>,
    /// Tools that the last answer called, separated by commas.
    pub tools: Option<Box<str>>,
}

/// A remembered request.
#[derive(Debug)]
struct Link {
    conversation: Arc<str>,
    request: Arc<str>,
    parent: Option<Arc<str>>,
    /// It got an answer: the same messages once more are a new question, not a second try.
    answered: bool,
}

/// The requests that are remembered; cheap to clone, shared by the process.
#[derive(Debug, Clone, Default)]
pub struct Conversations(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The keys are hashes already, by a seed that nobody outside knows.
    links: HashMap<u64, Arc<Link>, foldhash::fast::RandomState>,
    order: VecDeque<u64>,
}

impl Known {
    fn put(&mut self, key: u64, link: Arc<Link>) {
        if self.links.insert(key, link).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.links.remove(&oldest);
        }
    }
}

/// What is known of a request besides its turn.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who asked; histories of different consumers never meet.
    pub consumer: Option<&'a str>,
    /// `x-request-id`.
    pub request: &'a str,
    /// The vendor's id of the answer.
    pub answer: Option<&'a str>,
    /// An answer of a model came.
    pub answered: bool,
}

impl Conversations {
    /// Places a request that is over, and remembers it; `None` for one that is no part of a conversation.
    #[must_use]
    pub fn place(&self, turn: &Turn, asked: Asked<'_>) -> Option<Place> {
        if turn.is_empty() {
            return None;
        }
        let key = |sort: u8, hash: u64| SEED.hash_one((sort, hash, asked.consumer));
        let name = |sort, name: &str| key(sort, SEED.hash_one(name));
        let whole = turn.whole.map(|hash| key(0, hash));
        let session = turn.session.as_deref().map(|id| name(1, id));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |key: u64| known.links.get(&key);
        let beginnings = turn.beginnings.iter().rev().map(|hash| key(0, *hash));
        let before = turn.previous.as_deref().map(|id| name(2, id));
        let before = before.into_iter().chain(beginnings).find_map(found);
        // The same messages again: another answer to the same turn, or another try.
        let same = whole
            .and_then(found)
            .filter(|link| !turn.beginnings.is_empty() || !link.answered);
        let parent = match (before, same) {
            (_, Some(same)) => same.parent.clone(),
            (Some(before), None) => Some(before.request.clone()),
            (None, None) => session.and_then(found).map(|link| link.request.clone()),
        };
        let (conversation, opens) = match (&turn.session, same.or(before)) {
            (Some(session), _) => (Arc::from(&**session), false),
            (None, Some(link)) => (link.conversation.clone(), false),
            (None, None) => (fresh(), true),
        };
        let link = Arc::new(Link {
            conversation: conversation.clone(),
            request: asked.request.into(),
            parent: parent.clone(),
            answered: asked.answered,
        });
        let answer = asked.answer.map(|id| name(2, id));
        for key in [whole, session, answer].into_iter().flatten() {
            known.put(key, link.clone());
        }
        Some(Place {
            conversation,
            opens,
            parent,
            tools: (!turn.tools.is_empty()).then(|| turn.tools.join(",").into()),
        })
    }
}

#[cfg(test)]
impl Conversations {
    /// How many requests are remembered, and in how many places of the order.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let known = self.0.lock().unwrap();
        (known.links.len(), known.order.len())
    }
}

/// What ids of ours begin with, and the digits of the time that follows, and of what makes it different.
const OURS: &str = "conv-";
const TIME: usize = 11;
const RANDOM: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// An id that nobody had before. Time comes first: by it the ledger finds the request that has the id first.
fn fresh() -> Arc<str> {
    let time = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
    let milliseconds = time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let mut id = [0; OURS.len() + TIME + RANDOM];
    let (ours, digits) = id.split_at_mut(OURS.len());
    ours.copy_from_slice(OURS.as_bytes());
    let (of_time, of_random) = digits.split_at_mut(TIME);
    // Nearly every request gets one: `format!` takes several times as long.
    for (mut number, digits) in [(milliseconds, of_time), (fastrand::u64(..), of_random)] {
        for digit in digits.iter_mut().rev() {
            *digit = HEX.get((number & 0xf) as usize).copied().unwrap_or_default();
            number >>= 4;
        }
    }
    std::str::from_utf8(&id).unwrap_or_default().into()
}

/// When an id of ours was made, in milliseconds since 1970; `None` for a session's.
#[must_use]
pub fn made(id: &str) -> Option<i64> {
    let time = id.strip_prefix(OURS)?.get(..TIME)?;
    i64::from_str_radix(time, 16).ok()
}
