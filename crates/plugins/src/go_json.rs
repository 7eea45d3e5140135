//! JSON checked as Go's `encoding/json` checks it, with its words for what is wrong (plugins spec §2.2).
//!
//! Those words reach clients and models. The check is one pass over the bytes without recursion; it builds nothing.

/// Deepest nesting that is accepted. Go stops at 10,000; nothing that reads JSON further on goes so deep.
const MAX_DEPTH: usize = 127;

/// Checks that `text` is one JSON value.
///
/// # Errors
/// Go's text for the first fault.
pub(crate) fn check(text: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner {
        text,
        at: 0,
        nesting: Vec::new(),
    };
    scanner.value()?;
    while let Some(byte) = scanner.significant() {
        scanner.after_value(byte)?;
    }
    if scanner.nesting.is_empty() {
        Ok(())
    } else {
        Err(end())
    }
}

/// What is open around the current place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nest {
    Object,
    Array,
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    nesting: Vec<Nest>,
}

type Checked = Result<(), String>;

impl Scanner<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte that is no blank.
    fn significant(&mut self) -> Option<u8> {
        loop {
            let byte = self.next()?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
        }
    }

    fn demand(&mut self) -> Result<u8, String> {
        self.significant().ok_or_else(end)
    }

    /// What may stand behind a whole value.
    fn after_value(&mut self, byte: u8) -> Checked {
        match (self.nesting.last(), byte) {
            (None, _) => fault(byte, "after top-level value"),
            (Some(Nest::Object), b',') => {
                let key = self.demand()?;
                if key != b'"' {
                    return fault(key, "looking for beginning of object key string");
                }
                self.member()
            }
            (Some(Nest::Array), b',') => self.value(),
            (Some(Nest::Object), b'}') | (Some(Nest::Array), b']') => {
                self.nesting.pop();
                Ok(())
            }
            (Some(Nest::Object), _) => fault(byte, "after object key:value pair"),
            (Some(Nest::Array), _) => fault(byte, "after array element"),
        }
    }

    /// A value's scalar, or its opening up to the first scalar in it.
    fn value(&mut self) -> Checked {
        let first = self.demand()?;
        self.value_from(first)
    }

    fn value_from(&mut self, first: u8) -> Checked {
        let mut byte = first;
        loop {
            match byte {
                b'{' => {
                    self.open(Nest::Object)?;
                    match self.demand()? {
                        b'}' => {
                            self.nesting.pop();
                            return Ok(());
                        }
                        b'"' => {}
                        other => return fault(other, "looking for beginning of object key string"),
                    }
                    byte = self.key()?;
                }
                b'[' => {
                    self.open(Nest::Array)?;
                    byte = self.demand()?;
                    if byte == b']' {
                        self.nesting.pop();
                        return Ok(());
                    }
                }
                b'"' => return self.string(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                b'-' | b'0'..=b'9' => return self.number(byte),
                other => return fault(other, "looking for beginning of value"),
            }
        }
    }

    /// A key behind its opening quote, the colon and the value.
    fn member(&mut self) -> Checked {
        let first = self.key()?;
        self.value_from(first)
    }

    /// A key behind its opening quote and the colon; the value's first byte.
    fn key(&mut self) -> Result<u8, String> {
        self.string()?;
        match self.demand()? {
            b':' => self.demand(),
            other => Err(text(other, "after object key")),
        }
    }

    fn open(&mut self, nest: Nest) -> Checked {
        if self.nesting.len() == MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.nesting.push(nest);
        Ok(())
    }

    fn string(&mut self) -> Checked {
        loop {
            match self.next().ok_or_else(end)? {
                b'"' => return Ok(()),
                b'\\' => match self.next().ok_or_else(end)? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.next().ok_or_else(end)?;
                            if !digit.is_ascii_hexdigit() {
                                return fault(digit, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    other => return fault(other, "in string escape code"),
                },
                control @ 0..0x20 => return fault(control, "in string literal"),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Checked {
        for expected in word.bytes().skip(1) {
            let byte = self.next().ok_or_else(end)?;
            if byte != expected {
                let context = format!("in literal {word} (expecting {})", quoted(expected));
                return fault(byte, &context);
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Checked {
        let start = self.at - 1;
        let mut byte = first;
        if byte == b'-' {
            byte = self.next().ok_or_else(end)?;
            if !byte.is_ascii_digit() {
                return fault(byte, "in numeric literal");
            }
        }
        if byte != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.demand_digit("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.demand_digit("in exponent of numeric literal")?;
        }
        self.in_range(start)
    }

    fn demand_digit(&mut self, context: &str) -> Checked {
        let byte = self.next().ok_or_else(end)?;
        if !byte.is_ascii_digit() {
            return fault(byte, context);
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Go reads numbers as doubles.
    fn in_range(&self, start: usize) -> Checked {
        let written = self.text.get(start..self.at).unwrap_or_default();
        let written = std::str::from_utf8(written).unwrap_or_default();
        // Only an exponent, or hundreds of digits, lead out of the range.
        let is_suspicious = written.len() > 300 || written.contains(['e', 'E']);
        if is_suspicious && written.parse::<f64>().is_ok_and(f64::is_infinite) {
            return Err(format!(
                "json: cannot unmarshal number {written} into Go value of type float64"
            ));
        }
        Ok(())
    }
}

fn end() -> String {
    "unexpected end of JSON input".to_owned()
}

fn fault<T>(byte: u8, context: &str) -> Result<T, String> {
    Err(text(byte, context))
}

fn text(byte: u8, context: &str) -> String {
    format!("invalid character {} {context}", quoted(byte))
}

/// A byte between single quotes, the way Go prints it: a byte is a character of Latin-1.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        // Controls, the no-break space and the soft hyphen do not print.
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_words() {
        for (json, expected) in [
            (r#"{"a": "\[x\]"}"#, "invalid character '[' in string escape code"),
            ("", "unexpected end of JSON input"),
            (r#"{"a":1"#, "unexpected end of JSON input"),
            (r#"{"a":[1,2}"#, "invalid character '}' after array element"),
            (
                "{invalid}",
                "invalid character 'i' looking for beginning of object key string",
            ),
            (
                r#"{"a":1,}"#,
                "invalid character '}' looking for beginning of object key string",
            ),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (
                r#"{"a":1 "b":2}"#,
                "invalid character '\"' after object key:value pair",
            ),
            (
                r#"{"a":1} Some {"b":2}"#,
                "invalid character 'S' after top-level value",
            ),
            (r#"{"a":1}{"b":2}"#, "invalid character '{' after top-level value"),
            (
                r#"{"a":}"#,
                "invalid character '}' looking for beginning of value",
            ),
            (
                r#"{"a":[1,]}"#,
                "invalid character ']' looking for beginning of value",
            ),
            (
                r#"{"a":'x'}"#,
                r"invalid character '\'' looking for beginning of value",
            ),
            ("{\"a\":\"x\ny\"}", r"invalid character '\n' in string literal"),
            ("{\"a\":\"\u{1}\"}", r"invalid character '\x01' in string literal"),
            (
                r#"{"a":"\u12g4"}"#,
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (r#"{"a":-x}"#, "invalid character 'x' in numeric literal"),
            (
                r#"{"a":1.}"#,
                "invalid character '}' after decimal point in numeric literal",
            ),
            (
                r#"{"a":1e}"#,
                "invalid character '}' in exponent of numeric literal",
            ),
            (r#"{"a":01}"#, "invalid character '1' after object key:value pair"),
            (
                r#"{"a":trux}"#,
                "invalid character 'x' in literal true (expecting 'e')",
            ),
            (
                r#"{"a":nil}"#,
                "invalid character 'i' in literal null (expecting 'u')",
            ),
            (r#"{"a":fa"#, "unexpected end of JSON input"),
            (
                "{\"a\":é}",
                "invalid character 'Ã' looking for beginning of value",
            ),
            (
                "{\u{a0}}",
                r"invalid character 'Â' looking for beginning of object key string",
            ),
            (
                r#"{"a":1e999}"#,
                "json: cannot unmarshal number 1e999 into Go value of type float64",
            ),
            (
                r#"{"a":1/*x*/}"#,
                "invalid character '/' after object key:value pair",
            ),
        ] {
            assert_eq!(check(json.as_bytes()), Err(expected.to_owned()), "{json}");
        }
    }

    #[test]
    fn what_go_takes() {
        for json in [
            "{}",
            " { \"a\" : [ ] , \"b\" : { } } ",
            r#"{"a":[1,-0,0.5,1e5,1E-5,true,false,null,"\ud800","\"\\\/"],"a":{"b":[[]]}}"#,
            "{\"a\":\"\u{7f}é\"}",
            "7",
        ] {
            assert_eq!(check(json.as_bytes()), Ok(()), "{json}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_long_texts_are_read_once() {
        let deep = format!("{}{}", "[".repeat(10_001), "]".repeat(10_001));
        assert_eq!(check(deep.as_bytes()), Err("exceeded max depth".to_owned()));
        let allowed = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(check(allowed.as_bytes()), Ok(()));
        assert_eq!(
            check("{\"a\":".repeat(20_000).as_bytes()),
            Err("exceeded max depth".to_owned())
        );
    }

    proptest::proptest! {
        #[test]
        fn it_takes_what_serde_takes(text in "[\\[\\]{}\":,a0-9eE.+\\\\ntrufls -]{0,40}") {
            let reference = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            let own = check(text.as_bytes());
            let is_range = own.as_ref().is_err_and(|fault| fault.contains("float64"));
            proptest::prop_assert!(is_range || own.is_ok() == reference.is_ok(), "{} {:?}", text, own);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100)) {
            let _ = check(&bytes);
        }
    }
}
