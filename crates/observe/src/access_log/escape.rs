//! Escaping: whatever a client, an upstream or a plugin put into a value, the line stays one line of valid JSON.
//!
//! Envoy escapes nothing in a TEXT format; a header with a quote breaks its JSON-shaped line. Here it cannot.

/// Marks the bytes of a text that may not be copied unseen: controls, quote, backslash, and the first bytes of the C1
/// controls (U+0080 on) and of the two Unicode line ends.
const LOOK: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    table[0xc2] = true;
    table[0xe2] = true;
    table
};

/// [`LOOK`], and whatever is not ASCII.
const SPECIAL: [bool; 256] = {
    let mut table = LOOK;
    let mut byte = 0x80;
    while byte < table.len() {
        table[byte] = true;
        byte += 1;
    }
    table
};

/// Appends `raw` as the inside of a JSON string. Bytes that are no UTF-8 become U+FFFD.
pub(super) fn json(raw: &[u8], out: &mut Vec<u8>) {
    escape(raw, out, true);
}

/// `text` as the inside of a JSON string: what a plugin must leave as filter state that a JSON-shaped line inserts
/// verbatim (`wasm.ai_log`).
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    json(text.as_bytes(), &mut out);
    // Escaping text yields text; the fallback only avoids a panic.
    String::from_utf8(out).unwrap_or_default()
}

/// Appends `raw` to a plain line: quotes and backslashes stay, nothing can end the line or steer a terminal.
pub(super) fn plain(raw: &[u8], out: &mut Vec<u8>) {
    escape(raw, out, false);
}

fn escape(raw: &[u8], out: &mut Vec<u8>, quotes: bool) {
    // What most values are: a word without anything special in it.
    if is_plain(raw) {
        out.extend_from_slice(raw);
        return;
    }
    for chunk in raw.utf8_chunks() {
        escape_text(chunk.valid(), out, quotes);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether there is nothing but ASCII in it, and nothing special.
fn is_plain(raw: &[u8]) -> bool {
    const LONG: usize = 64;
    if raw.len() >= LONG {
        // A loop over all bytes compiles to vector instructions, one that stops at the first does not.
        let special = |byte: u8| u8::from(may_be_special(byte) | !byte.is_ascii());
        return raw.iter().fold(0, |any, byte| any | special(*byte)) == 0;
    }
    let (words, rest) = raw.as_chunks::<8>();
    let any = words
        .iter()
        .fold(0, |any, word| any | marks(u64::from_le_bytes(*word)));
    let any = match raw.last_chunk::<8>() {
        // Some bytes are looked at twice.
        Some(last) if !rest.is_empty() => any | marks(u64::from_le_bytes(*last)),
        _ => any,
    };
    let is_special = |byte: &u8| SPECIAL[usize::from(*byte)];
    any == 0 && (!words.is_empty() || !rest.iter().any(is_special))
}

/// Not 0 if one of eight bytes is what [`SPECIAL`] marks.
#[inline]
fn marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let controls = word.wrapping_sub(ONES * 0x20);
    let delete = word.wrapping_add(ONES);
    let quotes = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
    (word | controls | delete | quotes) & HIGH
}

fn escape_text(text: &str, out: &mut Vec<u8>, quotes: bool) {
    let mut rest = text;
    loop {
        let (clean, tail) = rest.split_at(clean_length(rest.as_bytes()));
        out.extend_from_slice(clean.as_bytes());
        let mut characters = tail.chars();
        let Some(first) = characters.next() else { return };
        one(first, out, quotes);
        rest = characters.as_str();
    }
}

/// What [`LOOK`] marks, without a table.
fn may_be_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f) | (byte == 0xc2) | (byte == 0xe2)
}

/// Bytes of a text in front of the first that [`LOOK`] marks. Values grow to the size of an LLM's answer: blocks
/// without any are passed over as a whole, in a loop that compiles to vector instructions.
fn clean_length(text: &[u8]) -> usize {
    // Shorter blocks do not compile to vector instructions of bytes.
    let (blocks, _) = text.as_chunks::<32>();
    let is_clean = |block: &&[u8; 32]| {
        // Not a `bool`: only as a number the comparisons compile to vector instructions.
        let mut any = 0;
        for byte in *block {
            any |= u8::from(may_be_special(*byte));
        }
        any == 0
    };
    let passed = blocks.iter().take_while(is_clean).count() * 32;
    let rest = text.get(passed..).unwrap_or_default();
    let length = rest.iter().position(|byte| LOOK[usize::from(*byte)]);
    passed + length.unwrap_or(rest.len())
}

