//! Ten thousand streams, each ended at a random byte by client or vendor, or not at all: what the log, the counters, the
//! ledger, a quota in Redis and the vendor say of their tokens is the same, to the token.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use http::HeaderValue;
use serde_json::{Value, json};
use tollgate_base::clock;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{self, send};
use tollgate_testkit::redis::Redis;

use crate::support::{
    BINARY, CHAT, CHAT_STREAM, PATIENCE, Scene, Sight, ai_proxy, bridge, counted, documents, gateway,
    ingress, mock, ordered, wasm_plugin,
};

const STREAMS: usize = 10_000;
/// Streams open at the same time.
const AT_ONCE: usize = 48;
/// Lengths of answers, in tokens.
const LENGTHS: std::ops::Range<u64> = 1..16;
/// About as many bytes as the longest answer has.
const BYTES: u64 = 4000;

const LOG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  mesh: |
    accessLogFormat: |
      {"id":"%REQ(X-REQUEST-ID)%","ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%","input":"%FILTER_STATE(wasm.input_token:PLAIN)%","output":"%FILTER_STATE(wasm.output_token:PLAIN)%","termination":"%TOLLGATE(termination)%"}
"#;

/// The consumer, as key-auth and ai-quota want it.
const KEYS: &str = "  defaultConfig:\n    consumers: [{ name: ann, credential: key-ann }]\n    keys: [apikey]\n    in_header: true\n  \
    matchRules:\n  - ingress: [api]\n    config: { allow: [ann] }\n";
const QUOTA: &str = "  defaultConfig: { admin_consumer: admin, redis: { service_name: redis.static } }\n";
/// Its quota at the beginning: more than all streams cost.
const GIVEN: u64 = 1_000_000_000;

/// Tokens that the quota has lost.
fn spent(redis: &Redis) -> u64 {
    let answer = redis.ask("GET chat_quota:ann").unwrap();
    let left = answer
        .lines()
        .nth(1)
        .and_then(|number| number.parse::<u64>().ok());
    GIVEN - left.unwrap_or_else(|| panic!("{answer}"))
}

/// The same once it is as much as expected: nobody waits for a charge.
fn spent_at_last(redis: &Redis, expected: u64) -> u64 {
    let deadline = clock::now() + PATIENCE;
    loop {
        let now = spent(redis);
        if now == expected || clock::now() > deadline {
            return now;
        }
    }
}

/// A fixed sequence of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What happens to one stream.
#[derive(Debug)]
struct Fate {
    length: u64,
    fault: String,
    /// The client leaves after so many bytes.
    leaves_after: Option<u64>,
}

impl Fate {
    fn of(numbers: &mut Numbers) -> Self {
        let length = LENGTHS.start + numbers.below(LENGTHS.end - LENGTHS.start);
        let after = numbers.below(length + 3);
        let more = match numbers.below(10) {
            0 => format!(",cut;after={after};how=close"),
            1 => format!(",cut;after={after};how=reset"),
            2 => format!(",cut;after={after};how=end"),
            3 => format!(",cut-in-data;after={after};how=reset;at={}", numbers.below(40)),
            4 => ",usage-absent".to_owned(),
            5 => ",usage-after-done".to_owned(),
            6 => ",usage-cumulative".to_owned(),
            _ => String::new(),
        };
        let leaves = numbers.below(3) == 0;
        Self {
            length,
            fault: format!("tokens;n={length}{more}"),
            leaves_after: leaves.then(|| numbers.below(BYTES)),
        }
    }

    async fn meet(self, address: SocketAddr) -> (String, u64) {
        let (mut request, id) = ordered(&self.fault, CHAT_STREAM);
        let key = HeaderValue::from_static("key-ann");
        request.headers_mut().insert("apikey", key);
        let mut opening = client::open(address, request).await.unwrap();
        let mut read = 0;
        while self.leaves_after.is_none_or(|limit| read < limit) {
            match opening.next().await {
                Some(Ok(data)) => read += data.len() as u64,
                Some(Err(_)) | None => break,
            }
        }
        (id, self.length)
    }
}

/// Source, input and output of one request, and how it ended.
type Told = (Option<String>, u64, u64, String);

