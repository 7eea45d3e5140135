//! What the scenarios share: documents as text, a gateway with a mock vendor behind it, and its log and metrics.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_mock_llm::{Handle, Options, Recorded, Tls};
use tollgate_testkit::client::{self, Answer, Opening, get};
use tollgate_testkit::process::{Gateway, Start};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
/// Longest wait for something that must happen; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A chat request that every vendor's mock answers.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Who are you?"}]}"#;
/// The same, streamed; it asks for the usage itself, as `ai-proxy` would otherwise do for it.
pub(crate) const CHAT_STREAM: &str = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Who are you?"}]}"#;
pub(crate) const CHAT_PATH: &str = "/v1/chat/completions";

/// A gateway that is about to be started.
pub(crate) fn gateway() -> Start {
    Start::new(BINARY).unwrap()
}

/// Joins documents to one file.
pub(crate) fn documents(parts: &[String]) -> String {
    parts.join("\n---\n")
}

/// The McpBridge with static registries: `(name, address)` makes the service `<name>.static`.
pub(crate) fn bridge(registries: &[(&str, SocketAddr)]) -> String {
    let mut text = String::from(
        "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata:\n  name: default\n  namespace: higress-system\n\
         spec:\n  registries:\n",
    );
    for (name, address) in registries {
        text.push_str(&format!(
            "  - {{ name: {name}, type: static, domain: \"{address}\", port: 80 }}\n"
        ));
    }
    text
}

/// An Ingress in the system namespace: everything under `path` goes to `destination`.
pub(crate) fn ingress(name: &str, path: &str, destination: &str, annotations: &[(&str, &str)]) -> String {
    ingress_for("", name, path, destination, annotations)
}

/// The same for one host; empty is any host.
pub(crate) fn ingress_for(
    host: &str,
    name: &str,
    path: &str,
    destination: &str,
    annotations: &[(&str, &str)],
) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: higress-system\n  \
         annotations:\n    higress.io/destination: {destination:?}\n"
    );
    for (key, value) in annotations {
        text.push_str(&format!("    {key}: {value:?}\n"));
    }
    let host = if host.is_empty() {
        String::new()
    } else {
        format!("host: {host:?}\n    ")
    };
    text.push_str(&format!(
        "spec:\n  ingressClassName: higress\n  rules:\n  - {host}http:\n      paths:\n      - path: {path}\n        \
         pathType: Prefix\n        backend:\n          resource: {{ apiGroup: networking.higress.io, kind: McpBridge, \
         name: default }}\n"
    ));
    text
}

/// `ai-proxy` for one Ingress; `provider` is the provider's fields in YAML's flow style.
pub(crate) fn ai_proxy(ingress: &str, provider: &str) -> String {
    wasm_plugin(
        "ai-proxy",
        &format!("  matchRules:\n  - ingress: [{ingress}]\n    config:\n      provider: {provider}\n"),
    )
}

/// A built-in plugin with the rest of its spec, indented by two.
pub(crate) fn wasm_plugin(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: {name}\n  namespace: \
         higress-system\nspec:\n  phase: UNSPECIFIED_PHASE\n  priority: 100\n  url: \
         oci://higress-registry.cn-hangzhou.cr.aliyuncs.com/plugins/{name}:1.0.0\n{spec}"
    )
}

/// `higress-config` with a log format that carries what scenarios assert, one JSON object a line.
pub(crate) fn verbose_log() -> String {
    higress_config("")
}

