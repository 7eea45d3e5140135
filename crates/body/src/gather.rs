//! A body gathered piece by piece: what it takes is its length and little more, at every moment.
//!
//! One buffer that doubles holds up to three times its contents while it moves, and allocators keep what it leaves
//! behind. Here small pieces share segments that stay where they are, and only a body that is whole is put together.
//! The caller bounds the length.

use bytes::{Bytes, BytesMut};

/// Length of a segment in bytes; a piece as long as that is one by itself.
const SEGMENT: usize = 256 * 1024;

/// Pieces in the order in which they came.
#[derive(Default)]
pub(crate) struct Gathered {
    full: Vec<Bytes>,
    open: BytesMut,
    length: usize,
}

impl Gathered {
    /// Length of everything pushed, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends a piece; the first one, and long ones, without a copy.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let is_first = self.length == 0;
        self.length += piece.len();
        if is_first || piece.len() >= SEGMENT {
            self.close();
            self.full.push(piece);
            return;
        }
        if self.open.len() + piece.len() > SEGMENT {
            self.close();
        }
        if self.open.capacity() == 0 && self.length > SEGMENT {
            self.open.reserve(SEGMENT);
        }
        self.open.extend_from_slice(&piece);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.full.push(std::mem::take(&mut self.open).freeze());
        }
    }

    /// Everything in one piece; segments are given back while it grows.
    pub(crate) fn whole(mut self) -> Bytes {
        self.close();
        if self.full.len() == 1 {
            return self.full.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.length);
        for piece in self.full {
            whole.extend_from_slice(&piece);
        }
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(pieces: &[usize]) -> Gathered {
        let mut gathered = Gathered::default();
        let mut counting = (0..=u8::MAX).cycle();
        for &length in pieces {
            let piece: Vec<u8> = counting.by_ref().take(length).collect();
            gathered.push(piece.into());
        }
        gathered
    }

    #[test]
    fn pieces_of_any_length_come_out_in_order() {
        for pieces in [
            vec![],
            vec![0, 0, 3],
            vec![5],
            vec![1; 1000],
            vec![100, SEGMENT, 7, SEGMENT - 1, 1, 2 * SEGMENT, 3],
            vec![SEGMENT - 1, SEGMENT - 1, SEGMENT - 1],
        ] {
            let length: usize = pieces.iter().sum();
            let gathered = gathered(&pieces);
            assert_eq!(gathered.len(), length);
            let whole = gathered.whole();
            let expected: Vec<u8> = (0..length).map(|index| (index % 256) as u8).collect();
            assert!(whole == expected, "{pieces:?}");
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![1; 100]);
        let mut gathered = Gathered::default();
        gathered.push(piece.clone());
        assert_eq!(gathered.whole().as_ptr(), piece.as_ptr());
    }

    #[test]
    fn what_is_held_is_little_more_than_the_length() {
        for size in [1, 1000, SEGMENT / 2 + 1, SEGMENT] {
            let gathered = gathered(&vec![size; 8 * SEGMENT / size]);
            let segments = gathered.full.len() + usize::from(gathered.open.capacity() > 0);
            assert!(segments <= 2 * 8 + 2, "{segments} segments of pieces of {size}");
            assert!(gathered.open.capacity() <= 2 * SEGMENT);
        }
    }
}
