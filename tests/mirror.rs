//! `mirror-target-*`: another service gets a copy of a request, and nothing that happens to the copy is felt by the
//! client.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use tollgate_mock_llm::{End, Handle, Options, Recorded};
use tollgate_testkit::client::{Protocol, fed_body, get, open_with, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{CHAT, CHAT_PATH, PATIENCE, Sight, ai_proxy, bridge, documents, gateway, ingress, mock};

/// A route to `vendor` that copies what it gets to `shadow`.
fn mirrored(vendor: SocketAddr, shadow: SocketAddr, more: &[(&str, &str)], plugins: &[String]) -> Gateway {
    let mut annotations = vec![("higress.io/mirror-target-fqdn", "shadow.static")];
    annotations.extend(more);
    let mut parts = vec![
        bridge(&[("mock", vendor), ("shadow", shadow)]),
        ingress("api", "/", "mock.static", &annotations),
    ];
    parts.extend_from_slice(plugins);
    let text = documents(&parts);
    let start = gateway().option("--workers", 1).file("scene.yaml", &text);
    start.unwrap().go().unwrap()
}

/// What has arrived at the shadow, once it is this many and all of them are over.
async fn copies(shadow: &Handle, count: usize) -> Vec<Recorded> {
    let all_over = |seen: &[Recorded]| seen.len() >= count && seen.iter().all(|copy| copy.end != End::Open);
    shadow.log().wait_until(PATIENCE, all_over).await.unwrap()
}

#[tokio::test]
async fn a_copy_is_what_the_vendor_gets_under_another_host() {
    let (vendor, shadow) = (mock(Options::default()), mock(Options::default()));
    let provider = "{ type: openai, apiTokens: [sk-vendor], modelMapping: { \"*\": mapped } }";
    let gateway = mirrored(vendor.addr(), shadow.addr(), &[], &[ai_proxy("api", provider)]);
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let answer = send(gateway.http, post_json("/v1/chat/completions?a=b", body))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let (sent, copy) = (vendor.requests().remove(0), copies(&shadow, 1).await.remove(0));
    assert_eq!(
        (&copy.method, &copy.uri, &copy.body),
        (&sent.method, &sent.uri, &sent.body)
    );
    assert_eq!(copy.json()["model"], "mapped");
    let host = sent.host().unwrap();
    assert_eq!(copy.host().unwrap(), format!("{host}-shadow"));
    let mut headers = copy.headers.clone();
    headers.insert("host", host.parse().unwrap());
    assert_eq!(headers, sent.headers);
    // One request of the client's is one request, whoever else has seen it.
    let page = gateway.admin("/stats/prometheus").await.text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("tollgate_requests_total{"));
    let counted: Vec<_> = lines.filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(counted, [r#"tollgate_requests_total{termination="completed"} 1"#]);
}

#[tokio::test]
async fn a_body_in_pieces_is_copied_when_it_has_passed_and_half_a_body_never() {
    let (vendor, shadow) = (mock(Options::default()), mock(Options::default()));
    let gateway = mirrored(vendor.addr(), shadow.addr(), &[], &[]);
    let upload = |path: &str, body| {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .body(body)
            .unwrap();
        open_with(gateway.http, Protocol::Http1, request)
    };
    // Given up in the middle.
    let (pieces, body) = fed_body(1);
    pieces.send(Bytes::from_static(b"first ")).await.unwrap();
    let arrived = vendor.log().wait_until(PATIENCE, |seen| seen.len() == 1);
    tokio::select! {
        answer = upload("/echo/half", body) => panic!("answered: {:?}", answer.map(|_| ())),
        arrived = arrived => assert!(arrived.is_ok()),
    }
    let gone = |seen: &[Recorded]| seen.iter().all(|request| request.end != End::Open);
    vendor.log().wait_until(PATIENCE, gone).await.unwrap();
    // Too long to keep: passed on, not copied. Then one that takes several reads.
    let long = vec![b'x'; 1024 * 1024 + 1];
    let whole = vec![b'y'; 200_000];
    for (path, bytes) in [("/echo/long", &long), ("/echo/whole", &whole)] {
        let (pieces, body) = fed_body(1);
        let feeding = async move {
            for piece in bytes.chunks(60_000) {
                pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
            }
        };
        let (answer, ()) = futures_util::future::join(upload(path, body), feeding).await;
        assert_eq!(answer.unwrap().finish().await.status, 200, "{path}");
    }
    let copies = copies(&shadow, 1).await;
    assert_eq!(copies.len(), 1);
    assert_eq!(
        (copies[0].path(), copies[0].body_length),
        ("/echo/whole", 200_000)
    );
    assert_eq!(copies[0].header("content-length"), Some("200000"));
}

#[tokio::test]
async fn nothing_that_happens_to_a_copy_is_felt() {
    let vendor = mock(Options::default());
    let closed = tollgate_mock_llm::RefusingPort::new().unwrap();
    let gateway = mirrored(vendor.addr(), closed.addr(), &[], &[]);
    for _ in 0..3 {
        assert_eq!(send(gateway.http, get("/echo")).await.unwrap().status, 200);
    }
    // One that never answers keeps nobody waiting either, however many there are.
    let shadow = mock(Options::default());
    shadow.set_fault(Some("stall-head")).unwrap();
    let gateway = mirrored(vendor.addr(), shadow.addr(), &[], &[]);
    for _ in 0..300 {
        let answer = send(gateway.http, post_json(CHAT_PATH, CHAT)).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let as_many_as_may_be = |seen: &[Recorded]| seen.len() >= 256;
    shadow
        .log()
        .wait_until(PATIENCE, as_many_as_may_be)
        .await
        .unwrap();
    assert_eq!(shadow.log().received(), 256);
}

#[tokio::test]
async fn a_share_of_none_copies_nothing_and_a_service_that_is_not_there_is_told() {
    let (vendor, shadow) = (mock(Options::default()), mock(Options::default()));
    let none = [("higress.io/mirror-percentage", "0")];
    let gateway = mirrored(vendor.addr(), shadow.addr(), &none, &[]);
    let all = mirrored(vendor.addr(), shadow.addr(), &[], &[]);
    for _ in 0..50 {
        assert_eq!(send(gateway.http, get("/echo/none")).await.unwrap().status, 200);
    }
    assert_eq!(send(all.http, get("/echo/all")).await.unwrap().status, 200);
    let copies = copies(&shadow, 1).await;
    assert_eq!((copies.len(), copies[0].path()), (1, "/echo/all"));
    let lost = [("higress.io/mirror-target-fqdn-port", "81")];
    let gateway = mirrored(vendor.addr(), shadow.addr(), &lost, &[]);
    let told = "no service shadow.static with port 81 is known: nothing is mirrored";
    gateway
        .errors
        .wait_for(|line| line.contains("scene.yaml:") && line.contains(told))
        .unwrap();
    assert_eq!(send(gateway.http, get("/echo")).await.unwrap().status, 200);
}