/// The same with more of the `higress` section, indented by four.
pub(crate) fn higress_config(higress: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  higress: |
    disableXEnvoyHeaders: true
{higress}  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: |
      {{"id":"%REQ(X-REQUEST-ID)%","path":"%REQ(:PATH)%","code":"%RESPONSE_CODE%","flags":"%RESPONSE_FLAGS%","details":"%RESPONSE_CODE_DETAILS%","termination":"%TOLLGATE(termination)%","failure":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","route":"%ROUTE_NAME%","cluster":"%UPSTREAM_CLUSTER%","attempts":"%TOLLGATE(attempts)%","received":"%BYTES_RECEIVED%","sent":"%BYTES_SENT%"}}
"#
    )
}

/// Options of a mock that answers as fast as it is read.
pub(crate) fn mock(options: Options) -> Handle {
    tollgate_mock_llm::start(options).unwrap()
}

/// Name of the first document's vendor.
pub(crate) const DASHSCOPE: &str = "dashscope.aliyuncs.com";

/// That vendor behind TLS, and a gateway that is about to be started with these documents: it believes the vendor, finds
/// it under its name and fills in what the documents leave open.
pub(crate) fn dashscope(file: &str, documents: &str) -> (Handle, Start) {
    let vendor = mock(Options {
        tls: Some(Tls::new(&[DASHSCOPE]).unwrap()),
        ..Options::default()
    });
    let start = gateway().file(file, documents).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, vendor.authority_pem().unwrap()).unwrap();
    let start = start
        .flag("--envsubst")
        .option("--resolve", format!("{DASHSCOPE}:443:{}", vendor.addr()))
        .variable("SSL_CERT_FILE", roots.display())
        .variable("LLM", "qwen")
        .variable("LLM_DOMAIN", DASHSCOPE)
        .variable("API_TOKEN", "sk-of-the-gateway");
    (vendor, start)
}

/// One gateway, one vendor behind it.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    pub(crate) mock: Handle,
}

impl Scene {
    /// The route `api` for every path, with these annotations and no plugin.
    pub(crate) fn plain(annotations: &[(&str, &str)]) -> Self {
        Self::plain_with(Options::default(), annotations)
    }

    /// The same with another mock.
    pub(crate) fn plain_with(options: Options, annotations: &[(&str, &str)]) -> Self {
        let mock = mock(options);
        let text = documents(&[
            bridge(&[("mock", mock.addr())]),
            ingress("api", "/", "mock.static", annotations),
            verbose_log(),
        ]);
        Self {
            gateway: gateway().file("scene.yaml", &text).unwrap().go().unwrap(),
            mock,
        }
    }

    /// The route `api` with `ai-proxy` for this provider, in YAML's flow style.
    pub(crate) fn vendor(provider: &str, annotations: &[(&str, &str)]) -> Self {
        let mock = mock(Options::default());
        let text = documents(&[
            bridge(&[("mock", mock.addr())]),
            ingress("api", "/", "mock.static", annotations),
            ai_proxy("api", provider),
            verbose_log(),
        ]);
        Self {
            gateway: gateway().file("scene.yaml", &text).unwrap().go().unwrap(),
            mock,
        }
    }

    /// The route `api` with `ai-proxy` for OpenAI.
    pub(crate) fn openai(annotations: &[(&str, &str)]) -> Self {
        Self::vendor("{ type: openai, apiTokens: [sk-gateway] }", annotations)
    }

    /// Sends a chat body with a fault ordered from the mock, and reads the whole answer; the log line with it.
    pub(crate) async fn chat(&self, fault: &str, body: &str) -> (Answer, Value) {
        let (opening, id) = self.open_chat(fault, body).await;
        let answer = opening.finish().await;
        (answer, self.gateway.line_of(&id))
    }

    /// The same up to the answer's head; with the request's id.
    pub(crate) async fn open_chat(&self, fault: &str, body: &str) -> (Opening, String) {
        let (request, id) = ordered(fault, body);
        (client::open(self.gateway.http, request).await.unwrap(), id)
    }

    /// The newest request that the vendor received.
    pub(crate) fn last(&self) -> Recorded {
        self.mock.requests().pop().expect("the vendor received nothing")
    }

    /// Waits until what the vendor received shows this.
    pub(crate) async fn vendor_sees(&self, holds: impl Fn(&[Recorded]) -> bool) -> Vec<Recorded> {
        self.mock
            .log()
            .wait_until(PATIENCE, holds)
            .await
            .unwrap_or_else(|seen| panic!("the vendor saw {seen:#?}"))
    }
}

