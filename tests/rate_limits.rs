//! Limits and quotas: exact among requests at once and among gateways, and what happens when their Redis goes away.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use tollgate_base::clock;
use tollgate_mock_llm::{Authority, Options, Validity};
use tollgate_testkit::client::{self, Answer, get, send};
use tollgate_testkit::process::Gateway;
use tollgate_testkit::redis::{Identity, Redis};

use crate::support::{
    CHAT_PATH, PATIENCE, Scene, Sight, ai_proxy, bridge, documents, gateway, ingress, mock, ordered,
    verbose_log, wasm_plugin,
};

const OPENAI: &str = "{ type: openai, apiTokens: [sk-gateway] }";
/// A hundred tokens and a short prompt.
const HUNDRED: &str =
    r#"{"model":"gpt-4o","max_tokens":100,"messages":[{"role":"user","content":"Who are you?"}]}"#;

/// The route `api` with ai-proxy and this plugin, started with these flags.
fn scene(plugin: &str, flags: &[(&str, &str)]) -> Scene {
    let mock = mock(Options::default());
    let gateway = beside(&mock, plugin, flags);
    Scene { gateway, mock }
}

/// A gateway in front of this mock.
fn beside(mock: &tollgate_mock_llm::Handle, plugin: &str, flags: &[(&str, &str)]) -> Gateway {
    let parts = [
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", OPENAI),
        plugin.to_owned(),
        verbose_log(),
    ];
    let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
    let start = flags
        .iter()
        .fold(start, |start, (flag, value)| start.option(flag, value));
    start.go().unwrap()
}

fn hundred_tokens() -> Request<Bytes> {
    ordered("tokens;n=100", HUNDRED).0
}

/// Sends `count` requests at once, to these gateways in turn; how many got in, and that all others got 429.
async fn admitted(gateways: &[&Gateway], count: usize, request: impl Fn() -> Request<Bytes>) -> usize {
    let all = (0..count).map(|number| send(gateways[number % gateways.len()].http, request()));
    let answers: Vec<Answer> = futures_util::future::join_all(all)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert!(
        statuses.iter().all(|status| [200, 429].contains(status)),
        "{statuses:?}"
    );
    statuses.iter().filter(|status| **status == 200).count()
}

fn key_rate_limit() -> String {
    let config = "  defaultConfig: { limit_by_header: x-key, limit_keys: [{ key: a, query_per_day: 10 }] }\n";
    wasm_plugin("key-rate-limit", config)
}

fn request_limit(more: &str) -> String {
    let config =
        format!("  defaultConfig: {{ rule_name: r, global_threshold: {{ query_per_day: 10 }}{more} }}\n");
    wasm_plugin("cluster-key-rate-limit", &config)
}

fn token_limit(tokens: u64, more: &str) -> String {
    let config = format!(
        "  defaultConfig: {{ rule_name: r, global_threshold: {{ token_per_day: {tokens} }}{more} }}\n"
    );
    let plugin = wasm_plugin("ai-token-ratelimit", &config);
    plugin.replace("priority: 100", "priority: 600")
}

/// The same with reservations, by the annotation.
fn reserving(tokens: u64) -> String {
    token_limit(tokens, "").replace(
        "metadata:\n",
        "metadata:\n  annotations: { tollgate.dev/admission: reserve }\n",
    )
}

fn keyed() -> Request<Bytes> {
    let mut request = get("/status/200");
    request
        .headers_mut()
        .insert("x-key", HeaderValue::from_static("a"));
    request
}

