//! `Format`: an access-log format, compiled to a flat list; and the capture of the headers that it names.
//!
//! An exchange uses one `Format` from its first capture to its line: the slots in a `Record` belong to that format.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tollgate_base::clock::Instant;
use tollgate_base::headers;

use super::operator::{self, Operator};
use super::value::Printer;
use crate::Record;

/// Higress's default access-log format (routing spec §18).
pub const HIGRESS_DEFAULT: &str = concat!(
    r#"{"ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%","authority":"%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%","#,
    r#""bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%","#,
    r#""downstream_local_address":"%DOWNSTREAM_LOCAL_ADDRESS%","#,
    r#""downstream_remote_address":"%DOWNSTREAM_REMOTE_ADDRESS%","duration":"%DURATION%","#,
    r#""istio_policy_status":"%DYNAMIC_METADATA(istio.mixer:status)%","method":"%REQ(:METHOD)%","#,
    r#""path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%","protocol":"%PROTOCOL%","request_id":"%REQ(X-REQUEST-ID)%","#,
    r#""requested_server_name":"%REQUESTED_SERVER_NAME%","response_code":"%RESPONSE_CODE%","#,
    r#""response_flags":"%RESPONSE_FLAGS%","route_name":"%ROUTE_NAME%","start_time":"%START_TIME%","#,
    r#""trace_id":"%REQ(X-B3-TRACEID)%","upstream_cluster":"%UPSTREAM_CLUSTER%","#,
    r#""upstream_host":"%UPSTREAM_HOST%","upstream_local_address":"%UPSTREAM_LOCAL_ADDRESS%","#,
    r#""upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%","#,
    r#""upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","#,
    r#""user_agent":"%REQ(USER-AGENT)%","x_forwarded_for":"%REQ(X-FORWARDED-FOR)%","#,
    r#""response_code_details":"%RESPONSE_CODE_DETAILS%"}"#,
    "\n"
);

/// `accessLogEncoding` of the `higress-config` ConfigMap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// The format is the line.
    #[default]
    Text,
    /// The format is a JSON object whose string values hold operators; a value that is one numeric operator is logged
    /// as a number, an unset one as `null`.
    Json,
}

/// Why a format was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {offset}")]
pub struct FormatError {
    /// Byte offset into the format's text; 0 where a JSON format as a whole is wrong.
    pub offset: usize,
    /// What is wrong, naming the operator.
    pub message: String,
}

/// What surrounds an operator, hence how its value must be dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two quotes.
    Quoted,
    /// In plain text.
    Plain,
    /// Where a JSON value is expected, in a JSON-shaped text: numbers bare, the rest in quotes, unset is `"-"`.
    Value,
    /// The same in a JSON encoding: unset is `null`.
    TypedValue,
}

/// One step of writing a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Literal(Box<[u8]>),
    Field {
        operator: Operator,
        /// `:len`: at most this many bytes of the value.
        limit: Option<usize>,
        place: Place,
    },
}

/// What to keep of a request head in one slot of `Record::request_headers`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Capture {
    Header(HeaderName),
    /// The header is there or not; its value is nobody's business.
    Secret(HeaderName),
    /// Filled only when it differs from what the client sent.
    Method,
    Authority,
    Path,
}

/// Slots that the operators of one format ask for, each kept once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slots {
    request: Vec<Capture>,
    response: Vec<Capture>,
    trailers: Vec<Capture>,
    pub(super) unavailable: Vec<&'static str>,
}

impl Slots {
    pub(super) fn method(&mut self) -> usize {
        slot(&mut self.request, Capture::Method)
    }

    pub(super) fn authority(&mut self) -> usize {
        slot(&mut self.request, Capture::Authority)
    }

    pub(super) fn path(&mut self) -> usize {
        slot(&mut self.request, Capture::Path)
    }

