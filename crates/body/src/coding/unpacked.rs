//! A compressed answer read beside the bytes that pass: what the client gets stays compressed.
//!
//! Bounded in what comes out of it, so that a small answer cannot be blown up into a large one.

use bytes::Bytes;

use super::Decoder;

/// Plain bytes that are read of one answer; what follows passes unseen.
const PLAIN_LIMIT: usize = 64 * 1024 * 1024;

/// The plain bytes of frames that pass.
pub struct Unpacked {
    /// `None` once it is broken or too much: nothing more is seen.
    decoder: Option<Decoder>,
    /// Plain bytes that are still read.
    left: usize,
}

impl Unpacked {
    /// For a `content-encoding`; `None` for one that is not read.
    #[must_use]
    pub fn of(coding: &str) -> Option<Self> {
        let decoder = Some(Decoder::of(coding)?);
        Some(Self {
            decoder,
            left: PLAIN_LIMIT,
        })
    }

    /// Whether there is something left to see.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.decoder.is_some()
    }

    /// Shows what a frame holds, piece by piece.
    pub fn frame(&mut self, data: &[u8], mut show: impl FnMut(Bytes)) {
        let mut rest = data;
        while let Some(decoder) = &mut self.decoder {
            match decoder.piece(&mut rest) {
                Ok(Some(plain)) => {
                    let left = self.left.checked_sub(plain.len());
                    show(plain);
                    match left {
                        Some(left) => self.left = left,
                        None => self.decoder = None,
                    }
                }
                Ok(None) => return,
                Err(_) => self.decoder = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_testkit::codings::{compressed, text};

    #[test]
    fn frames_of_any_size_are_read() {
        let text = text();
        for (coding, bytes) in compressed(&text) {
            for size in [1, 7, 10_000] {
                let mut unpacked = Unpacked::of(coding).unwrap();
                let mut plain = Vec::new();
                for frame in bytes.chunks(size) {
                    unpacked.frame(frame, |piece| plain.extend_from_slice(&piece));
                }
                assert_eq!(plain, text, "{coding} {size}");
            }
        }
        Unpacked::of("gzip")
            .unwrap()
            .frame(b"no gzip at all", |piece| panic!("{piece:?}"));
    }

    #[test]
    fn a_bomb_is_left_alone() {
        let limit = 1024 * 1024;
        for (coding, bomb) in compressed(&vec![0; 2 * limit]) {
            let mut unpacked = Unpacked::of(coding).unwrap();
            unpacked.left = limit;
            let (mut total, mut largest) = (0, 0);
            unpacked.frame(&bomb, |piece| {
                total += piece.len();
                largest = largest.max(piece.len());
            });
            assert!(unpacked.decoder.is_none(), "{coding}");
            assert!(total <= limit + largest, "{coding}: {total}");
        }
    }
}
