//! What stands before and behind the chain: paths, framing, redirects, cross-origin headers, limits.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tollgate_mock_llm::Options as MockOptions;
use tollgate_snapshot::policy::{Cors, OriginMatch, RateLimit, Redirect};
use tollgate_snapshot::route::{Action, Destination};
use tollgate_snapshot::{Cluster, Endpoints, Policy, Snapshot};
use tollgate_testkit::client::{self, get};

use crate::common::{snapshot, start};

async fn raw(plane: &crate::common::Plane, lines: &str) -> String {
    let request = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
    client::raw(plane.http, request.as_bytes()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dot_segments_are_resolved_before_routing_and_lists_joined() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let answer = raw(&plane, "GET /v1/../private HTTP/1.1\nhost: a\nconnection: close").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let answer = raw(
        &plane,
        "GET /x/%2e%2e/v1/models?a=/../b HTTP/1.1\nhost: a\nx-forwarded-for: 1.1.1.1\nx-forwarded-for: 2.2.2.2\nx-envoy-original-path: /lie\nconnection: close",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = &mock.requests()[0];
    assert_eq!(seen.uri, "/v1/models?a=/../b");
    assert_eq!(seen.header("x-forwarded-for"), Some("1.1.1.1,2.2.2.2,127.0.0.1"));
    assert_eq!(seen.header("x-envoy-original-path"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_lengths_only_one_goes_on() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    for lengths in [
        "content-length: 5\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\ncontent-length: 5",
    ] {
        let request =
            format!("POST /v1/chat/completions HTTP/1.1\nhost: a\nconnection: close\n{lengths}\n\n2\nhi\n0");
        let answer = raw(&plane, &request).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{lengths}: {answer}");
    }
    for seen in mock.requests() {
        assert_eq!(
            (seen.header("content-length"), &*seen.body),
            (None, b"hi".as_slice())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_is_refused_in_its_own_terms() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let request = http::Request::post(format!("http://{}/a.B/C", plane.http))
        .header("content-type", "application/grpc")
        .body(bytes::Bytes::new())
        .unwrap();
    let answer = client::send_h2c(plane.http, request).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("grpc-status")),
        (200, "12")
    );
}

fn redirecting(redirect: Redirect) -> Snapshot {
    let mut snapshot = snapshot("127.0.0.1:1".parse().unwrap(), Policy::default());
    let routes = &mut snapshot.hosts.any.as_mut().unwrap().routes;
    let route = Arc::get_mut(&mut routes[0]).unwrap();
    route.action = Action::Redirect(redirect);
    snapshot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_to_https_keeps_an_address_whole() {
    let plane = start(redirecting(Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        scheme: Some("https".into()),
        authority: None,
        path: None,
    }));
    for (host, expected) in [
        ("[::1]", "https://[::1]/v1/a?b"),
        ("[::1]:80", "https://[::1]/v1/a?b"),
        ("foo.com:8080", "https://foo.com/v1/a?b"),
    ] {
        let answer = raw(
            &plane,
            &format!("GET /v1/a?b HTTP/1.1\nhost: {host}\nconnection: close"),
        )
        .await;
        assert!(answer.contains(&format!("location: {expected}\r\n")), "{answer}");
    }
}

fn cors() -> Arc<Cors> {
    Arc::new(Cors {
        origins: vec![OriginMatch::Exact("http://a.com".into())],
        methods: HeaderValue::from_static("GET"),
        headers: HeaderValue::from_static("x-a"),
        expose: None,
        credentials: true,
        max_age: HeaderValue::from_static("1"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_may_read_why_it_was_refused() {
    let limit = RateLimit {
        fill: 1,
        interval: Duration::from_secs(60),
        capacity: 1,
    };
    let policy = Policy {
        cors: Some(cors()),
        rate: Some(Arc::new(limit)),
        ..Policy::default()
    };
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), policy));
    for status in [200, 429] {
        let mut request = get("/v1/models");
        request
            .headers_mut()
            .insert("origin", HeaderValue::from_static("http://a.com"));
        let answer = client::send(plane.http, request).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), "http://a.com");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_names_the_cluster_that_answered_in_anothers_place() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let empty = Arc::new(Cluster::new("outbound|80||empty", Endpoints::Static(Vec::new())));
    for first in [Ok(empty), Err("outbound|80||unknown".into())] {
        let mut snapshot = snapshot(mock.addr(), Policy::default());
        let stable = snapshot.clusters.values().next().unwrap().clone();
        let routes = &mut snapshot.hosts.any.as_mut().unwrap().routes;
        let mut destination = Destination::new(100, first);
        destination.fallbacks = vec![stable];
        Arc::get_mut(&mut routes[0]).unwrap().action = Action::Forward(vec![destination]);
        let format =
            tollgate_observe::Format::parse("%RESPONSE_CODE% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS%").unwrap();
        snapshot.settings.access_log = format.into();
        let plane = start(snapshot);
        client::send(plane.http, get("/v1/models")).await.unwrap();
        assert_eq!(plane.stop().await, "200 outbound|80||mock.static -\n");
    }
}
