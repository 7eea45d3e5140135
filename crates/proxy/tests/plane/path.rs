//! The whole data plane on hand-made snapshots, against the mock vendor: no configuration formats involved.

use bytes::Bytes;
use http::Request;
use tollgate_base::shutdown::Phase;
use tollgate_mock_llm::Options as MockOptions;
use tollgate_snapshot::Policy;
use tollgate_testkit::client::{self, get, post_json};

use crate::common::{snapshot, start};

const QUESTION: &str = r#"{"model":"qwen-max-0403","messages":[{"role":"user","content":"你是谁？"}]}"#;
const STREAMED: &str =
    r#"{"model":"qwen-max-0403","stream":true,"messages":[{"role":"user","content":"你是谁？"}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_back_with_its_request_id() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let mut request = post_json("/v1/chat/completions", QUESTION);
    request
        .headers_mut()
        .insert("x-request-id", "abc".parse().unwrap());
    let answer = client::send(plane.http, request).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id"), "abc");
    assert!(answer.text().contains("我是阿里云开发的"), "{}", answer.text());
    let received = &mock.requests()[0];
    assert_eq!(received.body, QUESTION.as_bytes());
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-request-id"), Some("abc"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_comes_through_byte_for_byte() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let through = client::send(plane.http, post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    let direct = client::send(mock.addr(), post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    assert_eq!(through.body, direct.body);
    assert_eq!(through.events().last().unwrap(), "[DONE]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2c_and_unknown_paths() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let request = Request::post(format!("http://{}/v1/chat/completions", plane.http))
        .header("content-type", "application/json")
        .body(Bytes::from(QUESTION))
        .unwrap();
    let answer = client::send_h2c(plane.http, request).await.unwrap();
    assert_eq!(answer.status, 200);
    let lost = client::send(plane.http, get("/nowhere")).await.unwrap();
    assert_eq!((lost.status.as_u16(), lost.body.len()), (404, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_stream_ends_in_an_error_event_and_no_done() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let mut request = post_json("/v1/chat/completions", STREAMED);
    request
        .headers_mut()
        .insert("x-mock-fault", "cut;after=3".parse().unwrap());
    let answer = client::send(plane.http, request).await.unwrap();
    let events = answer.events();
    assert!(
        events.last().unwrap().contains(r#""code":"upstream_cut""#),
        "{events:?}"
    );
    assert!(!events.iter().any(|event| event == "[DONE]"));
    assert_eq!(answer.cut, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_that_is_no_stream_is_a_reset() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let mut request = post_json("/v1/chat/completions", QUESTION);
    request
        .headers_mut()
        .insert("x-mock-fault", "length-short".parse().unwrap());
    // The head may have gone out or not; either way the client is told that this is not the whole answer.
    let answer = client::send(plane.http, request).await;
    assert!(
        answer.as_ref().is_ok_and(|answer| answer.cut.is_some()) || answer.is_err(),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_what_is_open() {
    let pace = std::time::Duration::from_millis(5);
    let mock = tollgate_mock_llm::start(MockOptions {
        pace,
        ..MockOptions::default()
    })
    .unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let mut opening = client::open(plane.http, post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    opening.read_until("data:").await.unwrap();
    plane.trigger.advance(Phase::Draining);
    let rest = opening.finish().await;
    assert!(rest.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(rest.cut, None);
    let running = plane.running;
    tokio::task::spawn_blocking(move || running.join()).await.unwrap();
    assert!(tokio::net::TcpStream::connect(plane.http).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smuggling_and_nonsense_are_refused() {
    let mock = tollgate_mock_llm::start(MockOptions::default()).unwrap();
    let plane = start(snapshot(mock.addr(), Policy::default()));
    let cases: &[(&str, &str)] = &[
        (
            "GET /v1/x HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        ("GET /v1/x HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET /v1/x HTTP/1.1\r\nhost: u@a\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
            "400",
        ),
        (
            "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\nconnection: close\r\n\r\n",
            "501",
        ),
        ("NONSENSE\r\n\r\n", "400"),
    ];
    for (bytes, status) in cases {
        let answer = client::raw(plane.http, bytes.as_bytes()).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{bytes:?} gave {answer:?}"
        );
    }
    assert_eq!(mock.requests().len(), 0);
    let head = format!(
        "GET /v1/x HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n",
        "y".repeat(70_000)
    );
    let answer = client::raw(plane.http, head.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    drop(plane.stop().await);
}
