//! How Higress reads annotation values: two prefixes, Go's syntax, and a bad value never spoils its object.
//!
//! The compiler's annotation groups ask this reader for one key after the other; what could not be used is collected
//! here and becomes warnings at the end. What a key means is not known here.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::resource::Resource;

/// Prefix of the annotations that ingress-nginx shares with Higress.
pub const NGINX_PREFIX: &str = "nginx.ingress.kubernetes.io/";
/// Prefix of Higress's own annotations.
pub const HIGRESS_PREFIX: &str = "higress.io/";

/// Which prefixes a key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// `nginx.ingress.kubernetes.io/` first and, when that is missing or unusable, `higress.io/`.
    Both,
    /// `higress.io/` only.
    Higress,
}

impl Prefix {
    fn keys(self, key: &str) -> impl Iterator<Item = String> {
        let prefixes: &[&str] = match self {
            Self::Both => &[NGINX_PREFIX, HIGRESS_PREFIX],
            Self::Higress => &[HIGRESS_PREFIX],
        };
        prefixes.iter().map(move |prefix| format!("{prefix}{key}"))
    }
}

/// Reads the annotations of one object.
#[derive(Debug)]
pub struct AnnotationReader<'a> {
    annotations: &'a BTreeMap<String, String>,
    unusable: Vec<Unusable>,
}

/// An annotation whose value was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The whole key.
    pub key: String,
    /// What is wrong with the value.
    pub message: String,
}

