//! Export: what the data path hands over leaves here in batches, towards a collector.
//!
//! The data path calls [`Queue::offer`] and never waits; a [`Pipeline`] on another thread cuts batches, has an
//! [`Encoder`] write them and a [`Transport`] carry them, and tries again with growing pauses. What finds no room or no
//! collector is dropped and counted.

mod counts;
mod grpc;
mod otlp;
mod otlp_messages;
mod otlp_traces;
mod pipeline;
mod queue;
mod skywalking;
mod skywalking_messages;
mod zipkin;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;

pub use counts::Counts;
pub use otlp::Otlp;
pub use otlp_traces::OtlpTraces;
pub use pipeline::{Ending, Pipeline};
pub use queue::{Item, Queue};
pub use skywalking::SkyWalking;
pub use zipkin::Zipkin;

/// A report that the collector took, in part or as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Units that it says it refused.
    pub refused: u64,
}

/// Why a report did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Another try may help.
    Passing(String),
    /// It would be refused again.
    Final(String),
}

/// The answer to one report, read as a whole.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Head.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Trailers, empty if there are none.
    pub trailers: HeaderMap,
}

/// Writes batches of `T` in one collector's format, and reads its answers.
pub trait Encoder<T>: Send {
    /// One report: a request whose URI is the path only.
    fn encode(&self, batch: &[T]) -> http::Request<Bytes>;

    /// What the answer means.
    ///
    /// # Errors
    /// When the collector did not take it.
    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure>;
}

/// The way to one collector, under its time limit.
#[async_trait(?Send)]
pub trait Transport {
    /// Sends and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none, in one line.
    async fn send(&self, request: http::Request<Bytes>) -> Result<Answer, String>;
}

/// The way by which HTTP collectors say yes and no.
fn judge_http(answer: &Answer) -> Result<Accepted, Failure> {
    let text = || format!("status {}", answer.status);
    match answer.status {
        200..=299 => Ok(Accepted::default()),
        408 | 429 | 502 | 503 | 504 => Err(Failure::Passing(text())),
        _ => Err(Failure::Final(text())),
    }
}
