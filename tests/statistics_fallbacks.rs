//! Requests that another token, another cluster or no vendor at all answers: one line, one row and one settlement each,
//! with what the answer cost that the client got.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tollgate_testkit::client::send;

use crate::statistics_endings::{agree, scene, tokens, two_services, usage};
use crate::support::{CHAT, CHAT_STREAM, Scene, Sight, ingress, ordered, wasm_plugin};

/// `ai-proxy` beside the one for `api`: its provider for these routes.
fn also_ai_proxy(routes: &str, provider: &str) -> String {
    let rule = format!("  matchRules:\n  - ingress: [{routes}]\n    config: {{ provider: {provider} }}\n");
    wasm_plugin("ai-proxy", &rule).replacen(
        "name: ai-proxy\n",
        &format!("name: ai-proxy-for-{}\n", &routes[..1]),
        1,
    )
}

/// Asks below `prefix`; the status and the id.
async fn ask(scene: &Scene, prefix: &str, body: &str) -> (u16, String) {
    let (mut request, id) = ordered("", body);
    *request.uri_mut() = format!("{prefix}/v1/chat/completions").parse().unwrap();
    let answer = send(scene.gateway.http, request).await.unwrap();
    (answer.status.as_u16(), id)
}

/// The lines of these requests, waited for once all have been asked: lines are written with a delay.
fn lines_of<'i>(scene: &Scene, ids: impl IntoIterator<Item = &'i String>) -> Vec<Value> {
    ids.into_iter().map(|id| scene.gateway.line_of(id)).collect()
}

/// How many attempts the lines tell of.
fn attempts(lines: &[Value]) -> usize {
    let each = lines.iter().map(|line| line["attempts"].as_str().unwrap());
    each.map(|count| count.parse::<usize>().unwrap()).sum()
}

#[tokio::test]
async fn a_token_that_stands_in_for_another_is_told_once() {
    let data = tempfile::tempdir().unwrap();
    let both = "type: openai, apiTokens: [sk-bad-1, sk-good]";
    let retry = format!("{{ {both}, retryOnFailure: {{ enabled: true, retryOnStatus: [\"401\"] }} }}");
    let failover = format!(
        "{{ {both}, failover: {{ enabled: true, failureThreshold: 1, healthCheckInterval: 1, healthCheckModel: m, \
         failoverOnStatus: [\"401\"] }} }}"
    );
    let scene = scene(
        data.path(),
        &[
            two_services("127.0.0.1:9".parse().unwrap()),
            ingress("retry", "/retry", "mock.static", &[]),
            ingress("failover", "/failover", "mock.static", &[]),
            also_ai_proxy("retry", &retry),
            also_ai_proxy("failover", &failover),
        ],
    );
    let (mut asked, mut tried) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let body = if number % 2 == 0 { CHAT } else { CHAT_STREAM };
        asked.push(ask(&scene, "/retry", body).await);
    }
    for _ in 0..40 {
        tried.push(ask(&scene, "/failover", CHAT).await);
    }
    let mut lines = lines_of(&scene, asked.iter().map(|asked| &asked.1));
    let cost = tokens(&lines[0]);
    assert_eq!(cost.as_ref().unwrap().0, "provider");
    for (line, (status, _)) in lines.iter().zip(&asked) {
        assert_eq!(
            (*status, &line["termination"]),
            (200, &"completed".into()),
            "{line}"
        );
        assert_eq!(tokens(line), cost, "{line}");
    }
    let twice = lines.iter().filter(|line| line["attempts"] == "2").count();
    assert!((1..40).contains(&twice), "{twice} of 40 began with the bad token");
    // The bad token's own answer reaches one client, then the token is only tried.
    let refused = tried.iter().filter(|tried| tried.0 == 401).count();
    for (status, id) in &tried {
        let line = scene.gateway.line_of(id);
        assert_eq!(tokens(&line).is_some(), *status == 200, "{line}");
        lines.push(line);
    }
    assert!(refused <= 1, "{refused} clients got the bad token's 401");
    assert_eq!(scene.mock.requests().len(), attempts(&lines));
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
}

/// A Service, with the vendor as its endpoint or without any.
fn service(name: &str, has_endpoint: bool) -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: higress-system }}\nspec:\n  ports:\n  - {{ name: \
         http, port: 80 }}\n"
    );
    if !has_endpoint {
        return service;
    }
    format!(
        "{service}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: \
         higress-system\n  labels: {{ kubernetes.io/service-name: {name} }}\naddressType: IPv4\nports:\n- {{ name: http, \
         port: MOCK_PORT }}\nendpoints:\n- addresses: [127.0.0.1]\n"
    )
}

