//! What a request asks the model to read, looked at only once somebody needs its length.
//!
//! Most vendors tell what an answer costs: until it is clear that this one does not, or a stream begins, the body is
//! kept as it is.

use bytes::Bytes;
use tollgate_body::Body;
use tollgate_observe::Record;

use super::{Prose, is_countable};

/// Texts of a request.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The request's body. Kept until an answer begins to stream, which may take long.
    Unread { body: Bytes, countable: bool },
    /// What a stream has to be compared with.
    Read(Prose),
}

impl Default for Asked {
    fn default() -> Self {
        Self::Read(Prose::default())
    }
}

impl Asked {
    /// What a request's body asks, for whoever has no need of its own to read it: known only if all of it is there
    /// already. One that passes through is not held back for an estimate.
    pub(crate) fn at_hand(record: &Record, body: &Body) -> Self {
        match body.known_bytes() {
            Some(body) => Self::Unread {
                body,
                countable: is_countable(record),
            },
            None => Self::default(),
        }
    }

    /// An answer begins to stream: the body is let go.
    pub(crate) fn weigh(&mut self) {
        *self = Self::Read(std::mem::take(self).read());
    }

    /// The texts.
    pub(crate) fn read(self) -> Prose {
        match self {
            Self::Unread { body, countable } => Prose::of_json(&body, countable),
            Self::Read(prose) => prose,
        }
    }
}
