//! How the mock counts tokens: a fixed rule instead of a vendor's vocabulary, so that sums can be checked by hand.
//!
//! A token is up to four ASCII letters or digits, or any one other character; white space belongs to the token
//! after it (at the end of a text it is a token of its own). A streamed answer sends one token per event.
//! A prompt costs its texts, 4 for every message and 3 for the answer's beginning: the question `你是谁？` of
//! the first document costs the 11 that the vendor reports there.

/// Tokens that every message of a prompt costs besides its text.
pub const PER_MESSAGE: usize = 4;
/// Tokens that every prompt costs besides its messages.
pub const PER_PROMPT: usize = 3;
/// Tokens that one image costs.
pub const PER_IMAGE: usize = 85;

const WORD_PIECE: usize = 4;

/// The tokens of a text, in order; joined they are the text.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = piece_length(rest)?;
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some(piece)
    })
}

/// The length in bytes of the first token of `text`; `None` at the end.
#[must_use]
pub fn piece_length(text: &str) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    let blank = text.len() - text.trim_start().len();
    let word = &text[blank..];
    let Some(first) = word.chars().next() else {
        return Some(blank);
    };
    if !first.is_ascii_alphanumeric() {
        return Some(blank + first.len_utf8());
    }
    let letters = word
        .bytes()
        .take(WORD_PIECE)
        .take_while(u8::is_ascii_alphanumeric)
        .count();
    Some(blank + letters)
}

/// How many tokens a text has.
#[must_use]
pub fn count(text: &str) -> usize {
    pieces(text).count()
}

/// The first `limit` tokens of a text.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> &str {
    let length = pieces(text).take(limit).map(str::len).sum();
    &text[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_text_and_are_counted_by_the_rule() {
        for (text, expected) in [
            ("", 0),
            ("   ", 1),
            ("你是谁？", 4),
            ("hi", 1),
            ("hello", 2),
            ("hello world", 4),
            ("a, b\n", 4),
            ("2x + 7 = 17，x 等于多少", 11),
            ("👩‍💻é", 4),
        ] {
            assert_eq!(pieces(text).collect::<String>(), text);
            assert_eq!(count(text), expected, "{text:?}");
        }
    }

    #[test]
    fn truncation_keeps_whole_tokens() {
        assert_eq!(truncate("hello world", 3), "hello worl");
        assert_eq!(truncate("你是谁？", 2), "你是");
        assert_eq!(truncate("你", 9), "你");
    }

    #[test]
    fn the_documents_question_costs_what_the_document_says() {
        assert_eq!(count("你是谁？") + PER_MESSAGE + PER_PROMPT, 11);
    }
}