#[tokio::test]
async fn of_two_hundred_at_once_ten_get_in_and_a_reload_changes_nothing() {
    let scene = Scene::plain(&[]);
    scene.gateway.write("limit.yaml", &key_rate_limit()).unwrap();
    assert_eq!(admitted(&[&scene.gateway], 200, keyed).await, 10);
    scene
        .gateway
        .write("other.yaml", &ingress("other", "/other", "mock.static", &[]))
        .unwrap();
    assert_eq!(admitted(&[&scene.gateway], 20, keyed).await, 0);
    let request = get("/status/200");
    assert_eq!(send(scene.gateway.http, request).await.unwrap().status, 200);
    let memory = Scene::plain(&[]);
    memory.gateway.write("limit.yaml", &request_limit("")).unwrap();
    assert_eq!(admitted(&[&memory.gateway], 200, keyed).await, 10);
}

#[tokio::test]
async fn tokens_reserved_at_once_stay_within_the_limit() {
    let cost = cost_of_one().await;
    let scene = scene(&reserving(10 * cost), &[]);
    let count = admitted(&[&scene.gateway], 200, hundred_tokens).await;
    assert!((9..=11).contains(&count), "{count}");
}

/// What a request of a hundred tokens comes to.
async fn cost_of_one() -> u64 {
    let scene = Scene::openai(&[]);
    let answer = send(scene.gateway.http, hundred_tokens()).await.unwrap();
    let usage = &answer.json()["usage"];
    usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn two_gateways_on_one_redis_are_as_exact_as_one() {
    let redis = Redis::start(&[]).unwrap();
    let url = format!("redis://{}", redis.address);
    let flags: &[(&str, &str)] = &[("--redis", &url)];
    let cost = cost_of_one().await;
    let first = scene(&reserving(10 * cost), flags);
    let second = beside(&first.mock, &reserving(10 * cost), flags);
    let both = [&first.gateway, &second];
    let count = admitted(&both, 200, hundred_tokens).await;
    assert!((9..=11).contains(&count), "{count}");
    let key = "GET higress-token-ratelimit:r:global_threshold:86400";
    // What was set aside too much goes back behind the answer.
    let settled = (count as u64 * cost).to_string();
    let charged = async {
        while !redis.ask(key).unwrap().contains(&settled) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, charged).await.is_ok(),
        "{} is not {count} times {cost}",
        redis.ask(key).unwrap()
    );
    for gateway in both {
        gateway.write("requests.yaml", &request_limit("")).unwrap();
    }
    redis
        .ask("DEL higress-token-ratelimit:r:global_threshold:86400")
        .unwrap();
    let models = || get("/v1/models");
    assert_eq!(admitted(&both, 200, models).await, 10);
    let counted = redis
        .ask("GET higress-cluster-key-rate-limit:r:global_threshold:86400")
        .unwrap();
    assert!(counted.contains("11"), "{counted}");
}

#[tokio::test]
async fn what_a_client_leaves_behind_is_charged() {
    let redis = Redis::start(&[]).unwrap();
    let url = format!("redis://{}", redis.address);
    let scene = scene(&token_limit(1_000_000, ""), &[("--redis", &url)]);
    let body = HUNDRED.replace("\"max_tokens\":100", "\"stream\":true");
    let (request, id) = ordered("pace;ms=20,tokens;n=500", &body);
    let mut stream = client::open(scene.gateway.http, request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    // The client's side is closed by its own runtime, which must run for it.
    scene.gateway.admin("/healthz/ready").await;
    let line = scene.gateway.line_of(&id);
    assert_eq!(line["termination"], "client_gone", "{line}");
    let key = "GET higress-token-ratelimit:r:global_threshold:86400";
    let charged = eventually(|| redis.ask(key).ok().filter(|answer| answer != "$-1\r\n")).await;
    assert!(charged.starts_with('$'), "{charged}");
}

/// Asks until there is something.
async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap()
}

