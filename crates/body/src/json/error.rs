//! What can be wrong with JSON, with a path into it, or with a body that should be JSON.

use std::fmt;

use http::StatusCode;
use tollgate_base::Error;

/// Text that is not JSON, or more of it than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    offset: usize,
    message: &'static str,
}

impl JsonError {
    pub(crate) fn new(offset: usize, message: &'static str) -> Self {
        Self { offset, message }
    }

    /// Bytes in front of the place.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What was wrong there.
    #[must_use]
    pub fn message(&self) -> &'static str {
        self.message
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.message, self.offset)
    }
}

impl std::error::Error for JsonError {}

/// A path that cannot be set or removed; mostly a fault of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError(String);

impl PathError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for PathError {}

/// Our own fault: 500.
impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        Self::gateway(StatusCode::INTERNAL_SERVER_ERROR, "json_path_invalid", error.0)
    }
}

/// Why a body did not become a document.
#[derive(Debug)]
pub enum JsonBodyError {
    /// It could not be read, or is over the limit.
    Unread(Error),
    /// It was read and is not JSON; the body still holds its bytes.
    NotJson(JsonError),
}

impl fmt::Display for JsonBodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(error) => error.fmt(formatter),
            Self::NotJson(error) => write!(formatter, "body is not valid JSON: {error}"),
        }
    }
}

impl std::error::Error for JsonBodyError {}

/// For requests: bad JSON is the client's fault, 400. Who reads an answer decides for himself.
impl From<JsonBodyError> for Error {
    fn from(error: JsonBodyError) -> Self {
        match error {
            JsonBodyError::Unread(cause) => cause,
            JsonBodyError::NotJson(_) => {
                Self::client(StatusCode::BAD_REQUEST, "request_json_invalid", error.to_string())
            }
        }
    }
}