/// An Ingress to a Service.
fn to_service(name: &str, path: &str, service: &str, annotations: &[(&str, &str)]) -> String {
    let text = ingress(name, path, "none", annotations);
    let (head, _) = text.split_once("          resource:").unwrap();
    format!("{head}          service: {{ name: {service}, port: {{ number: 80 }} }}\n")
}

#[tokio::test]
async fn a_cluster_that_stands_in_for_another_is_told_once() {
    let data = tempfile::tempdir().unwrap();
    let spare = [("higress.io/default-backend", "spare")];
    let canary = [("higress.io/canary", "true"), ("higress.io/canary-weight", "50")];
    let by_header = [
        ("higress.io/canary", "true"),
        ("higress.io/canary-by-header", "x-try"),
    ];
    let scene = scene(
        data.path(),
        &[
            service("spare", true),
            service("empty", false),
            to_service("empty", "/empty", "empty", &spare),
            to_service("absent", "/absent", "absent", &spare),
            to_service("stable", "/stable", "spare", &[]),
            to_service("canary", "/stable", "empty", &canary),
            to_service("header", "/header", "spare", &[]),
            to_service("tried", "/header", "empty", &by_header),
            to_service("nowhere", "/nowhere", "empty", &[]),
            also_ai_proxy(
                "empty, absent, stable, header, tried, nowhere",
                "{ type: openai, apiTokens: [sk] }",
            ),
        ],
    );
    let mut asked = Vec::new();
    let mut ends = BTreeMap::new();
    for path in ["/empty", "/absent", "/stable", "/header", "/nowhere"] {
        for number in 0..12 {
            let (mut request, id) = ordered("", if number % 2 == 0 { CHAT } else { CHAT_STREAM });
            *request.uri_mut() = format!("{path}/v1/chat/completions").parse().unwrap();
            if number % 3 == 0 {
                request.headers_mut().insert("x-try", "always".parse().unwrap());
            }
            let status = send(scene.gateway.http, request).await.unwrap().status.as_u16();
            *ends.entry((path, status)).or_insert(0) += 1;
            asked.push((status, id));
        }
    }
    let lines = lines_of(&scene, asked.iter().map(|asked| &asked.1));
    for (line, (status, _)) in lines.iter().zip(&asked) {
        let told = tokens(line).map(|told| told.0);
        assert_eq!(told.as_deref(), (*status == 200).then_some("provider"), "{line}");
    }
    let served = |path| ((path, 200), 12);
    let wanted = ["/empty", "/absent", "/stable", "/header"]
        .map(served)
        .into_iter();
    assert_eq!(ends, wanted.chain([(("/nowhere", 503), 12)]).collect());
    let spare = "outbound|80||spare.higress-system.svc.cluster.local";
    let by_spare = lines.iter().filter(|line| line["cluster"] == spare);
    assert_eq!(
        by_spare.count(),
        48,
        "the line names the cluster that served: {lines:#?}"
    );
    assert_eq!(scene.mock.requests().len(), 48);
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
}

#[tokio::test]
async fn each_request_is_told_in_the_arm_that_it_was_given() {
    let data = tempfile::tempdir().unwrap();
    let canary = |how, value| [("higress.io/canary", "true"), (how, value)];
    let scene = scene(
        data.path(),
        &[
            two_services("127.0.0.1:9".parse().unwrap()).replace("127.0.0.1:9", "MOCK"),
            service("empty", false),
            ingress("plain", "/plain", "mock.static", &[]),
            ingress("shares", "/shares", "60% mock.static\n40% other.static", &[]),
            ingress("stable", "/stable", "mock.static", &[]),
            // Whose requests the stable one serves.
            to_service(
                "newer",
                "/stable",
                "empty",
                &canary("higress.io/canary-weight", "40"),
            ),
            ingress("known", "/header", "mock.static", &[]),
            ingress(
                "tried",
                "/header",
                "other.static",
                &canary("higress.io/canary-by-header", "x-try"),
            ),
            also_ai_proxy(
                "plain, shares, stable, known, tried",
                "{ type: openai, apiTokens: [sk] }",
            ),
        ],
    );
    let mut asked = Vec::new();
    for path in ["/plain", "/shares", "/stable", "/header"] {
        for number in 0..40 {
            let (mut request, id) = ordered("", CHAT);
            *request.uri_mut() = format!("{path}/v1/chat/completions").parse().unwrap();
            if number % 4 == 0 {
                request.headers_mut().insert("x-try", "always".parse().unwrap());
            }
            assert_eq!(send(scene.gateway.http, request).await.unwrap().status, 200);
            asked.push(id);
        }
    }
    let lines = lines_of(&scene, &asked);
    let mut told = BTreeMap::new();
    for line in &lines {
        *told.entry(line["arm"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(
        (told["-"], told["known"], told["tried"]),
        (40, 30, 10),
        "{told:?}"
    );
    // Shares are chance: this one fails once in ten million runs.
    for arm in ["outbound|80||other.static", "newer"] {
        assert!((2..=34).contains(&told[arm]), "{told:?}");
    }
    assert_eq!(
        told["outbound|80||mock.static"] + told["outbound|80||other.static"],
        40
    );
    assert_eq!(told["stable"] + told["newer"], 40);
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
    let sums = usage(data.path(), &["--by", "arm"]);
    let by_arm = sums.iter().map(|row| {
        (
            row["arm"].as_str().unwrap_or("-"),
            row["requests"].as_u64().unwrap(),
        )
    });
    assert_eq!(by_arm.collect::<BTreeMap<_, _>>(), told);
}

/// A module that answers in the vendor's place once the vendor has answered.
const WITHHOLDING: &str = r#"(module
    (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "withheld")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (drop (call $reply (i32.const 451) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const -1)))
      (i32.const 1)))"#;

