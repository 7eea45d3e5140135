//! `SseDecoder`: cuts a byte stream into events wherever the network cut it into frames.
//!
//! The cuts depend on the bytes alone, never on the frames. It looks at each byte once and copies an event only
//! when that lies in several frames. It interprets nothing: that is [`SseEvent`]'s work.

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use memchr::memchr2;
use tollgate_base::Error;

use super::{BYTE_ORDER_MARK, SseEvent};

/// Largest event in bytes that a decoder takes unless told otherwise; a generated picture may be one event.
pub const DEFAULT_EVENT_LIMIT: usize = 16 * 1024 * 1024;
/// Name of the limit in errors.
pub const EVENT_LIMIT_NAME: &str = "sse_event_limit";

/// Incremental decoder of one stream.
#[derive(Debug)]
pub struct SseDecoder {
    /// Bytes of the current event that came in earlier frames.
    earlier: BytesMut,
    frame: Bytes,
    /// Where the current event begins in `frame`.
    start: usize,
    /// The first byte of `frame` that was not looked at.
    position: usize,
    line_is_empty: bool,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_carriage_return: bool,
    last_line_end_was_crlf: bool,
    /// The blank line of a CRLF stream has its CR: the event is whole once the next byte is known.
    whole_but_for_line_feed: bool,
    mark: Mark,
    limit_name: &'static str,
    limit: usize,
    failed: bool,
}

/// How much of a byte order mark the stream began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// So many of its bytes came, nothing else yet.
    Matching(usize),
    /// The current event begins with it.
    InThisEvent,
    None,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::with_limit(EVENT_LIMIT_NAME, DEFAULT_EVENT_LIMIT)
    }
}

impl SseDecoder {
    /// A decoder with the default limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder for events of at most `limit` bytes; the error of a larger one says `limit_name`.
    #[must_use]
    pub fn with_limit(limit_name: &'static str, limit: usize) -> Self {
        Self {
            earlier: BytesMut::new(),
            frame: Bytes::new(),
            start: 0,
            position: 0,
            line_is_empty: true,
            after_carriage_return: false,
            last_line_end_was_crlf: true,
            whole_but_for_line_feed: false,
            mark: Mark::Matching(0),
            limit_name,
            limit,
            failed: false,
        }
    }

