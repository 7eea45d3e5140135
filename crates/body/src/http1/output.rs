//! Bytes on their way out: a head, and a body behind it in the framing that the head announced.
//!
//! Holds what its writer has not taken yet, never more than one frame beyond [`Output::has_room`]; who feeds it asks
//! for room first, so that a slow reader holds the source back.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::fields::{may_trail, write_field};

/// Ends a chunk.
const CHUNK_END: &[u8] = b"\r\n";
/// Ends the last chunk and the body.
const LAST_END: &[u8] = b"\r\n0\r\n\r\n";
/// Frames that are ready together leave together up to this many bytes.
const COALESCED: usize = 16 * 1024;
/// Data up to this size is copied behind what waits: one piece is written for less than three.
const COPIED: usize = 4 * 1024;
/// Room for what most writes are.
const USUAL: usize = 2 * 1024;
/// Most room that is kept between writes.
const KEPT: usize = 32 * 1024;

thread_local! {
    /// What the last writer no longer needs: a stream that waits holds no room.
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// An empty vector with room for what most writes are.
#[must_use]
pub fn room() -> Vec<u8> {
    SPARE.take().unwrap_or_else(|| Vec::with_capacity(USUAL))
}

/// How a body that is sent tells its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The connection's end is the body's.
    UntilClose,
}

/// A body that is not as long as its head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It goes on behind its end.
    Longer,
    /// It ends before its end.
    Shorter,
}

/// The line in front of a chunk.
fn write_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = *b"0000000000000000\r\n";
    let (mut rest, mut at) = (size, 16);
    while rest > 0 && at > 0 {
        at -= 1;
        line[at] = DIGITS[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&line[at..]);
}

/// What waits to be written.
#[derive(Debug)]
pub struct Output {
    /// The head, then the size line of each chunk.
    before: Vec<u8>,
    written: usize,
    data: Bytes,
    behind: &'static [u8],
    framing: Outbound,
}

impl Output {
    /// A head, and as much of the body as is at hand; `framing` is of what comes behind that.
    #[must_use]
    pub fn new(head: Vec<u8>, data: Bytes, framing: Outbound) -> Self {
        let mut output = Self {
            before: head,
            written: 0,
            data: Bytes::new(),
            behind: b"",
            framing,
        };
        output.join(data, b"");
        output
    }

    /// Whether everything is out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.data.is_empty() && self.behind.is_empty()
    }

    /// Whether another frame may join what waits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.before.len() - self.written + self.data.len() < COALESCED
    }

    /// Adds a frame of the body; `is_last`: nothing comes behind it.
    ///
    /// # Errors
    /// When the body is longer or shorter than announced; nothing of the frame is added then.
    pub fn push(&mut self, data: Bytes, is_last: bool) -> Result<(), Misfit> {
        match &mut self.framing {
            Outbound::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Misfit::Longer)?;
                self.join(data, b"");
            }
            Outbound::UntilClose => self.join(data, b""),
            Outbound::Chunked if data.is_empty() => {}
            Outbound::Chunked => {
                self.make_room();
                write_size(&mut self.before, data.len());
                let behind = if is_last { LAST_END } else { CHUNK_END };
                self.join(data, behind);
                return Ok(());
            }
        }
        if is_last { self.end(None) } else { Ok(()) }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When it is shorter than announced.
    pub fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Misfit> {
        match self.framing {
            Outbound::Length(0) | Outbound::UntilClose => Ok(()),
            Outbound::Length(_) => Err(Misfit::Shorter),
            Outbound::Chunked => {
                self.make_room();
                self.before.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if may_trail(name) {
                        write_field(&mut self.before, name.as_str(), value.as_bytes());
                    }
                }
                self.before.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    fn join(&mut self, data: Bytes, behind: &'static [u8]) {
        self.make_room();
        if data.len() <= COPIED {
            self.before.extend_from_slice(&data);
            self.before.extend_from_slice(behind);
        } else {
            self.data = data;
            self.behind = behind;
        }
    }

    /// Makes one piece of what waits, so that something can follow.
    fn make_room(&mut self) {
        if self.before.capacity() == 0 {
            self.before = room();
        }
        if !self.data.is_empty() || !self.behind.is_empty() {
            self.before.extend_from_slice(&self.data);
            self.before.extend_from_slice(self.behind);
            self.data = Bytes::new();
            self.behind = b"";
        }
    }

    /// Writes once; ready with the number of bytes taken.
    ///
    /// # Errors
    /// The stream's own, and one that takes nothing.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = self.before.get(self.written..).unwrap_or_default();
        if self.data.is_empty() && self.behind.is_empty() {
            let taken = ready!(Pin::new(stream).poll_write(context, before))?;
            return Poll::Ready(self.took(taken));
        }
        let slices = [
            IoSlice::new(before),
            IoSlice::new(&self.data),
            IoSlice::new(self.behind),
        ];
        let taken = ready!(Pin::new(stream).poll_write_vectored(context, &slices))?;
        Poll::Ready(self.took(taken))
    }

    /// So many bytes are out.
    fn took(&mut self, taken: usize) -> io::Result<usize> {
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_before = taken.min(self.before.len() - self.written);
        self.written += of_before;
        if self.written == self.before.len() {
            self.give_up_room();
        }
        if taken > of_before {
            self.took_data(taken - of_before);
        }
        Ok(taken)
    }

    fn took_data(&mut self, taken: usize) {
        let of_data = taken.min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        self.behind = self.behind.get(taken - of_data..).unwrap_or_default();
    }

    /// What has been sent is not kept.
    fn give_up_room(&mut self) {
        self.written = 0;
        let mut spare = std::mem::take(&mut self.before);
        if (1..=KEPT).contains(&spare.capacity()) {
            spare.clear();
            SPARE.set(Some(spare));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_sixteens() {
        for size in [1, 9, 15, 16, 255, 4096, 1_048_575, usize::MAX] {
            let mut out = Vec::new();
            write_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }

    /// Takes so many bytes at a time.
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = data.len().min(self.1);
            self.0.extend_from_slice(&data[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(self.1);
            self.0.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn nothing_is_lost_whatever_is_taken_at_a_time() {
        let expected = "HEAD\r\n\r\n2\r\nab\r\n1\r\nc\r\n3\r\ndef\r\n0\r\n\r\n";
        for step in 1..=expected.len() {
            let mut stream = Narrow(Vec::new(), step);
            let mut context = Context::from_waker(std::task::Waker::noop());
            let mut output = Output::new(b"HEAD\r\n\r\n".to_vec(), Bytes::new(), Outbound::Chunked);
            for (index, piece) in ["ab", "c", "", "def"].into_iter().enumerate() {
                output
                    .push(Bytes::from_static(piece.as_bytes()), index == 3)
                    .expect("fits");
                // Half of it goes out before the next piece comes.
                assert!(output.poll_write(&mut stream, &mut context).is_ready());
            }
            while !output.is_empty() {
                assert!(output.poll_write(&mut stream, &mut context).is_ready());
            }
            assert_eq!(String::from_utf8_lossy(&stream.0), expected, "by {step}");
        }
    }

    #[test]
    fn a_body_has_the_length_that_was_announced() {
        let mut output = Output::new(Vec::new(), Bytes::new(), Outbound::Length(3));
        assert_eq!(
            output.push(Bytes::from_static(b"abcd"), true),
            Err(Misfit::Longer)
        );
        assert_eq!(output.push(Bytes::from_static(b"ab"), true), Err(Misfit::Shorter));
        assert_eq!(output.push(Bytes::from_static(b"c"), true), Ok(()));
    }
}