/// A chat request that orders `fault` from the mock, under an id of its own.
pub(crate) fn ordered(fault: &str, body: &str) -> (Request<Bytes>, String) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = format!("scenario-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut request = client::post_json(CHAT_PATH, body.to_owned());
    let headers = request.headers_mut();
    headers.insert("x-request-id", HeaderValue::from_str(&id).unwrap());
    if !fault.is_empty() {
        headers.insert("x-mock-fault", HeaderValue::from_str(fault).unwrap());
    }
    (request, id)
}

/// The flags of a log line.
pub(crate) fn flags(value: &Value) -> Vec<&str> {
    value.as_str().unwrap_or_default().split(',').collect()
}

/// The sum of a family's series whose labels hold `label`.
pub(crate) fn counted(page: &str, family: &str, label: &str) -> u64 {
    let family = format!("{family}{{");
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&family) && line.contains(label));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// A server that writes these bytes to whoever connects, once a request's head has come, and closes.
///
/// It ends with the test's runtime.
pub(crate) async fn raw_server(bytes: &'static [u8]) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tollgate_base::task::spawn("raw server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = Vec::new();
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut piece = [0; 4096];
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => seen.extend_from_slice(&piece[..length]),
                }
            }
            drop(stream.write_all(bytes).await);
        }
    }));
    address
}

/// The route `api` to this address, without a vendor's mock.
pub(crate) fn towards(address: SocketAddr, annotations: &[(&str, &str)]) -> Gateway {
    let text = documents(&[
        bridge(&[("mock", address)]),
        ingress("api", "/", "mock.static", annotations),
        verbose_log(),
    ]);
    gateway().file("scene.yaml", &text).unwrap().go().unwrap()
}

/// What a running gateway tells about itself.
pub(crate) trait Sight {
    /// The log line of the request with this id; waits for it.
    fn line_of(&self, id: &str) -> Value;
    /// A page of the admin listener.
    async fn admin(&self, path: &str) -> Answer;
    /// The value of one series, written as `/stats/prometheus` writes it; 0 when absent.
    async fn metric(&self, series: &str) -> f64;
    /// Waits until the requests that ended so are this many.
    async fn terminated(&self, termination: &str, count: f64);
    /// Writes a file and waits until `holds` is true of the gateway's answer to a GET of `path`.
    async fn change(&self, file: &str, text: &str, path: &str, holds: impl Fn(&Answer) -> bool);
}

impl Sight for Gateway {
    fn line_of(&self, id: &str) -> Value {
        let wanted = format!("\"{id}\"");
        let line = self.log.wait_for(|line| line.contains(&wanted)).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    async fn admin(&self, path: &str) -> Answer {
        client::send(self.admin, get(path)).await.unwrap()
    }

    async fn metric(&self, series: &str) -> f64 {
        let page = self.admin("/stats/prometheus").await.text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn terminated(&self, termination: &str, count: f64) {
        let series = format!("tollgate_requests_total{{termination=\"{termination}\"}}");
        assert_eq!(self.metric(&series).await, count, "{series}");
    }

    async fn change(&self, file: &str, text: &str, path: &str, holds: impl Fn(&Answer) -> bool) {
        self.write(file, text).unwrap();
        let answer = client::send(self.http, get(path)).await.unwrap();
        assert!(
            holds(&answer),
            "{answer:?} after {file}; said: {:#?}",
            self.errors.all()
        );
    }
}

/// The version of the first module that is in force; 0 when none is.
pub(crate) async fn module_version(gateway: &Gateway) -> u64 {
    let dump: Value = serde_json::from_str(&gateway.admin("/config_dump").await.text()).unwrap();
    let mut shown = dump["modules"].as_array().into_iter().flatten();
    let current = shown.find(|module| module["state"] == "current");
    current.map_or(0, |module| module["version"].as_u64().unwrap())
}

/// Waits until a version after `before` is in force: new requests take it from then on.
pub(crate) async fn newer_module(gateway: &Gateway, before: u64) {
    let wait = async { while module_version(gateway).await <= before {} };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("no newer module; said: {:#?}", gateway.errors.all());
    }
}
