//! An incremental reader of one HTTP/1.1 response after another, by any framing: length, chunks or close.
//! Body bytes are handed on as they come; nothing is kept of them.

use crate::{find, header, hexadecimal, number};

#[derive(Debug, PartialEq, Clone, Copy)]
enum State {
    /// No answer is expected.
    Idle,
    Head,
    Length(usize),
    ChunkHead,
    Chunk(usize),
    ChunkEnd,
    Trailer,
    UntilClose,
}

/// The response that a connection is waiting for or reading.
pub struct Response {
    state: State,
    unread: Vec<u8>,
    /// Status of the last head that was read; 0 before.
    pub status: u64,
    /// The server said that it closes the connection after this response.
    pub closes: bool,
}

impl Default for Response {
    fn default() -> Self {
        Response {
            state: State::Idle,
            unread: Vec::new(),
            status: 0,
            closes: false,
        }
    }
}

impl Response {
    /// A request was sent: the next bytes are the head of its answer.
    pub fn expect(&mut self) {
        self.state = State::Head;
        self.status = 0;
        self.closes = false;
    }

    /// The answer is complete or given up.
    pub fn rest(&mut self) {
        self.state = State::Idle;
    }

    /// The connection was replaced: what was read of the old one is void.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the end of the connection is the proper end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes what was received and gives body bytes to `body`; true when a response is complete.
    pub fn feed(&mut self, received: &[u8], mut body: impl FnMut(&[u8])) -> bool {
        self.unread.extend_from_slice(received);
        let bytes = std::mem::take(&mut self.unread);
        let mut used = 0;
        let complete = loop {
            match self.step(&bytes[used..], &mut body) {
                Step::Take(count) => used += count,
                Step::Complete(count) => {
                    used += count;
                    break true;
                }
                Step::NeedMore => break false,
            }
        };
        self.unread = bytes;
        self.unread.drain(..used);
        complete
    }

    fn step(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Step {
        match self.state {
            State::Idle => Step::NeedMore,
            State::Head => match find(bytes, b"\r\n\r\n") {
                Some(end) => self.head(&bytes[..end + 2]),
                None => Step::NeedMore,
            },
            State::Length(left) => {
                let count = left.min(bytes.len());
                body(&bytes[..count]);
                self.state = State::Length(left - count);
                match count {
                    _ if count == left => Step::Complete(count),
                    0 => Step::NeedMore,
                    _ => Step::Take(count),
                }
            }
            State::ChunkHead => match end_of_line(bytes) {
                Some(end) => {
                    let length = hexadecimal(&bytes[..end]) as usize;
                    self.state = if length == 0 {
                        State::Trailer
                    } else {
                        State::Chunk(length)
                    };
                    Step::Take(end + 1)
                }
                None => Step::NeedMore,
            },
            State::Chunk(left) => {
                let count = left.min(bytes.len());
                if count == 0 {
                    return Step::NeedMore;
                }
                body(&bytes[..count]);
                self.state = if count == left {
                    State::ChunkEnd
                } else {
                    State::Chunk(left - count)
                };
                Step::Take(count)
            }
            State::ChunkEnd if bytes.len() < 2 => Step::NeedMore,
            State::ChunkEnd => {
                self.state = State::ChunkHead;
                Step::Take(2)
            }
            State::Trailer => match end_of_line(bytes) {
                Some(end) if end <= 1 => Step::Complete(end + 1),
                Some(end) => Step::Take(end + 1),
                None => Step::NeedMore,
            },
            State::UntilClose if bytes.is_empty() => Step::NeedMore,
            State::UntilClose => {
                body(bytes);
                Step::Take(bytes.len())
            }
        }
    }

    /// `head` ends with its last line's line break; the blank line follows it.
    fn head(&mut self, head: &[u8]) -> Step {
        let length = head.len() + 2;
        let status = number(head.get(9..).unwrap_or_default());
        if status == 100 {
            return Step::Take(length);
        }
        self.status = status;
        self.closes = header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let chunked =
            header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        self.state = match header(head, "content-length") {
            _ if chunked => State::ChunkHead,
            Some(length) => State::Length(number(length) as usize),
            None => State::UntilClose,
        };
        if self.state == State::Length(0) {
            Step::Complete(length)
        } else {
            Step::Take(length)
        }
    }
}

enum Step {
    Take(usize),
    Complete(usize),
    NeedMore,
}

fn end_of_line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in pieces of `size` bytes; the body, and whether the response ended with the last piece.
    fn read(wire: &str, size: usize) -> (String, bool, Response) {
        let mut response = Response::default();
        response.expect();
        let mut body = Vec::new();
        let mut complete = false;
        for piece in wire.as_bytes().chunks(size) {
            assert!(!complete, "complete before the end");
            complete = response.feed(piece, |bytes| body.extend_from_slice(bytes));
        }
        (String::from_utf8(body).expect("UTF-8"), complete, response)
    }

    #[test]
    fn every_framing_is_read_in_pieces_of_any_size() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx: y\r\n\r\n";
        let length = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 No\r\ncontent-length: 11\r\nconnection: Close\r\n\r\nhello world";
        for size in 1..chunked.len() {
            let (body, complete, response) = read(chunked, size);
            assert_eq!(
                (body.as_str(), complete, response.status),
                ("hello world", true, 200),
                "size {size}"
            );
            let (body, complete, response) = read(length, size);
            assert_eq!(
                (body.as_str(), complete, response.status),
                ("hello world", true, 429),
                "size {size}"
            );
            assert!(response.closes);
        }
    }

    #[test]
    fn without_a_length_the_connection_is_the_end() {
        let (body, complete, response) = read("HTTP/1.1 200 OK\r\n\r\nhello", 7);
        assert_eq!((body.as_str(), complete), ("hello", false));
        assert!(response.ends_with_connection());
    }

    #[test]
    fn a_cut_body_is_not_complete() {
        assert!(!read("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", 100).1);
        assert!(
            !read(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
                100
            )
            .1
        );
    }
}
