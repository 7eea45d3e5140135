//! Which vendor a request reaches: hosts, paths, weights, rewrites; compile's own tests have the corner cases.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use tollgate_mock_llm::{Handle, Options};
use tollgate_testkit::client::{Answer, get, send};
use tollgate_testkit::process::Gateway;

use crate::support::{bridge, documents, gateway, ingress, ingress_for, mock};

/// Vendors that only echo, by name.
fn vendors(names: &[&str]) -> (Vec<Handle>, String) {
    let handles: Vec<Handle> = names
        .iter()
        .map(|name| {
            mock(Options {
                name: (*name).to_owned(),
                echo_only: true,
                ..Options::default()
            })
        })
        .collect();
    let registries: Vec<_> = names
        .iter()
        .zip(&handles)
        .map(|(name, handle)| (*name, handle.addr()))
        .collect();
    (handles, bridge(&registries))
}

async fn ask(gateway: &Gateway, uri: &str) -> Answer {
    send(gateway.http, get(uri)).await.unwrap()
}

async fn reaches(gateway: &Gateway, uri: &str, server: &str) {
    let answer = ask(gateway, uri).await;
    assert_eq!(
        answer.json()["server"],
        server,
        "{uri}: {} {}",
        answer.status,
        answer.text()
    );
}

