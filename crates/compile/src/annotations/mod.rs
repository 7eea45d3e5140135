//! Ingress annotations: one file a group, one row a group in [`GROUPS`].
//!
//! A group reads its keys into [`Features`]; nothing here looks at another object. What a route makes of a feature
//! (a rewrite needs the route's path) is a function of the group's file, called when the route is compiled.
//! A bad value is noted and skipped: only a match condition that cannot be read takes its routes along, since
//! leaving it out would let in requests that it was meant to keep out.

mod access;
mod canary;
mod conditions;
mod cors;
mod destination;
mod downstream_tls;
mod headers;
mod load_balance;
mod mirror;
mod path;
mod reader;
mod redirect;
mod retry;
mod rewrite;
mod timers;
mod upstream_tls;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use tollgate_snapshot::LoadBalance;
use tollgate_snapshot::policy::{AddressRange, Cors, HeaderControl, RateLimit, Retry};

pub(crate) use canary::{Canary, Variant};
pub(crate) use conditions::Conditions;
pub(crate) use destination::{DefaultBackend, Written, WrittenDestination};
pub(crate) use downstream_tls::{AUTHORITIES, DownstreamTls};
pub(crate) use mirror::{MirrorTarget, WrittenMirror};
pub(crate) use path::PathStyle;
pub(crate) use reader::Note;
pub(crate) use redirect::Redirects;
pub(crate) use rewrite::Rewrite;
pub(crate) use timers::WrittenTimers;
pub(crate) use upstream_tls::UpstreamTls;

use reader::{HIGRESS, NGINX, Reader, TOLLGATE};

/// What the annotations of one Ingress ask for. The default asks for nothing.
#[derive(Debug, Default)]
pub(crate) struct Features {
    pub(crate) destination: Option<Written>,
    pub(crate) default_backend: Option<DefaultBackend>,
    /// `custom-http-errors`, with `default-backend` only.
    pub(crate) replaced_errors: Vec<StatusCode>,
    pub(crate) mirror: Option<WrittenMirror>,
    pub(crate) canary: Option<Canary>,
    pub(crate) path: PathStyle,
    pub(crate) rewrite: Rewrite,
    pub(crate) redirects: Redirects,
    pub(crate) cors: Option<Arc<Cors>>,
    pub(crate) timers: WrittenTimers,
    pub(crate) retry: Option<Retry>,
    pub(crate) headers: HeaderControl,
    pub(crate) conditions: Conditions,
    pub(crate) allowed_sources: Vec<AddressRange>,
    pub(crate) rate: Option<Arc<RateLimit>>,
    pub(crate) load_balance: Option<LoadBalance>,
    pub(crate) upstream_tls: Option<UpstreamTls>,
    pub(crate) downstream_tls: Option<DownstreamTls>,
    /// Set when a match condition cannot be read: the Ingress gets no routes.
    pub(crate) unroutable: Option<Note>,
}

impl Features {
    /// Whether the Ingress says something about the services that it sends to.
    pub(crate) fn concerns_services(&self) -> bool {
        self.upstream_tls.is_some() || self.load_balance.is_some()
    }
}

/// Under which prefixes a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    /// `nginx.ingress.kubernetes.io/`, then `higress.io/`.
    Both,
    /// `higress.io/` only.
    Higress,
    /// `tollgate.dev/` only.
    Tollgate,
}

/// One group of annotations.
struct Group {
    keys: &'static [(&'static str, Under)],
    read: fn(&mut Reader<'_>, &mut Features),
}

/// Every group that is honoured.
static GROUPS: &[Group] = &[
    destination::GROUP,
    mirror::GROUP,
    canary::GROUP,
    path::GROUP,
    rewrite::GROUP,
    redirect::GROUP,
    cors::GROUP,
    timers::GROUP,
    retry::GROUP,
    headers::GROUP,
    conditions::GROUP,
    access::GROUP,
    load_balance::GROUP,
    upstream_tls::GROUP,
    downstream_tls::GROUP,
];

const NOT_YET: &str = "not supported yet: ignored";
const NOT_IN_HIGRESS: &str = "Higress does not implement this annotation: ignored";
const DEAD: &str = "has no effect since Higress 2.0: use the plugin `basic-auth` instead";

