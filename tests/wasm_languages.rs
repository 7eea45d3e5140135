//! One plugin written in several languages (`wasm/suite`), each mode of it through the binary: the same scenario for
//! every toolchain, with a real Redis and a real service behind the calls.

use std::cell::Cell;
use std::io::Write;

use http::{HeaderMap, HeaderValue};
use tollgate_mock_llm::{Handle, Options, Recorded};
use tollgate_testkit::client::{self, Answer};
use tollgate_testkit::process::Gateway;
use tollgate_testkit::redis::Redis;

use crate::support::{
    CHAT, CHAT_PATH, CHAT_STREAM, Sight, bridge, documents, gateway, ingress, mock, module_version,
    newer_module, verbose_log,
};

/// Path of a file that `scripts/setup wasm` makes.
pub(crate) fn built(name: &str) -> String {
    let path = format!("{}/../../.cache/wasm/{name}", env!("CARGO_MANIFEST_DIR"));
    assert!(
        std::path::Path::new(&path).exists(),
        "{path} is missing: run scripts/setup wasm"
    );
    path
}

/// Whether `scripts/setup wasm` found that Rust cannot build plugins here; says then that `what` is not tested, and why.
pub(crate) fn rust_is_left_out(what: &str) -> bool {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../.cache/wasm/suite-rust.missing"
    );
    let Ok(reason) = std::fs::read_to_string(path) else {
        return false;
    };
    // Around the harness, which would keep what a passing test prints.
    writeln!(std::io::stderr(), "{what} was NOT tested: {reason}").unwrap();
    true
}

/// The suite's plugin in one language.
fn plugin(language: &str, mode: &str) -> String {
    format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: suite\n  namespace: \
         higress-system\nspec:\n  url: file://{}\n  defaultConfig: {{ mode: {mode} }}\n",
        built(&format!("suite-{language}.wasm"))
    )
}

/// One gateway, one compiled module; each config is a version of its own that takes over.
struct Suite {
    language: &'static str,
    gateway: Gateway,
    vendor: Handle,
    service: Handle,
    redis: Redis,
    /// The documents, with `MODE` where the plugin's config says what it does.
    documents: String,
    /// Requests so far: each has an id of its own.
    sent: Cell<u32>,
}

impl Suite {
    fn start(language: &'static str) -> Self {
        let (vendor, service) = (mock(Options::default()), mock(Options::default()));
        let redis = Redis::start(&[]).unwrap();
        let mut services = bridge(&[("mock", vendor.addr()), ("callout", service.addr())]);
        services.push_str(&format!(
            "  - {{ name: redis, type: static, domain: \"{}\", port: 6379 }}\n",
            redis.address
        ));
        let documents = documents(&[
            services,
            ingress("api", "/", "mock.static", &[]),
            // No path of an LLM's: what looks like a cut answer would get an error event at its end.
            ingress(
                "stream",
                "/stream",
                "mock.static",
                &[("higress.io/rewrite-target", CHAT_PATH)],
            ),
            plugin(language, "MODE"),
            verbose_log(),
        ]);
        let first = documents.replace("MODE", "transform");
        Self {
            language,
            gateway: gateway().file("scene.yaml", &first).unwrap().go().unwrap(),
            vendor,
            service,
            redis,
            documents,
            sent: Cell::new(0),
        }
    }

    /// Gives the plugin another config and waits until the version that has it is in force.
    async fn switch(&self, mode: &str) {
        let before = module_version(&self.gateway).await;
        self.write(mode);
        newer_module(&self.gateway, before).await;
    }

    fn write(&self, mode: &str) {
        let text = self.documents.replace("MODE", mode);
        self.gateway.write("scene.yaml", &text).unwrap();
    }

    /// Sends a chat request with one header more; the answer and its line in the access log.
    async fn chat(&self, name: &'static str, body: &str) -> (Answer, serde_json::Value) {
        self.post(CHAT_PATH, name, body).await
    }

    async fn post(&self, path: &str, name: &'static str, body: &str) -> (Answer, serde_json::Value) {
        self.sent.set(self.sent.get() + 1);
        let id = format!("suite-{}", self.sent.get());
        let mut request = client::post_json(path, body.to_owned());
        let headers = request.headers_mut();
        headers.insert(name, HeaderValue::from_static("1"));
        headers.insert("x-request-id", HeaderValue::from_str(&id).unwrap());
        let answer = client::send(self.gateway.http, request).await.unwrap();
        (answer, self.gateway.line_of(&id))
    }

