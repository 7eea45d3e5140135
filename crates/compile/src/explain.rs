//! Why a request gets the route that it gets: every host and route that was looked at, what each one wanted, and what
//! the chosen one will do. For `tollgate explain`; nothing here runs while a request is served.

use std::fmt;

use serde::Serialize;
use tollgate_plugin::{Condition, Link, Origin};
use tollgate_snapshot::cluster::Verification;
use tollgate_snapshot::policy::{PathRewrite, Redirect};
use tollgate_snapshot::route::{Action, Destination, Matcher, PathMatch, RequestHead, TextMatch};
use tollgate_snapshot::{Cluster, Endpoints, Policy, Route, Snapshot, UpstreamProtocol};

/// Everything about the routing of one request. Serde is its JSON form, `Display` its text.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Method and URL as they were compared.
    pub request: String,
    /// Hosts in the order tried, up to the one that has the route.
    pub hosts: Vec<TriedHost>,
    /// The route; `None` is a 404.
    pub route: Option<Chosen>,
    /// The chain of a request without a route.
    pub unrouted: Vec<ExplainedPlugin>,
}

/// A host that fits the request.
#[derive(Debug, Clone, Serialize)]
pub struct TriedHost {
    /// As configured, such as `*.foo.com`.
    pub host: String,
    /// Its routes in the order tried; those behind the one that was taken lost to it.
    pub routes: Vec<TriedRoute>,
}

/// A route that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct TriedRoute {
    /// Route name.
    pub name: String,
    /// `namespace/name` of its Ingress.
    pub object: String,
    /// `file:line` of its path.
    pub place: String,
    /// The paths it wants.
    pub path: String,
    /// The first thing that did not fit; `None` for the route that was taken.
    pub lost: Option<String>,
    /// Whether it was the path that did not fit.
    pub other_path: bool,
}

/// The route that was taken.
#[derive(Debug, Clone, Serialize)]
pub struct Chosen {
    /// Route name.
    pub name: String,
    /// `namespace/name` of its Ingress.
    pub object: String,
    /// `file:line` of its path.
    pub place: String,
    /// Answered here instead of being forwarded.
    pub redirect: Option<String>,
    /// Path that the upstream sees, when it is rewritten.
    pub rewritten_path: Option<String>,
    /// Authority that the upstream sees, when it is replaced.
    pub upstream_host: Option<String>,
    /// Timers that run, such as `connect 10s`.
    pub timers: Vec<String>,
    /// Attempts after the first.
    pub retries: u32,
    /// Plugins in the order in which the request meets them.
    pub plugins: Vec<ExplainedPlugin>,
    /// Where it can go.
    pub destinations: Vec<ExplainedDestination>,
}

/// A plugin of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedPlugin {
    /// Plugin name.
    pub name: String,
    /// Phase, such as `AUTHN`.
    pub phase: &'static str,
    /// Priority; `None` when unset.
    pub priority: Option<i32>,
    /// `namespace/name` of its object.
    pub object: Option<String>,
    /// `file:line` of the config; `None` when no config applies, so that the plugin does nothing.
    pub place: Option<String>,
    /// Why this config: the rule's condition.
    pub because: &'static str,
    /// Only for requests that go to this cluster.
    pub only_to: Option<String>,
}

/// A destination and its share.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedDestination {
    /// Percent of the requests.
    pub weight: u32,
    /// Cluster name.
    pub cluster: String,
    /// How it is reached; `None` when it does not exist, so that requests get 503.
    pub upstream: Option<String>,
    /// Clusters that take over while it cannot serve.
    pub fallbacks: Vec<String>,
    /// Its arm of the experiment, where the route has variants.
    pub arm: Option<String>,
}

/// Why a route lost that fits as well.
const BEHIND: &str = "fits too, behind the one that was taken";

