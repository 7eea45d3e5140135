//! One decoder for each coding, all of one shape: [`Format::run`] takes some input and gives some output, never more
//! than [`MOST`] at a time, however small the input.

use std::io::{self, Write};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as RawZstd, InBuffer, Operation, OutBuffer};

/// Most bytes that come out of one run.
pub(crate) const MOST: usize = 64 * 1024;
/// Compressed bytes of gzip taken in one run: they grow to a thousand times as many at the most.
const GZIP_STEP: usize = MOST / 1032;
/// Largest window of zstd, as a power of two: the 8 MB that every decoder supports (RFC 9659 §3).
const ZSTD_WINDOW_LOG: u32 = 23;

/// A coding being undone.
pub(super) trait Format {
    /// Takes from the front of `input`, appends to `output`. True: there may be more to come out, even without input.
    fn run(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> io::Result<bool>;
    /// Whether what was taken is whole; asked once, at the end.
    fn is_whole(&mut self) -> bool;
}

/// The format of a `content-encoding`; `None` for one that is not read.
pub(super) fn of(coding: &str) -> Option<Box<dyn Format>> {
    match coding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Some(Box::new(Gzip(GzDecoder::new(Vec::new())))),
        "deflate" => Some(Box::new(Deflate::new())),
        "br" => Some(Box::new(Brotli::new())),
        "zstd" => Some(Box::new(Zstd::new().ok()?)),
        _ => None,
    }
}

/// Takes `count` bytes off the front.
fn advance(input: &mut &[u8], count: usize) {
    *input = input.get(count..).unwrap_or_default();
}

struct Gzip(GzDecoder<Vec<u8>>);

impl Format for Gzip {
    fn run(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        let step = input.get(..GZIP_STEP).unwrap_or(input);
        self.0.write_all(step)?;
        self.0.flush()?;
        output.append(self.0.get_mut());
        advance(input, step.len());
        Ok(false)
    }

    fn is_whole(&mut self) -> bool {
        self.0.try_finish().is_ok()
    }
}

/// HTTP's `deflate`, which is zlib's format.
struct Deflate {
    raw: Decompress,
    has_ended: bool,
}

impl Deflate {
    fn new() -> Self {
        Self {
            raw: Decompress::new(true),
            has_ended: false,
        }
    }
}

impl Format for Deflate {
    fn run(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        if self.has_ended {
            // Bytes behind the end mean nothing.
            advance(input, input.len());
            return Ok(false);
        }
        let mut piece = Vec::with_capacity(MOST);
        let before = self.raw.total_in();
        let status = self
            .raw
            .decompress_vec(input, &mut piece, FlushDecompress::None)?;
        advance(
            input,
            usize::try_from(self.raw.total_in() - before).unwrap_or(usize::MAX),
        );
        self.has_ended = status == Status::StreamEnd;
        output.extend_from_slice(&piece);
        Ok(piece.len() == piece.capacity() && !self.has_ended)
    }

    fn is_whole(&mut self) -> bool {
        self.has_ended
    }
}

struct Brotli {
    raw: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    total: usize,
    has_ended: bool,
}

impl Brotli {
    fn new() -> Self {
        let memory = StandardAlloc::default;
        Self {
            // Strict: no windows beyond the 16 MB of RFC 7932.
            raw: Box::new(BrotliState::new_strict(memory(), memory(), memory())),
            total: 0,
            has_ended: false,
        }
    }
}

impl Format for Brotli {
    fn run(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        if self.has_ended {
            advance(input, input.len());
            return Ok(false);
        }
        let start = output.len();
        output.resize(start + MOST, 0);
        let (mut left, mut taken) = (input.len(), 0);
        let (mut room, mut filled) = (MOST, start);
        let result = BrotliDecompressStream(
            &mut left,
            &mut taken,
            input,
            &mut room,
            &mut filled,
            output,
            &mut self.total,
            &mut self.raw,
        );
        output.truncate(filled);
        advance(input, taken);
        match result {
            BrotliResult::ResultSuccess => self.has_ended = true,
            BrotliResult::NeedsMoreInput => {}
            BrotliResult::NeedsMoreOutput => return Ok(true),
            BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(false)
    }

    fn is_whole(&mut self) -> bool {
        self.has_ended
    }
}

/// Zstandard (RFC 8878), any number of frames.
struct Zstd {
    raw: RawZstd<'static>,
    /// At the end of a frame.
    has_ended: bool,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut raw = RawZstd::new()?;
        raw.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
        Ok(Self {
            raw,
            has_ended: false,
        })
    }
}

impl Format for Zstd {
    fn run(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        let mut piece = vec![0; MOST];
        let mut taken = InBuffer::around(input);
        let mut given = OutBuffer::around(&mut piece[..]);
        self.has_ended = self.raw.run(&mut taken, &mut given)? == 0;
        let (taken, filled) = (taken.pos(), given.pos());
        advance(input, taken);
        output.extend_from_slice(piece.get(..filled).unwrap_or_default());
        // Behind the end of a frame nothing is left to come out, and asking again would tell of the next frame.
        Ok(filled == MOST && !self.has_ended)
    }

    fn is_whole(&mut self) -> bool {
        self.has_ended
    }
}