    /// What the vendor received last.
    fn last(&self) -> Recorded {
        self.vendor.requests().pop().expect("the vendor received nothing")
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

async fn transforms(suite: &Suite) {
    let (answer, _) = suite.chat("x-remove", CHAT).await;
    assert_eq!(answer.status.as_u16(), 200);
    let seen = suite.last();
    assert_eq!(header(&seen.headers, "x-suite"), Some(suite.language));
    assert_eq!(header(&seen.headers, "x-remove"), None);
    assert_eq!(seen.body, CHAT);
    assert_eq!(answer.header("x-suite-response"), "done");
}

async fn replies(suite: &Suite) {
    suite.switch("reply").await;
    let before = suite.vendor.requests().len();
    let (answer, line) = suite.chat("x-deny", CHAT).await;
    let expected = format!("denied by {}", suite.language);
    assert_eq!((answer.status.as_u16(), answer.text()), (403, expected));
    assert_eq!(answer.header("x-denied"), "yes");
    assert_eq!(line["details"], "suite");
    assert_eq!(suite.vendor.requests().len(), before, "a denied request went on");
    assert_eq!(suite.chat("x-other", CHAT).await.0.status.as_u16(), 200);
}

async fn calls_out(suite: &Suite) {
    suite.switch("callout").await;
    let (answer, _) = suite.chat("x-other", CHAT).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(header(&suite.last().headers, "x-callout-status"), Some("200"));
    assert_eq!(suite.last().body, CHAT);
    let asked = suite.service.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].uri.path()), ("GET", "/echo"));
}

async fn counts_in_redis(suite: &mut Suite) {
    suite.switch("redis").await;
    for expected in ["1", "2"] {
        suite.chat("x-other", CHAT).await;
        assert_eq!(header(&suite.last().headers, "x-redis"), Some(expected));
    }
    assert_eq!(suite.redis.ask("GET suite").unwrap(), "$1\r\n2\r\n");
    // A Redis that is gone answers nothing: the plugin goes on without it, and with it once it is back, on every worker.
    suite.redis.kill();
    let (answer, _) = suite.chat("x-other", CHAT).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_ne!(header(&suite.last().headers, "x-redis"), Some("3"));
    suite.redis.restart().unwrap();
    for expected in ["1", "2", "3"] {
        suite.chat("x-other", CHAT).await;
        assert_eq!(header(&suite.last().headers, "x-redis"), Some(expected));
    }
}

async fn rewrites(suite: &Suite) {
    suite.switch("rewrite").await;
    suite.chat("x-other", CHAT).await;
    let expected = format!("{}:{CHAT}", suite.language);
    assert_eq!(suite.last().body, expected);
    let length = header(&suite.last().headers, "content-length").map(str::to_owned);
    assert!(length.is_none_or(|told| told == expected.len().to_string()));
    let long = format!("\"{}\"", "long ".repeat(6_000));
    suite.chat("x-other", &long).await;
    assert_eq!(suite.last().body, format!("{}:{long}", suite.language));
    // What is held is held up to the limit, Higress's 32 KiB.
    let (answer, _) = suite.chat("x-other", &long.repeat(20)).await;
    assert_eq!(answer.status.as_u16(), 413);
}

async fn streams(suite: &Suite) {
    suite.switch("stream").await;
    let (answer, _) = suite.post("/stream", "x-other", CHAT_STREAM).await;
    let text = answer.text();
    assert!(text.starts_with("DATA: ") && text.ends_with("[end]"), "{text}");
    assert!(
        !text
            .trim_end_matches("[end]")
            .contains(|letter: char| letter.is_ascii_lowercase())
    );
    assert!(text.contains("[DONE]"), "{text}");
}

async fn traps(suite: &Suite) {
    suite.switch("trap").await;
    assert_eq!(suite.chat("x-other", CHAT).await.0.status.as_u16(), 200);
    let (answer, line) = suite.chat("x-trap", CHAT).await;
    assert_eq!(answer.status.as_u16(), 503);
    assert_eq!(line["details"], "wasm_fail_stream");
}

/// A config that the plugin refuses leaves the one before it in force.
async fn refuses(suite: &Suite) {
    suite.write("unheard-of");
    let told = |line: &str| line.contains("it refused its configuration: the version before it stays");
    suite.gateway.errors.wait_for(told).unwrap();
    let (answer, _) = suite.chat("x-other", CHAT).await;
    assert_eq!(answer.header("x-suite-response"), "done");
}

async fn runs(language: &'static str) {
    let mut suite = Suite::start(language);
    transforms(&suite).await;
    refuses(&suite).await;
    replies(&suite).await;
    calls_out(&suite).await;
    counts_in_redis(&mut suite).await;
    rewrites(&suite).await;
    streams(&suite).await;
    traps(&suite).await;
}

#[tokio::test]
async fn a_plugin_in_go_with_higress_sdk() {
    runs("go").await;
}

#[tokio::test]
async fn a_plugin_in_c() {
    runs("c").await;
}

#[tokio::test]
async fn a_plugin_in_cpp() {
    runs("cpp").await;
}

#[tokio::test]
async fn a_plugin_in_rust_with_the_proxy_wasm_crate() {
    if !rust_is_left_out("the plugin in Rust") {
        runs("rust").await;
    }
}

#[tokio::test]
async fn a_plugin_in_assemblyscript() {
    runs("assemblyscript").await;
}