    /// Takes the next frame in; the events that end in it come from the iterator, or later from
    /// [`SseDecoder::next_event`].
    pub fn push(&mut self, frame: Bytes) -> Decoded<'_> {
        if self.position == self.frame.len() {
            self.keep_the_rest();
            self.frame = frame;
        } else {
            // The last frame was not read to its end.
            let unread = self.frame.split_off(self.position);
            self.keep_the_rest();
            let mut both = BytesMut::with_capacity(unread.len() + frame.len());
            both.extend_from_slice(&unread);
            both.extend_from_slice(&frame);
            self.frame = both.freeze();
        }
        Decoded(self)
    }

    /// The data of the event that `frame` begins with, and what follows it, if the event is one line of data, whole and
    /// with nothing of it in earlier frames: then it need not be decoded. Such events count as pushed and taken.
    pub(crate) fn next_plain<'f>(&mut self, frame: &'f [u8]) -> Option<(&'f [u8], &'f [u8])> {
        let line = frame.strip_prefix(b"data: ")?;
        if !self.is_between_events() || frame.len() > self.limit {
            return None;
        }
        let length = memchr2(b'\n', b'\r', line)?;
        let (data, behind) = line.split_at(length);
        let (is_crlf, rest) = match behind.strip_prefix(b"\n\n") {
            Some(rest) => (false, rest),
            None => (true, behind.strip_prefix(b"\r\n\r\n")?),
        };
        self.mark = Mark::None;
        self.last_line_end_was_crlf = is_crlf;
        Some((data, rest))
    }

    /// Behind an event: forgets what was not read of the frame, and says how much it is.
    pub(crate) fn take_unread(&mut self) -> usize {
        let unread = self.frame.len() - self.position;
        self.frame = Bytes::new();
        (self.start, self.position) = (0, 0);
        unread
    }

    /// Whether the next byte is the first one of an event.
    fn is_between_events(&self) -> bool {
        self.frame.is_empty()
            && self.earlier.is_empty()
            && !self.failed
            && !self.after_carriage_return
            && matches!(self.mark, Mark::None | Mark::Matching(0))
    }

    /// The next whole event of the frames so far; `None` when more bytes are needed.
    ///
    /// # Errors
    /// Blames the upstream for an event over the limit; there are no more events after it.
    pub fn next_event(&mut self) -> Option<Result<SseEvent, Error>> {
        if self.failed {
            return None;
        }
        self.match_mark();
        while let Some(next) = self.frame.get(self.position).copied() {
            if std::mem::take(&mut self.after_carriage_return) {
                self.last_line_end_was_crlf = next == b'\n';
                self.position += usize::from(next == b'\n');
                if std::mem::take(&mut self.whole_but_for_line_feed) {
                    return Some(self.cut());
                }
                continue;
            }
            let rest = &self.frame[self.position..];
            let found = if next == b'\n' {
                Some(0)
            } else {
                memchr2(b'\n', b'\r', rest)
            };
            let Some(length) = found else {
                self.line_is_empty = false;
                self.position = self.frame.len();
                break;
            };
            self.position += length;
            let blank = std::mem::replace(&mut self.line_is_empty, true) && length == 0;
            self.after_carriage_return = self.frame[self.position] == b'\r';
            self.position += 1;
            // Only in a stream of CRLF is it worth waiting for the LF: one of bare CR would always be an event late.
            self.whole_but_for_line_feed = blank && self.after_carriage_return && self.last_line_end_was_crlf;
            if !self.after_carriage_return {
                self.last_line_end_was_crlf = false;
            }
            if blank && !self.whole_but_for_line_feed {
                return Some(self.cut());
            }
        }
        self.keep_the_rest();
        (self.earlier.len() > self.limit).then(|| Err(self.too_large()))
    }

    /// What the stream ended with: an event without its blank line, marked incomplete unless it holds nothing but
    /// line ends. Call it once, after the last event.
    #[must_use]
    pub fn finish(&mut self) -> Option<SseEvent> {
        self.keep_the_rest();
        let raw = std::mem::take(&mut self.earlier).freeze();
        if self.failed || raw.is_empty() {
            return None;
        }
        let text = if self.mark == Mark::InThisEvent {
            &raw[BYTE_ORDER_MARK.len()..]
        } else {
            &raw[..]
        };
        let whole = self.whole_but_for_line_feed || text.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        let end = raw.len();
        Some(SseEvent::cut_from(raw, 0, end, self.take_mark()).mark_incomplete(!whole))
    }

    fn match_mark(&mut self) {
        while let Mark::Matching(matched) = self.mark {
            let Some(next) = self.frame.get(self.position) else {
                return;
            };
            if *next != BYTE_ORDER_MARK[matched] {
                self.mark = Mark::None;
                self.line_is_empty = matched == 0;
                return;
            }
            self.position += 1;
            self.mark = if matched + 1 == BYTE_ORDER_MARK.len() {
                Mark::InThisEvent
            } else {
                Mark::Matching(matched + 1)
            };
        }
    }

    fn take_mark(&mut self) -> bool {
        std::mem::replace(&mut self.mark, Mark::None) == Mark::InThisEvent
    }

    fn cut(&mut self) -> Result<SseEvent, Error> {
        let (start, end) = (self.start, self.position);
        if self.earlier.len() + (end - start) > self.limit {
            return Err(self.too_large());
        }
        self.start = end;
        let marked = self.take_mark();
        if self.earlier.is_empty() {
            return Ok(SseEvent::cut_from(self.frame.clone(), start, end, marked));
        }
        let mut whole = std::mem::take(&mut self.earlier);
        whole.extend_from_slice(&self.frame[start..end]);
        let length = whole.len();
        Ok(SseEvent::cut_from(whole.freeze(), 0, length, marked))
    }

    /// Puts the begun event aside and lets the frame go.
    fn keep_the_rest(&mut self) {
        self.frame.advance(self.start);
        self.earlier.extend_from_slice(&self.frame);
        self.frame = Bytes::new();
        self.start = 0;
        self.position = 0;
    }

    fn too_large(&mut self) -> Error {
        self.failed = true;
        self.earlier = BytesMut::new();
        self.frame = Bytes::new();
        (self.start, self.position) = (0, 0);
        let message = format!(
            "upstream sent an event that is too large: {} is {} bytes",
            self.limit_name, self.limit
        );
        Error::upstream(StatusCode::BAD_GATEWAY, "sse_event_too_large", message)
    }
}

