//! Paths that name a place to write: sjson's simple paths.
//!
//! Keys and array indexes are parted by dots; `\` takes the next character as it is; `-1` is behind the last element
//! of an array (when removing: the last); a `:` in front makes digits a key. Whatever matches several places
//! (`|`, `#`, `@`, `*`, `?`) is not simple.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::PathError;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    pub(crate) name: Cow<'a, str>,
    /// A key even where it looks like an index.
    forced: bool,
}

pub(crate) type Steps<'a> = SmallVec<[Step<'a>; 4]>;

impl Step<'_> {
    /// The index this step is in an array; an empty name is the first, as in sjson.
    pub(crate) fn index(&self) -> Option<usize> {
        if self.forced || !self.name.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if self.name.is_empty() {
            Some(0)
        } else {
            self.name.parse().ok()
        }
    }

    /// Whether it is `-1`.
    pub(crate) fn is_last(&self) -> bool {
        !self.forced && self.name == "-1"
    }
}

/// Parts a simple path; `None` when it is not simple.
pub(crate) fn parse(path: &str) -> Result<Option<Steps<'_>>, PathError> {
    if path.is_empty() {
        return Err(PathError::new("path cannot be empty"));
    }
    let mut steps = Steps::new();
    let mut rest = path;
    loop {
        let forced = rest.starts_with(':');
        let text = if forced { &rest[1..] } else { rest };
        let Some((name, behind)) = parse_step(text) else {
            return Ok(None);
        };
        steps.push(Step { name, forced });
        match behind {
            Some(more) => rest = more,
            None => return Ok(Some(steps)),
        }
    }
}

/// The first name and what stands behind its dot, if there is one.
fn parse_step(text: &str) -> Option<(Cow<'_, str>, Option<&str>)> {
    let mut name = Cow::Borrowed("");
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        let taken = match character {
            '.' => {
                let plain = matches!(name, Cow::Borrowed(_));
                let whole = if plain { Cow::Borrowed(&text[..at]) } else { name };
                return Some((whole, Some(&text[at + 1..])));
            }
            '|' | '#' | '@' | '*' | '?' => return None,
            '\\' => {
                if let Cow::Borrowed(_) = name {
                    name = Cow::Owned(text[..at].to_owned());
                }
                characters.next().map(|(_, escaped)| escaped)
            }
            plain => Some(plain),
        };
        if let (Cow::Owned(owned), Some(one)) = (&mut name, taken) {
            owned.push(one);
        }
    }
    Some((
        if matches!(name, Cow::Borrowed(_)) {
            Cow::Borrowed(text)
        } else {
            name
        },
        None,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<String> {
        let steps = parse(path).unwrap().unwrap();
        steps.iter().map(|step| step.name.to_string()).collect()
    }

    #[test]
    fn a_path_is_parted_at_its_dots() {
        assert_eq!(names("a.0.-1"), ["a", "0", "-1"]);
        assert_eq!(names(r"a\.b.c\\d\é"), ["a.b", r"c\dé"]);
        assert_eq!(names(r"\*x."), ["*x", ""]);
        assert!(parse("").is_err());
        for path in ["a.#.b", "a|b", "@this", "a*", "?"] {
            assert_eq!(parse(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn digits_are_an_index_unless_forced() {
        let steps = parse("12.:12.-1.:-1.x.99999999999999999999").unwrap().unwrap();
        let indexes: Vec<_> = steps.iter().map(Step::index).collect();
        assert_eq!(indexes, [Some(12), None, None, None, None, None]);
        let last: Vec<_> = steps.iter().map(Step::is_last).collect();
        assert_eq!(last, [false, false, true, false, false, false]);
    }
}
