//! Where an answer's body ends: by its length, by chunks, or with its connection (RFC 9112 §6.3 and §7.1).
//!
//! Works on what one read brought and keeps nothing of it but a few numbers, so that a stream that waits holds no
//! buffer. Line ends of the chunked coding are CRLF and nothing else: whoever is generous here can be smuggled past.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::may_trail;

/// Payload of at least this many bytes leaves in the memory it was read into; a smaller one is copied, so that it does
/// not keep a large buffer alive.
const LARGE: usize = 4096;
/// Most digits of the size of a chunk that may have come in one read.
const PLAIN_DIGITS: usize = 6;
/// Behind a size and behind the payload.
const CHUNK_END: &[u8] = b"\r\n";
/// Most bytes of chunk extensions in one body, and of its trailers.
const MOST_ASIDE: usize = 16 * 1024;
/// Most trailer fields.
const MOST_TRAILERS: usize = 100;

/// How the end of a body is told.
#[derive(Debug)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked(Chunked),
    /// The connection's end is the body's.
    UntilClose,
}

/// What one read has brought.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Payload, all of it behind each other.
    pub data: Bytes,
    /// Trailers, which come last.
    pub trailers: Option<Box<HeaderMap>>,
    /// The body is over.
    pub ended: bool,
    /// So many bytes at the end of the input came behind the body's end.
    pub excess: usize,
    /// Why it cannot go on behind `data`.
    pub broken: Option<&'static str>,
}

impl Framing {
    /// Takes the payload out of `input`; what comes behind the body's end stays at its end.
    pub fn decode(&mut self, input: &mut BytesMut) -> Decoded {
        match self {
            Framing::Length(left) => {
                let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= count as u64;
                Decoded {
                    ended: *left == 0,
                    excess: input.len() - count,
                    data: cut_out(input, 0..count),
                    ..Decoded::default()
                }
            }
            Framing::Chunked(chunked) => chunked.decode(input),
            Framing::UntilClose => Decoded {
                data: cut_out(input, 0..input.len()),
                ..Decoded::default()
            },
        }
    }

    /// Whether the body is over before anything of it was read.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Framing::Length(0))
    }
}

fn cut_out(input: &mut BytesMut, range: Range<usize>) -> Bytes {
    if range.len() < LARGE {
        return Bytes::copy_from_slice(&input[range]);
    }
    let mut taken = input.split_to(range.end);
    taken.advance(range.start);
    taken.freeze()
}

/// State of a chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Of the chunk that is under way.
    size: u64,
    /// Bytes of extensions so far.
    aside: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    SizeStart,
    Size,
    /// Blanks behind a size.
    SizeEnd,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// In the trailers, which end with an empty line.
    Trailers,
    End,
}

/// Payload found so far: where the first run is, and, once there is another, all of it in one piece.
#[derive(Default)]
struct Runs {
    first: Range<usize>,
    joined: Vec<u8>,
}

impl Runs {
    fn add(&mut self, input: &[u8], run: Range<usize>) {
        if self.first.is_empty() {
            self.first = run;
            return;
        }
        if self.joined.is_empty() {
            self.joined.reserve_exact(input.len() - self.first.start);
            self.joined.extend_from_slice(&input[self.first.clone()]);
        }
        self.joined.extend_from_slice(&input[run]);
    }

    fn into_bytes(self, input: &mut BytesMut) -> Bytes {
        if self.joined.is_empty() {
            return cut_out(input, self.first);
        }
        self.joined.into()
    }
}