/// Keys that are known and change nothing, with what to tell the user; `None` is silence.
static IDLE: &[(&str, Option<&str>)] = &[
    ("rpc-destination-name", Some(NOT_YET)),
    ("mcp-server", Some(NOT_YET)),
    ("mcp-server-match-rule-domains", Some(NOT_YET)),
    ("mcp-server-match-rule-type", Some(NOT_YET)),
    ("mcp-server-match-rule-value", Some(NOT_YET)),
    ("mcp-server-upstream-type", Some(NOT_YET)),
    ("mcp-server-enable-path-rewrite", Some(NOT_YET)),
    ("mcp-server-path-rewrite-prefix", Some(NOT_YET)),
    ("auth-type", Some(DEAD)),
    ("auth-secret", Some(DEAD)),
    ("auth-secret-type", Some(DEAD)),
    ("auth-realm", Some(DEAD)),
    ("blacklist-source-range", Some(NOT_IN_HIGRESS)),
    ("denylist-source-range", Some(NOT_IN_HIGRESS)),
    ("domain-whitelist-source-range", Some(NOT_IN_HIGRESS)),
    ("domain-blacklist-source-range", Some(NOT_IN_HIGRESS)),
    ("limit-rps", Some(NOT_IN_HIGRESS)),
    ("limit-rpm", Some(NOT_IN_HIGRESS)),
    // Marks and switches of Higress's console; its data plane ignores them too.
    ("resource-definer", None),
    ("internal", None),
    ("comment", None),
    ("enable-rewrite", None),
    ("enable-header-control", None),
    ("enable-proxy-next-upstream", None),
];

/// Reads all groups. The notes are in the order of the groups.
pub(crate) fn read(annotations: &BTreeMap<String, String>) -> (Features, Vec<Note>) {
    let mut reader = Reader::new(annotations);
    let mut features = Features::default();
    for group in GROUPS {
        (group.read)(&mut reader, &mut features);
    }
    note_idle(&mut reader);
    (features, reader.into_notes())
}

/// Says so where an annotation will do nothing. Unknown keys of the nginx prefix stay silent: the same object may
/// serve an nginx controller as well.
fn note_idle(reader: &mut Reader<'_>) {
    for (full, _) in reader.entries() {
        let stripped = [(NGINX, false), (HIGRESS, true), (TOLLGATE, true)]
            .iter()
            .find_map(|(prefix, ours)| Some((full.strip_prefix(prefix)?, *ours)));
        let Some((key, ours)) = stripped else { continue };
        if let Some((_, told)) = IDLE.iter().find(|(idle, _)| *idle == key) {
            if let Some(message) = told {
                reader.note(full, *message);
            }
            continue;
        }
        let elsewhere =
            key.starts_with("disabled.") || key.starts_with("wasm-plugin") || conditions::is_condition(key);
        if ours && !elsewhere && !is_known(full) {
            reader.note(full, "not a known annotation: ignored");
        }
    }
}

fn is_known(full: &str) -> bool {
    let mut keys = GROUPS.iter().flat_map(|group| group.keys);
    keys.any(|(key, under)| match under {
        Under::Both | Under::Higress => full.strip_prefix(HIGRESS) == Some(key),
        Under::Tollgate => full.strip_prefix(TOLLGATE) == Some(key),
    })
}

/// A pattern that must match the whole text.
pub(crate) fn whole(pattern: &str) -> Result<regex::Regex, String> {
    // Compiled by itself first: `a)(b` must not become valid by being wrapped.
    regex::Regex::new(pattern)
        .and_then(|_| regex::Regex::new(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| regex_message(&error))
}

/// The reason of a bad pattern in one line; the library's own text has several and repeats the pattern.
pub(crate) fn regex_message(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the regular expression needs more than {limit} bytes when compiled")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!(
                "invalid regular expression: {}",
                last.trim().trim_start_matches("error: ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn read_from(entries: &[(&str, &str)]) -> (Features, Vec<Note>) {
        let owned = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(&owned.collect())
    }

    #[test]
    fn what_does_nothing_is_told_once_and_console_marks_are_not() {
        let (_, notes) = read_from(&[
            ("higress.io/resource-definer", "higress"),
            ("higress.io/disabled.rewrite-path", "/x"),
            ("higress.io/rpc-destination-name", "a"),
            ("nginx.ingress.kubernetes.io/auth-type", "basic"),
            ("nginx.ingress.kubernetes.io/proxy-body-size", "8m"),
            ("higress.io/timeot", "5"),
            ("tollgate.dev/timeout-conect", "5s"),
            ("kubernetes.io/ingress.class", "higress"),
        ]);
        let told: Vec<_> = notes
            .iter()
            .map(|note| (note.key.as_str(), note.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("higress.io/rpc-destination-name", NOT_YET),
                ("higress.io/timeot", "not a known annotation: ignored"),
                ("nginx.ingress.kubernetes.io/auth-type", DEAD),
                ("tollgate.dev/timeout-conect", "not a known annotation: ignored"),
            ]
        );
    }

    #[test]
    fn a_pattern_is_valid_by_itself_and_matches_whole() {
        assert!(whole("a)(b").is_err());
        let pattern = whole("always|v").unwrap();
        assert!(pattern.is_match("always") && !pattern.is_match("alwaysx") && !pattern.is_match("xv"));
        assert_eq!(
            whole("a(").unwrap_err(),
            "invalid regular expression: unclosed group"
        );
    }
}