    pub(super) fn request_header(&mut self, name: HeaderName) -> usize {
        slot(&mut self.request, capture_of(name))
    }

    pub(super) fn response_header(&mut self, name: HeaderName) -> usize {
        slot(&mut self.response, capture_of(name))
    }

    pub(super) fn trailer(&mut self, name: HeaderName) -> usize {
        slot(&mut self.trailers, capture_of(name))
    }
}

fn slot(slots: &mut Vec<Capture>, wanted: Capture) -> usize {
    if let Some(index) = slots.iter().position(|slot| *slot == wanted) {
        return index;
    }
    slots.push(wanted);
    slots.len() - 1
}

fn capture_of(name: HeaderName) -> Capture {
    if headers::is_credential(name.as_str()) {
        return Capture::Secret(name);
    }
    Capture::Header(name)
}

impl Capture {
    fn name(&self) -> &str {
        match self {
            Capture::Header(name) | Capture::Secret(name) => name.as_str(),
            Capture::Method => ":method",
            Capture::Authority => ":authority",
            Capture::Path => ":path",
        }
    }

    /// The value of a header to keep: the first one, cheap to clone, never a secret.
    fn header(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Capture::Header(name) => {
                let value = headers.get(name)?;
                if value.is_sensitive() {
                    return Some(HeaderValue::from_static("***"));
                }
                Some(value.clone())
            }
            Capture::Secret(name) => headers.get(name).map(|_| HeaderValue::from_static("***")),
            Capture::Method | Capture::Authority | Capture::Path => None,
        }
    }
}

/// A compiled access-log format. Immutable; share it in an `Arc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    pieces: Vec<Piece>,
    slots: Slots,
}

impl Format {
    /// Higress's default line.
    #[must_use]
    pub fn higress_default() -> Self {
        // The text is a constant that a test compiles; an empty format is only the way not to panic.
        Self::parse(HIGRESS_DEFAULT).unwrap_or_else(|_| Self {
            pieces: Vec::new(),
            slots: Slots::default(),
        })
    }

