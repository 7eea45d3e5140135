//! A route: what it matches, what it does to the request, and where it sends it.

use std::sync::Arc;

use http::{HeaderMap, Method};
use regex::Regex;
use tollgate_plugin::{Link, Origin};

use crate::{Cluster, Policy};

/// What routing looks at.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Lower case, without port.
    pub host: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path without query.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Authority as sent, port included.
    pub authority: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// One route of a virtual host.
#[derive(Debug)]
pub struct Route {
    /// Higress's route name: the Ingress's name, with its namespace outside the system namespace.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// What it matches.
    pub matcher: Matcher,
    /// Time limits, retries, header edits, rewrites.
    pub policy: Policy,
    /// Where it sends requests.
    pub action: Action,
    /// Its plugin chain, in order.
    pub links: Vec<Link>,
}

/// What a route does with a request.
#[derive(Debug)]
pub enum Action {
    /// Send it to one of these; weights add up to 100. Those with weight 0 are left out.
    Forward(Vec<Destination>),
    /// Answer with a redirect.
    Redirect(crate::policy::Redirect),
    /// Redirect requests that came in the clear, forward the others (`ssl-redirect`).
    RedirectPlain(crate::policy::Redirect, Vec<Destination>),
}

/// A weighted destination.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Share of the requests, 1 to 100.
    pub weight: u32,
    /// The cluster, or the name of one that does not exist (503 `NC`).
    pub cluster: Result<Arc<Cluster>, Arc<str>>,
    /// Header edits that belong to this destination only (canary branches).
    pub headers: crate::policy::HeaderControl,
    /// Tried in order while `cluster` does not exist or has no healthy endpoint (canary: the stable branch).
    pub fallbacks: Vec<Arc<Cluster>>,
    /// What a request that is sent here is an instance of, where the route has variants to compare; the fallbacks
    /// change nothing about it.
    pub arm: Option<Arc<str>>,
}

impl Destination {
    /// A destination without header edits or fallbacks.
    #[must_use]
    pub fn new(weight: u32, cluster: Result<Arc<Cluster>, Arc<str>>) -> Self {
        Self {
            weight,
            cluster,
            headers: crate::policy::HeaderControl::default(),
            fallbacks: Vec::new(),
            arm: None,
        }
    }

    /// Name of the cluster, existing or not.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match &self.cluster {
            Ok(cluster) => &cluster.name,
            Err(name) => name,
        }
    }
}

/// How a text is compared.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Whole text matches (compiled anchored at both ends).
    Regex(Regex),
}

impl TextMatch {
    /// Whether `text` is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => text == &**wanted,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Regex(pattern) => pattern.is_match(text),
        }
    }
}

/// How a path is compared.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// Byte for byte.
    Exact(Box<str>),
    /// The prefix itself or anything below it (`/bar` is not `/bard`); stored without trailing slash.
    Prefix(Box<str>),
    /// Whole path matches (compiled anchored).
    Regex(Regex),
}

/// Everything a route asks of a request; all must hold.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Path.
    pub path: PathMatch,
    /// `ignore-path-case`; no effect on regular expressions.
    pub ignore_case: bool,
    /// Any of these; empty means every method.
    pub methods: Vec<Method>,
    /// Header conditions; a pseudo-header's name starts with `:`.
    pub headers: Vec<(Box<str>, TextMatch)>,
    /// Query conditions on the first value of a parameter.
    pub queries: Vec<(Box<str>, TextMatch)>,
}

impl Matcher {
    /// Whether the request is meant.
    #[must_use]
    pub fn matches(&self, head: &RequestHead<'_>) -> bool {
        self.matches_path(head.path)
            && (self.methods.is_empty() || self.methods.contains(head.method))
            && self
                .headers
                .iter()
                .all(|(name, value)| header_matches(name, value, head))
            && self
                .queries
                .iter()
                .all(|(name, value)| query_matches(name, value, head.query))
    }

    /// Whether the path is meant.
    #[must_use]
    pub fn matches_path(&self, path: &str) -> bool {
        let equal = |left: &str, right: &str| {
            if self.ignore_case {
                left.eq_ignore_ascii_case(right)
            } else {
                left == right
            }
        };
        match &self.path {
            PathMatch::Any => true,
            PathMatch::Exact(wanted) => equal(path, wanted),
            PathMatch::Prefix(prefix) => match path.get(..prefix.len()) {
                Some(start) => {
                    equal(start, prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
                }
                None => false,
            },
            PathMatch::Regex(pattern) => pattern.is_match(path),
        }
    }
}

fn header_matches(name: &str, value: &TextMatch, head: &RequestHead<'_>) -> bool {
    match name {
        ":authority" => value.matches(head.authority),
        ":method" => value.matches(head.method.as_str()),
        ":scheme" => value.matches(head.scheme),
        ":path" => match head.query {
            Some(query) => value.matches(&format!("{}?{query}", head.path)),
            None => value.matches(head.path),
        },
        _ => head
            .headers
            .get(name)
            .and_then(|found| found.to_str().ok())
            .is_some_and(|text| value.matches(text)),
    }
}

fn query_matches(name: &str, value: &TextMatch, query: Option<&str>) -> bool {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .is_some_and(|(_, text)| value.matches(text))
}
