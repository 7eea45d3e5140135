//! Compiles a document file and describes what came out in one line a request, so that expectations can be read.

use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Body, Request, Response};
use tollgate_compile::{Options, compile};
use tollgate_kinds::{Diagnostic, Objects, ReadOptions, read, yaml};
use tollgate_observe::record::{Connection, Original, Record};
use tollgate_plugin::{Exchange, Host, Link, Next, Phase, Plugin};
use tollgate_plugins::table::{ParseContext, Row, overlay};
use tollgate_snapshot::policy::{HeaderControl, HeaderEdits, PathRewrite, Redirect};
use tollgate_snapshot::route::{Action, Destination, RequestHead};
use tollgate_snapshot::{Cluster, Endpoints, Route, Settings, Snapshot, UpstreamProtocol, Verification};

/// One file of documents with its expectations.
pub(crate) struct Scenario {
    name: String,
    snapshot: Snapshot,
    diagnostics: Vec<Diagnostic>,
    expected: Value,
}

impl Scenario {
    pub(crate) fn load(directory: &Path, name: &str) -> Self {
        let text = std::fs::read(directory.join(name)).unwrap();
        let expect_name = name.replace(".yaml", ".expect.yaml");
        let expect_text = std::fs::read_to_string(directory.join(&expect_name)).unwrap();
        let parsed = yaml::parse(&expect_text, 1);
        let expected = parsed.into_iter().next().unwrap().unwrap().value;
        let (snapshot, diagnostics) = compile_text(&text, name, &options(&expected));
        Self {
            name: name.to_owned(),
            snapshot,
            diagnostics,
            expected,
        }
    }

    /// Every difference, one text each.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut compare = |what: &str, found: &str, wanted: &str| {
            if found != wanted {
                failures.push(format!(
                    "{}: {what}\n    found  {found}\n    wanted {wanted}",
                    self.name
                ));
            }
        };
        for entry in self.expected["requests"].as_array().into_iter().flatten() {
            for (request, wanted) in entry.as_object().unwrap() {
                compare(request, &self.answer(request), wanted.as_str().unwrap());
            }
        }
        for (name, wanted) in self.expected["clusters"].as_object().into_iter().flatten() {
            let found = self.snapshot.clusters.get(name.as_str());
            let found = found.map_or("missing".to_owned(), |cluster| describe_cluster(cluster));
            compare(name, &found, wanted.as_str().unwrap());
        }
        if let Some(wanted) = self.expected["unrouted"].as_object() {
            for (host, wanted) in wanted {
                let found = describe_links(&self.snapshot.unrouted, host, None);
                compare(
                    &format!("unrouted {host}"),
                    found.trim_start(),
                    wanted.as_str().unwrap(),
                );
            }
        }
        if let Some(wanted) = self.expected["settings"].as_str() {
            compare("settings", &describe_settings(&self.snapshot.settings), wanted);
        }
        let found: Vec<String> = self.diagnostics.iter().map(ToString::to_string).collect();
        let wanted: Vec<&str> = self.expected["diagnostics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap())
            .collect();
        compare(
            "diagnostics",
            &found.join("\n           "),
            &wanted.join("\n           "),
        );
        failures
    }

    /// The compiled world.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn answer(&self, request: &str) -> String {
        with_head(request, |head| match self.snapshot.hosts.find(head) {
            Some(route) => describe_route(route, head),
            None => "404".to_owned(),
        })
    }
}

