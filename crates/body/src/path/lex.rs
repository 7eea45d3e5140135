//! Where values begin and end in a text that may be broken. Nothing is checked and no byte is an error.

use memchr::memchr2;

use super::ValueKind;

/// A value's first byte: the kind it will be, and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    pub(super) at: usize,
    pub(super) kind: ValueKind,
}

/// The kind of value that begins at `at`, if one does.
#[inline]
pub(super) fn kind_at(text: &[u8], at: usize) -> Option<ValueKind> {
    Some(match text.get(at)? {
        b'"' => ValueKind::String,
        b'{' | b'[' => ValueKind::Json,
        b't' => ValueKind::True,
        b'f' => ValueKind::False,
        b'n' if text.get(at + 1).is_none_or(|next| *next == b'u') => ValueKind::Null,
        // `nan`, `inf`, `Infinity` and the like count as numbers.
        b'n' | b'+' | b'-' | b'0'..=b'9' | b'i' | b'I' | b'N' => ValueKind::Number,
        _ => return None,
    })
}

/// The next value, whatever stands in front of it.
#[inline]
pub(super) fn next_value(text: &[u8], from: usize) -> Option<Begin> {
    (from..text.len()).find_map(|at| kind_at(text, at).map(|kind| Begin { at, kind }))
}

/// The position behind a value; `None` for a string without an end.
#[inline]
pub(super) fn value_end(text: &[u8], begin: Begin) -> Option<usize> {
    match begin.kind {
        ValueKind::String => string_end(text, begin.at + 1),
        ValueKind::Json => Some(nested_end(text, begin.at)),
        ValueKind::Number => Some(number_end(text, begin.at)),
        ValueKind::True | ValueKind::False | ValueKind::Null => Some(literal_end(text, begin.at)),
    }
}

/// The same, and whether it is a string without escapes.
#[inline]
pub(super) fn value_end_and_plain(text: &[u8], begin: Begin) -> Option<(usize, bool)> {
    match begin.kind {
        ValueKind::String => {
            let (end, is_escaped) = key_end(text, begin.at + 1)?;
            Some((end, !is_escaped))
        }
        _ => Some((value_end(text, begin)?, false)),
    }
}

/// The position behind the quote that ends a string whose text begins at `from`.
#[inline]
pub(super) fn string_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += mark_in(text.get(at..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The position behind the string whose text begins at `from`, and whether it has escapes.
#[inline]
pub(super) fn key_end(text: &[u8], from: usize) -> Option<(usize, bool)> {
    let mark = from + mark_in(text.get(from..)?)?;
    match text.get(mark) {
        Some(b'"') => Some((mark + 1, false)),
        _ => Some((string_end(text, mark)?, true)),
    }
}

/// What stands between the quotes of a string that has both of them and no escapes.
pub(super) fn plain_string(raw: &str) -> Option<&str> {
    let inside = raw.strip_prefix('"')?;
    let length = mark_in(inside.as_bytes())?;
    let is_whole = length + 1 == inside.len() && inside.ends_with('"');
    is_whole.then(|| &inside[..length])
}

/// Where the first quote or backslash is. Most strings are keys and words: a call that searches many bytes at once costs
/// more than it saves, so the first ones are looked at eight by eight.
#[inline]
fn mark_in(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest bit that is set belongs to the first byte that is zero.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, _) = text.as_chunks::<8>();
    for (position, word) in words.iter().take(4).enumerate() {
        let word = u64::from_le_bytes(*word);
        let marks = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if marks != 0 {
            return Some(position * 8 + (marks.trailing_zeros() / 8) as usize);
        }
    }
    let looked = words.len().min(4) * 8;
    let rest = text.get(looked..)?;
    if rest.len() < 8 {
        let is_mark = |byte: &u8| matches!(byte, b'"' | b'\\');
        return rest.iter().position(is_mark).map(|length| looked + length);
    }
    memchr2(b'"', b'\\', rest).map(|length| looked + length)
}

/// The next element of an array, or the position behind it. The text's end closes what is open.
pub(super) fn next_element(text: &[u8], from: usize) -> Result<Begin, usize> {
    let rest = text.get(from..).unwrap_or_default();
    for (length, byte) in rest.iter().enumerate() {
        let at = from + length;
        if *byte == b']' {
            return Err(at + 1);
        }
        if let Some(kind) = kind_at(text, at) {
            return Ok(Begin { at, kind });
        }
    }
    Err(text.len())
}

/// How many elements an array has, unless the text breaks off in a string, and the position behind them.
pub(super) fn count(text: &[u8], from: usize) -> (Option<usize>, usize) {
    let (mut count, mut at) = (0, from);
    loop {
        let begin = match next_element(text, at) {
            Ok(begin) => begin,
            Err(behind) => return (Some(count), behind),
        };
        let Some(end) = value_end(text, begin) else {
            return (None, text.len());
        };
        count += 1;
        at = end;
    }
}

/// Where the last element of an array begins, or the position behind one without any.
pub(super) fn last(text: &[u8], from: usize) -> Result<usize, usize> {
    let (mut last, mut at) = (None, from);
    loop {
        let begin = match next_element(text, at) {
            Ok(begin) => begin,
            Err(behind) => return last.ok_or(behind),
        };
        let Some(end) = value_end(text, begin) else {
            return Err(text.len());
        };
        last = Some(begin.at);
        at = end;
    }
}

/// The position behind the bracket that closes the one at `from`, whatever kinds they are; the text's end when none
/// does.
pub(super) fn nested_end(text: &[u8], from: usize) -> usize {
    let mut depth = 1_usize;
    let mut at = from + 1;
    while let Some(byte) = text.get(at) {
        match NESTING[usize::from(*byte)] {
            Nesting::None => {}
            Nesting::Open => depth += 1,
            Nesting::Close => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            Nesting::Quote => {
                at = string_end(text, at + 1).unwrap_or(text.len());
                continue;
            }
        }
        at += 1;
    }
    text.len()
}

#[derive(Clone, Copy)]
enum Nesting {
    None,
    Open,
    Close,
    Quote,
}

/// What a byte does to the depth: looked up, since this is asked of most bytes of a text.
static NESTING: [Nesting; 256] = {
    let mut table = [Nesting::None; 256];
    table[b'{' as usize] = Nesting::Open;
    table[b'[' as usize] = Nesting::Open;
    table[b'(' as usize] = Nesting::Open;
    table[b'}' as usize] = Nesting::Close;
    table[b']' as usize] = Nesting::Close;
    table[b')' as usize] = Nesting::Close;
    table[b'"' as usize] = Nesting::Quote;
    table
};

#[inline]
fn number_end(text: &[u8], from: usize) -> usize {
    let is_end = |byte: &u8| *byte <= b' ' || matches!(byte, b',' | b']' | b'}');
    end_where(text, from, is_end)
}

#[inline]
fn literal_end(text: &[u8], from: usize) -> usize {
    end_where(text, from, |byte| !byte.is_ascii_lowercase())
}

fn end_where(text: &[u8], from: usize, is_end: impl Fn(&u8) -> bool) -> usize {
    let behind = text.get(from + 1..).unwrap_or_default();
    behind
        .iter()
        .position(is_end)
        .map_or(text.len(), |length| from + 1 + length)
}
