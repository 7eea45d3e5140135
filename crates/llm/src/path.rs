//! Request paths as vendors want them: placeholders of a capability filled from the client's path, Go's `path.Join`.
//!
//! Works on the text of `:path` (path and query). Knows no vendor.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Splits `path?query` into path and query (with its `?`).
#[must_use]
pub fn split_query(path_and_query: &str) -> (&str, &str) {
    match path_and_query.find('?') {
        Some(mark) => path_and_query.split_at(mark),
        None => (path_and_query, ""),
    }
}

/// The path without query, percent-decoded; bytes that are no UTF-8 leave it as it is.
#[must_use]
pub fn decoded(path_and_query: &str) -> Cow<'_, str> {
    let (path, _) = split_query(path_and_query);
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    percent_decode_str(path)
        .decode_utf8()
        .unwrap_or(Cow::Borrowed(path))
}

/// Go's `path.Join`: joins with `/`, then removes doubled slashes, `.` and `..`. A query on `tail` is kept as it is.
#[must_use]
pub fn join(head: &str, tail: &str) -> String {
    let (tail_path, query) = split_query(tail);
    let mut kept: Vec<&str> = Vec::new();
    let rooted = head.starts_with('/') || (head.is_empty() && tail_path.starts_with('/'));
    for segment in head.split('/').chain(tail_path.split('/')) {
        match segment {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            other => kept.push(other),
        }
    }
    let root = if rooted { "/" } else { "" };
    format!("{root}{}{query}", kept.join("/"))
}

/// Placeholders that a capability path may hold, and the path segments that precede their value in the client's path.
const PLACEHOLDERS: &[(&str, &[&str])] = &[
    ("{file_id}", &["v1", "files"]),
    ("{batch_id}", &["v1", "batches"]),
    ("{video_id}", &["v1", "videos"]),
    ("{fine_tuning_job_id}", &["fine_tuning", "jobs"]),
    ("{fine_tuned_model_checkpoint}", &["fine_tuning", "checkpoints"]),
];

/// Fills a capability's path from the client's `path?query` and appends the client's query to the path's own
/// (ai-proxy spec §1.6; unlike Higress, the fine-tuning placeholders are filled too).
#[must_use]
pub fn expand(capability: &str, client_path: &str) -> String {
    let (path, query) = split_query(client_path);
    let mut filled = Cow::Borrowed(capability);
    if capability.contains('{') {
        for (placeholder, before) in PLACEHOLDERS {
            if let (true, Some(value)) = (filled.contains(placeholder), segment_after(path, before)) {
                filled = Cow::Owned(filled.replace(placeholder, value));
            }
        }
        if let (true, Some(value)) = (
            filled.contains("{permission_id}"),
            path.rsplit_once("/permissions/"),
        ) {
            filled = Cow::Owned(filled.replace("{permission_id}", value.1));
        }
    }
    append_query(filled.into_owned(), query)
}

/// Appends a client's query (with its `?`, or empty) to a path that may have one.
#[must_use]
pub fn append_query(mut path: String, query: &str) -> String {
    let Some(pairs) = query.strip_prefix('?') else {
        return path;
    };
    if !path.ends_with('?') {
        path.push(if path.contains('?') { '&' } else { '?' });
    }
    path.push_str(pairs);
    path
}

fn segment_after<'a>(path: &'a str, before: &[&str]) -> Option<&'a str> {
    let segments: Vec<&str> = path.split('/').collect();
    segments
        .windows(before.len() + 1)
        .rev()
        .find(|window| window[..before.len()] == *before)
        .map(|window| window[before.len()])
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_queries() {
        let capability = "/v1/files/{file_id}/content?download=1";
        let client = "/openai/v1/files/file-123/content?variant=thumbnail";
        assert_eq!(
            expand(capability, client),
            "/v1/files/file-123/content?download=1&variant=thumbnail"
        );
        assert_eq!(
            expand("/v1/batches/{batch_id}/cancel", "/v1/batches/b1/cancel"),
            "/v1/batches/b1/cancel"
        );
        assert_eq!(
            expand("/v1/videos/{video_id}/remix", "/p/v1/videos/v/remix"),
            "/v1/videos/v/remix"
        );
        assert_eq!(
            expand(
                "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
                "/v1/fine_tuning/jobs/ftjob-1/events?x=1"
            ),
            "/v1/fine_tuning/jobs/ftjob-1/events?x=1"
        );
        assert_eq!(
            expand(
                "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}",
                "/v1/fine_tuning/checkpoints/c/permissions/p"
            ),
            "/v1/fine_tuning/checkpoints/c/permissions/p"
        );
        assert_eq!(expand("/x", "/y?q=1"), "/x?q=1");
    }

    #[test]
    fn joins_like_go() {
        assert_eq!(join("/ai", "/v1//x/../chat?a=//b"), "/ai/v1/chat?a=//b");
        assert_eq!(join("/my/v1", "/files/f"), "/my/v1/files/f");
        assert_eq!(join("", "/files"), "/files");
        assert_eq!(join("/a", "../../b"), "/b");
    }

    #[test]
    fn decodes_without_the_query() {
        assert_eq!(decoded("/v1/chat%2Fcompletions?x=%20"), "/v1/chat/completions");
        assert_eq!(decoded("/%ff"), "/%ff");
    }
}