impl<'a> AnnotationReader<'a> {
    /// A reader over `metadata.annotations`.
    pub fn new(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            unusable: Vec::new(),
        }
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, prefix: Prefix, key: &str) -> bool {
        prefix.keys(key).any(|key| self.annotations.contains_key(&key))
    }

    /// The value as it stands, untrimmed, under its whole key.
    pub fn raw(&self, whole_key: &str) -> Option<&'a str> {
        self.annotations.get(whole_key).map(String::as_str)
    }

    /// A truth value: `1 t T TRUE true True 0 f F FALSE false False`, nothing else.
    pub fn boolean(&mut self, prefix: Prefix, key: &str) -> Option<bool> {
        self.first(prefix, key, "expected true or false", |value| match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        })
    }

    /// A decimal number without spaces.
    pub fn integer(&mut self, prefix: Prefix, key: &str) -> Option<i64> {
        self.first(prefix, key, "expected a whole number", |value| value.parse().ok())
    }

    /// A decimal number from 0 to 2³²−1.
    pub fn unsigned(&mut self, prefix: Prefix, key: &str) -> Option<u32> {
        // Go takes no `+` here, other than for signed numbers.
        self.first(prefix, key, "expected a whole number, not negative", |value| {
            value.parse().ok().filter(|_| !value.starts_with('+'))
        })
    }

    /// Text with every line trimmed. An empty value counts as not set.
    pub fn text(&mut self, prefix: Prefix, key: &str) -> Option<String> {
        self.first(prefix, key, "the value is empty", |value| {
            let lines: Vec<&str> = value.lines().map(str::trim).collect();
            let joined = lines.join("\n");
            let trimmed = joined.trim_end_matches('\n');
            (!trimmed.is_empty()).then(|| trimmed.to_owned())
        })
    }

    /// Every annotation whose key starts with `higress.io/` and then `key_start`: the rest of the key and the value.
    pub fn starting_with(&self, key_start: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let start = format!("{HIGRESS_PREFIX}{key_start}");
        let entries: Vec<(&'a str, &'a str)> = self
            .annotations
            .range(start.clone()..)
            .map_while(|(key, value)| {
                key.strip_prefix(start.as_str())
                    .map(|rest| (rest, value.as_str()))
            })
            .collect();
        entries.into_iter()
    }

    /// Notes that a value was skipped for a reason that only the caller knows.
    pub fn skip(&mut self, prefix: Prefix, key: &str, message: impl Into<String>) {
        let present = prefix.keys(key).find(|key| self.annotations.contains_key(key));
        if let Some(key) = present {
            self.unusable.push(Unusable {
                key,
                message: message.into(),
            });
        }
    }

    /// What was skipped so far.
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// What was skipped, as warnings about the object that the annotations belong to.
    pub fn into_warnings<T>(self, resource: &Resource<T>) -> Vec<Diagnostic> {
        let warning = |unusable: Unusable| {
            let message = format!("{}; the annotation is ignored", unusable.message);
            resource.warning(&format!("metadata.annotations[{}]", unusable.key), message)
        };
        self.unusable.into_iter().map(warning).collect()
    }

    fn first<T>(
        &mut self,
        prefix: Prefix,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        for key in prefix.keys(key) {
            let Some(value) = self.annotations.get(&key) else {
                continue;
            };
            match parse(value) {
                Some(parsed) => return Some(parsed),
                None => {
                    let unusable = Unusable {
                        key,
                        message: expected.to_owned(),
                    };
                    // Several groups may ask for the same key.
                    if !self.unusable.contains(&unusable) {
                        self.unusable.push(unusable);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn nginx_comes_first_and_higress_fills_in() {
        let map = annotations(&[
            ("nginx.ingress.kubernetes.io/use-regex", "true"),
            ("higress.io/use-regex", "false"),
            ("nginx.ingress.kubernetes.io/enable-cors", "yes"),
            ("higress.io/enable-cors", "T"),
            ("nginx.ingress.kubernetes.io/timeout", "5"),
            ("nginx.ingress.kubernetes.io/rewrite-target", " "),
            ("higress.io/rewrite-target", "/x"),
        ]);
        let mut reader = AnnotationReader::new(&map);
        assert_eq!(reader.boolean(Prefix::Both, "use-regex"), Some(true));
        assert_eq!(reader.boolean(Prefix::Higress, "use-regex"), Some(false));
        assert_eq!(reader.boolean(Prefix::Both, "enable-cors"), Some(true));
        assert_eq!(reader.integer(Prefix::Higress, "timeout"), None);
        assert_eq!(reader.text(Prefix::Both, "rewrite-target").as_deref(), Some("/x"));
        assert!(reader.has(Prefix::Both, "timeout") && !reader.has(Prefix::Higress, "timeout"));
        let keys: Vec<&str> = reader
            .unusable()
            .iter()
            .map(|unusable| unusable.key.as_str())
            .collect();
        assert_eq!(
            keys,
            [
                "nginx.ingress.kubernetes.io/enable-cors",
                "nginx.ingress.kubernetes.io/rewrite-target"
            ]
        );
    }

    #[test]
    fn values_follow_go() {
        let map = annotations(&[
            ("higress.io/a", "-3"),
            ("higress.io/b", " 3"),
            ("higress.io/c", "3s"),
            ("higress.io/d", "+3"),
            ("higress.io/e", "True"),
            ("higress.io/f", "on"),
            ("higress.io/g", "  50% a.dns \r\n\t50% b.dns\n"),
        ]);
        let mut reader = AnnotationReader::new(&map);
        let integers: Vec<Option<i64>> = ["a", "b", "c", "d", "nothing"]
            .map(|key| reader.integer(Prefix::Both, key))
            .to_vec();
        assert_eq!(integers, [Some(-3), None, None, Some(3), None]);
        assert_eq!(reader.unsigned(Prefix::Higress, "a"), None);
        assert_eq!(reader.unsigned(Prefix::Higress, "d"), None);
        assert_eq!(reader.boolean(Prefix::Both, "e"), Some(true));
        assert_eq!(reader.boolean(Prefix::Both, "f"), None);
        assert_eq!(
            reader.text(Prefix::Both, "g").as_deref(),
            Some("50% a.dns\n50% b.dns")
        );
    }

    #[test]
    fn keys_with_a_name_in_them_are_listed() {
        let map = annotations(&[
            ("higress.io/exact-match-header-a", "1"),
            ("higress.io/exact-match-header-b", "2"),
            ("higress.io/exact-match-query-a", "3"),
            ("nginx.ingress.kubernetes.io/exact-match-header-c", "4"),
        ]);
        let reader = AnnotationReader::new(&map);
        let headers: Vec<_> = reader.starting_with("exact-match-header-").collect();
        assert_eq!(headers, [("a", "1"), ("b", "2")]);
    }
}