#[tokio::test]
async fn hosts_exact_then_wildcard_then_any() {
    let (_vendors, bridge) = vendors(&["exact", "wild", "any"]);
    let text = documents(&[
        bridge,
        ingress_for("api.example.com", "exact", "/", "exact.static", &[]),
        ingress_for("*.example.com", "wild", "/", "wild.static", &[]),
        ingress("any", "/", "any.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    reaches(&gateway, "http://api.example.com/", "exact").await;
    reaches(&gateway, "http://API.Example.COM:8080/", "exact").await;
    reaches(&gateway, "http://other.example.com/", "wild").await;
    reaches(&gateway, "http://elsewhere/", "any").await;
}

#[tokio::test]
async fn paths_longest_prefix_on_segment_borders() {
    let (_vendors, bridge) = vendors(&["root", "v1", "chat"]);
    let text = documents(&[
        bridge,
        ingress("root", "/", "root.static", &[]),
        ingress("v1", "/v1", "v1.static", &[]),
        ingress("chat", "/v1/chat", "chat.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    for (path, server) in [
        ("/v1/chat/completions", "chat"),
        ("/v1/chat", "chat"),
        ("/v1/chatter", "v1"),
        ("/v1?x=/v1/chat", "v1"),
        ("/v10", "root"),
        ("/", "root"),
    ] {
        reaches(&gateway, path, server).await;
    }
}

#[tokio::test]
async fn weights_are_kept() {
    let (vendors, bridge) = vendors(&["many", "few"]);
    let text = documents(&[
        bridge,
        ingress("api", "/", "80% many.static\n20% few.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    for _ in 0..500 {
        assert_eq!(ask(&gateway, "/").await.status, 200);
    }
    let few = vendors[1].requests().len();
    // Five standard deviations around 100 of 500.
    assert!(
        (55..=145).contains(&few),
        "{few} of 500 went to the one with 20 %"
    );
}

#[tokio::test]
async fn endpoints_take_turns_and_a_dead_one_is_skipped() {
    let (vendors, _) = vendors(&["one", "two"]);
    let dead = tollgate_mock_llm::RefusingPort::new().unwrap();
    let addresses: Vec<String> = vendors
        .iter()
        .map(|vendor| vendor.addr().to_string())
        .chain([dead.addr().to_string()])
        .collect();
    let bridge = format!(
        "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata:\n  name: default\n  namespace: higress-system\nspec:\n  registries:\n  - {{ name: all, type: static, domain: \"{}\", port: 80 }}\n",
        addresses.join(",")
    );
    let text = documents(&[bridge, ingress("api", "/", "all.static", &[])]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let mut servers: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..60 {
        let request = Request::post("/")
            .body(Bytes::from(format!("round {round}")))
            .unwrap();
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        *servers
            .entry(answer.json()["server"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert!(
        servers.len() == 2 && servers.values().all(|count| *count >= 10),
        "{servers:?}"
    );
}

#[tokio::test]
async fn annotations_rewrite_requests_and_answers() {
    let (_vendors, bridge) = vendors(&["mock"]);
    let text = documents(&[
        bridge,
        ingress(
            "api",
            "/old",
            "mock.static",
            &[
                ("higress.io/rewrite-target", "/new"),
                ("higress.io/upstream-vhost", "vendor.example"),
                ("higress.io/request-header-control-add", "x-added one"),
                ("higress.io/request-header-control-remove", "x-secret"),
                ("higress.io/response-header-control-update", "x-answer yes"),
            ],
        ),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let request = Request::get("/old/a%2Fb?q=1")
        .header("x-secret", "1")
        .body(Bytes::new())
        .unwrap();
    let answer = send(gateway.http, request).await.unwrap();
    let account = answer.json();
    assert!(account["path"].as_str().unwrap().starts_with("/new"), "{account}");
    assert_eq!(account["query"], "q=1", "{account}");
    assert_eq!(account["host"], "vendor.example", "{account}");
    assert_eq!(account["headers"]["x-added"][0], "one", "{account}");
    assert!(account["headers"]["x-secret"].is_null(), "{account}");
    assert_eq!(answer.header("x-answer"), "yes");
}

#[tokio::test]
async fn a_kubernetes_service_with_its_slices() {
    let vendor = mock(Options {
        name: "pod".to_owned(),
        echo_only: true,
        ..Options::default()
    });
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: app\n  namespace: shop\nspec:\n  ports:\n  - {{ name: http, port: 8080, targetPort: 9999 }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: app-1\n  namespace: shop\n  labels: {{ kubernetes.io/service-name: app }}\naddressType: IPv4\nendpoints:\n- addresses: [127.0.0.1]\nports:\n- {{ name: http, port: {} }}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: shop\n  namespace: shop\nspec:\n  rules:\n  - http:\n      paths:\n      - path: /\n        pathType: Prefix\n        backend:\n          service: {{ name: app, port: {{ number: 8080 }} }}\n",
        vendor.addr().port()
    );
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    reaches(&gateway, "/anything", "pod").await;
}

#[tokio::test]
async fn a_vendor_by_dns_name() {
    let vendor = mock(Options {
        name: "dns".to_owned(),
        echo_only: true,
        ..Options::default()
    });
    let text = documents(&[
        "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata:\n  name: default\n  namespace: higress-system\nspec:\n  registries:\n  - { name: far, type: dns, domain: vendor.example, port: 8080 }\n".to_owned(),
        ingress("api", "/", "far.dns", &[]),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let gateway = start
        .option("--resolve", format!("vendor.example:8080:{}", vendor.addr()))
        .go()
        .unwrap();
    reaches(&gateway, "http://client.example/", "dns").await;
    let seen = vendor.requests().pop().unwrap();
    assert_eq!(
        seen.host(),
        Some("client.example"),
        "the client's host, unless a config says otherwise"
    );
}

#[tokio::test]
async fn a_rate_limit_is_429_rl() {
    let vendor = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress(
            "api",
            "/",
            "mock.static",
            &[
                ("higress.io/route-limit-rpm", "5"),
                ("higress.io/route-limit-burst-multiplier", "1"),
            ],
        ),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    for _ in 0..10 {
        *statuses
            .entry(ask(&gateway, "/echo").await.status.as_u16())
            .or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 5), (429, 5)]));
    gateway
        .log
        .wait_for(|line| line.contains("\"429\"") && line.contains("\"RL\""))
        .unwrap();
}