/// Where the payload of the chunk that `rest` begins with lies, if all of it is here and nothing but its size is in
/// front of it: as most are.
fn plain_chunk(rest: &[u8]) -> Option<Range<usize>> {
    let mut size = 0;
    let mut digits = 0;
    loop {
        let digit = match *rest.get(digits)? {
            b'\r' => break,
            byte @ b'0'..=b'9' => byte - b'0',
            byte @ b'a'..=b'f' => byte - b'a' + 10,
            byte @ b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        size = size * 16 + usize::from(digit);
        digits += 1;
        if digits > PLAIN_DIGITS {
            return None;
        }
    }
    let start = digits + CHUNK_END.len();
    let end = start + size;
    let is_whole = size > 0
        && rest.get(digits..start) == Some(CHUNK_END)
        && rest.get(end..end + CHUNK_END.len()) == Some(CHUNK_END);
    is_whole.then_some(start..end)
}

impl Chunked {
    fn decode(&mut self, input: &mut BytesMut) -> Decoded {
        let mut decoded = Decoded::default();
        let mut runs = Runs::default();
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            if self.state == State::Data {
                let rest = input.len() - at;
                let count = usize::try_from(self.size).map_or(rest, |size| size.min(rest));
                runs.add(input, at..at + count);
                at += count;
                self.size -= count as u64;
                if self.size == 0 {
                    self.state = State::DataReturn;
                }
                continue;
            }
            if self.state == State::SizeStart
                && let Some(run) = plain_chunk(&input[at..])
            {
                let end = at + run.end;
                runs.add(input, at + run.start..end);
                at = end + CHUNK_END.len();
                continue;
            }
            if self.state == State::End {
                decoded.excess = input.len() - at;
                break;
            }
            match self.control(byte) {
                Ok(state) => self.state = state,
                Err(reason) => {
                    decoded.broken = Some(reason);
                    break;
                }
            }
            at += 1;
        }
        decoded.data = runs.into_bytes(input);
        if self.state == State::End && decoded.broken.is_none() {
            decoded.ended = true;
            match self.take_trailers() {
                Ok(trailers) => decoded.trailers = trailers,
                Err(reason) => decoded.broken = Some(reason),
            }
        }
        decoded
    }

    /// The state behind a byte that is no payload.
    fn control(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = self
                    .size
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(u64::from(digit)));
                self.size = size.ok_or("invalid chunk size: too large")?;
                Ok(State::Size)
            }
            (State::Size | State::SizeEnd, b' ' | b'\t') => self.note_aside(State::SizeEnd),
            (State::Size | State::SizeEnd, b';') => self.note_aside(State::Extension),
            (State::Size | State::SizeEnd | State::Extension, b'\r') => Ok(State::SizeLineFeed),
            (State::Extension, b'\n') => Err("invalid chunk extension"),
            (State::Extension, _) => self.note_aside(State::Extension),
            (State::SizeLineFeed, b'\n') if self.size == 0 => Ok(State::Trailers),
            (State::SizeLineFeed, b'\n') => Ok(State::Data),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::SizeStart),
            (State::Trailers, _) => self.trailer(byte),
            (State::DataReturn | State::DataLineFeed, _) => Err("invalid chunk: longer than its size"),
            _ => Err("invalid chunk size line"),
        }
    }

    fn note_aside(&mut self, next: State) -> Result<State, &'static str> {
        self.aside += 1;
        if self.aside > MOST_ASIDE {
            return Err("chunk extensions are too large");
        }
        Ok(next)
    }

    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        if self.trailers.len() >= MOST_ASIDE {
            return Err("trailers are too large");
        }
        self.trailers.push(byte);
        if byte != b'\n' {
            return Ok(State::Trailers);
        }
        match self.trailers.as_slice() {
            b"\r\n" | [.., b'\n', b'\r', b'\n'] => Ok(State::End),
            [.., b'\r', b'\n'] => Ok(State::Trailers),
            _ => Err("invalid trailer"),
        }
    }

    fn take_trailers(&mut self) -> Result<Option<Box<HeaderMap>>, &'static str> {
        let text = std::mem::take(&mut self.trailers);
        if text.len() <= 2 {
            return Ok(None);
        }
        let invalid = "invalid trailer";
        let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&text, &mut fields) else {
            return Err(invalid);
        };
        let mut trailers = HeaderMap::with_capacity(parsed.len());
        for field in parsed {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| invalid)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| invalid)?;
            if may_trail(&name) {
                trailers.append(name, value);
            }
        }
        Ok(Some(Box::new(trailers)))
    }
}