/// A module that refuses to let an answer go on at its third piece, when the head has long left.
const STOPPING: &str = r#"(module
    (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $pieces (mut i32) (i32.const 0))
    (data (i32.const 16) "withheld")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (global.set $pieces (i32.add (global.get $pieces) (i32.const 1)))
      (if (i32.lt_u (global.get $pieces) (i32.const 3)) (then (return (i32.const 0))))
      (drop (call $reply (i32.const 451) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const -1)))
      (i32.const 1)))"#;

/// A guard that is this module.
fn guard(data: &Path, module: &str, priority: i32) -> String {
    let path = data.join("guard.wasm");
    std::fs::write(&path, wat::parse_str(module).unwrap()).unwrap();
    format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: guard\n  namespace: \
         higress-system\nspec:\n  url: file://{}\n  priority: {priority}\n",
        path.display()
    )
}

/// Asks twice past this guard; what the lines tell of tokens.
async fn guarded(data: &Path, guard: String, status: u16) -> Vec<Option<(String, u64, u64)>> {
    let services = two_services("127.0.0.1:9".parse().unwrap());
    let scene = scene(
        data,
        &[services, ingress("api", "/v1", "mock.static", &[]), guard],
    );
    let mut lines = Vec::new();
    for body in [CHAT, CHAT_STREAM] {
        let (got, id) = ask(&scene, "", body).await;
        let line = scene.gateway.line_of(&id);
        assert_eq!(got, status, "{line}");
        lines.push(line);
    }
    assert_eq!(scene.mock.requests().len(), attempts(&lines));
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data, &lines, &page);
    lines.iter().map(tokens).collect()
}

#[tokio::test]
async fn a_guard_that_refuses_or_withholds_is_told_once() {
    let data = || tempfile::tempdir().unwrap();
    let refusing = wasm_plugin(
        "request-block",
        "  defaultConfig: { block_bodies: [Who are you] }\n",
    );
    assert_eq!(guarded(data().path(), refusing, 403).await, [None, None]);
    let directory = data();
    let inside = guard(directory.path(), WITHHOLDING, 1);
    assert_eq!(guarded(directory.path(), inside, 451).await, [None, None]);
    // In front of the plugins that count: what the vendor has said is paid for, whoever gets to read it.
    let directory = data();
    let outside = guard(directory.path(), WITHHOLDING, 1000);
    let told = guarded(directory.path(), outside, 451).await;
    let sources: Vec<_> = told.iter().flatten().map(|told| told.0.as_str()).collect();
    assert_eq!(sources, ["provider", "estimated"]);
}

#[tokio::test]
async fn a_guard_that_stops_a_stream_is_told_once() {
    // Behind the plugins that count, and in front of them.
    for priority in [1, 1000] {
        let data = tempfile::tempdir().unwrap();
        let scene = scene(
            data.path(),
            &[
                two_services("127.0.0.1:9".parse().unwrap()),
                ingress("api", "/v1", "mock.static", &[]),
                guard(data.path(), STOPPING, priority),
            ],
        );
        let (request, id) = ordered("pace;ms=5,tokens;n=400", CHAT_STREAM);
        let answer = send(scene.gateway.http, request).await.unwrap();
        assert!(!answer.text().contains("[DONE]"), "{answer:?}");
        let line = scene.gateway.line_of(&id);
        assert_eq!(
            (&line["code"], &line["termination"]),
            (&"200".into(), &"refused".into()),
            "{line}"
        );
        let (source, _, output) = tokens(&line).unwrap();
        assert!(source == "estimated" && output > 0, "{line}");
        let page = scene.gateway.admin("/stats/prometheus").await.text();
        agree(scene, data.path(), &[line], &page);
    }
}
