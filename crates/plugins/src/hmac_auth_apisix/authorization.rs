//! The header `Authorization: Signature keyId="…",algorithm="…",headers="…",signature="…"`.

use http::header::AUTHORIZATION;
use tollgate_body::Request;

const SCHEME: &str = "Signature ";

/// What a client presents. Of a field that is there twice the last counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Authorization<'r> {
    pub(super) key: &'r str,
    pub(super) algorithm: &'r str,
    pub(super) signature: &'r str,
    /// Names of the signed headers, with blanks between them.
    pub(super) headers: &'r str,
}

impl<'r> Authorization<'r> {
    /// Reads the first such header.
    ///
    /// # Errors
    /// What is missing, as the client is told.
    pub(super) fn of(request: &'r Request) -> Result<Self, &'static str> {
        let Some(value) = request.headers().get(AUTHORIZATION) else {
            return Err("missing Authorization header");
        };
        let text = std::str::from_utf8(value.as_bytes()).ok();
        let Some(rest) = text.and_then(|text| text.strip_prefix(SCHEME)) else {
            return Err("Authorization header does not start with 'Signature '");
        };
        let mut found = Self::default();
        for (name, value) in fields(rest) {
            match name {
                "keyId" => found.key = value,
                "algorithm" => found.algorithm = value,
                "signature" => found.signature = value,
                "headers" => found.headers = value,
                _ => {}
            }
        }
        match found {
            Self { key: "", .. } | Self { signature: "", .. } => Err("keyId or signature missing"),
            Self { algorithm: "", .. } => Err("algorithm missing"),
            _ => Ok(found),
        }
    }
}

/// All `name="value"`, whatever stands between them.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (before, behind) = rest.split_once("=\"")?;
        let (value, after) = behind.split_once('"')?;
        rest = after;
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let start = before.trim_end_matches(is_word).len();
        Some((before.get(start..).unwrap_or_default(), value))
    })
}
