//! Texts of bounded length: what is too long keeps its beginning and its end.

/// Stands for what was cut out.
const MARKER: &str = " [truncated] ";

/// `text`, or its first and last half of `limit` bytes where it is longer; cut at characters.
pub(super) fn shortened(text: &str, limit: usize) -> Option<String> {
    if text.len() <= limit {
        return None;
    }
    let head = text
        .get(..text.floor_char_boundary(limit / 2))
        .unwrap_or_default();
    let tail = text
        .get(text.ceil_char_boundary(text.len() - limit / 2)..)
        .unwrap_or_default();
    Some([head, MARKER, tail].concat())
}

/// A text that grows piece by piece and keeps at most about three times its limit.
#[derive(Debug)]
pub(super) struct Growing {
    limit: usize,
    /// The first `limit` bytes.
    head: String,
    /// What came behind them; trimmed to its last half of `limit` bytes now and then.
    tail: String,
}

impl Growing {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            head: String::new(),
            tail: String::new(),
        }
    }

    pub(super) fn push(&mut self, piece: &str) {
        if self.tail.is_empty() {
            let room = piece.floor_char_boundary(self.limit.saturating_sub(self.head.len()));
            let (fits, rest) = piece.split_at(room);
            self.head.push_str(fits);
            self.tail.push_str(rest);
        } else {
            self.tail.push_str(piece);
        }
        if self.tail.len() > self.limit.max(64) * 2 {
            let keep = self
                .tail
                .ceil_char_boundary(self.tail.len() - (self.limit / 2 + 4));
            self.tail.drain(..keep);
        }
    }

    /// The text; where it grew beyond the limit, something between the parts that [`shortened`] keeps is missing.
    pub(super) fn finish(self) -> String {
        let mut all = self.head;
        all.push_str(&self.tail);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(shortened("abcd", 4), None);
        assert_eq!(shortened("abcdefgh", 4).as_deref(), Some("ab [truncated] gh"));
        // Three bytes each: neither 2 nor length - 2 is between two characters.
        assert_eq!(shortened("你好吗", 4).as_deref(), Some(" [truncated] "));
        assert_eq!(shortened("你好吗", 6).as_deref(), Some("你 [truncated] 吗"));
        assert_eq!(shortened("a", 0).as_deref(), Some(" [truncated] "));
    }

    #[test]
    fn growing_gives_what_shortening_the_whole_would() {
        for (limit, pieces) in [
            (4, 3),
            (4, 1),
            (100, 5),
            (100, 400),
            (0, 100),
            (7, 1000),
            (6000, 1000),
        ] {
            let mut growing = Growing::new(limit);
            let mut whole = String::new();
            for number in 0..pieces {
                let piece = format!("{number}é你");
                growing.push(&piece);
                whole.push_str(&piece);
                let kept = growing.head.len() + growing.tail.len();
                assert!(kept <= limit * 3 + 256, "{kept}");
            }
            let grown = growing.finish();
            let expected = shortened(&whole, limit).unwrap_or(whole);
            assert_eq!(
                shortened(&grown, limit).unwrap_or(grown),
                expected,
                "{limit} {pieces}"
            );
        }
    }
}
