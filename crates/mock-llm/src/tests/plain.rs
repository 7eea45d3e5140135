//! The endpoints without models, and what the log keeps.

use std::io::Write;

use super::client::{Client, PATIENCE, get, post, request};
use crate::{End, Options, fnv, start};
use serde_json::json;

#[test]
fn echo_accounts_for_the_request() {
    let mock = start(Options {
        name: "left".to_owned(),
        ..Options::default()
    })
    .unwrap();
    let mut client = Client::connect(mock.addr());
    let headers = ["x-twice: one", "x-twice: two"];
    client.send(&request(
        "PUT",
        "/echo/deep?a=1&b=%20",
        &headers,
        "héllo".as_bytes(),
    ));
    let account = client.read().unwrap().json();
    for (name, expected) in [
        ("server", json!("left")),
        ("method", json!("PUT")),
        ("path", json!("/echo/deep")),
        ("query", json!("a=1&b=%20")),
        ("version", json!("HTTP/1.1")),
        ("host", json!("mock.test")),
        ("body_length", json!(6)),
        ("body_fnv", json!(format!("{:016x}", fnv("héllo".as_bytes())))),
        ("body", json!("héllo")),
    ] {
        assert_eq!(account[name], expected, "{name}");
    }
    assert_eq!(account["headers"]["x-twice"], json!(["one", "two"]));
}

#[test]
fn an_echo_server_answers_every_path() {
    let mock = start(Options {
        echo_only: true,
        ..Options::default()
    })
    .unwrap();
    assert_eq!(
        get(mock.addr(), "/v1/chat/completions").json()["path"],
        "/v1/chat/completions"
    );
    assert_eq!(
        post(mock.addr(), "/any", &[], &json!({})).unwrap().json()["body"],
        "{}"
    );
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let mock = start(Options::default()).unwrap();
    let mut client = Client::connect(mock.addr());
    let length = 20_000_000;
    client.send(format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    let piece = vec![b'z'; 1_000_000];
    for _ in 0..20 {
        client.stream.write_all(&piece).unwrap();
    }
    let account = client.read().unwrap().json();
    assert_eq!(account["body_length"], length);
    assert!(account.get("body").is_none(), "a large body is not shown");

    client.send(&request("GET", "/bytes/3000007", &[], b""));
    let body = client.read().unwrap().body();
    assert_eq!(body.len(), 3_000_007);
    assert!(
        body.iter()
            .zip((b'a'..=b'z').cycle())
            .all(|(got, expected)| *got == expected)
    );
}

#[test]
fn statuses_delays_and_nonsense() {
    let mock = start(Options::default()).unwrap();
    assert_eq!(get(mock.addr(), "/status/418").status, 418);
    assert_eq!(get(mock.addr(), "/status/99999").status, 400);
    assert_eq!(get(mock.addr(), "/delay/1").json()["delayed_ms"], 1);
    assert_eq!(get(mock.addr(), "/bytes/x").status, 400);
    assert_eq!(get(mock.addr(), "/bytes/0").body(), b"");
    assert!(get(mock.addr(), "/faults").json().as_array().unwrap().len() > 40);
}

#[tokio::test]
async fn the_log_tells_what_came_and_how_it_ended() {
    let mock = start(Options {
        record_body: 5,
        ..Options::default()
    })
    .unwrap();
    let addr = mock.addr();
    let body = json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let sent = request(
        "POST",
        "/v1/chat/completions?mock-fault=stall-between",
        &["x-a: b"],
        body.to_string().as_bytes(),
    );
    let client = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(addr);
        client.send(&request("GET", "/health", &[], b""));
        client.read().unwrap();
        client.send(&sent);
        client.read_head().unwrap();
        client.read_chunk().unwrap();
        client
    })
    .await
    .unwrap();
    let requests = mock
        .log()
        .wait_until(PATIENCE, |requests| requests[1].events >= 3)
        .await
        .unwrap();
    assert_eq!(requests[0].end, End::Completed);
    assert_eq!(requests[0].connection, requests[1].connection);
    let stream = &requests[1];
    assert_eq!(
        (stream.end, stream.status, stream.number),
        (End::Open, Some(200), 2)
    );
    assert_eq!(
        (stream.header("x-a"), stream.host(), stream.path()),
        (Some("b"), Some("mock.test"), "/v1/chat/completions")
    );
    assert_eq!(
        (stream.body.len(), stream.body_length),
        (5, body.to_string().len() as u64)
    );
    drop(client);
    let requests = mock
        .log()
        .wait_until(PATIENCE, |requests| requests[1].end != End::Open)
        .await
        .unwrap();
    assert_eq!(requests[1].end, End::ClientGone);
}

#[test]
fn a_log_of_limited_length_forgets_the_oldest() {
    let mock = start(Options {
        record: 2,
        ..Options::default()
    })
    .unwrap();
    for path in ["/status/201", "/status/202", "/status/203"] {
        get(mock.addr(), path);
    }
    let paths: Vec<String> = mock
        .requests()
        .iter()
        .map(|request| request.path().to_owned())
        .collect();
    assert_eq!(paths, ["/status/202", "/status/203"]);
    assert_eq!(mock.log().received(), 3);
    mock.log().clear();
    assert_eq!(mock.requests().len(), 0);
}

#[test]
fn a_standing_fault_can_be_changed_and_must_exist() {
    let mock = start(Options {
        fault: Some("503".to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert_eq!(get(mock.addr(), "/health").status, 503);
    mock.set_fault(None).unwrap();
    assert_eq!(get(mock.addr(), "/health").status, 200);
    assert!(mock.set_fault(Some("nosuch")).is_err());
    assert!(
        start(Options {
            fault: Some("nosuch".to_owned()),
            ..Options::default()
        })
        .is_err()
    );
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

fn websocket(mock: &crate::Handle) -> Client {
    let mut client = Client::connect(mock.addr());
    let headers = [
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol: chat, other",
    ];
    client.send(&request("GET", "/ws", &headers, b""));
    let head = client.read_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") && head.contains("protocol: chat\n"),
        "{head}"
    );
    client
}

#[tokio::test]
async fn a_websocket_echoes_and_closes() {
    let mock = start(Options::default()).unwrap();
    let mut client = websocket(&mock);
    for (sent, expected) in [
        (frame(0x81, b"hello"), b"\x81\x05hello".to_vec()),
        (frame(0x02, b"ab"), b"\x02\x02ab".to_vec()),
        (frame(0x80, b"c"), b"\x80\x01c".to_vec()),
        (frame(0x89, b"p"), b"\x8a\x01p".to_vec()),
        (frame(0x81, b"!close 4001"), b"\x88\x02\x0f\xa1".to_vec()),
    ] {
        client.send(&sent);
        assert_eq!(client.exactly(expected.len()), (expected, true));
    }
    assert!(!client.exactly(1).1, "the connection is closed");
    mock.log()
        .wait_until(PATIENCE, |requests| requests[0].end == End::Completed)
        .await
        .unwrap();
    let mut client = websocket(&mock);
    client.send(b"\x81\x01x");
    assert_eq!(
        client.exactly(4).0,
        b"\x88\x02\x03\xea",
        "an unmasked frame is a protocol error"
    );
}

#[test]
fn a_mirror_returns_the_body() {
    let mock = start(Options::default()).unwrap();
    let mut client = Client::connect(mock.addr());
    client.send(&request("POST", "/mirror", &["content-type: text/x"], b"abc"));
    let answer = client.read().unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("abc", Some("text/x"))
    );
}
