//! One component of a path, as an object and as an array reads it.

use std::borrow::Cow;

use super::query::Query;
use super::{modifier, pattern};
use crate::json::unescape;

/// A component that an object reads: a key, perhaps with wildcards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyStep<'p> {
    name: Cow<'p, str>,
    is_wild: bool,
    /// What stands behind its dot.
    pub(super) rest: Option<&'p str>,
    /// What its value, as a whole, is given to.
    pub(super) pipe: Option<&'p str>,
}

impl<'p> KeyStep<'p> {
    pub(super) fn parse(path: &'p str) -> Self {
        let mut step = Self::plain(path);
        let is_special = |byte: &u8| matches!(byte, b'.' | b'|' | b'\\' | b'*' | b'?');
        match path.as_bytes().iter().position(is_special) {
            None => return step,
            Some(at) if path.as_bytes()[at] == b'.' && !takes_whole_value(&path[at + 1..]) => {
                step.name = Cow::Borrowed(&path[..at]);
                step.rest = Some(&path[at + 1..]);
                return step;
            }
            Some(_) => {}
        }
        step.read(path);
        step
    }

    fn plain(path: &'p str) -> Self {
        Self {
            name: Cow::Borrowed(path),
            is_wild: false,
            rest: None,
            pipe: None,
        }
    }

    /// Reads a component with all that it may have.
    fn read(&mut self, path: &'p str) {
        let mut escaped: Option<String> = None;
        let mut characters = path.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '.' | '|' => {
                    let behind = &path[at + 1..];
                    if character == '|' || takes_whole_value(behind) {
                        self.pipe = Some(behind);
                    } else {
                        self.rest = Some(behind);
                    }
                    self.name = Cow::Borrowed(&path[..at]);
                    break;
                }
                '\\' => {
                    let name = escaped.get_or_insert_with(|| path[..at].to_owned());
                    name.extend(characters.next().map(|(_, kept)| kept));
                    continue;
                }
                '*' | '?' => self.is_wild = true,
                _ => {}
            }
            if let Some(name) = &mut escaped {
                name.push(character);
            }
        }
        if let Some(name) = escaped {
            self.name = Cow::Owned(name);
        }
    }

    /// Whether a key, as written between its quotes, is meant.
    pub(super) fn matches(&self, written: &[u8]) -> bool {
        if !self.is_wild && !written.contains(&b'\\') {
            return written == self.name.as_bytes();
        }
        let text = crate::to_text(written);
        let key = unescape(&text);
        if self.is_wild {
            pattern::matches(&key, &self.name)
        } else {
            key == self.name
        }
    }
}

/// What an array makes of a component.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pick<'p> {
    /// One element.
    Index(usize),
    /// One element, counted from the end: 1 is the last.
    FromEnd(usize),
    /// How many there are.
    Count,
    /// `#.path`: the path in each of them.
    Each(&'p str),
    /// Those that a query finds.
    Query(Query<'p>),
    /// Nothing.
    Nothing,
}

/// A component that an array reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ElementStep<'p> {
    pub(super) pick: Pick<'p>,
    pub(super) rest: Option<&'p str>,
    pub(super) pipe: Option<&'p str>,
}

impl<'p> ElementStep<'p> {
    pub(super) fn parse(path: &'p str) -> Self {
        let bytes = path.as_bytes();
        let (mut has_hash, mut special) = (false, None);
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'|' => return Self::new(special, &path[..at], None, Some(&path[at + 1..])),
                b'.' => {
                    let behind = &path[at + 1..];
                    let is_pipe = !has_hash && takes_whole_value(behind);
                    let (rest, pipe) = if is_pipe {
                        (None, Some(behind))
                    } else {
                        (Some(behind), None)
                    };
                    return Self::new(special, &path[..at], rest, pipe);
                }
                b'#' if at == 0 => {
                    has_hash = true;
                    match bytes.get(1) {
                        Some(b'.') => special = Some(Pick::Each(&path[2..])),
                        Some(b'(' | b'[') => {
                            let Some((mut query, end)) = Query::parse(path) else {
                                // gjson takes a query without end for one that asks for nothing.
                                return Self::new(Some(Pick::Query(Query::default())), path, None, None);
                            };
                            query.all = bytes.get(end + 1) == Some(&b'#');
                            special = Some(Pick::Query(query));
                            at = end;
                        }
                        _ => {}
                    }
                }
                b'#' => has_hash = true,
                _ => {}
            }
            at += 1;
        }
        Self::new(special, path, None, None)
    }

    fn new(special: Option<Pick<'p>>, part: &'p str, rest: Option<&'p str>, pipe: Option<&'p str>) -> Self {
        let pick = special.unwrap_or_else(|| pick_of(part));
        Self { pick, rest, pipe }
    }
}

/// What an array makes of a component that asks for nothing special.
pub(super) fn pick_of<'p>(part: &str) -> Pick<'p> {
    match part.strip_prefix('-') {
        _ if part == "#" => Pick::Count,
        Some(digits) => number(digits)
            .filter(|back| *back > 0)
            .map_or(Pick::Nothing, Pick::FromEnd),
        None => number(part).map_or(Pick::Nothing, Pick::Index),
    }
}

pub(super) fn number(digits: &str) -> Option<usize> {
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| digits.parse().ok())?
}

/// Whether what stands behind a dot works on the whole value in front of it, as behind a pipe: a multipath or a
/// modifier that exists.
fn takes_whole_value(behind: &str) -> bool {
    match behind.as_bytes().first() {
        Some(b'{' | b'[') => true,
        Some(b'@') => {
            let name = &behind[1..];
            modifier::find(name.split(['.', '|', ':']).next().unwrap_or(name)).is_some()
        }
        _ => false,
    }
}
