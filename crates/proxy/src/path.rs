//! A request's path with `.` and `..` resolved, so that no route or rule sees another path than the upstream.
//!
//! As Envoy's `normalize_path` does it: backslashes count as slashes, `%2e` as a dot; doubled slashes and every other
//! escape stay.

use http::uri::PathAndQuery;

/// The path to work with; `None` when it is the one that came.
#[must_use]
pub fn resolved(target: &PathAndQuery) -> Option<PathAndQuery> {
    let path = target.path();
    if !may_change(path) {
        return None;
    }
    let mut clean = resolve(path);
    if clean == path {
        return None;
    }
    if let Some(query) = target.query() {
        clean.push('?');
        clean.push_str(query);
    }
    PathAndQuery::try_from(clean).ok()
}

/// Cheap and never wrong with a no.
fn may_change(path: &str) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr3_iter(b'.', b'%', b'\\', bytes).any(|at| match bytes[at] {
        b'.' => at > 0 && matches!(bytes[at - 1], b'/' | b'\\'),
        b'%' => matches!(bytes.get(at + 1..at + 3), Some([b'2', b'e' | b'E'])),
        _ => true,
    })
}

fn resolve(path: &str) -> String {
    let slashed = path.replace('\\', "/");
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in slashed.strip_prefix('/').unwrap_or(&slashed).split('/') {
        let dots = dots(segment);
        ends_open = dots > 0;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => drop(kept.pop()),
        }
    }
    if ends_open {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

/// 1 for `.`, 2 for `..`, 0 for every other segment.
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        let escaped = rest.get(..3).filter(|escape| escape.eq_ignore_ascii_case("%2e"));
        let Some(after) = rest.strip_prefix('.').or_else(|| rest.get(escaped?.len()..)) else {
            return 0;
        };
        rest = after;
        count += 1;
    }
    if count > 2 { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_resolved_and_nothing_else() {
        for (sent, expected) in [
            ("/v1/../admin", "/admin"),
            ("/v1/%2e%2E/admin?x=/../y", "/admin?x=/../y"),
            ("/v1\\..\\admin", "/admin"),
            ("/../../a", "/a"),
            ("/a/b/..", "/a/"),
            ("/a/./b/.", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a\\b", "/a/b"),
            ("/..", "/"),
        ] {
            let target = PathAndQuery::try_from(sent).expect("valid");
            assert_eq!(resolved(&target).expect(sent).as_str(), expected, "{sent}");
        }
        for same in [
            "/v1/chat/completions",
            "/v1/models/gpt-4.1",
            "/a//b",
            "/.well-known/x",
            "/a/...",
            "/a%2fb",
            "/a?x=/../y",
            "*",
        ] {
            let target = PathAndQuery::try_from(same).expect("valid");
            assert_eq!(resolved(&target), None, "{same}");
        }
    }
}