/// Explains one request.
#[must_use]
pub fn explain(snapshot: &Snapshot, head: &RequestHead<'_>) -> Explanation {
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let request = format!(
        "{} {}://{}{}{query}",
        head.method, head.scheme, head.authority, head.path
    );
    let mut explanation = Explanation {
        request,
        hosts: Vec::new(),
        route: None,
        unrouted: Vec::new(),
    };
    for virtual_host in snapshot.hosts.candidates(head.host) {
        let mut tried = TriedHost {
            host: virtual_host.name.to_string(),
            routes: Vec::new(),
        };
        for route in &virtual_host.routes {
            let decided = explanation.route.is_some();
            let lost = fault(&route.matcher, head);
            let taken = lost.is_none() && !decided;
            tried.routes.push(TriedRoute {
                name: route.name.to_string(),
                object: route.origin.object.to_string(),
                place: route.origin.place.to_string(),
                path: path_in_words(&route.matcher),
                other_path: !route.matcher.matches_path(head.path),
                lost: lost.or_else(|| decided.then(|| BEHIND.to_owned())),
            });
            if taken {
                explanation.route = Some(chosen(route, head));
            }
        }
        explanation.hosts.push(tried);
        if explanation.route.is_some() {
            return explanation;
        }
    }
    explanation.unrouted = plugins(&snapshot.unrouted, head.host, &[]);
    explanation
}

/// The first condition that does not hold. Each is asked by itself with the matcher's own code, so that this can
/// never disagree with what routing does.
fn fault(matcher: &Matcher, head: &RequestHead<'_>) -> Option<String> {
    let nothing = Matcher {
        path: PathMatch::Any,
        ignore_case: false,
        methods: Vec::new(),
        headers: Vec::new(),
        queries: Vec::new(),
    };
    if !matcher.matches_path(head.path) {
        return Some(format!("path: wants {}", path_in_words(matcher)));
    }
    if !matcher.methods.is_empty() && !matcher.methods.contains(head.method) {
        let names: Vec<&str> = matcher.methods.iter().map(|method| method.as_str()).collect();
        return Some(format!("method: wants {}", names.join(" or ")));
    }
    for condition in &matcher.headers {
        let alone = Matcher {
            headers: vec![condition.clone()],
            ..nothing.clone()
        };
        if !alone.matches(head) {
            let (name, wanted) = condition;
            let present = name.starts_with(':') || head.headers.contains_key(&**name);
            let found = if present {
                "has another value"
            } else {
                "is missing"
            };
            return Some(format!("header: {name} {found}, wants {}", text_in_words(wanted)));
        }
    }
    for condition in &matcher.queries {
        let alone = Matcher {
            queries: vec![condition.clone()],
            ..nothing.clone()
        };
        if !alone.matches(head) {
            let (name, wanted) = condition;
            return Some(format!("query: {name} wants {}", text_in_words(wanted)));
        }
    }
    None
}

fn path_in_words(matcher: &Matcher) -> String {
    let case = if matcher.ignore_case { " in any case" } else { "" };
    match &matcher.path {
        PathMatch::Any => "every path".to_owned(),
        PathMatch::Exact(path) => format!("exactly {path}{case}"),
        PathMatch::Prefix(prefix) => format!("{prefix} or below{case}"),
        PathMatch::Regex(pattern) => format!("expression {}", unwrapped(pattern.as_str())),
    }
}

fn text_in_words(wanted: &TextMatch) -> String {
    match wanted {
        TextMatch::Exact(text) => format!("exactly {text}"),
        TextMatch::Prefix(text) => format!("beginning with {text}"),
        TextMatch::Regex(pattern) => format!("expression {}", unwrapped(pattern.as_str())),
    }
}

/// The pattern as it was written, without the anchors that were put around it.
fn unwrapped(pattern: &str) -> &str {
    let inner = pattern
        .strip_prefix(r"\A(?:")
        .and_then(|rest| rest.strip_suffix(r")\z"));
    inner.unwrap_or(pattern)
}

