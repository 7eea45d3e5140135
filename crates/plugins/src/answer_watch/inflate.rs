//! A compressed answer read beside the bytes that pass: what the client gets stays compressed.
//!
//! Bounded in what comes out of it, so that a small answer cannot be blown up into a large one.

use std::io::Write;

use bytes::Bytes;
use flate2::write::{GzDecoder, ZlibDecoder};

/// Bytes that are read of one answer; what follows passes unseen.
const PLAIN_LIMIT: usize = 64 * 1024 * 1024;
/// Compressed bytes that are taken at a time; they grow to a thousand times as many at the most.
const STEP: usize = 1024;

/// A decoder that turns frames into plain bytes.
pub(crate) enum Inflating {
    Gzip(GzDecoder<Vec<u8>>, usize),
    Deflate(ZlibDecoder<Vec<u8>>, usize),
    /// Broken or too much: nothing more is seen.
    Over,
}

impl Inflating {
    /// A decoder for a `content-encoding`; `None` for one that is not read.
    pub(crate) fn of(encoding: &str) -> Option<Self> {
        match encoding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip(GzDecoder::new(Vec::new()), 0)),
            "deflate" => Some(Self::Deflate(ZlibDecoder::new(Vec::new()), 0)),
            _ => None,
        }
    }

    /// Shows what a frame holds, piece by piece.
    pub(crate) fn frame(&mut self, data: &[u8], mut show: impl FnMut(Bytes)) {
        for step in data.chunks(STEP) {
            let plain = match self {
                Self::Gzip(decoder, total) => inflate(decoder, step).map(|()| (decoder.get_mut(), total)),
                Self::Deflate(decoder, total) => inflate(decoder, step).map(|()| (decoder.get_mut(), total)),
                Self::Over => return,
            };
            let Ok((out, total)) = plain else {
                *self = Self::Over;
                return;
            };
            let piece = std::mem::take(out);
            *total += piece.len();
            let is_too_much = *total > PLAIN_LIMIT;
            if !piece.is_empty() {
                show(piece.into());
            }
            if is_too_much {
                *self = Self::Over;
            }
        }
    }
}

fn inflate(decoder: &mut impl Write, data: &[u8]) -> std::io::Result<()> {
    decoder.write_all(data)?;
    decoder.flush()
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn seen(encoding: &str, compressed: &[u8], frame: usize) -> Vec<u8> {
        let mut inflating = Inflating::of(encoding).unwrap();
        let mut plain = Vec::new();
        for data in compressed.chunks(frame) {
            inflating.frame(data, |piece| plain.extend_from_slice(&piece));
        }
        plain
    }

    #[test]
    fn both_codings_in_frames_of_any_size() {
        let text = b"data: {\"usage\":{\"prompt_tokens\":5}}\n\n".repeat(100);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut deflate = ZlibEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(&text).unwrap();
        let deflate = deflate.finish().unwrap();
        for frame in [1, 7, 10_000] {
            assert_eq!(seen("GZIP", &gzip, frame), text, "{frame}");
            assert_eq!(seen("deflate", &deflate, frame), text, "{frame}");
        }
        assert!(Inflating::of("br").is_none());
        assert_eq!(seen("gzip", b"no gzip at all", 5), b"");
    }

    #[test]
    fn a_bomb_is_left_alone() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..80 {
            gzip.write_all(&[0; 1024 * 1024]).unwrap();
        }
        let bomb = gzip.finish().unwrap();
        let mut inflating = Inflating::of("gzip").unwrap();
        let mut total = 0;
        inflating.frame(&bomb, |piece| total += piece.len());
        assert!(total <= PLAIN_LIMIT + 2 * STEP * 1100, "{total}");
        assert!(matches!(inflating, Inflating::Over));
    }
}
