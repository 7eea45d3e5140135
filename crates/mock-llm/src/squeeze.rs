//! Answers under a content coding, event by event, so that each is readable when it arrives.
//!
//! gzip and deflate compress. br and zstd only wrap: both formats have blocks that hold bytes as they are (RFC 7932
//! §9.2, RFC 8878 §3.1.1.2), which every decoder reads.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::plan::Encoding;

/// Most bytes in a block that holds them as they are: what both formats can say in the same three bytes.
const BLOCK: usize = 64 * 1024;
/// Magic number, no options, a window of 2 MB.
const ZSTD_HEAD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
/// An empty last block.
const ZSTD_END: &[u8] = &[0x01, 0x00, 0x00];

/// A coding at work.
pub(crate) enum Squeeze {
    Plain,
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    /// Whether it has begun.
    Brotli(bool),
    Zstd(bool),
}

impl Squeeze {
    pub(crate) fn new(encoding: Option<Encoding>) -> Self {
        match encoding {
            None => Self::Plain,
            Some(Encoding::Gzip) => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Some(Encoding::Deflate) => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
            Some(Encoding::Brotli) => Self::Brotli(false),
            Some(Encoding::Zstd) => Self::Zstd(false),
        }
    }

    /// All of an answer.
    pub(crate) fn whole(encoding: Encoding, bytes: Bytes) -> Bytes {
        let mut squeeze = Self::new(Some(encoding));
        [squeeze.press(bytes), squeeze.finish()].concat().into()
    }

    /// Writing into memory cannot fail; an error would only shorten the output.
    pub(crate) fn press(&mut self, bytes: Bytes) -> Bytes {
        match self {
            Self::Plain => bytes,
            Self::Gzip(encoder) => {
                let _ = encoder.write_all(&bytes).and_then(|()| encoder.flush());
                std::mem::take(encoder.get_mut()).into()
            }
            Self::Deflate(encoder) => {
                let _ = encoder.write_all(&bytes).and_then(|()| encoder.flush());
                std::mem::take(encoder.get_mut()).into()
            }
            Self::Brotli(has_begun) => brotli_blocks(&bytes, has_begun).into(),
            Self::Zstd(has_begun) => zstd_blocks(&bytes, has_begun).into(),
        }
    }

    pub(crate) fn finish(&mut self) -> Bytes {
        match std::mem::replace(self, Self::Plain) {
            Self::Plain => Bytes::new(),
            Self::Gzip(encoder) => encoder.finish().unwrap_or_default().into(),
            Self::Deflate(encoder) => encoder.finish().unwrap_or_default().into(),
            // Last and empty, two bits; an empty stream has the window's bit before them.
            Self::Brotli(has_begun) => Bytes::from_static(if has_begun { &[0b11] } else { &[0b110] }),
            Self::Zstd(true) => Bytes::from_static(ZSTD_END),
            Self::Zstd(false) => [ZSTD_HEAD, ZSTD_END].concat().into(),
        }
    }
}

fn brotli_blocks(bytes: &[u8], has_begun: &mut bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for block in bytes.chunks(BLOCK) {
        // From the lowest bit: not the last (1), four nibbles of length (2), length less one (16), uncompressed (1).
        let header = ((block.len() - 1) << 3) | (1 << 19);
        // The stream begins with a bit for a window of 64 KB.
        push_header(&mut out, if *has_begun { header } else { header << 1 });
        *has_begun = true;
        out.extend_from_slice(block);
    }
    out
}

fn zstd_blocks(bytes: &[u8], has_begun: &mut bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    if !std::mem::replace(has_begun, true) {
        out.extend_from_slice(ZSTD_HEAD);
    }
    for block in bytes.chunks(BLOCK) {
        // Not the last (1), raw (2), length.
        push_header(&mut out, block.len() << 3);
        out.extend_from_slice(block);
    }
    out
}

/// The three low bytes of a block's header.
fn push_header(out: &mut Vec<u8>, header: usize) {
    out.extend(header.to_le_bytes().into_iter().take(3));
}
