//! Broken documents: each hurts only itself, and is named with file, line, object and field.

use http::Request;
use serde_json::Value;
use tollgate_mock_llm::{Handle, Options};
use tollgate_testkit::client::{get, send};
use tollgate_testkit::process::Gateway;

use crate::support::{Sight, ai_proxy, bridge, documents, gateway, ingress, ingress_for, mock, wasm_plugin};

/// A good route beside whatever a test adds as `bad.yaml`.
fn start(bad: &str) -> (Gateway, Handle) {
    let mock = mock(Options::default());
    let good = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("good", "/good", "mock.static", &[]),
    ]);
    let gateway = gateway()
        .file("a-good.yaml", &good)
        .unwrap()
        .file("bad.yaml", bad)
        .unwrap()
        .go()
        .unwrap();
    (gateway, mock)
}

async fn status(gateway: &Gateway, path: &str) -> u16 {
    send(gateway.http, get(path)).await.unwrap().status.as_u16()
}

/// The good route works, the diagnostic is on standard error, in the dump and in the metric of `kind`.
async fn hurts_only_itself(bad: &str, kind: &str, wanted: &[&str]) -> (Gateway, Handle) {
    let (gateway, mock) = start(bad);
    assert_eq!(
        status(&gateway, "/good/echo").await,
        404,
        "the vendor has no such path"
    );
    assert_eq!(mock.requests().len(), 1, "the good route is served");
    let said = gateway
        .errors
        .wait_for(|line| wanted.iter().all(|part| line.contains(part)));
    let line = said.unwrap_or_else(|said| panic!("no line with {wanted:?}: {said}"));
    assert!(line.contains("bad.yaml:"), "{line}");
    let dump = gateway.admin("/config_dump").await.json();
    let message = dump["diagnostics"].as_array().unwrap().iter().any(|entry| {
        entry["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("bad.yaml"))
            && entry["line"].as_u64().is_some_and(|line| line > 0)
    });
    assert!(message, "{dump:#}");
    if line.contains(": error") {
        let rejected = gateway
            .metric(&format!("tollgate_config_rejected{{kind=\"{kind}\"}}"))
            .await;
        assert!(
            rejected >= 1.0,
            "{kind}: {}",
            gateway.admin("/stats/prometheus").await.text()
        );
    }
    (gateway, mock)
}

#[tokio::test]
async fn one_bad_document_among_ten() {
    let mock = mock(Options::default());
    let mut parts = vec![bridge(&[("mock", mock.addr())])];
    for number in 0..8 {
        parts.push(ingress(
            &format!("route-{number}"),
            &format!("/r{number}"),
            "mock.static",
            &[],
        ));
    }
    parts.insert(5, "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: broken\n  labels: {a: [}\nspec: {}".to_owned());
    let text = documents(&parts);
    let line = text.lines().position(|line| line.contains("labels: {a")).unwrap() + 1;
    let gateway = gateway().file("ten.yaml", &text).unwrap().go().unwrap();
    for number in 0..8 {
        let answer = send(gateway.http, get(&format!("/r{number}/echo")))
            .await
            .unwrap();
        assert_eq!(answer.header("x-request-id").len(), 36, "route {number}");
    }
    assert_eq!(mock.requests().len(), 8, "the nine others are served");
    let place = format!("ten.yaml:{line}");
    gateway
        .errors
        .wait_for(|said| said.contains(&place) && said.contains("error"))
        .unwrap();
    assert_eq!(
        gateway.metric("tollgate_config_rejected{kind=\"Ingress\"}").await,
        1.0
    );

    let checked = crate::commands::check(&[("ten.yaml", &text)], &[]);
    assert_eq!(checked.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(printed.contains(&place), "{printed}");
}

#[tokio::test]
async fn a_tab_for_indentation_names_its_line() {
    hurts_only_itself(
        "kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata:\n\tname: x\n",
        "Ingress",
        &["bad.yaml:4"],
    )
    .await;
}

#[tokio::test]
async fn an_unknown_kind_is_a_warning() {
    let bad = "apiVersion: v1\nkind: Teapot\nmetadata:\n  name: pot\n";
    let (gateway, _mock) = hurts_only_itself(bad, "Teapot", &["Teapot", "warning"]).await;
    assert_eq!(gateway.admin("/healthz/ready").await.status, 200);
}

#[tokio::test]
async fn a_document_without_a_kind() {
    hurts_only_itself(
        "apiVersion: v1\nmetadata:\n  name: nothing\n",
        "unknown",
        &["kind"],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_type_names_object_and_field() {
    let bad = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: typed\n  namespace: higress-system\nspec:\n  rules: 17\n";
    hurts_only_itself(
        bad,
        "Ingress",
        &[
            "Ingress higress-system/typed",
            "spec.rules",
            "error",
            "bad.yaml:7",
        ],
    )
    .await;
    let bad = "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: typed\n  namespace: higress-system\nspec:\n  priority: high\n  url: oci://x/plugins/ai-proxy:1.0.0\n";
    hurts_only_itself(
        bad,
        "WasmPlugin",
        &["WasmPlugin higress-system/typed", "priority", "bad.yaml:7"],
    )
    .await;
}

#[tokio::test]
async fn a_bad_annotation_is_named_and_the_rest_of_its_route_works() {
    for (key, value, told) in [
        ("higress.io/timeout", "soon", "timeout"),
        ("tollgate.dev/timeout-silence", "5 parsecs", "timeout-silence"),
        ("higress.io/backend-protocol", "GOPHER", "backend-protocol"),
        (
            "higress.io/proxy-next-upstream",
            "on_a_whim",
            "proxy-next-upstream",
        ),
        ("higress.io/load-balance", "best", "load-balance"),
        (
            "higress.io/whitelist-source-range",
            "everyone",
            "whitelist-source-range",
        ),
        ("higress.io/canary-weight", "many", "canary"),
    ] {
        let mut annotations = vec![(key, value)];
        if key.ends_with("canary-weight") {
            annotations.push(("higress.io/canary", "true"));
        }
        let bad = ingress("annotated", "/annotated", "mock.static", &annotations);
        let (gateway, mock) = hurts_only_itself(&bad, "Ingress", &["annotated", told]).await;
        send(gateway.http, get("/annotated/echo")).await.unwrap();
        let passes = !key.ends_with("range") && !key.ends_with("weight");
        assert_eq!(mock.requests().len(), 1 + usize::from(passes), "{key}: {value}");
    }
}

#[tokio::test]
async fn a_missing_secret() {
    let bad = ingress_for("secure.example", "secure", "/secure", "mock.static", &[])
        + "  tls:\n  - hosts: [secure.example]\n    secretName: no-such-secret\n";
    let (gateway, mock) = hurts_only_itself(&bad, "Ingress", &["no-such-secret"]).await;
    assert!(gateway.https.is_none(), "there is no certificate to serve");
    send(gateway.http, get("http://secure.example/secure/x"))
        .await
        .unwrap();
    assert_eq!(mock.requests().len(), 2, "plain HTTP still works");
}

#[tokio::test]
async fn a_secret_that_is_no_certificate() {
    let bad = documents(&[
        ingress_for("secure.example", "secure", "/secure", "mock.static", &[])
            + "  tls:\n  - hosts: [secure.example]\n    secretName: garbled\n",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: garbled\n  namespace: higress-system\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: hello-this-is-the-secret\n  tls.key: world-this-is-the-secret\n"
            .to_owned(),
    ]);
    let (gateway, _mock) = hurts_only_itself(&bad, "Secret", &["garbled"]).await;
    let said = gateway.errors.all().join("\n") + &gateway.admin("/config_dump").await.text();
    assert!(!said.contains("this-is-the-secret"), "a secret was told: {said}");
}

#[tokio::test]
async fn a_plugin_config_that_is_wrong() {
    for (provider, told) in [
        (
            "{ type: no-such-vendor, apiTokens: [sk-secret] }",
            "no-such-vendor",
        ),
        ("{ apiTokens: [sk-secret] }", "type"),
        ("{ type: qwen }", "apiTokens"),
        (
            "{ type: openai, apiTokens: [sk-secret], protocol: morse }",
            "protocol",
        ),
    ] {
        let bad = documents(&[
            ingress("llm", "/llm", "mock.static", &[]),
            ai_proxy("llm", provider),
        ]);
        let (gateway, _mock) =
            hurts_only_itself(&bad, "WasmPlugin", &["WasmPlugin", "ai-proxy", "error"]).await;
        let said = gateway.errors.all().join("\n");
        assert!(said.contains(told), "{provider}: {said}");
        assert!(!said.contains("sk-secret"), "a key was told: {said}");
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_exist() {
    let bad = documents(&[
        ingress("llm", "/llm", "mock.static", &[]),
        wasm_plugin("no-such-plugin", "  defaultConfig: { a: 1 }\n"),
    ]);
    let (gateway, _mock) = start(&bad);
    gateway
        .errors
        .wait_for(|line| line.contains("no-such-plugin"))
        .unwrap();
    assert_eq!(gateway.admin("/healthz/ready").await.status, 200);
}

#[tokio::test]
async fn two_documents_of_one_name() {
    let bad = documents(&[
        ingress("twin", "/one", "mock.static", &[]),
        ingress("twin", "/two", "mock.static", &[]),
    ]);
    hurts_only_itself(&bad, "Ingress", &["Ingress higress-system/twin"]).await;
}

#[tokio::test]
async fn files_that_are_no_text() {
    let mock = mock(Options::default());
    let good = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("good", "/good", "mock.static", &[]),
    ]);
    let start = gateway().file("good.yaml", &good).unwrap();
    std::fs::write(start.path("config/binary.yaml"), [0xff, 0xfe, 0x00, 0x01]).unwrap();
    std::fs::write(start.path("config/notes.txt"), "not a document: [").unwrap();
    std::fs::write(start.path("config/.hidden.yaml"), "kind: [").unwrap();
    let gateway = start.go().unwrap();
    gateway
        .errors
        .wait_for(|line| line.contains("binary.yaml") && line.contains("error"))
        .unwrap();
    let request = Request::get("/good/echo").body(bytes::Bytes::new()).unwrap();
    send(gateway.http, request).await.unwrap();
    assert_eq!(mock.requests().len(), 1);
    let said = gateway.errors.all().join("\n");
    assert!(!said.contains("notes.txt") && !said.contains(".hidden"), "{said}");
}

#[tokio::test]
async fn an_empty_directory_serves_404_and_is_ready() {
    let gateway = gateway().go().unwrap();
    assert_eq!(gateway.admin("/healthz/ready").await.status, 200);
    assert_eq!(status(&gateway, "/").await, 404);
}

#[tokio::test]
async fn secrets_are_masked_in_the_dump() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("llm", "/", "mock.static", &[]),
        ai_proxy("llm", "{ type: openai, apiTokens: [sk-very-secret-token] }"),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let dump: Value = gateway.admin("/config_dump").await.json();
    assert!(dump["hosts"].is_array(), "{dump:#}");
    let everything = dump.to_string()
        + &gateway.admin("/stats/prometheus").await.text()
        + &gateway.errors.all().join("\n");
    assert!(!everything.contains("sk-very-secret-token"), "the token was told");
}
