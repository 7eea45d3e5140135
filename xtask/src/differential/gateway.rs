//! One side: a gateway with one plugin, and the upstream behind it, which remembers what it saw.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::compare::Outcome;
use super::http::Message;
use super::requests::Request;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"I am a mock."},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
const EVENTS: &[&str] = &[
    r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":"I am"},"finish_reason":null}]}"#,
    r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":" a mock."},"finish_reason":"stop"}]}"#,
    r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
    "[DONE]",
];

/// Names of the built-in plugins.
pub(super) fn builtins(binary: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(binary).args(["plugins", "--json"]).output();
    let output = output.map_err(|cause| format!("{}: {cause}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: serde_json::Value =
        serde_json::from_str(&text).map_err(|cause| format!("tollgate plugins --json: {cause}"))?;
    let names = rows.as_array().into_iter().flatten();
    Ok(names
        .filter_map(|row| Some(row["name"].as_str()?.to_owned()))
        .collect())
}

/// The plugin's document; the config is the caller's YAML.
pub(super) fn plugin(runtime: &str, url: &str, config: &str) -> String {
    let mut text = format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: compared\n  namespace: \
         higress-system\n  annotations: {{ tollgate.dev/runtime: {runtime} }}\nspec:\n  url: {url}\n"
    );
    if !config.is_empty() {
        text.push_str("  defaultConfig:\n");
        text.extend(config.lines().map(|line| format!("    {line}\n")));
    }
    text
}

fn documents(upstream: SocketAddr, plugin: &str) -> String {
    format!(
        "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata: {{ name: default, namespace: higress-system }}\n\
         spec:\n  registries:\n  - {{ name: mock, type: static, domain: \"{upstream}\", port: 80 }}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: api\n  namespace: higress-system\n  \
         annotations: {{ higress.io/destination: mock.static }}\nspec:\n  ingressClassName: higress\n  rules:\n  - http:\n      \
         paths:\n      - path: /\n        pathType: Prefix\n        backend: {{ resource: {{ apiGroup: \
         networking.higress.io, kind: McpBridge, name: default }} }}\n---\n{plugin}"
    )
}

type Seen = Arc<Mutex<Vec<Message>>>;

/// A running gateway; ended when dropped.
pub(super) struct Side {
    child: Child,
    directory: PathBuf,
    http: SocketAddr,
    seen: Seen,
    complaint: Option<String>,
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.directory));
    }
}

impl Side {
    /// Starts a gateway whose only plugin is this.
    pub(super) fn start(binary: &Path, plugin: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tollgate-differential-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let text = |cause: std::io::Error| cause.to_string();
        fs::create_dir_all(directory.join("config")).map_err(text)?;
        let (upstream, seen) = upstream().map_err(text)?;
        fs::write(directory.join("config/all.yaml"), documents(upstream, plugin)).map_err(text)?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(directory.join("config"));
        command.arg("--data").arg(directory.join("data"));
        for (flag, value) in [
            ("--http", "127.0.0.1:0"),
            ("--https", "off"),
            ("--admin", "off"),
            ("--console", "off"),
            ("--access-log", "off"),
            ("--workers", "1"),
        ] {
            command.args([flag, value]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|cause| format!("{}: {cause}", binary.display()))?;
        let mut side = Self {
            child,
            directory,
            http: upstream,
            seen,
            complaint: None,
        };
        side.wait_until_ready()?;
        Ok(side)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let errors = self.child.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(errors).lines().map_while(Result::ok);
        let started = Started::follow(&mut lines)?;
        // Read on, or the gateway would stand still once the pipe is full.
        std::thread::spawn(move || lines.count());
        self.http = started.http;
        self.complaint = started.complaint;
        Ok(())
    }

    /// Why the plugin does not run.
    pub(super) fn complains(&self) -> Option<String> {
        self.complaint.as_ref().map(|_| "refuses it".to_owned())
    }

    /// Sends one request and gathers what came of it.
    pub(super) fn ask(&self, request: &Request) -> Result<Outcome, String> {
        self.lock().clear();
        let answer = self
            .send(request)
            .map_err(|cause| format!("{}: {cause}", request.title()))?;
        let forwarded = std::mem::take(&mut *self.lock());
        Ok(Outcome { answer, forwarded })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Message>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, request: &Request) -> std::io::Result<Message> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: compared.test\r\n",
            request.method, request.path
        );
        text.push_str("connection: close\r\nx-request-id: compared\r\n");
        for (name, value) in &request.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if request.method == "POST" {
            text.push_str(&format!("content-length: {}\r\n", request.body.len()));
        }
        stream.write_all(format!("{text}\r\n{}", request.body).as_bytes())?;
        Message::read(BufReader::new(stream), false)
    }
}

