//! `rewrite-target`, `rewrite-path`, `upstream-vhost`: the path and authority that the upstream sees.
//!
//! `rewrite-path` beats `rewrite-target`. Plugins and the access log see the original; the query is kept.

use http::HeaderValue;
use regex::Regex;
use tollgate_snapshot::policy::PathRewrite;

use super::reader::Reader;
use super::{Features, Group, Under, regex_message};
use crate::path::{PathKind, RoutePath};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("rewrite-target", Under::Both),
        ("rewrite-path", Under::Higress),
        ("upstream-vhost", Under::Both),
    ],
    read,
};

/// What is to be rewritten.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rewrite {
    /// `rewrite-target`, groups as `$1` or `\1`.
    pub(crate) target: Option<String>,
    /// `rewrite-path`.
    path: Option<String>,
    /// `upstream-vhost`.
    pub(crate) host: Option<HeaderValue>,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let host = reader.text("upstream-vhost").and_then(|text| {
        let host = text.parse::<http::uri::Authority>().ok();
        let value = host.and_then(|_| HeaderValue::from_str(&text).ok());
        if value.is_none() {
            reader.note_key("upstream-vhost", "expected a host name: ignored");
        }
        value
    });
    features.rewrite = Rewrite {
        target: reader.text("rewrite-target"),
        path: reader.higress_text("rewrite-path"),
        host,
    };
}

impl Rewrite {
    /// Whether a rewrite target turns this path into a regular expression.
    pub(crate) fn needs_regex(&self, path: &str) -> bool {
        let Some(target) = &self.target else { return false };
        path.contains([
            '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
        ]) || target.contains(['$', '\\'])
    }

    /// The rewrite of one route; the key at fault comes with an error.
    pub(crate) fn for_route(
        &self,
        route: &RoutePath,
        ignore_case: bool,
    ) -> Result<Option<PathRewrite>, (&'static str, String)> {
        if let Some(path) = &self.path {
            return by_path(path, route, ignore_case)
                .map(Some)
                .map_err(|message| ("rewrite-path", message));
        }
        let Some(target) = &self.target else {
            return Ok(None);
        };
        by_target(target, route, ignore_case)
            .map(Some)
            .map_err(|message| ("rewrite-target", message))
    }
}

fn by_path(path: &str, route: &RoutePath, ignore_case: bool) -> Result<PathRewrite, String> {
    if route.kind != PathKind::Prefix {
        return Ok(PathRewrite::Whole(path.into()));
    }
    let prefix = match route.is_everything() {
        true => "",
        false => &route.text,
    };
    // With a trailing slash the slash after the prefix is part of what is replaced.
    let slash = if path.ends_with('/') { "/?" } else { "" };
    if slash.is_empty() && !ignore_case {
        return Ok(PathRewrite::Prefix {
            from: prefix.into(),
            to: path.into(),
        });
    }
    let pattern = pattern(&format!("^{}{slash}", regex::escape(prefix)), ignore_case)?;
    Ok(PathRewrite::Regex {
        pattern,
        replacement: literal(path).into(),
    })
}

fn by_target(target: &str, route: &RoutePath, ignore_case: bool) -> Result<PathRewrite, String> {
    let pattern = match (route.is_regex(), route.is_everything()) {
        (true, _) => route.rewrite_pattern()?,
        (_, true) => pattern("^/", false)?,
        // Not anchored and applied to every occurrence, as Higress has it: `/foo/foo` becomes target twice.
        _ => pattern(&regex::escape(&route.text), ignore_case)?,
    };
    let replacement = groups(target, pattern.captures_len())?;
    Ok(PathRewrite::Regex {
        pattern,
        replacement: replacement.into(),
    })
}

fn pattern(text: &str, ignore_case: bool) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(text)
        .case_insensitive(ignore_case)
        .build();
    built.map_err(|error| regex_message(&error))
}

/// A replacement without groups.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Turns `$1` and `\1` into the `${1}` of the regex crate. Once one `$1` is in it, every `$` counts as `\`, as in
/// Higress; without one a `$` is itself.
fn groups(target: &str, groups_in_pattern: usize) -> Result<String, String> {
    let bytes = target.as_bytes();
    let nginx_style = bytes
        .windows(2)
        .any(|pair| pair[0] == b'$' && pair[1].is_ascii_digit());
    let mut replacement = String::with_capacity(target.len() + 8);
    let mut characters = target.chars().peekable();
    while let Some(character) = characters.next() {
        let escape = character == '\\' || (nginx_style && character == '$');
        if !escape {
            replacement.push_str(match character {
                '$' => "$$",
                _ => "",
            });
            if character != '$' {
                replacement.push(character);
            }
            continue;
        }
        match characters.next() {
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).map_or(0, |group| group as usize);
                if group >= groups_in_pattern {
                    return Err(format!(
                        "group {group} is used but the path has {} groups",
                        groups_in_pattern - 1
                    ));
                }
                replacement.push_str(&format!("${{{group}}}"));
            }
            Some('\\') => replacement.push('\\'),
            _ => return Err("`\\` and `$` need a digit behind them".to_owned()),
        }
    }
    Ok(replacement)
}