#[tokio::test]
async fn a_redis_that_goes_away_is_told_and_found_again() {
    let mut redis = Redis::start(&[]).unwrap();
    let mock = mock(Options::default());
    let store = ", redis: { service_name: redis.static }";
    let closed = "  matchRules: [{ ingress: [closed], config: { rule_name: c, global_threshold: { query_per_day: 1000 }, \
        redis: { service_name: redis.static }, on_store_failure: deny } }]\n  defaultConfig";
    let limits = request_limit(store).replace("  defaultConfig", closed);
    let parts = [
        bridge(&[("mock", mock.addr()), ("redis", redis.address)]),
        ingress("api", "/", "mock.static", &[]),
        ingress("closed", "/bytes", "mock.static", &[]),
        limits,
        verbose_log(),
    ];
    let gateway = gateway()
        .file("scene.yaml", &documents(&parts))
        .unwrap()
        .go()
        .unwrap();
    let status = async |path: &str| send(gateway.http, get(path)).await.unwrap().status.as_u16();
    assert_eq!(
        (status("/status/200").await, status("/bytes/1").await),
        (200, 200)
    );
    assert_eq!(gateway.admin("/healthz/ready").await.text(), "ready\n");
    redis.kill();
    for _ in 0..30 {
        assert_eq!(
            (status("/status/200").await, status("/bytes/1").await),
            (200, 503)
        );
    }
    let ready = gateway.admin("/healthz/ready").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("redis.static:80"), "{}", ready.text());
    assert_eq!(
        gateway
            .metric("tollgate_store_up{store=\"redis.static:80\"}")
            .await,
        0.0
    );
    redis.restart().unwrap();
    let found = async { while status("/bytes/1").await != 200 {} };
    tokio::time::timeout(Duration::from_secs(1), found)
        .await
        .expect("found again within a second, without a restart");
    assert_eq!(gateway.admin("/healthz/ready").await.text(), "ready\n");
    let lines = gateway.errors.all();
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(
        (told("the store is down"), told("the store is back")),
        (1, 1),
        "{lines:#?}"
    );
}

/// One that holds its connections open and says nothing: a request waits for it at most as long as the plugin says, and
/// only until it is known.
#[tokio::test]
async fn a_redis_that_falls_silent_adds_its_timeout_once() {
    let redis = Redis::start(&[]).unwrap();
    let mock = mock(Options::default());
    let parts = [
        bridge(&[("mock", mock.addr()), ("redis", redis.address)]),
        ingress("api", "/", "mock.static", &[]),
        request_limit(", redis: { service_name: redis.static, timeout: 300 }")
            .replace("per_day: 10 ", "per_day: 1000 "),
        verbose_log(),
    ];
    let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
    let gateway = start.go().unwrap();
    let took = async || {
        let begun = clock::now();
        assert_eq!(send(gateway.http, get("/status/200")).await.unwrap().status, 200);
        begun.elapsed()
    };
    took().await;
    redis.signal("STOP").unwrap();
    let first = took().await;
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(600)).contains(&first),
        "{first:?}"
    );
    for _ in 0..10 {
        let later = took().await;
        assert!(later < Duration::from_millis(300), "{later:?}");
    }
    redis.signal("CONT").unwrap();
    gateway
        .errors
        .wait_for(|line| line.contains("the store is back"))
        .unwrap();
}

