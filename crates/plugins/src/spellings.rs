//! The spellings of one URL: as it is, percent-decoded as often as that changes it, with overlong UTF-8 written
//! plainly, blanks for plus signs, and its path without detours.
//!
//! Whoever reads the URL behind the gateway sees one of these.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// How often a URL is decoded; who nests deeper than this is told as it stands then.
const DEPTH: usize = 8;

/// Calls `look` with each spelling until it says yes.
pub(crate) fn any(url: &[u8], mut look: impl FnMut(&[u8]) -> bool) -> bool {
    if look(url) {
        return true;
    }
    let mut current = Cow::Borrowed(url);
    for _ in 0..DEPTH {
        if variants(&current, &mut look) {
            return true;
        }
        if !current.contains(&b'%') {
            return false;
        }
        let decoded: Vec<u8> = percent_decode(&current).collect();
        if decoded == *current {
            return false;
        }
        if look(&decoded) {
            return true;
        }
        current = decoded.into();
    }
    false
}

/// What a reader may make of one spelling without decoding it again.
fn variants(url: &[u8], look: &mut impl FnMut(&[u8]) -> bool) -> bool {
    let plain = plain_utf8(url);
    let is_plain = plain.len() < url.len();
    let with_blanks = plain.contains(&b'+').then(|| replaced(&plain, b'+', b' '));
    let direct = direct_path(&plain);
    (is_plain && look(&plain))
        || with_blanks.is_some_and(|blanks| look(&blanks))
        || direct.is_some_and(|direct| look(&direct))
}

fn replaced(text: &[u8], from: u8, to: u8) -> Vec<u8> {
    text.iter()
        .map(|byte| if *byte == from { to } else { *byte })
        .collect()
}

/// Overlong sequences of ASCII characters, two to four bytes, become the character.
fn plain_utf8(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, 0xC0 | 0xC1 | 0xE0 | 0xF0)) {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, taken) = match rest {
            [lead @ (0xC0 | 0xC1), last @ 0x80..=0xBF, ..] => (((lead & 1) << 6) | (last & 0x3F), 2),
            [0xE0, middle @ (0x80 | 0x81), last @ 0x80..=0xBF, ..] => {
                (((middle & 1) << 6) | (last & 0x3F), 3)
            }
            [0xF0, 0x80, middle @ (0x80 | 0x81), last @ 0x80..=0xBF, ..] => {
                (((middle & 1) << 6) | (last & 0x3F), 4)
            }
            _ => (*first, 1),
        };
        out.push(byte);
        rest = rest.get(taken..).unwrap_or(behind);
    }
    out.into()
}

/// The path without `//`, `.`, `..`, backslashes and path parameters (`;x`), with its query; `None` where that changes
/// nothing.
fn direct_path(url: &[u8]) -> Option<Vec<u8>> {
    let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
    let (path, query) = url.split_at_checked(end)?;
    let is_straight = !path.contains(&b'\\')
        && !path.contains(&b';')
        && !path.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    if is_straight {
        return None;
    }
    let slashed = replaced(path, b'\\', b'/');
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in slashed.split(|byte| *byte == b'/') {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or(segment);
        match name {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut out = Vec::with_capacity(url.len());
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() || slashed.ends_with(b"/") {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    Some(out)
}
