//! Strings of JSON: finding their end eight bytes at a time, and reading their escapes.

use std::borrow::Cow;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES << 7;

/// Index of the first byte that a string cannot simply contain: a quote, a backslash or a control character.
pub(crate) fn find_special(bytes: &[u8]) -> Option<usize> {
    let (start, behind) = bytes.split_at(bytes.len().min(USUAL));
    find_in_words(start).or_else(|| {
        let passed = USUAL + clean_blocks(behind);
        find_in_words(bytes.get(passed..)?).map(|found| passed + found)
    })
}

/// Most strings are keys and words that end within so many bytes.
const USUAL: usize = 32;

/// Bytes in front of the first block that has something special in it. A string may be as long as a conversation: a loop
/// over blocks compiles to vector instructions.
fn clean_blocks(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    let is_clean = |block: &&[u8; 32]| {
        // Not a `bool`: only as a number the comparisons compile to vector instructions.
        let mut any = 0;
        for byte in *block {
            any |= u8::from((*byte < 0x20) | (*byte == b'"') | (*byte == b'\\'));
        }
        any == 0
    };
    blocks.iter().take_while(is_clean).count() * 32
}

#[inline]
fn find_in_words(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let value = u64::from_le_bytes(*word);
        // The lowest bit set is right in each of the three; a borrow can only spoil those above it.
        let control = value.wrapping_sub(ONES * 0x20) & !value;
        let quote = zero_bytes(value ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(value ^ (ONES * u64::from(b'\\')));
        let found = (control | quote | backslash) & HIGH_BITS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    rest.iter().position(special).map(|index| words.len() * 8 + index)
}

/// Whether a key has escapes. Keys are short: a search that is made for long texts costs more than this.
pub(crate) fn has_escape(key: &[u8]) -> bool {
    key.iter().fold(false, |found, byte| found | (*byte == b'\\'))
}

#[inline]
fn zero_bytes(value: u64) -> u64 {
    value.wrapping_sub(ONES) & !value
}

/// Reads the escapes of what stands between the quotes. Half a surrogate pair becomes U+FFFD, as in Go; text behind
/// an escape that means nothing is left out.
pub(crate) fn unescape(inner: &str) -> Cow<'_, str> {
    let Some(first) = inner.find('\\') else {
        return Cow::Borrowed(inner);
    };
    let mut out = String::with_capacity(inner.len());
    out.push_str(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some(behind) = rest.strip_prefix('\\') {
        let mut characters = behind.chars();
        let plain = match characters.next() {
            Some(kept @ ('"' | '\\' | '/')) => kept,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let Some((character, length)) = unicode_escape(&behind.as_bytes()[1..]) else {
                    break;
                };
                out.push(character);
                rest = &behind[1 + length..];
                take_plain(&mut out, &mut rest);
                continue;
            }
            _ => break,
        };
        out.push(plain);
        rest = characters.as_str();
        take_plain(&mut out, &mut rest);
    }
    Cow::Owned(out)
}

fn take_plain(out: &mut String, rest: &mut &str) {
    let length = rest.find('\\').unwrap_or(rest.len());
    let (plain, behind) = rest.split_at(length);
    out.push_str(plain);
    *rest = behind;
}

/// The character of the digits behind `\u`, and how many bytes those (and the other half of a pair) take.
fn unicode_escape(digits: &[u8]) -> Option<(char, usize)> {
    let first = four_hex(digits)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 4));
    }
    let second = digits
        .get(4..)
        .and_then(|behind| behind.strip_prefix(b"\\u"))
        .and_then(four_hex);
    if let (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) = (first, second) {
        let pair = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
        return Some((char::from_u32(pair)?, 10));
    }
    Some((char::REPLACEMENT_CHARACTER, 4))
}

fn four_hex(digits: &[u8]) -> Option<u32> {
    digits.get(..4)?.iter().try_fold(0, |value, digit| {
        let nibble = char::from(*digit).to_digit(16)?;
        Some(value * 16 + nibble)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_read() {
        for (inner, text) in [
            ("plain é", "plain é"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"a\u00e9b\u4f60", "aéb你"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ude00\ud83d\u0041", "\u{fffd}\u{fffd}A"),
            (r"ab\x", "ab"),
            (r"ab\u12", "ab"),
            (r"ab\", "ab"),
        ] {
            assert_eq!(unescape(inner), text, "{inner}");
        }
    }

    #[test]
    fn a_special_byte_is_found_however_far_behind() {
        let clean = "aé ".repeat(40);
        assert_eq!(find_special(clean.as_bytes()), None);
        for at in 0..clean.len() {
            for special in [b'"', b'\\', 0x1f, 0] {
                let mut bytes = clean.clone().into_bytes();
                bytes[at] = special;
                bytes[clean.len() - 1] = b'"';
                assert_eq!(find_special(&bytes), Some(at), "{special} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_special_byte_found_is_the_first(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(find_special(&bytes), expected);
        }

        #[test]
        fn what_serde_writes_is_read_back(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescape(&written[1..written.len() - 1]), text);
        }
    }
}
