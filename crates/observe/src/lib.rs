//! Sight: what is recorded of a request, the access log and metrics made of it.
//!
//! The data path writes into a [`Record`] and counters; formatting and I/O happen elsewhere. Knows no plugin.
#![forbid(unsafe_code)]

pub mod access_log;
mod ai_log;
pub mod conversation;
pub mod cost;
pub mod entry;
pub mod export;
pub mod metrics;
pub mod record;
pub mod settle;
pub mod spend;
pub mod trace;
pub mod usage;
mod usual;
pub mod vocabulary;

pub use access_log::{Format, LineWriter, Sink};
pub use ai_log::{AiLog, AttributeName};
pub use cost::{Amount, Prices};
pub use entry::{Books, Entry};
pub use metrics::Metrics;
pub use record::Record;
pub use settle::{Ending, Settlement, settle};
pub use spend::{Spend, Spent};
pub use usage::Usage;
pub use usual::Usual;
pub use vocabulary::Vocabularies;