    /// Compiles a text format. A missing line end is added. `%%` is a percent sign.
    ///
    /// A text that begins with `{` counts as JSON-shaped: its values are escaped so that the line stays valid JSON.
    ///
    /// # Errors
    /// An unknown operator, a bad argument, an unclosed `%`, with the place.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut compiler = Compiler::new(text.trim_start().starts_with('{'));
        compiler.text(text)?;
        if !text.ends_with('\n') {
            compiler.literal("\n");
        }
        Ok(compiler.finish())
    }

    /// Compiles `accessLogFormat` as `accessLogEncoding` says. An empty text is the default line.
    ///
    /// # Errors
    /// As [`Format::parse`]; and for [`Encoding::Json`] a text that is no JSON object.
    pub fn from_config(encoding: Encoding, text: &str) -> Result<Self, FormatError> {
        match encoding {
            _ if text.trim().is_empty() => Ok(Self::higress_default()),
            Encoding::Text => Self::parse(text),
            Encoding::Json => {
                let object = serde_json::from_str(text).map_err(|error| FormatError {
                    offset: 0,
                    message: format!("accessLogFormat is no JSON object: {error}"),
                })?;
                Self::parse_json(&object)
            }
        }
    }

    /// Compiles a JSON format object; its order of keys is kept.
    ///
    /// # Errors
    /// As [`Format::parse`], offsets counted within the string that is wrong; and when `object` is no object.
    pub fn parse_json(object: &serde_json::Value) -> Result<Self, FormatError> {
        let mut compiler = Compiler::new(true);
        super::json::compile(object, &mut compiler)?;
        Ok(compiler.finish())
    }

    /// Operators of this format that have nothing to print yet, for a warning.
    #[must_use]
    pub fn unavailable(&self) -> &[&'static str] {
        &self.slots.unavailable
    }

    /// Names behind the slots of `Record::request_headers`, in slot order. `:method`, `:authority` and `:path` are
    /// filled only when they differ from `Record::original`.
    pub fn request_headers(&self) -> impl Iterator<Item = &str> {
        self.slots.request.iter().map(Capture::name)
    }

    /// Names behind the slots of `Record::response_headers`, in slot order.
    pub fn response_headers(&self) -> impl Iterator<Item = &str> {
        self.slots.response.iter().map(Capture::name)
    }

    /// Keeps what the line will show of the request head.
    ///
    /// Call it on arrival, and again just before the head goes upstream so that `%REQ(…)%` shows what plugins made of
    /// it; the last call counts.
    pub fn capture_request(
        &self,
        record: &Record,
        method: &Method,
        authority: &str,
        path: &str,
        headers: &HeaderMap,
    ) {
        if self.slots.request.is_empty() {
            return;
        }
        let changed = |now: &str, original: &str| {
            if now == original {
                return None;
            }
            HeaderValue::from_str(now).ok()
        };
        let original = &record.original;
        let values = self.slots.request.iter().map(|slot| match slot {
            Capture::Method => changed(method.as_str(), original.method.as_str()),
            Capture::Authority => changed(authority, &original.authority),
            Capture::Path => changed(path, original.path.as_str()),
            Capture::Header(_) | Capture::Secret(_) => slot.header(headers),
        });
        let mut captured = record.request_headers.borrow_mut();
        captured.clear();
        captured.extend(values);
    }

    /// Keeps what the line will show of the response head, as it goes to the client.
    pub fn capture_response(&self, record: &Record, headers: &HeaderMap) {
        if self.slots.response.is_empty() {
            return;
        }
        let captured = self
            .slots
            .response
            .iter()
            .map(|slot| slot.header(headers))
            .collect();
        *record.response_headers.borrow_mut() = captured;
    }

    /// Keeps what the line will show of the response trailers.
    pub fn capture_trailers(&self, record: &Record, trailers: &HeaderMap) {
        if self.slots.trailers.is_empty() {
            return;
        }
        let captured = self
            .slots
            .trailers
            .iter()
            .map(|slot| slot.header(trailers))
            .collect();
        *record.response_trailers.borrow_mut() = captured;
    }

    /// Appends the line of an exchange that ended at `ended`; no allocation but `out`'s growth.
    pub fn write(&self, record: &Record, ended: Instant, out: &mut Vec<u8>) {
        self.hide(record);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Field {
                    operator,
                    limit,
                    place,
                } => {
                    let (limit, place) = (*limit, *place);
                    Printer { out, limit, place }.print(operator, record, ended);
                }
            }
        }
    }
}

impl Format {
    /// Covers kept headers that turned out to be credentials.
    fn hide(&self, record: &Record) {
        let hidden = record.hidden.borrow();
        if hidden.is_empty() {
            return;
        }
        let mut captured = record.request_headers.borrow_mut();
        for (slot, kept) in self.slots.request.iter().zip(captured.iter_mut()) {
            let is_hidden = |name: &HeaderName| {
                hidden
                    .iter()
                    .any(|hidden| hidden.eq_ignore_ascii_case(name.as_str()))
            };
            if kept.is_some() && matches!(slot, Capture::Header(name) if is_hidden(name)) {
                *kept = Some(HeaderValue::from_static("***"));
            }
        }
    }
}

/// Collects the pieces of one format.
pub(super) struct Compiler {
    pieces: Vec<Piece>,
    slots: Slots,
    pending: String,
    json: bool,
    /// Whether the text so far left a quote open.
    in_quotes: bool,
    after_backslash: bool,
}

impl Compiler {
    fn new(json: bool) -> Self {
        Self {
            pieces: Vec::new(),
            slots: Slots::default(),
            pending: String::new(),
            json,
            in_quotes: false,
            after_backslash: false,
        }
    }