/// What a gateway tells of its start.
#[derive(Debug, PartialEq)]
struct Started {
    http: SocketAddr,
    complaint: Option<String>,
}

impl Started {
    /// Reads up to the line behind which requests meet the plugin. A gateway that waits no longer for a module takes
    /// requests without it: then that is the line that tells of the configuration with it.
    fn follow(lines: &mut impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut http, mut complaint, mut is_loading, mut said) = (None, None, false, String::new());
        for line in lines {
            if let Some((_, reason)) = line.split_once(": error: WasmPlugin higress-system/compared: ") {
                complaint.get_or_insert_with(|| format!("refuses it ({reason})"));
            }
            if line.contains("some modules are still being loaded") {
                is_loading = true;
            }
            if let Some(rest) = line.strip_prefix("tollgate ready http=") {
                let address = rest.split(' ').next().unwrap_or_default();
                let address = address.parse();
                http = Some(address.map_err(|_| format!("no address in {line}"))?);
            }
            is_loading &= http.is_none() || !line.contains("configuration reloaded");
            if let (Some(http), false) = (http, is_loading) {
                return Ok(Self { http, complaint });
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(format!("the gateway did not start:\n{said}"))
    }
}

/// An upstream that answers as an LLM does, until the process ends.
fn upstream() -> std::io::Result<(SocketAddr, Seen)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let seen = Seen::default();
    let noted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let noted = noted.clone();
            std::thread::spawn(move || drop(answer(&stream, &noted)));
        }
    });
    Ok((address, seen))
}

fn answer(mut stream: &TcpStream, noted: &Seen) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = Message::read(BufReader::new(stream), true)?;
    let is_stream = serde_json::from_slice(&request.body)
        .is_ok_and(|body: serde_json::Value| body["stream"] == serde_json::Value::Bool(true));
    noted.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    let (content_type, body) = match is_stream {
        true => {
            let events = EVENTS.iter().map(|event| format!("data: {event}\n\n"));
            ("text/event-stream", events.collect())
        }
        false => ("application/json", ANSWER.to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\ncontent-length: {length}"
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "tollgate ready http=127.0.0.1:8080 https=off admin=off console=off";
    const LATE: &str =
        "WARN tollgate::gateway: some modules are still being loaded: their plugins cannot run yet";
    const RELOADED: &str = "INFO tollgate::gateway: configuration reloaded generation=3 objects=3";

    /// What is told, and how many lines were left to read.
    fn followed(lines: &[&str]) -> (Result<Started, String>, usize) {
        let mut lines = lines.iter().map(|line| (*line).to_owned());
        let told = Started::follow(&mut lines);
        (told, lines.count())
    }

    #[test]
    fn requests_are_sent_once_the_module_is_in_force() {
        let http = "127.0.0.1:8080".parse().unwrap();
        let fine = Started {
            http,
            complaint: None,
        };
        let (told, left) = followed(&[RELOADED, READY, "more"]);
        assert_eq!((told.as_ref(), left), (Ok(&fine), 1));
        let (told, left) = followed(&[LATE, RELOADED, READY, "INFO module ready", RELOADED, "more"]);
        assert_eq!((told.as_ref(), left), (Ok(&fine), 1));
    }

    #[test]
    fn a_module_that_is_refused_late_is_a_complaint_and_a_gateway_that_ends_a_failure() {
        let refused = "all.yaml:9: error: WasmPlugin higress-system/compared: it refused its configuration";
        let (told, left) = followed(&[LATE, READY, "WARN module refused", refused, RELOADED, "more"]);
        let complaint = told.unwrap().complaint.unwrap();
        assert_eq!(
            (complaint.as_str(), left),
            ("refuses it (it refused its configuration)", 1)
        );
        let (told, _) = followed(&[LATE, READY, "panicked"]);
        assert!(told.unwrap_err().ends_with("panicked\n"));
    }
}
