//! The trait, and what goes in and out of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tollgate_base::clock::Instant;

/// A counter with a window: how far it has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Its value.
    pub current: u64,
    /// Time until the window ends; the whole window for a counter that has not begun.
    pub reset: Duration,
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reservation {
    /// So much is reserved, in the window that ends then.
    Granted {
        /// Never more than the limit, nor than was asked for.
        amount: u64,
        /// When the window ends.
        ends: Instant,
    },
    /// It would have gone over the limit. Nothing was counted.
    Refused(Count),
}

/// What is told to a store once an exchange is over. Nobody waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Adds to a counter unless it is above its limit already; a fresh window begins where there is none.
    Charge {
        /// The counter.
        key: Arc<str>,
        /// Its limit.
        limit: u64,
        /// Its window; whole seconds.
        window: Duration,
        /// What is added.
        amount: u64,
    },
    /// Corrects a reservation to what it has come to, as long as its window lasts.
    Correct {
        /// The counter.
        key: Arc<str>,
        /// What is added; negative gives back.
        delta: i64,
        /// [`Reservation::Granted::ends`].
        ends: Instant,
    },
    /// Takes from a plain number.
    Spend {
        /// The number.
        key: Arc<str>,
        /// What is taken.
        amount: u64,
    },
}

/// Why a store could not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be reached.
    Unavailable(Arc<str>),
    /// No answer in the time that the config gives.
    Timeout,
    /// It answered with an error.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(formatter, "cannot reach the store: {cause}"),
            Self::Timeout => formatter.write_str("the store did not answer in time"),
            Self::Refused(cause) => write!(formatter, "the store refused: {cause}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Shared counters. Keys are texts; windows are whole seconds and begin with the first count (Higress's fixed window).
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Counts one, unless the counter is above `limit` already: so the value after is at most `limit + 1`, and over
    /// the limit means refused.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn take(&self, key: &str, limit: u64, window: Duration) -> Result<Count, Failure>;

    /// Reads a counter.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn read(&self, key: &str, window: Duration) -> Result<Count, Failure>;

    /// Adds `amount` if the sum stays within `limit`. An amount over the limit counts as the limit: such a request
    /// gets in when nothing else has been counted.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn reserve(
        &self,
        key: &str,
        limit: u64,
        window: Duration,
        amount: u64,
    ) -> Result<Reservation, Failure>;

    /// A plain number; `None` when it was never set.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn get(&self, key: &str) -> Result<Option<i64>, Failure>;

    /// Sets a plain number, without a window.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn set(&self, key: &str, value: i64) -> Result<(), Failure>;

    /// Adds to a plain number, which begins at 0, and gives the sum.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn add(&self, key: &str, delta: i64) -> Result<i64, Failure>;

    /// Takes a settlement and returns at once. One that the store cannot take any more is lost and counted as lost.
    fn settle(&self, settlement: Settlement);
}