    fn finish(mut self) -> Format {
        self.flush();
        Format {
            pieces: self.pieces,
            slots: self.slots,
        }
    }

    /// Adds text that is printed as it stands, and follows its quotes.
    pub(super) fn literal(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                _ if self.after_backslash => self.after_backslash = false,
                '\\' if self.in_quotes => self.after_backslash = true,
                '"' => self.in_quotes = !self.in_quotes,
                _ => {}
            }
        }
        self.pending.push_str(text);
    }

    /// Adds text with operators in it.
    fn text(&mut self, text: &str) -> Result<(), FormatError> {
        for token in tokens(text) {
            match token? {
                Token::Text(literal) => self.literal(literal),
                Token::Operator(call) => {
                    let place = match (self.in_quotes, self.json) {
                        (true, _) => Place::Quoted,
                        (false, true) => Place::Value,
                        (false, false) => Place::Plain,
                    };
                    self.field(&call, place)?;
                }
            }
        }
        Ok(())
    }

    /// Adds one operator.
    pub(super) fn field(&mut self, call: &Call<'_>, place: Place) -> Result<(), FormatError> {
        let operator =
            operator::resolve(call.name, call.argument, &mut self.slots).map_err(|message| FormatError {
                offset: call.offset,
                message,
            })?;
        self.flush();
        self.pieces.push(Piece::Field {
            operator,
            limit: call.limit,
            place,
        });
        Ok(())
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let text = std::mem::take(&mut self.pending).into_bytes();
            self.pieces.push(Piece::Literal(text.into()));
        }
    }
}

/// `%NAME(argument):limit%`.
pub(super) struct Call<'a> {
    offset: usize,
    name: &'a str,
    argument: Option<&'a str>,
    limit: Option<usize>,
}

pub(super) enum Token<'a> {
    Text(&'a str),
    Operator(Call<'a>),
}

/// Cuts a format into texts and operators.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = Result<Token<'_>, FormatError>> {
    let mut rest = text;
    let mut failed = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || failed {
            return None;
        }
        let Some(percent) = rest.find('%') else {
            return Some(Ok(Token::Text(std::mem::take(&mut rest))));
        };
        if percent > 0 {
            let (literal, tail) = rest.split_at(percent);
            rest = tail;
            return Some(Ok(Token::Text(literal)));
        }
        if rest.starts_with("%%") {
            rest = rest.get(2..).unwrap_or_default();
            return Some(Ok(Token::Text("%")));
        }
        let offset = text.len() - rest.len();
        match call(rest) {
            Ok((mut found, tail)) => {
                found.offset = offset;
                rest = tail;
                Some(Ok(Token::Operator(found)))
            }
            Err(message) => {
                failed = true;
                Some(Err(FormatError { offset, message }))
            }
        }
    })
}

/// Reads one operator at the start of `text`, which begins with `%`; gives what follows it.
fn call(text: &str) -> Result<(Call<'_>, &str), String> {
    let body = text.get(1..).unwrap_or_default();
    let length = body
        .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(body.len());
    let (name, mut rest) = body.split_at(length);
    if name.is_empty() {
        return Err("an operator's name is missing after `%` (`%%` is a percent sign)".into());
    }
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let Some((found, tail)) = inside.split_once(')') else {
            return Err(format!("%{name}(…)%: the bracket is not closed"));
        };
        argument = Some(found);
        rest = tail;
    }
    let mut limit = None;
    if let Some(tail) = rest.strip_prefix(':') {
        let digits = tail
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        limit = Some(
            number
                .parse()
                .map_err(|_| format!("%{name}%: a length must be a number after `:`"))?,
        );
        rest = tail;
    }
    let Some(rest) = rest.strip_prefix('%') else {
        return Err(format!("%{name}: the closing `%` is missing"));
    };
    let offset = 0;
    Ok((
        Call {
            offset,
            name,
            argument,
            limit,
        },
        rest,
    ))
}