fn chosen(route: &Route, head: &RequestHead<'_>) -> Chosen {
    let (redirect, destinations): (_, &[Destination]) = match &route.action {
        Action::Redirect(redirect) => (Some(redirect), &[]),
        Action::RedirectPlain(redirect, _) if head.scheme == "http" => (Some(redirect), &[]),
        Action::RedirectPlain(_, destinations) | Action::Forward(destinations) => (None, destinations),
    };
    let policy = &route.policy;
    Chosen {
        name: route.name.to_string(),
        object: route.origin.object.to_string(),
        place: route.origin.place.to_string(),
        redirect: redirect.map(|redirect| redirect_in_words(redirect, head)),
        rewritten_path: policy
            .rewrite
            .as_ref()
            .map(|rewrite| rewritten(rewrite, head.path)),
        upstream_host: policy
            .upstream_host
            .as_ref()
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
        timers: timers(policy),
        retries: policy.retry.attempts,
        plugins: plugins(&route.links, head.host, destinations),
        destinations: destinations.iter().map(destination).collect(),
    }
}

fn redirect_in_words(redirect: &Redirect, head: &RequestHead<'_>) -> String {
    let authority = match (&redirect.authority, &redirect.scheme) {
        (Some(authority), _) => authority,
        (None, Some(_)) => head.host,
        (None, None) => head.authority,
    };
    format!(
        "{} to {}://{authority}{}",
        redirect.status.as_u16(),
        redirect.scheme.as_deref().unwrap_or(head.scheme),
        redirect.path.as_deref().unwrap_or(head.path)
    )
}

fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
    match rewrite {
        PathRewrite::Whole(whole) => whole.to_string(),
        PathRewrite::Prefix { from, to } => {
            let rest = path.strip_prefix(&**from);
            rest.map_or_else(|| path.to_owned(), |rest| format!("{to}{rest}"))
        }
        PathRewrite::Regex { pattern, replacement } => pattern.replace_all(path, &**replacement).into_owned(),
    }
}

fn timers(policy: &Policy) -> Vec<String> {
    let timers = &policy.timers;
    let all = [
        ("connect", timers.connect),
        ("response_head", timers.response_head),
        ("first_event", timers.first_event),
        ("silence", timers.silence),
        ("total", timers.total),
        ("per_try", policy.retry.per_try),
    ];
    let running = all
        .iter()
        .filter_map(|(name, limit)| Some(format!("{name} {:?}", (*limit)?)));
    running.collect()
}

/// One entry a plugin; several where destinations get different configs.
fn plugins(links: &[Link], host: &str, destinations: &[Destination]) -> Vec<ExplainedPlugin> {
    let mut explained = Vec::new();
    for link in links {
        let first = destinations.first().map(|to| &**to.name());
        let common = plugin(link, host, first);
        let same = |to: &Destination| plugin(link, host, Some(to.name())) == common;
        if destinations.iter().all(same) {
            explained.push(common);
            continue;
        }
        explained.extend(destinations.iter().map(|to| ExplainedPlugin {
            only_to: Some(to.name().to_string()),
            ..plugin(link, host, Some(to.name()))
        }));
    }
    explained
}

fn plugin(link: &Link, host: &str, cluster: Option<&str>) -> ExplainedPlugin {
    let candidate = link.choose(host, cluster);
    let because = match candidate {
        None => "no rule fits, and there is no default",
        Some(candidate) if candidate.plugin.is_none() => "it cannot run and is skipped",
        Some(candidate) => condition_in_words(&candidate.condition),
    };
    let origin: Option<&Origin> = candidate
        .filter(|candidate| candidate.plugin.is_some())
        .map(|candidate| &candidate.origin);
    ExplainedPlugin {
        name: link.name.to_string(),
        phase: link.order.phase().name(),
        priority: link.order.priority(),
        object: origin.map(|origin| origin.object.to_string()),
        place: origin.map(|origin| origin.place.to_string()),
        because,
        only_to: None,
    }
}

fn condition_in_words(condition: &Condition) -> &'static str {
    match condition {
        Condition::Always => "for this route",
        Condition::Domains(_) => "for this domain",
        Condition::Services(_) => "for this service",
    }
}

fn destination(destination: &Destination) -> ExplainedDestination {
    ExplainedDestination {
        weight: destination.weight,
        cluster: destination.name().to_string(),
        upstream: destination
            .cluster
            .as_ref()
            .ok()
            .map(|cluster| cluster_in_words(cluster)),
        fallbacks: destination
            .fallbacks
            .iter()
            .map(|cluster| cluster.name.to_string())
            .collect(),
        arm: destination.arm.as_ref().map(ToString::to_string),
    }
}