#[tokio::test]
async fn limits_in_a_redis_behind_tls_and_another_address() {
    let authority = Authority::new().unwrap();
    let pair = authority.issue(&["redis.example"], Validity::Valid).unwrap();
    let identity = Identity {
        certificate: &pair.certificate,
        key: &pair.key,
        authority: &authority.pem(),
    };
    let redis = Redis::start_secure(identity, &["--requirepass", "hunter2"]).unwrap();
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        request_limit(""),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let ca = start.path("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let gateway = start
        .option(
            "--redis",
            format!("rediss://:hunter2@redis.example:7000?ca={}", ca.display()),
        )
        .option(
            "--resolve",
            format!("redis.example:7000:{}", redis.secure.unwrap()),
        )
        .go()
        .unwrap();
    assert_eq!(admitted(&[&gateway], 20, || get("/status/200")).await, 10);
    let page = gateway.admin("/config_dump").await.text();
    assert!(!page.contains("hunter2"), "{page}");
    assert_eq!(
        gateway
            .metric("tollgate_store_up{store=\"redis.example:7000\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_wrong_redis_url_is_told_without_its_password() {
    let start = gateway()
        .option("--redis", "redis://:hunter2@host/x")
        .flag("--config")
        .flag("config");
    let output = start.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--redis: the database is no number"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn every_way_to_ask_a_model_is_charged() {
    // One token is the whole limit: whatever is charged at all, the next request is refused.
    for (path, body) in [
        (CHAT_PATH, HUNDRED),
        ("/v1/completions", r#"{"model":"gpt-4o","prompt":"Who are you?"}"#),
        ("/v1/responses", r#"{"model":"gpt-4o","input":"Who are you?"}"#),
        ("/v1/embeddings", r#"{"model":"gpt-4o","input":"Who are you?"}"#),
        (
            "/v1/messages",
            r#"{"model":"gpt-4o","max_tokens":9,"messages":[{"role":"user","content":"Who are you?"}]}"#,
        ),
    ] {
        let scene = scene(&token_limit(1, ""), &[]);
        let ask = || client::post_json(path, body.to_owned());
        let answer = send(scene.gateway.http, ask()).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(
            send(scene.gateway.http, ask()).await.unwrap().status,
            429,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_gateway_lists_the_models_that_the_caller_may_use_and_keeps_budgets() {
    let mock = mock(Options::default());
    let provider =
        |mapping: &str| format!("{{ type: openai, apiTokens: [sk-gateway], modelMapping: {mapping} }}");
    let keys = "  defaultConfig:\n    consumers: [{ name: ann, credential: key-ann }, { name: bob, credential: key-bob }]\n    \
        keys: [apikey]\n    in_header: true\n  matchRules:\n  - ingress: [api]\n    config: { allow: [ann, bob] }\n  \
        - ingress: [vip]\n    config: { allow: [ann] }\n";
    let budgets = "  defaultConfig: { budgets: [{ consumer: bob, day: 0 }] }\n";
    let proxies = ai_proxy("api", &provider("{ fast: gpt-4o-mini, \"*\": gpt-4o }"))
        + &format!(
            "  - ingress: [vip]\n    config:\n      provider: {}\n",
            provider("{ large: gpt-4.1 }")
        );
    let parts = [
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ingress("vip", "/vip", "mock.static", &[]),
        proxies,
        wasm_plugin("key-auth", keys).replace("UNSPECIFIED_PHASE", "AUTHN"),
        wasm_plugin("ai-budget", budgets).replace("priority: 100", "priority: 700"),
        wasm_plugin("model-list", "  defaultConfig: {}\n").replace("priority: 100", "priority: 730"),
    ];
    let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
    let gateway = start.go().unwrap();
    let with_key = |mut request: Request<Bytes>, key: &'static str| {
        request
            .headers_mut()
            .insert("apikey", HeaderValue::from_static(key));
        request
    };
    for (key, expected) in [
        ("key-ann", &["fast", "gpt-4o", "large"][..]),
        ("key-bob", &["fast", "gpt-4o"]),
    ] {
        let list = send(gateway.http, with_key(get("/v1/models"), key))
            .await
            .unwrap()
            .json();
        let models = list["data"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = models.iter().filter_map(|model| model["id"].as_str()).collect();
        assert_eq!(names, expected, "{list} {:#?}", gateway.errors.all());
    }
    assert!(mock.requests().is_empty(), "no vendor is asked");
    let chat = |key| with_key(client::post_json(CHAT_PATH, HUNDRED), key);
    assert_eq!(send(gateway.http, chat("key-ann")).await.unwrap().status, 200);
    let refused = send(gateway.http, chat("key-bob")).await.unwrap();
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "budget_exhausted");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 86_400);
}
