//! The real parts that spans go to: an OpenTelemetry Collector, and a receiver on SkyWalking's own message classes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tollgate_testkit::process::Lines;

/// Files that `scripts/setup` made.
fn installed(path: &str) -> PathBuf {
    let found = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../.cache")
        .join(path);
    assert!(
        found.exists(),
        "{} is not installed: run `make setup`",
        found.display()
    );
    found
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A child process that prints what it gets, a JSON object a line.
pub(crate) struct Part {
    child: Child,
    pub(crate) lines: Lines,
}

impl Part {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|cause| panic!("{command:?}: {cause}"));
        let (lines, _) = Lines::follow(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The port of its `ready PORT`.
    fn port(&self) -> u16 {
        let line = self.lines.wait_for(|line| line.starts_with("ready ")).unwrap();
        line.trim_start_matches("ready ").parse().unwrap()
    }

    /// Stops it for a while, as a machine under load would.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let ended = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status()
            .unwrap();
        assert!(ended.success());
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A real OpenTelemetry Collector.
pub(crate) struct Collector {
    part: Part,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) zipkin: SocketAddr,
    _directory: tempfile::TempDir,
}

/// One span as the collector wrote it, its attributes by name.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) failed: bool,
    pub(crate) took: u64,
    pub(crate) attributes: serde_json::Map<String, Value>,
    pub(crate) service: String,
}

impl Seen {
    /// An attribute as text.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

impl Collector {
    pub(crate) fn start() -> Self {
        let ports = [free_port(), free_port(), free_port()];
        Self::on(ports)
    }

    /// On these ports, for one that comes back.
    pub(crate) fn on(ports: [u16; 3]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("collector.yaml");
        let [grpc, http, zipkin] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let text = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc: {{ endpoint: '{grpc}' }}\n      http: {{ endpoint: '{http}' }}\n  \
             zipkin: {{ endpoint: '{zipkin}' }}\nexporters:\n  file: {{ path: /dev/stdout, flush_interval: 20ms }}\nservice:\n  \
             telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n    traces: {{ receivers: [otlp, zipkin], exporters: \
             [file] }}\n    logs: {{ receivers: [otlp], exporters: [file] }}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(installed("otelcol/otelcol"));
        command.arg("--config").arg(format!("file:{}", config.display()));
        command.stderr(Stdio::piped());
        let mut part = Part::start(command);
        let (log, _) = Lines::follow(part.child.stderr.take().unwrap());
        log.wait_for(|line| line.contains("Everything is ready")).unwrap();
        Self {
            part,
            grpc,
            http,
            zipkin,
            _directory: directory,
        }
    }

    pub(crate) fn ports(&self) -> [u16; 3] {
        [self.grpc.port(), self.http.port(), self.zipkin.port()]
    }

    pub(crate) fn signal(&self, name: &str) {
        self.part.signal(name);
    }

    /// Waits until the spans that came show this.
    pub(crate) fn wait<T>(&self, wanted: impl Fn(&[Seen]) -> Option<T>) -> T {
        self.part.lines.wait_until(|lines| wanted(&spans(lines))).unwrap()
    }

    /// Waits for all spans of the request with this id; there are `count`.
    pub(crate) fn trace_of(&self, id: &str, count: usize) -> Vec<Seen> {
        self.wait(|spans| {
            let entry = spans.iter().find(|span| span.get("guid:x-request-id") == id)?;
            let same = |span: &&Seen| span.trace == entry.trace && span.service == entry.service;
            let found: Vec<_> = spans.iter().filter(same).cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits for this many log records: the attributes of each.
    pub(crate) fn records(&self, count: usize) -> Vec<serde_json::Map<String, Value>> {
        let found = self.part.lines.wait_until(|lines| {
            let found = records(lines);
            (found.len() >= count).then_some(found)
        });
        found.unwrap()
    }

    /// Everything that came.
    pub(crate) fn all(&self) -> Vec<Seen> {
        spans(&self.part.lines.all())
    }

    /// Everything as text, for what must not be in it.
    pub(crate) fn text(&self) -> String {
        self.part.lines.all().join("\n")
    }
}

fn records(lines: &[String]) -> Vec<serde_json::Map<String, Value>> {
    let mut found = Vec::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|cause| panic!("{cause}: {line}"));
        let resources = value["resourceLogs"].as_array().into_iter().flatten();
        let scopes = resources.flat_map(|resource| resource["scopeLogs"].as_array().into_iter().flatten());
        let inside = scopes.flat_map(|scope| scope["logRecords"].as_array().into_iter().flatten());
        found.extend(inside.map(|record| attributes(&record["attributes"])));
    }
    found
}

fn spans(lines: &[String]) -> Vec<Seen> {
    let mut found = Vec::new();
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|cause| panic!("{cause}: {line}"));
        for resource in value["resourceSpans"].as_array().into_iter().flatten() {
            let about = attributes(&resource["resource"]["attributes"]);
            let service = about["service.name"].as_str().unwrap_or_default();
            let scopes = resource["scopeSpans"].as_array().into_iter().flatten();
            let inside = scopes.flat_map(|scope| scope["spans"].as_array().into_iter().flatten());
            found.extend(inside.map(|span| seen(span, service)));
        }
    }
    found
}

fn seen(span: &Value, service: &str) -> Seen {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let time = |name: &str| text(name).parse::<u64>().unwrap_or_default();
    Seen {
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        kind: span["kind"].as_u64().unwrap_or_default(),
        failed: span["status"]["code"] == 2,
        took: time("endTimeUnixNano") - time("startTimeUnixNano"),
        attributes: attributes(&span["attributes"]),
        service: service.to_owned(),
    }
}

/// By name; numbers become texts, marked as such.
fn attributes(list: &Value) -> serde_json::Map<String, Value> {
    let pairs = list.as_array().into_iter().flatten();
    pairs
        .map(|pair| {
            let value = &pair["value"];
            let number = value["intValue"].as_str().map(|number| format!("#{number}"));
            let text = number.or_else(|| value["stringValue"].as_str().map(str::to_owned));
            (
                pair["key"].as_str().unwrap().to_owned(),
                text.unwrap_or_default().into(),
            )
        })
        .collect()
}

/// A SkyWalking backend.
pub(crate) struct Receiver {
    part: Part,
    pub(crate) address: SocketAddr,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let part = Part::start(python("skywalking_receiver.py", &[]));
        let address = SocketAddr::from(([127, 0, 0, 1], part.port()));
        Self { part, address }
    }

    /// Waits for a segment of this service that `wanted` accepts; with the token that came along.
    pub(crate) fn segment(&self, service: &str, wanted: impl Fn(&Value) -> bool) -> (Value, String) {
        let line = self.part.lines.wait_for(|line| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|value| value["segment"]["service"] == service && wanted(&value["segment"]))
        });
        let mut value: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let token = value["token"].as_str().unwrap().to_owned();
        (value["segment"].take(), token)
    }
}

/// SkyWalking's agent around an upstream.
pub(crate) struct TracedUpstream {
    _part: Part,
    pub(crate) address: SocketAddr,
}

impl TracedUpstream {
    pub(crate) fn start(receiver: &Receiver) -> Self {
        let backend = receiver.address.to_string();
        let part = Part::start(python("skywalking_agent.py", &["upstream", &backend]));
        let address = SocketAddr::from(([127, 0, 0, 1], part.port()));
        Self { _part: part, address }
    }
}

/// A script of `clients/`, in the environment that `scripts/setup` made.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(installed("clients/python/bin/python"));
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    command.current_dir(scripts).arg(script).args(arguments);
    command
}