fn cluster_in_words(cluster: &Cluster) -> String {
    let protocol = match cluster.protocol {
        UpstreamProtocol::Http1 => "HTTP/1.1",
        UpstreamProtocol::Http2 => "HTTP/2",
    };
    let tls = match &cluster.tls {
        None => String::new(),
        Some(tls) => {
            let name = tls.server_name.as_deref().unwrap_or("none");
            let verified = match tls.verification {
                Verification::SystemRoots => "verified by the system's roots",
                Verification::Bundle(_) => "verified by its own authority",
                Verification::Off => "not verified",
            };
            format!(" over TLS, server name {name}, {verified}")
        }
    };
    let endpoints = match &cluster.endpoints {
        Endpoints::Static(addresses) if addresses.is_empty() => "no endpoint".to_owned(),
        Endpoints::Static(addresses) => {
            let all: Vec<String> = addresses.iter().map(|(address, _)| address.to_string()).collect();
            all.join(", ")
        }
        Endpoints::Dns { names, .. } => {
            let all: Vec<String> = names
                .iter()
                .map(|(name, port)| format!("{name}:{port}"))
                .collect();
            all.join(", ")
        }
    };
    format!("{protocol}{tls}: {endpoints}")
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.request)?;
        for tried in &self.hosts {
            writeln!(formatter, "host {}", tried.host)?;
            let other_paths = tried.routes.iter().filter(|route| route.other_path).count();
            // A host may have thousands of routes; those of other paths are shown while they are few.
            let show_all = other_paths <= 10;
            for route in tried.routes.iter().filter(|route| show_all || !route.other_path) {
                let outcome = route.lost.as_deref().unwrap_or("taken");
                let (name, place) = (&route.name, &route.place);
                writeln!(formatter, "  route {name} ({place}): {outcome}")?;
            }
            if !show_all {
                writeln!(formatter, "  and {other_paths} routes for other paths")?;
            }
        }
        match &self.route {
            Some(chosen) => write!(formatter, "{chosen}"),
            None => {
                writeln!(formatter, "no route: 404")?;
                plugins_in_words(formatter, &self.unrouted)
            }
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "route {} of Ingress {} at {}",
            self.name, self.object, self.place
        )?;
        plugins_in_words(formatter, &self.plugins)?;
        if let Some(redirect) = &self.redirect {
            return writeln!(formatter, "  redirect: {redirect}");
        }
        if let Some(path) = &self.rewritten_path {
            writeln!(formatter, "  path upstream: {path}")?;
        }
        if let Some(host) = &self.upstream_host {
            writeln!(formatter, "  authority upstream: {host}")?;
        }
        if !self.timers.is_empty() {
            writeln!(formatter, "  timers: {}", self.timers.join(", "))?;
        }
        writeln!(formatter, "  retries: {}", self.retries)?;
        for destination in &self.destinations {
            let upstream = destination.upstream.as_deref().unwrap_or("does not exist: 503");
            writeln!(
                formatter,
                "  to {}% {}: {upstream}",
                destination.weight, destination.cluster
            )?;
            if let Some(arm) = &destination.arm {
                writeln!(formatter, "    as arm {arm}")?;
            }
            for fallback in &destination.fallbacks {
                writeln!(formatter, "    else {fallback}")?;
            }
        }
        Ok(())
    }
}

fn plugins_in_words(formatter: &mut fmt::Formatter<'_>, plugins: &[ExplainedPlugin]) -> fmt::Result {
    for plugin in plugins {
        let priority = plugin.priority.map(|priority| format!(" {priority}"));
        write!(
            formatter,
            "  plugin {} {}{}",
            plugin.name,
            plugin.phase,
            priority.unwrap_or_default()
        )?;
        if let Some(cluster) = &plugin.only_to {
            write!(formatter, " to {cluster}")?;
        }
        match &plugin.place {
            Some(place) => writeln!(formatter, " {}: {place}", plugin.because)?,
            None => writeln!(formatter, ": {}", plugin.because)?,
        }
    }
    Ok(())
}