/// Calls `use_head` with a request written `METHOD URL | name: value | …`.
pub(crate) fn with_head<T>(request: &str, use_head: impl FnOnce(&RequestHead<'_>) -> T) -> T {
    let mut parts = request.split(" | ");
    let (method, url) = parts.next().unwrap().split_once(' ').unwrap();
    let uri: Uri = url.parse().unwrap();
    let method: Method = method.parse().unwrap();
    let mut headers = HeaderMap::new();
    for part in parts {
        let (name, value) = part.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let host = uri.host().unwrap().to_ascii_lowercase();
    let head = RequestHead {
        host: &host,
        method: &method,
        path: uri.path(),
        query: uri.query(),
        scheme: uri.scheme_str().unwrap(),
        authority: uri.authority().unwrap().as_str(),
        headers: &headers,
    };
    use_head(&head)
}

/// Options of a scenario: `options:` in its expectations.
fn options(expected: &Value) -> Options {
    let class = expected["options"]["ingressClass"].as_str();
    Options {
        ingress_class: class.unwrap_or_default().to_owned(),
        ..fake_options()
    }
}

/// Default options with plugins that accept what is not broken.
pub(crate) fn fake_options() -> Options {
    Options {
        builtins,
        ..Options::default()
    }
}

/// Reads and compiles a text; diagnostics of both steps, the reader's first.
pub(crate) fn compile_text(text: &[u8], name: &str, options: &Options) -> (Snapshot, Vec<Diagnostic>) {
    let read_options = ReadOptions {
        default_namespace: &options.system_namespace,
        substitute: None,
    };
    let reading = read(text, &Arc::from(name), &read_options);
    let mut diagnostics = reading.diagnostics;
    let mut objects = Objects::new();
    for object in reading.objects {
        if let Err(diagnostic) = objects.insert(object) {
            diagnostics.push(diagnostic);
        }
    }
    let (snapshot, found) = compile(&objects, options);
    diagnostics.extend(found);
    (snapshot, diagnostics)
}

fn describe_route(route: &Route, head: &RequestHead<'_>) -> String {
    let mut text = route.name.to_string();
    match &route.action {
        Action::Redirect(redirect) => text.push_str(&describe_redirect(redirect)),
        Action::RedirectPlain(redirect, _) if head.scheme == "http" => {
            text.push_str(&describe_redirect(redirect));
        }
        Action::RedirectPlain(_, destinations) | Action::Forward(destinations) => {
            let all: Vec<String> = destinations.iter().map(describe_destination).collect();
            text.push_str(&format!(" -> {}", all.join(", ")));
        }
    }
    if let Some(rewrite) = &route.policy.rewrite {
        let path = match rewrite {
            PathRewrite::Whole(path) => path.to_string(),
            PathRewrite::Prefix { from, to } => format!("{to}{}", &head.path[from.len()..]),
            PathRewrite::Regex { pattern, replacement } => {
                pattern.replace_all(head.path, &**replacement).into_owned()
            }
        };
        text.push_str(&format!(" path {path}"));
    }
    if let Some(host) = &route.policy.upstream_host {
        text.push_str(&format!(" host {}", host.to_str().unwrap()));
    }
    text.push_str(&describe_headers(&route.policy.headers));
    if let Some(mirror) = &route.policy.mirror {
        text.push_str(&format!(" mirror {}% {}", mirror.percent, mirror.cluster.name));
    }
    if let Some(total) = route.policy.timers.total {
        text.push_str(&format!(" total {}s", total.as_secs()));
    }
    text.push_str(&describe_links(&route.links, head.host, first_cluster(route)));
    text
}

/// ` [NAME PLACE]` for each plugin that this request meets.
fn describe_links(links: &[Link], host: &str, cluster: Option<&str>) -> String {
    let mut text = String::new();
    for link in links {
        let Some(candidate) = link.choose(host, cluster) else {
            continue;
        };
        let place = &candidate.origin.place;
        let fate = match &candidate.plugin {
            None => "skipped ",
            Some(_) if refuses(link, host, cluster) => "refuses ",
            Some(_) => "",
        };
        text.push_str(&format!(" [{} {fate}{place}]", link.name));
    }
    text
}

/// Whether the plugin answers by itself instead of letting the request through.
fn refuses(link: &Link, host: &str, cluster: Option<&str>) -> bool {
    let mut exchange = Exchange::new(record(host), host.into(), 0);
    exchange.cluster = cluster.map(Arc::from);
    let links = std::slice::from_ref(link);
    let request = Request::new(Body::empty());
    let running = Next::start(links, &Upstream).run(&mut exchange, request);
    let error = running.now_or_never().unwrap().unwrap_err();
    error.reason() != "forwarded"
}

fn record(host: &str) -> Rc<Record> {
    let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
    let connection = Connection {
        id: 0,
        peer: nowhere,
        local: nowhere,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: Method::GET,
        authority: host.into(),
        path: PathAndQuery::from_static("/"),
        version: Version::HTTP_11,
    };
    let request_id = HeaderValue::from_static("1");
    let started = tollgate_base::clock::now();
    Rc::new(Record::new(Rc::new(connection), original, request_id, started))
}

struct Upstream;

#[async_trait(?Send)]
impl Host for Upstream {
    async fn forward(&self, _: &mut Exchange, _: Request) -> Result<Response, Error> {
        Err(Error::upstream(StatusCode::BAD_GATEWAY, "forwarded", ""))
    }

    fn reroute(&self, _: &mut Exchange, _: &Request) -> &[Link] {
        &[]
    }
}

fn first_cluster(route: &Route) -> Option<&str> {
    match &route.action {
        Action::Redirect(_) => None,
        Action::RedirectPlain(_, destinations) | Action::Forward(destinations) => {
            destinations.first().map(|destination| &**destination.name())
        }
    }
}

fn describe_redirect(redirect: &Redirect) -> String {
    format!(
        " {} {}://{}{}",
        redirect.status.as_u16(),
        redirect.scheme.as_deref().unwrap_or("same"),
        redirect.authority.as_deref().unwrap_or("same"),
        redirect.path.as_deref().unwrap_or("/same")
    )
}

fn describe_destination(destination: &Destination) -> String {
    let missing = if destination.cluster.is_err() {
        " (missing)"
    } else {
        ""
    };
    let mut text = format!("{}% {}{missing}", destination.weight, destination.name());
    for fallback in &destination.fallbacks {
        text.push_str(&format!(" else {}", fallback.name));
    }
    text.push_str(&describe_headers(&destination.headers));
    text
}

fn describe_headers(control: &HeaderControl) -> String {
    let edits = |direction: &str, edits: &HeaderEdits| {
        let pair = |sign: &str, (name, value): &(HeaderName, HeaderValue)| {
            format!(" {direction}{sign}{name}:{}", value.to_str().unwrap())
        };
        let mut text: String = edits.add.iter().map(|entry| pair("+", entry)).collect();
        text.extend(edits.set.iter().map(|entry| pair("=", entry)));
        text.extend(edits.remove.iter().map(|name| format!(" {direction}-{name}")));
        text
    };
    edits(">", &control.request) + &edits("<", &control.response)
}

fn describe_cluster(cluster: &Cluster) -> String {
    let protocol = match cluster.protocol {
        UpstreamProtocol::Http1 => "http/1.1",
        UpstreamProtocol::Http2 => "h2",
    };
    let endpoints = match &cluster.endpoints {
        Endpoints::Static(addresses) => {
            let all: Vec<String> = addresses.iter().map(|(address, _)| address.to_string()).collect();
            format!("static {}", all.join(" "))
        }
        Endpoints::Dns { names, refresh } => {
            let all: Vec<String> = names
                .iter()
                .map(|(name, port)| format!("{name}:{port}"))
                .collect();
            let refresh = match refresh.as_secs() {
                200 => String::new(),
                other => format!(" refresh {other}s"),
            };
            format!("dns {}{refresh}", all.join(" "))
        }
    };
    let mut text = format!("{protocol}, {endpoints}");
    if let Some(tunnel) = &cluster.tunnel {
        let limit = tunnel.timeout.as_millis();
        text.push_str(&format!(", tunnel to {} within {limit} ms", tunnel.authority));
    }
    if let Some(tls) = &cluster.tls {
        let name = tls.server_name.as_deref().unwrap_or("none");
        let verified = match tls.verification {
            Verification::SystemRoots => "verified",
            Verification::Bundle(_) => "verified by bundle",
            Verification::Off => "not verified",
        };
        text.push_str(&format!(", tls sni {name} {verified}"));
        if tls.client_certificate.is_some() {
            text.push_str(" with client certificate");
        }
    }
    if cluster.load_balance != tollgate_snapshot::LoadBalance::default() {
        text.push_str(&format!(", {:?}", cluster.load_balance));
    }
    match cluster.idle_timeout.as_secs() {
        10 => {}
        other => text.push_str(&format!(", idle {other}s")),
    }
    text
}

fn describe_settings(settings: &Settings) -> String {
    let switches = [
        (!settings.alpn_h2, ", no alpn h2"),
        (!settings.envoy_headers, ", no envoy headers"),
        (settings.real_ip_header, ", real ip"),
    ];
    let on = switches.iter().filter(|(on, _)| *on).map(|(_, text)| *text);
    format!(
        "idle {}s, head {}, buffer {}, h2 {} {} {}{}",
        settings.downstream_idle.as_secs(),
        settings.max_request_head,
        settings.buffer_limit,
        settings.http2_max_streams,
        settings.http2_stream_window,
        settings.http2_connection_window,
        on.collect::<String>()
    )
}

/// Accepts every config but one with `broken: true`; a rule inherits that from the global config.
struct Fake;

#[async_trait(?Send)]
impl Plugin for Fake {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        next.run(exchange, request).await
    }
}

fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = overlay(global, rule);
    if config.contains_key("idle") {
        context.warn(ConfigError::new("idle", "does nothing"));
    }
    if config.get("broken") == Some(&Value::Bool(true)) {
        return Err(ConfigError::new("broken", "is broken"));
    }
    // What a template became can be seen only here.
    match config.get("password").and_then(Value::as_str) {
        None | Some("s3cret") => Ok(Arc::new(Fake)),
        Some(_) => Err(ConfigError::new("password", "is wrong")),
    }
}

const fn row(name: &'static str) -> Row {
    Row {
        name,
        phase: Phase::Unspecified,
        priority: 0,
        parse,
        rules_inherit: true,
        fields: &[],
        doc: "accepts what is not broken",
    }
}

static ROWS: &[Row] = &[
    row("ai-proxy"),
    row("ai-statistics"),
    row("custom-response"),
    row("key-auth"),
];

fn builtins(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
