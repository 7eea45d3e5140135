//! Compiles a document file and describes what came out in one line a request, so that expectations can be read.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_compile::{Builtin, ConfigFault, Options, compile};
use tollgate_kinds::{Diagnostic, Objects, ReadOptions, read, yaml};
use tollgate_plugin::{Exchange, Next, Plugin};
use tollgate_snapshot::policy::{HeaderControl, HeaderEdits, PathRewrite, Redirect};
use tollgate_snapshot::route::{Action, Destination, RequestHead};
use tollgate_snapshot::{Cluster, Endpoints, Route, Snapshot, UpstreamProtocol, Verification};

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
        for (name, wanted) in self.expected["certificates"].as_object().into_iter().flatten() {
            let server_name = (name != "-").then_some(name.as_str());
            let found = self.snapshot.certificates.find(server_name);
            let found = if found.is_some() { "yes" } else { "no" };
            compare(name, found, wanted.as_str().unwrap());
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

    /// `METHOD URL [name: value]…`
    fn answer(&self, request: &str) -> String {
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
        match self.snapshot.hosts.find(&head) {
            Some(route) => describe_route(route, &head),
            None => "404".to_owned(),
        }
    }
}

/// Options of a scenario: `options:` in its expectations.
fn options(expected: &Value) -> Options {
    let class = expected["options"]["ingressClass"].as_str().unwrap_or_default();
    Options {
        ingress_class: class.to_owned(),
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
    for link in &route.links {
        let chosen = link.choose(head.host, first_cluster(route));
        let Some(candidate) = chosen else { continue };
        let place = if candidate.plugin.is_some() {
            &*candidate.origin.place
        } else {
            "skipped"
        };
        text.push_str(&format!(" [{} {place}]", link.name));
    }
    text
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
        Endpoints::Dns { names, .. } => {
            let all: Vec<String> = names
                .iter()
                .map(|(name, port)| format!("{name}:{port}"))
                .collect();
            format!("dns {}", all.join(" "))
        }
    };
    let mut text = format!("{protocol}, {endpoints}");
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
    text
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

fn parse(global: Option<&Value>, rule: Option<&Value>) -> Result<Arc<dyn Plugin>, ConfigFault> {
    let config = rule.or(global).unwrap();
    if config["broken"] == Value::Bool(true) {
        return Err(ConfigFault {
            field: "broken".to_owned(),
            message: "is broken".to_owned(),
        });
    }
    if let Some(wanted) = config["password"]
        .as_str()
        .filter(|password| *password != "s3cret")
    {
        assert!(wanted.contains("${"), "{wanted}");
    }
    Ok(Arc::new(Fake))
}

fn builtins(name: &str) -> Option<Builtin> {
    const NAMES: [&str; 4] = ["ai-proxy", "key-auth", "ai-statistics", "custom-response"];
    let name = NAMES.into_iter().find(|known| *known == name)?;
    Some(Builtin { name, parse })
}