#[cfg(test)]
mod tests {
    use tollgate_kinds::ingress::PathType;

    use super::super::tests::read_from;
    use super::*;

    fn rewritten(entries: &[(&str, &str)], path_type: PathType, path: &str, request: &str) -> String {
        let (features, _) = read_from(entries);
        let route = RoutePath::new(Some(path_type), path, features.path, &features.rewrite).unwrap();
        let rewrite = features
            .rewrite
            .for_route(&route, features.path.ignore_case)
            .unwrap();
        match rewrite.unwrap() {
            PathRewrite::Whole(whole) => whole.into(),
            PathRewrite::Prefix { from, to } => format!("{to}{}", request.strip_prefix(&*from).unwrap()),
            PathRewrite::Regex { pattern, replacement } => {
                pattern.replace_all(request, &*replacement).into_owned()
            }
        }
    }

    #[test]
    fn rewrite_path() {
        let slashless = [("higress.io/rewrite-path", "/test")];
        assert_eq!(
            rewritten(&slashless, PathType::Prefix, "/hello", "/hello/a"),
            "/test/a"
        );
        assert_eq!(
            rewritten(&slashless, PathType::Prefix, "/hello/", "/hello"),
            "/test"
        );
        assert_eq!(
            rewritten(&slashless, PathType::Prefix, "/", "/rest"),
            "/test/rest"
        );
        assert_eq!(
            rewritten(&slashless, PathType::Exact, "/hello", "/hello"),
            "/test"
        );
        let slash = [("higress.io/rewrite-path", "/test/")];
        assert_eq!(
            rewritten(&slash, PathType::Prefix, "/hello", "/hello/a"),
            "/test/a"
        );
        assert_eq!(rewritten(&slash, PathType::Prefix, "/hello", "/hello"), "/test/");
        assert_eq!(rewritten(&slash, PathType::Prefix, "/", "/a"), "/test/a");
        let any_case = [
            ("higress.io/rewrite-path", "/t$1"),
            ("higress.io/ignore-path-case", "true"),
        ];
        assert_eq!(
            rewritten(&any_case, PathType::Prefix, "/hello", "/HELLO/a"),
            "/t$1/a"
        );
        let both = [
            ("higress.io/rewrite-path", "/p"),
            ("higress.io/rewrite-target", "/t"),
        ];
        assert_eq!(rewritten(&both, PathType::Exact, "/x", "/x"), "/p");
    }

    #[test]
    fn rewrite_target() {
        let group = [("nginx.ingress.kubernetes.io/rewrite-target", "/$1")];
        assert_eq!(
            rewritten(&group, PathType::Prefix, "/svc/(.*)", "/svc/foo"),
            "/foo"
        );
        let re2 = [("higress.io/rewrite-target", r"/\1")];
        assert_eq!(rewritten(&re2, PathType::Prefix, "/svc/(.*)", "/svc/foo"), "/foo");
        let fixed = [("higress.io/rewrite-target", "/t")];
        assert_eq!(rewritten(&fixed, PathType::Prefix, "/foo", "/foo/bar"), "/t/bar");
        assert_eq!(rewritten(&fixed, PathType::Prefix, "/foo", "/foo/foo"), "/t/t");
        assert_eq!(rewritten(&fixed, PathType::Prefix, "/", "/foo"), "/tfoo");
        assert_eq!(rewritten(&fixed, PathType::Exact, "/foo", "/foo"), "/t");
        let dollar = [
            ("higress.io/rewrite-target", "/a$b"),
            ("higress.io/use-regex", "true"),
        ];
        assert_eq!(rewritten(&dollar, PathType::Exact, "/foo", "/foo/x"), "/a$b");
    }

    #[test]
    fn a_missing_group_is_an_error() {
        let (features, _) = read_from(&[("higress.io/rewrite-target", "/$2")]);
        let route = RoutePath::new(
            Some(PathType::Prefix),
            "/svc/(.*)",
            features.path,
            &features.rewrite,
        )
        .unwrap();
        let (key, message) = features.rewrite.for_route(&route, false).unwrap_err();
        assert_eq!(
            (key, message.as_str()),
            ("rewrite-target", "group 2 is used but the path has 1 groups")
        );
        assert!(groups("/a\\", 1).is_err());
        assert_eq!(groups(r"\\x", 1).as_deref(), Ok(r"\x"));
    }

    #[test]
    fn a_bad_host_is_told() {
        let (features, notes) = read_from(&[("higress.io/upstream-vhost", "a b")]);
        assert!(features.rewrite.host.is_none());
        assert_eq!(notes[0].key, "higress.io/upstream-vhost");
    }
}