fn one(character: char, out: &mut Vec<u8>, quotes: bool) {
    let short = match character {
        '"' | '\\' if !quotes => {
            out.push(character as u8);
            return;
        }
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{2028}' | '\u{2029}' => return unicode(character, out),
        // The C1 controls too: U+0085 ends a line for some readers, U+009B starts a terminal sequence.
        other if other.is_control() => return unicode(other, out),
        other => {
            let mut buffer = [0; 4];
            out.extend_from_slice(other.encode_utf8(&mut buffer).as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn unicode(character: char, out: &mut Vec<u8>) {
    let code = u32::from(character);
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        let digit = char::from_digit((code >> shift) & 0xf, 16).unwrap_or('0');
        out.push(digit as u8);
    }
}

/// Whether `raw` can stand between two quotes as it is: its producer has escaped it already. Such values grow to the
/// size of an LLM's answer, so this looks at bytes, not at characters.
pub(super) fn is_json_inside(raw: &str) -> bool {
    let mut rest = raw.as_bytes();
    loop {
        let tail = rest.get(clean_length(rest)..).unwrap_or_default();
        if tail.is_empty() {
            return true;
        }
        let length = match tail {
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'\\', b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            [0xc2, second, ..] if *second >= 0xa0 => 2,
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => return false,
            [0xe2, ..] => 3,
            _ => return false,
        };
        rest = tail.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(raw: &[u8]) -> String {
        let mut out = Vec::new();
        json(raw, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hostile_bytes_stay_inside_the_string() {
        assert_eq!(json_of(b"curl/8"), "curl/8");
        assert_eq!(json_of(br#"x","admin":"y\"#), r#"x\",\"admin\":\"y\\"#);
        assert_eq!(
            json_of(b"a\r\nb\tc\x00\x1b[2J\x7f"),
            r"a\r\nb\tc\u0000\u001b[2J\u007f"
        );
        assert_eq!(
            json_of("näh\u{85}\u{9b}\u{2028}\u{2029}".as_bytes()),
            r"näh\u0085\u009b\u2028\u2029"
        );
        assert_eq!(json_of(b"a\xff\xc3\"z"), "a\u{fffd}\u{fffd}\\\"z");
    }

    #[test]
    fn a_plain_line_keeps_quotes_but_stays_a_line() {
        let mut out = Vec::new();
        plain(b"a\"b\\c\nd", &mut out);
        assert_eq!(out, b"a\"b\\c\\nd");
    }

    #[test]
    fn knows_what_is_escaped_already() {
        for good in [
            "",
            "-",
            r#"{\"model\":\"qwen\"}"#,
            r"\u00e9\n\/",
            "é",
            "\u{a0}€\u{202a}通",
        ] {
            assert!(is_json_inside(good), "{good}");
        }
        for bad in [
            "{\"a\":1}",
            "\\",
            "\\x",
            "\\u12g4",
            "\\u12",
            "a\nb",
            "\u{80}",
            "\u{9f}",
            "\u{7f}",
            "\u{2028}",
            "\u{2029}",
            "\\\\\"",
        ] {
            assert!(!is_json_inside(bad), "{bad}");
        }
    }

    #[test]
    fn every_special_byte_is_seen_wherever_it_is() {
        for length in 0..80 {
            let mut raw = vec![b'a'; length];
            assert!(is_plain(&raw), "{length}");
            for place in 0..length {
                for byte in 0..=u8::MAX {
                    raw[place] = byte;
                    assert_eq!(is_plain(&raw), !SPECIAL[usize::from(byte)], "{byte} at {place}");
                }
                raw[place] = b'a';
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_make_a_json_string_on_one_line(raw: Vec<u8>) {
            let escaped = json_of(&raw);
            let parsed: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
            proptest::prop_assert_eq!(&super::escaped(&parsed), &escaped);
            proptest::prop_assert_eq!(parsed, String::from_utf8_lossy(&raw).into_owned());
            proptest::prop_assert!(!escaped.chars().any(char::is_control));
            proptest::prop_assert!(is_json_inside(&escaped));
        }
    }
}
