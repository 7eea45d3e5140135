//! Content codings (RFC 9110 §8.4.1): plain bytes out of a compressed answer, piece by piece.
//!
//! Whoever only looks reads a copy beside the bytes that pass ([`Unpacked`]); `ai-proxy` asks for no coding and undoes
//! one that comes all the same. A piece is bounded, so that a small answer cannot be blown up at once, and so is the
//! window that a stream may ask for. How much may come out in all is the caller's to say.

mod formats;
mod unpacked;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame};
use tollgate_base::Error;

use crate::Body;

use formats::Format;
pub use unpacked::Unpacked;

/// Turns compressed bytes into plain ones.
pub struct Decoder {
    format: Box<dyn Format>,
    /// There may be more to come out of what was taken.
    is_full: bool,
}

impl Decoder {
    /// A decoder for a `content-encoding`; `None` for one that is not read.
    pub fn of(coding: &str) -> Option<Self> {
        let format = formats::of(coding)?;
        Some(Self {
            format,
            is_full: false,
        })
    }

    /// The next plain bytes, at most some 64 KB; `None` when more input is needed.
    ///
    /// # Errors
    /// When the bytes are not of the coding. Nothing more can be read then.
    pub fn piece(&mut self, input: &mut &[u8]) -> io::Result<Option<Bytes>> {
        let mut plain = Vec::new();
        while plain.is_empty() && (self.is_full || !input.is_empty()) {
            self.is_full = self.format.run(input, &mut plain)?;
        }
        Ok((!plain.is_empty()).then(|| plain.into()))
    }

    /// The source has ended.
    ///
    /// # Errors
    /// When the coding has not: something is missing.
    pub fn end(&mut self) -> io::Result<()> {
        match self.format.is_whole() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A body without its coding.
pub struct Decoded {
    body: Body,
    decoder: Decoder,
    /// Of a frame, what has not been decoded yet.
    pending: Bytes,
    is_over: bool,
}

impl Decoded {
    /// `body`, read by `decoder`.
    #[must_use]
    pub fn new(body: Body, decoder: Decoder) -> Self {
        Self {
            body,
            decoder,
            pending: Bytes::new(),
            is_over: false,
        }
    }

    /// The next plain bytes of what has come.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut rest: &[u8] = &self.pending;
        let piece = self.decoder.piece(&mut rest)?;
        let taken = self.pending.len() - rest.len();
        drop(self.pending.split_to(taken));
        Ok(piece)
    }

    fn broken(&mut self, cause: &io::Error) -> Error {
        self.is_over = true;
        let message = "the vendor's answer is not in the coding that it names, or not all of it came";
        Error::upstream(StatusCode::BAD_GATEWAY, "broken_content_encoding", message).with_source(cause)
    }
}

impl HttpBody for Decoded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        loop {
            match this.next() {
                Ok(Some(plain)) => return Poll::Ready(Some(Ok(Frame::data(plain)))),
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Some(Err(this.broken(&cause)))),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.pending = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None => {
                    let ended = this.decoder.end();
                    this.is_over = true;
                    return Poll::Ready(ended.err().map(|cause| Err(this.broken(&cause))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_testkit::codings::{compressed, text};

    use super::*;

    /// Everything that comes out of these frames, and the largest piece.
    fn decoded(coding: &str, bytes: &[u8], size: usize) -> io::Result<(Vec<u8>, usize)> {
        let mut decoder = Decoder::of(coding).unwrap();
        let (mut plain, mut largest) = (Vec::new(), 0);
        for mut frame in bytes.chunks(size) {
            while let Some(piece) = decoder.piece(&mut frame)? {
                largest = largest.max(piece.len());
                plain.extend_from_slice(&piece);
            }
        }
        decoder.end()?;
        Ok((plain, largest))
    }

    #[test]
    fn every_coding_in_frames_of_any_size() {
        let text = text();
        for (coding, bytes) in compressed(&text) {
            assert!(bytes.len() < text.len() / 4, "{coding}");
            for size in [1, 7, 10_000] {
                let (plain, _) = decoded(&coding.to_uppercase(), &bytes, size).unwrap();
                assert_eq!(plain, text, "{coding} {size}");
            }
        }
        assert!(Decoder::of("gzip, br").is_none());
        assert!(Decoder::of("compress").is_none());
    }

    #[test]
    fn a_bomb_comes_out_in_small_pieces() {
        let text = vec![0; 1024 * 1024];
        for (coding, bytes) in compressed(&text) {
            let (plain, largest) = decoded(coding, &bytes, bytes.len()).unwrap();
            assert!(plain == text, "{coding}");
            assert!(largest <= formats::MOST, "{coding}: {largest}");
        }
    }

    #[test]
    fn what_is_cut_or_not_of_the_coding_is_an_error() {
        for (coding, bytes) in compressed(&text()) {
            let other = decoded(
                coding,
                b"no compressed bytes at all, but a sentence of some length",
                9,
            );
            assert!(other.is_err(), "{coding}");
            assert!(decoded(coding, &bytes[..bytes.len() - 1], 9).is_err(), "{coding}");
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let frame_with_window_of =
            |log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3, 0x01, 0x00, 0x00];
        assert!(decoded("zstd", &frame_with_window_of(23), 9).is_ok());
        assert!(decoded("zstd", &frame_with_window_of(27), 9).is_err());
    }

    #[tokio::test]
    async fn a_body_loses_its_coding() {
        let text = text();
        for (coding, bytes) in compressed(&text) {
            let mut body = Body::boxed(Decoded::new(Body::bytes(bytes), Decoder::of(coding).unwrap()));
            assert_eq!(body.buffer("limit", 1 << 20).await.unwrap(), text, "{coding}");
        }
        for (coding, bytes) in compressed(&text) {
            let cut = bytes[..bytes.len() - 9].to_vec();
            let mut body = Body::boxed(Decoded::new(Body::bytes(cut), Decoder::of(coding).unwrap()));
            let failure = body.buffer("limit", 1 << 20).await.unwrap_err();
            assert_eq!(failure.reason(), "broken_content_encoding", "{coding}");
        }
        let decoder = Decoder::of("gzip").unwrap();
        let mut body = Body::boxed(Decoded::new(Body::bytes("no gzip"), decoder));
        let failure = body.buffer("limit", 1 << 20).await.unwrap_err();
        assert_eq!(failure.reason(), "broken_content_encoding");
    }
}
