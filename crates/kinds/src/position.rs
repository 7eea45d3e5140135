//! Where each field of a document stands in its file.
//!
//! The YAML and JSON readers build one [`Positions`] tree per document, next to the value; everything after them
//! asks it for the line of a field path, so that every diagnostic can name `FILE:LINE`. Keys may contain dots and
//! slashes (annotations do), so a path is resolved against the tree and never split blindly.

/// A place in a file. Both numbers start at 1; line 0 means "no place known", as for objects that came from an
/// API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line, counted from 1; 0 when unknown.
    pub line: u32,
    /// Column in characters, counted from 1; 0 when unknown.
    pub column: u32,
}

/// The position of a value and of everything inside it. For a field the place of its key is kept, for a list item
/// the place where the item begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions {
    here: Position,
    children: Children,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Children {
    #[default]
    None,
    Fields(Vec<(Box<str>, Positions)>),
    Items(Vec<Positions>),
}

impl Positions {
    /// A value without children.
    pub fn scalar(here: Position) -> Self {
        Self {
            here,
            children: Children::None,
        }
    }

    /// A mapping. A later field of the same name replaces an earlier one, as it does in the value.
    pub fn mapping(here: Position, fields: Vec<(Box<str>, Positions)>) -> Self {
        Self {
            here,
            children: Children::Fields(fields),
        }
    }

    /// A list.
    pub fn sequence(here: Position, items: Vec<Positions>) -> Self {
        Self {
            here,
            children: Children::Items(items),
        }
    }

    /// The place of the value itself.
    pub fn here(&self) -> Position {
        self.here
    }

    /// The same subtree, placed elsewhere: a YAML alias stands where it is used.
    pub(crate) fn moved(mut self, here: Position) -> Self {
        self.here = here;
        self
    }

    /// Rewrites every line; used when the text that was parsed had more lines than the file.
    pub(crate) fn map_lines(&mut self, map: &impl Fn(u32) -> u32) {
        self.here.line = map(self.here.line);
        match &mut self.children {
            Children::None => {}
            Children::Fields(fields) => fields.iter_mut().for_each(|(_, child)| child.map_lines(map)),
            Children::Items(items) => items.iter_mut().for_each(|child| child.map_lines(map)),
        }
    }

    /// The position of a path such as `spec.matchRules[0].config.provider.type`, or
    /// `metadata.annotations[higress.io/timeout]`, or the same with a dot before the key. Where the path leaves the
    /// document (a missing field), the position of the deepest part that exists.
    pub fn find(&self, path: &str) -> Position {
        self.deepest(path).here
    }

    /// The subtree at `path`, or nothing when it is not in the document.
    pub fn subtree(&self, path: &str) -> Option<&Positions> {
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            (node, rest) = node.step(rest)?;
        }
        Some(node)
    }

    fn deepest(&self, path: &str) -> &Positions {
        let mut node = self;
        let mut rest = path;
        while !rest.is_empty() {
            match node.step(rest) {
                Some((child, remaining)) => (node, rest) = (child, remaining),
                None => break,
            }
        }
        node
    }

    /// Takes one field or index off the front of `path`.
    fn step<'a, 'p>(&'a self, path: &'p str) -> Option<(&'a Positions, &'p str)> {
        match &self.children {
            Children::None => None,
            Children::Items(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(index.parse::<usize>().ok()?)?, rest))
            }
            Children::Fields(fields) => {
                let bracketed = path.strip_prefix('[');
                let plain = path.strip_prefix('.').unwrap_or(path);
                let mut best: Option<(&Positions, &str, usize)> = None;
                // The last of equal keys wins, the longest key wins over a shorter one that is its prefix.
                for (key, child) in fields.iter().rev() {
                    let rest = match bracketed {
                        Some(inner) => inner.strip_prefix(&**key).and_then(|rest| rest.strip_prefix(']')),
                        None => plain
                            .strip_prefix(&**key)
                            .filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])),
                    };
                    if let Some(rest) = rest
                        && best.is_none_or(|(_, _, length)| key.len() > length)
                    {
                        best = Some((child, rest, key.len()));
                    }
                }
                best.map(|(child, rest, _)| (child, rest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Position {
        Position { line, column: 1 }
    }

    fn leaf(line: u32) -> Positions {
        Positions::scalar(at(line))
    }

    fn sample() -> Positions {
        let annotations = Positions::mapping(
            at(2),
            vec![
                ("higress.io/timeout".into(), leaf(3)),
                ("higress".into(), leaf(4)),
                ("a]".into(), leaf(5)),
            ],
        );
        let rules = Positions::sequence(
            at(6),
            vec![leaf(7), Positions::mapping(at(8), vec![("x".into(), leaf(9))])],
        );
        Positions::mapping(
            at(1),
            vec![("annotations".into(), annotations), ("rules".into(), rules)],
        )
    }

    #[test]
    fn finds_fields_items_and_keys_with_dots() {
        let positions = sample();
        assert_eq!(positions.find("annotations[higress.io/timeout]").line, 3);
        assert_eq!(positions.find("annotations.higress.io/timeout").line, 3);
        assert_eq!(positions.find("annotations.higress").line, 4);
        assert_eq!(positions.find("rules[1].x").line, 9);
        assert_eq!(positions.find("").line, 1);
    }

    #[test]
    fn a_missing_field_falls_back_to_its_parent() {
        let positions = sample();
        assert_eq!(positions.find("rules[0].missing.deeper").line, 7);
        assert_eq!(positions.find("rules[9]").line, 6);
        assert_eq!(positions.find("nowhere").line, 1);
        assert_eq!(positions.subtree("rules[9]"), None);
        assert_eq!(positions.subtree("rules[0]"), Some(&leaf(7)));
    }

    #[test]
    fn the_last_of_two_equal_keys_is_the_one_in_force() {
        let positions = Positions::mapping(at(1), vec![("a".into(), leaf(2)), ("a".into(), leaf(3))]);
        assert_eq!(positions.find("a").line, 3);
    }
}