/// Sums by `source` and direction.
type Sums = BTreeMap<(String, &'static str), u64>;

/// What the log says, checked line by line against what the vendor sends.
struct Logged {
    /// Of each request: source, input, output, how it ended.
    requests: BTreeMap<String, Told>,
    sums: Sums,
    endings: BTreeMap<String, u32>,
}

impl Logged {
    fn of(lines: &[String], lengths: &BTreeMap<String, u64>, told: &BTreeMap<u64, Value>) -> Self {
        let mut logged = Self {
            requests: BTreeMap::new(),
            sums: Sums::new(),
            endings: BTreeMap::new(),
        };
        for line in lines {
            let line: Value = serde_json::from_str(line).unwrap();
            let length = lengths[line["id"].as_str().unwrap()];
            logged.line(&line, &told[&length]);
        }
        logged
    }

    fn line(&mut self, line: &Value, told: &Value) {
        let ending = line["termination"].as_str().unwrap().to_owned();
        *self.endings.entry(ending.clone()).or_default() += 1;
        let id = line["id"].as_str().unwrap().to_owned();
        let log: Value = serde_json::from_str(line["ai_log"].as_str().unwrap()).unwrap_or_default();
        let Some(input) = log["input_token"].as_u64() else {
            // Left before there was an answer.
            assert_eq!(line["input"], "-", "{line}");
            self.requests.insert(id, (None, 0, 0, ending));
            return;
        };
        let output = log["output_token"].as_u64().unwrap();
        let source = log["usage_source"].as_str().unwrap_or("provider").to_owned();
        if source == "provider" {
            assert_eq!(json!(input), told["prompt_tokens"], "{line}");
            assert!(output <= told["completion_tokens"].as_u64().unwrap(), "{line}");
            if line["termination"] == "completed" {
                assert_eq!(json!(output), told["completion_tokens"], "{line}");
            }
        }
        assert_eq!(
            (&line["input"], &line["output"]),
            (&json!(input.to_string()), &json!(output.to_string()))
        );
        self.requests
            .insert(id, (Some(source.clone()), input, output, ending));
        *self.sums.entry((source.clone(), "input")).or_default() += input;
        *self.sums.entry((source, "output")).or_default() += output;
    }

    fn total(&self, direction: &str) -> u64 {
        let all = self.sums.iter().filter(|entry| entry.0.1 == direction);
        all.map(|entry| entry.1).sum()
    }
}

/// What the ledger says, by request.
fn ledger(data: &Path) -> BTreeMap<String, Told> {
    let output = Command::new(BINARY)
        .args(["usage", "--rows", "--json", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), STREAMS, "one row a stream");
    let told = |row: Value| {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let count = |name: &str| row[name].as_u64().unwrap_or_default();
        let told = (
            text("source"),
            count("input"),
            count("output"),
            text("termination").unwrap(),
        );
        (text("request_id").unwrap(), told)
    };
    rows.into_iter().map(told).collect()
}

fn scene(data: &Path, redis: &Redis) -> Scene {
    let mock = mock(Options {
        pace: Duration::from_micros(200),
        ..Options::default()
    });
    let text = documents(&[
        bridge(&[("mock", mock.addr()), ("redis", redis.address)]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin("ai-statistics", "  defaultConfig: { enable: true }\n"),
        wasm_plugin("key-auth", KEYS).replace("UNSPECIFIED_PHASE", "AUTHN"),
        wasm_plugin("ai-quota", QUOTA).replace("priority: 100", "priority: 750"),
        LOG.to_owned(),
    ]);
    Scene {
        gateway: gateway()
            .option("--data", data.display())
            .file("scene.yaml", &text)
            .unwrap()
            .go()
            .unwrap(),
        mock,
    }
}

/// The usage that the vendor sends with an answer of each length.
async fn told(scene: &Scene) -> BTreeMap<u64, Value> {
    let mut told = BTreeMap::new();
    for length in LENGTHS {
        let (request, _) = ordered(&format!("tokens;n={length}"), CHAT);
        let answer = send(scene.mock.addr(), request).await.unwrap();
        told.insert(length, answer.json()["usage"].clone());
    }
    told
}

#[tokio::test]
async fn log_counters_ledger_quota_and_vendor_agree_to_the_token_however_streams_end() {
    let data = tempfile::tempdir().unwrap();
    let redis = Redis::start(&[]).unwrap();
    redis.ask(&format!("SET chat_quota:ann {GIVEN}")).unwrap();
    let scene = scene(data.path(), &redis);
    let told = told(&scene).await;
    let mut numbers = Numbers(4);
    let fates: Vec<Fate> = (0..STREAMS).map(|_| Fate::of(&mut numbers)).collect();
    let address = scene.gateway.http;
    let lengths: BTreeMap<String, u64> = futures_util::stream::iter(fates)
        .map(|fate| fate.meet(address))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let log = &scene.gateway.log;
    log.wait_until(|lines| (lines.len() >= STREAMS).then_some(()))
        .unwrap_or_else(|_| panic!("{} lines only", log.all().len()));
    let lines = log.all();
    assert_eq!(lines.len(), STREAMS, "one line a stream");
    let logged = Logged::of(&lines, &lengths, &told);
    for ending in ["completed", "client_gone", "upstream_cut"] {
        assert!(logged.endings[ending] > 500, "{:?}", logged.endings);
    }
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    for source in ["provider", "estimated", "counted"] {
        for direction in ["input", "output"] {
            let labels = format!("source=\"{source}\",type=\"{direction}\"");
            let sum = logged.sums.get(&(source.to_owned(), direction)).copied();
            let total = counted(&page, "tollgate_usage_tokens_total", &labels);
            assert_eq!(total, sum.unwrap_or(0), "{labels} {:?}", logged.endings);
        }
    }
    for direction in ["input", "output"] {
        for family in ["route_upstream_model", "route_upstream_model_consumer_metric"] {
            let family = format!("{family}_{direction}_token");
            assert_eq!(counted(&page, &family, ""), logged.total(direction), "{family}");
        }
    }
    let settled = counted(&page, "tollgate_requests_total", "");
    assert_eq!(settled, STREAMS as u64);
    let cost = logged.total("input") + logged.total("output");
    assert_eq!(spent_at_last(&redis, cost), cost, "charged to the quota");
    scene.gateway.signal("TERM").unwrap();
    assert!(scene.gateway.wait().unwrap().success());
    assert_eq!(spent(&redis), cost, "nothing is charged twice");
    let ledger = ledger(data.path());
    for (id, told) in &logged.requests {
        assert_eq!(ledger.get(id), Some(told), "{id}");
    }
}
