//! JSON documents: serde_json reads the value, a small scanner finds the place of each field.

use serde_json::Value;

use super::{Fault, MAX_DOCUMENT_DEPTH, Parsed};
use crate::position::{Position, Positions};

/// The documents of a text that is JSON (one object, or several after each other), or nothing when it is not: YAML
/// flow mappings look alike, and the YAML reader then says what is wrong.
pub(crate) fn parse(text: &str, first_line: u32) -> Option<Vec<Result<Parsed, Fault>>> {
    let mut documents = Vec::new();
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut scanner = Scanner {
        text,
        offset: 0,
        line: first_line,
        known_column: (0, 1),
    };
    for value in values {
        let value = value.ok()?;
        let positions = scanner.value(0)?;
        documents.push(Ok(Parsed { value, positions }));
    }
    Some(documents)
}

/// Walks text that serde_json has accepted; gives up (`None`) on anything unexpected.
struct Scanner<'t> {
    text: &'t str,
    offset: usize,
    line: u32,
    /// An offset of the current line and its column, the last one that was asked for: a minified file is one line.
    known_column: (usize, u32),
}

impl Scanner<'_> {
    fn value(&mut self, depth: usize) -> Option<Positions> {
        if depth > MAX_DOCUMENT_DEPTH {
            return None;
        }
        self.skip_space();
        let here = self.here();
        match self.peek()? {
            b'{' => self.object(here, depth),
            b'[' => self.array(here, depth),
            b'"' => self.string().map(|_| Positions::scalar(here)),
            _ => {
                while self
                    .peek()
                    .is_some_and(|byte| !matches!(byte, b',' | b'}' | b']') && !byte.is_ascii_whitespace())
                {
                    self.offset += 1;
                }
                Some(Positions::scalar(here))
            }
        }
    }

    fn object(&mut self, here: Position, depth: usize) -> Option<Positions> {
        let mut fields = Vec::new();
        self.offset += 1;
        loop {
            self.skip_space();
            match self.peek()? {
                b'}' => {
                    self.offset += 1;
                    return Some(Positions::mapping(here, fields));
                }
                b',' => self.offset += 1,
                b'"' => {
                    let key_place = self.here();
                    let key: String = serde_json::from_str(self.string()?).ok()?;
                    self.skip_space();
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.offset += 1;
                    let child = self.value(depth + 1)?.moved(key_place);
                    fields.push((key.into_boxed_str(), child));
                }
                _ => return None,
            }
        }
    }

    fn array(&mut self, here: Position, depth: usize) -> Option<Positions> {
        let mut items = Vec::new();
        self.offset += 1;
        loop {
            self.skip_space();
            match self.peek()? {
                b']' => {
                    self.offset += 1;
                    return Some(Positions::sequence(here, items));
                }
                b',' => self.offset += 1,
                _ => items.push(self.value(depth + 1)?),
            }
        }
    }

    /// Takes a string with its quotes.
    fn string(&mut self) -> Option<&str> {
        let start = self.offset;
        self.offset += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.offset += 1;
                    return self.text.get(start..self.offset);
                }
                b'\\' => self.offset += 2,
                _ => self.offset += 1,
            }
        }
    }

    fn skip_space(&mut self) {
        while let Some(byte) = self.peek().filter(u8::is_ascii_whitespace) {
            self.offset += 1;
            if byte == b'\n' {
                self.line = self.line.saturating_add(1);
                self.known_column = (self.offset, 1);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn here(&mut self) -> Position {
        let (offset, column) = self.known_column;
        let passed = self
            .text
            .get(offset..self.offset)
            .unwrap_or_default()
            .chars()
            .count();
        let column = column.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX));
        self.known_column = (self.offset, column);
        Position {
            line: self.line,
            column,
        }
    }
}
