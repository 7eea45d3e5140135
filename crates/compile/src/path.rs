//! One path of an Ingress: how it is compared, its matcher, and its place among the paths of a host.

use regex::Regex;
use tollgate_kinds::ingress::PathType;
use tollgate_snapshot::route::PathMatch;

use crate::annotations::{PathStyle, Rewrite, regex_message, whole};

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathKind {
    /// Byte for byte.
    Exact,
    /// Itself and everything below it.
    Prefix,
    /// A regular expression for the beginning of the path.
    PrefixRegex,
    /// A regular expression for the whole path.
    FullRegex,
}

/// A path entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutePath {
    pub(crate) kind: PathKind,
    /// As configured; a prefix has lost one trailing slash unless it is `/`.
    pub(crate) text: Box<str>,
}

impl RoutePath {
    /// Decides the kind from the Ingress's `pathType` and its annotations, in Higress's order: a regular expression
    /// that the annotations ask for beats `pathType`.
    pub(crate) fn new(
        path_type: Option<PathType>,
        path: &str,
        style: PathStyle,
        rewrite: &Rewrite,
    ) -> Result<Self, String> {
        let path = if path.is_empty() { "/" } else { path };
        if style.use_regex || style.full_path_regex || rewrite.needs_regex(path) {
            let kind = match style.full_path_regex {
                true => PathKind::FullRegex,
                false => PathKind::PrefixRegex,
            };
            return Ok(Self {
                kind,
                text: path.into(),
            });
        }
        let mut text = path;
        let kind = match path_type {
            Some(PathType::Exact) => PathKind::Exact,
            Some(PathType::Prefix | PathType::ImplementationSpecific) => PathKind::Prefix,
            None => {
                if rewrite.target.is_none() {
                    text = text.strip_suffix(".*").unwrap_or(text);
                    text = text.strip_suffix("/*").unwrap_or(text);
                }
                PathKind::Prefix
            }
        };
        if !path.starts_with('/') {
            return Err("a path begins with `/`".to_owned());
        }
        if kind == PathKind::Prefix {
            text = text.strip_suffix('/').unwrap_or(text);
        }
        let text = if text.is_empty() { "/" } else { text };
        Ok(Self {
            kind,
            text: text.into(),
        })
    }

    /// The default backend's path.
    pub(crate) fn everything() -> Self {
        Self {
            kind: PathKind::Prefix,
            text: "/".into(),
        }
    }

    /// Whether it takes every path.
    pub(crate) fn is_everything(&self) -> bool {
        self.kind == PathKind::Prefix && &*self.text == "/"
    }

    /// Whether it is a regular expression.
    pub(crate) fn is_regex(&self) -> bool {
        matches!(self.kind, PathKind::PrefixRegex | PathKind::FullRegex)
    }

    /// The expression of a regex path as Higress writes it; the route wants it to match the whole path.
    fn expression(&self) -> String {
        match self.kind {
            PathKind::FullRegex => format!("{}$", self.text),
            _ => format!("{}.*", self.text),
        }
    }

    /// The unanchored expression of a regex path, for rewriting.
    pub(crate) fn rewrite_pattern(&self) -> Result<Regex, String> {
        Regex::new(&self.expression()).map_err(|error| regex_message(&error))
    }

    /// What a request's path is compared with.
    pub(crate) fn matcher(&self) -> Result<PathMatch, String> {
        Ok(match self.kind {
            PathKind::Exact => PathMatch::Exact(self.text.clone()),
            PathKind::Prefix if self.is_everything() => PathMatch::Any,
            PathKind::Prefix => PathMatch::Prefix(self.text.clone()),
            PathKind::PrefixRegex | PathKind::FullRegex => PathMatch::Regex(whole(&self.expression())?),
        })
    }

    /// Exact before prefix before regular expressions. The two sorts of expression are one class.
    pub(crate) fn class(&self) -> u8 {
        match self.kind {
            PathKind::Exact => 0,
            PathKind::Prefix => 1,
            PathKind::PrefixRegex | PathKind::FullRegex => 2,
        }
    }

    /// Kind and text in one string: two entries of one host with the same key are the same route.
    pub(crate) fn key(&self) -> String {
        let kind = match self.kind {
            PathKind::Exact => "exact",
            PathKind::Prefix => "prefix",
            PathKind::PrefixRegex => "prefixRegex",
            PathKind::FullRegex => "fullPathRegex",
        };
        format!("{kind}-{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path_type: Option<PathType>, path: &str) -> (PathKind, Box<str>) {
        let route = RoutePath::new(path_type, path, PathStyle::default(), &Rewrite::default()).unwrap();
        (route.kind, route.text)
    }

    #[test]
    fn path_types() {
        assert_eq!(
            plain(Some(PathType::Exact), "/a/"),
            (PathKind::Exact, "/a/".into())
        );
        assert_eq!(
            plain(Some(PathType::Prefix), "/cat/"),
            (PathKind::Prefix, "/cat".into())
        );
        assert_eq!(plain(Some(PathType::Prefix), "/"), (PathKind::Prefix, "/".into()));
        assert_eq!(
            plain(Some(PathType::ImplementationSpecific), "/a"),
            (PathKind::Prefix, "/a".into())
        );
        assert_eq!(plain(None, ""), (PathKind::Prefix, "/".into()));
        assert_eq!(plain(None, "/a/*"), (PathKind::Prefix, "/a".into()));
        assert_eq!(plain(None, "/*"), (PathKind::Prefix, "/".into()));
        assert_eq!(plain(None, "/a.*"), (PathKind::Prefix, "/a".into()));
        // A written type is taken at its word.
        assert_eq!(
            plain(Some(PathType::Prefix), "/a/*"),
            (PathKind::Prefix, "/a/*".into())
        );
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        let none = (PathStyle::default(), Rewrite::default());
        assert!(RoutePath::new(Some(PathType::Prefix), "a", none.0, &none.1).is_err());
    }

    #[test]
    fn expressions_match_whole_paths() {
        let style = PathStyle {
            use_regex: true,
            ..PathStyle::default()
        };
        let route = RoutePath::new(Some(PathType::Exact), "/foo/[0-9]+", style, &Rewrite::default()).unwrap();
        let PathMatch::Regex(pattern) = route.matcher().unwrap() else {
            panic!("a regex")
        };
        assert!(pattern.is_match("/foo/12/x") && !pattern.is_match("/x/foo/12"));
        let style = PathStyle {
            full_path_regex: true,
            ..PathStyle::default()
        };
        let route = RoutePath::new(None, "/foo/[0-9]+", style, &Rewrite::default()).unwrap();
        let PathMatch::Regex(pattern) = route.matcher().unwrap() else {
            panic!("a regex")
        };
        assert!(pattern.is_match("/foo/12") && !pattern.is_match("/foo/12/x"));
        let broken = RoutePath::new(None, "/foo(", style, &Rewrite::default()).unwrap();
        assert!(broken.matcher().is_err());
    }
}
