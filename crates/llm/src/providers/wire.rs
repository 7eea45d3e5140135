//! The seam for vendors whose wire format is not OpenAI's: one file implements [`Wire`], its row's `set_up` installs it.
//!
//! Everything here is pure. A wire gets the request in OpenAI's dialect (after customSettings, Claude conversion and
//! clean-up) and gives back OpenAI's dialect; the client's dialect is somebody else's job.

use http::HeaderMap;
use serde_json::Value;

use crate::Api;
use crate::openai::RequestFault;

use super::Provider;

/// A translation between OpenAI's dialect and a vendor's.
pub trait Wire: Send + Sync + std::fmt::Debug {
    /// Whether bodies of `api` are translated; others only have their `model` mapped.
    fn translates(&self, api: Api) -> bool;

    /// Headers, and the upstream path and query, that every request to this vendor needs, whatever its body.
    fn head(&self, _headers: &mut HeaderMap, _path: &mut String) {}

    /// The vendor's request. `request` holds the mapped model. Headers and path may be changed here too.
    ///
    /// # Errors
    /// What in the request cannot be served.
    fn request(&self, api: Api, request: &Value, outgoing: &mut Outgoing<'_>) -> Result<Value, RequestFault>;

    /// OpenAI's answer from the vendor's buffered one. `model` is the mapped model.
    ///
    /// # Errors
    /// A text for the client: the answer is no JSON, or an error in a 200.
    fn answer(&self, api: Api, model: &str, answer: &[u8]) -> Result<Value, String>;

    /// A translator for one streamed answer. `model` is the mapped model, `with_tools` says that the request had some.
    fn stream(&self, api: Api, model: &str, with_tools: bool) -> Box<dyn VendorStream>;
}

/// What a wire may change besides the body.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The provider.
    pub provider: &'a Provider,
    /// Headers of the upstream request.
    pub headers: &'a mut HeaderMap,
    /// Path and query of the upstream request.
    pub path: &'a mut String,
}

/// One event of a stream in OpenAI's dialect.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// `data: {…}`.
    Json(Value),
    /// An error inside the stream: OpenAI's `{"error":{…}}`. Nothing follows it.
    Error(Value),
    /// `data: [DONE]`.
    Done,
}

/// Translates one streamed answer of a vendor, event by event.
pub trait VendorStream {
    /// One event: its `event:` name (empty if none) and its data, lines joined.
    fn event(&mut self, name: &str, data: &str, out: &mut Vec<Chunk>);

    /// The vendor's stream ended without a transport error. Says whether the answer was whole; only then may
    /// [`Chunk::Done`] be written.
    fn end(&mut self, out: &mut Vec<Chunk>) -> Ended;
}

/// Whether a stream that ended was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The vendor said that it was done.
    Whole,
    /// It just stopped: to be treated like a cut connection.
    Truncated,
}
