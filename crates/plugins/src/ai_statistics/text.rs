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

/// A text that grows piece by piece and keeps at most about three times its limit. Whether it is one is asked at its
/// end, not with every piece.
#[derive(Debug)]
pub(super) struct Growing {
    limit: usize,
    /// The first `limit` bytes.
    head: Vec<u8>,
    /// What came behind them; trimmed to its last half of `limit` bytes now and then.
    tail: Vec<u8>,
}

impl Growing {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            head: Vec::new(),
            tail: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(piece);
        } else if self.head.len() + piece.len() <= self.limit {
            self.head.extend_from_slice(piece);
            return;
        } else {
            let room = boundary_before(piece, self.limit.saturating_sub(self.head.len()));
            let (fits, rest) = piece.split_at_checked(room).unwrap_or_default();
            self.head.extend_from_slice(fits);
            self.tail.extend_from_slice(rest);
        }
        if self.tail.len() > self.limit.max(64) * 2 {
            let surplus = self.tail.len() - (self.limit / 2 + 4);
            self.tail.drain(..boundary_before(&self.tail, surplus));
        }
    }

    /// The text; where it grew beyond the limit, something between the parts that [`shortened`] keeps is missing.
    pub(super) fn finish(self) -> String {
        let mut all = self.head;
        all.extend_from_slice(&self.tail);
        match String::from_utf8(all) {
            Ok(text) => text,
            Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
        }
    }
}

/// The last place up to `at` that is not inside a character.
fn boundary_before(text: &[u8], at: usize) -> usize {
    let is_inside = |place: &usize| text.get(*place).is_some_and(|byte| byte & 0xc0 == 0x80);
    let places = (at.saturating_sub(3)..=at).rev();
    places.into_iter().find(|place| !is_inside(place)).unwrap_or(at)
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
    fn a_character_may_come_in_pieces_and_what_is_none_is_replaced() {
        let mut growing = Growing::new(100);
        for piece in "é你".as_bytes().chunks(1) {
            growing.push(piece);
        }
        growing.push(b"\xff");
        assert_eq!(growing.finish(), "é你\u{fffd}");
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
                growing.push(piece.as_bytes());
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