/// The events that end in the frame just pushed.
#[derive(Debug)]
pub struct Decoded<'a>(&'a mut SseDecoder);

impl Iterator for Decoded<'_> {
    type Item = Result<SseEvent, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_event()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Raw text of each event and whether it is incomplete.
    fn decode<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
        let mut decoder = SseDecoder::new();
        let mut events = Vec::new();
        for frame in frames {
            events.extend(decoder.push(Bytes::copy_from_slice(frame)).map(Result::unwrap));
        }
        events.extend(decoder.finish());
        events
            .iter()
            .map(|event| (event.raw().to_vec(), event.is_incomplete()))
            .collect()
    }

    fn texts(input: &str) -> Vec<String> {
        decode([input.as_bytes()])
            .into_iter()
            .map(|(raw, _)| String::from_utf8(raw).unwrap())
            .collect()
    }

    #[test]
    fn each_kind_of_line_end_ends_an_event() {
        assert_eq!(texts("data: a\n\ndata: b\n\n"), ["data: a\n\n", "data: b\n\n"]);
        assert_eq!(
            texts("data: a\r\n\r\ndata: b\r\n\r\n"),
            ["data: a\r\n\r\n", "data: b\r\n\r\n"]
        );
        assert_eq!(texts("data: a\r\rdata: b\r\r"), ["data: a\r\r", "data: b\r\r"]);
        assert_eq!(
            texts("data: a\n\r\ndata: b\r\n\n"),
            ["data: a\n\r", "\ndata: b\r\n\n"]
        );
        assert_eq!(
            texts("data: a\r\n\rdata: b\n\r"),
            ["data: a\r\n\r", "data: b\n\r"]
        );
    }

    #[test]
    fn blank_lines_and_comments_are_events_of_their_own() {
        assert_eq!(
            texts(": ping\n\n\ndata: a\n\n\r\n"),
            [": ping\n\n", "\n", "data: a\n\n", "\r", "\n"]
        );
        assert_eq!(
            texts("\r\n\r\ndata: a\r\n\r\n"),
            ["\r\n", "\r\n", "data: a\r\n\r\n"]
        );
    }

    #[test]
    fn bare_carriage_returns_are_not_an_event_late() {
        let mut decoder = SseDecoder::new();
        assert_eq!(decoder.push(Bytes::from_static(b"data: a\r\r")).count(), 1);
        assert_eq!(decoder.push(Bytes::from_static(b"data: b\r\n\r")).count(), 0);
        let rest: Vec<_> = decoder
            .push(Bytes::from_static(b"\n"))
            .map(Result::unwrap)
            .collect();
        assert_eq!(rest[0].raw(), b"data: b\r\n\r\n");
    }

    #[test]
    fn a_stream_that_ends_inside_an_event_says_so() {
        assert_eq!(
            decode([&b"data: a\n\ndata: b\n"[..]]),
            [(b"data: a\n\n".to_vec(), false), (b"data: b\n".to_vec(), true)]
        );
        assert_eq!(
            decode([&b"data: a\r\n\r"[..]]),
            [(b"data: a\r\n\r".to_vec(), false)]
        );
        assert_eq!(decode([&b"\xEF\xBB"[..]]), [(b"\xEF\xBB".to_vec(), true)]);
        assert_eq!(decode([&b""[..]]), []);
    }

    #[test]
    fn a_byte_order_mark_is_kept_and_not_read() {
        for frames in [
            &[&b"\xEF\xBB\xBFdata: a\n\n"[..]][..],
            &[b"\xEF", b"\xBB", b"\xBFdata: a\n\n"],
        ] {
            let mut decoder = SseDecoder::new();
            let events: Vec<_> = frames
                .iter()
                .flat_map(|frame| decoder.push(Bytes::copy_from_slice(frame)).collect::<Vec<_>>())
                .map(Result::unwrap)
                .collect();
            assert_eq!(events[0].data().as_deref(), Some("a"));
            assert_eq!(events[0].raw(), b"\xEF\xBB\xBFdata: a\n\n");
        }
        assert_eq!(
            decode([&b"\xEF\xBB\xBF\ndata: a\n\n"[..]])[0].0,
            b"\xEF\xBB\xBF\n"
        );
    }

    #[test]
    fn an_event_over_the_limit_is_an_error_and_the_end() {
        let exactly = b"data: 89\n\n";
        for input in [&b"data: 890\n\n"[..], b"data: 89012", b"data: 890\n\ndata: a\n\n"] {
            for size in [1, 4, 64] {
                let mut decoder = SseDecoder::with_limit("test_limit", exactly.len());
                let outcome: Vec<_> = std::iter::once(&exactly[..])
                    .chain(input.chunks(size))
                    .flat_map(|frame| decoder.push(Bytes::copy_from_slice(frame)).collect::<Vec<_>>())
                    .collect();
                assert_eq!(outcome.len(), 2, "{input:?} in frames of {size}");
                assert_eq!(outcome[0].as_ref().unwrap().raw(), exactly);
                let error = outcome[1].as_ref().unwrap_err();
                assert_eq!(error.reason(), "sse_event_too_large");
                assert!(error.message().contains("test_limit is 10 bytes"));
                assert!(decoder.finish().is_none());
            }
        }
    }

    #[test]
    fn an_event_within_one_frame_is_not_copied() {
        let frame = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        let mut decoder = SseDecoder::new();
        let events: Vec<_> = decoder.push(frame.clone()).map(Result::unwrap).collect();
        assert_eq!(events[1].raw().as_ptr(), frame[9..].as_ptr());
    }

    #[test]
    fn a_frame_pushed_before_the_last_was_read_waits_its_turn() {
        let mut decoder = SseDecoder::new();
        decoder
            .push(Bytes::from_static(b"data: a\n\ndata: b\n\nda"))
            .next();
        let rest: Vec<_> = decoder
            .push(Bytes::from_static(b"ta: c\n\n"))
            .map(|event| event.unwrap().raw().to_vec())
            .collect();
        assert_eq!(rest, [&b"data: b\n\n"[..], b"data: c\n\n"]);
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_depend_on_the_frames(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r", "data: x", "data", ":", "event: e", "\u{feff}", "é",
                ]),
                0..40,
            ),
            seed in prop::collection::vec(1_usize..6, 1..8),
        ) {
            let input = pieces.concat().into_bytes();
            let whole = decode([&input[..]]);
            prop_assert_eq!(whole.iter().flat_map(|event| event.0.clone()).collect::<Vec<_>>(), input.clone());
            prop_assert_eq!(&decode(input.chunks(1)), &whole);
            let mut frames = Vec::new();
            let mut rest = &input[..];
            for size in seed.iter().cycle() {
                if rest.is_empty() { break }
                let (frame, behind) = rest.split_at((*size).min(rest.len()));
                frames.push(frame);
                rest = behind;
            }
            prop_assert_eq!(decode(frames), whole);
        }

        #[test]
        fn any_bytes_come_out_as_they_went_in(input in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..50) {
            let whole = decode([&input[..]]);
            prop_assert_eq!(whole.iter().flat_map(|event| event.0.clone()).collect::<Vec<_>>(), input.clone());
            prop_assert_eq!(decode(input.chunks(size)), whole);
        }
    }
}
