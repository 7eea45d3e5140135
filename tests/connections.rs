//! HTTP/1.1 connections of clients: kept, closed, refused; and that nothing which was said is lost on the way.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_testkit::client::raw;

use crate::support::{CHAT, CHAT_PATH, CHAT_STREAM, Scene, Sight};

/// Header fields of an answer in raw bytes, in lower case.
fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_default()
}

/// Writes, and reads until `wanted` has come.
async fn say(stream: &mut TcpStream, bytes: &[u8], wanted: &str) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(seen).unwrap()
}

/// What is no request is answered, logged and counted like one.
#[tokio::test]
async fn a_refused_head_has_its_line_its_flag_and_its_count() {
    let scene = Scene::openai(&[]);
    let large = format!(
        "GET /large HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n",
        "x".repeat(80 * 1024)
    );
    let many = format!("GET /many HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(101));
    let refused = [
        (
            "POST /both HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "400",
            "http1.content_length_and_chunked_not_allowed",
            "/both",
        ),
        (
            "POST /coding HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "501",
            "http1.invalid_transfer_encoding",
            "/coding",
        ),
        (
            "GET /colon HTTP/1.1\r\nhost : x\r\n\r\n",
            "400",
            "http1.codec_error",
            "/colon",
        ),
        ("GET /host HTTP/1.1\r\n\r\n", "400", "invalid_authority", "/host"),
        ("NONSENSE\r\n\r\n", "400", "http1.codec_error", "-"),
        (&*many, "431", "http1.too_many_headers", "/many"),
        // Nothing of it was looked at before it was too large.
        (&*large, "431", "http1.headers_too_large", "-"),
    ];
    for (request, status, details, path) in refused {
        let shown = request.get(..60).unwrap_or(request);
        let text = raw(scene.gateway.http, request.as_bytes()).await.unwrap();
        assert_eq!(text.get(9..12), Some(status), "{shown:?}: {text:?}");
        assert_eq!(header(&text, "connection"), "close", "{shown:?}: {text:?}");
        let line = scene.gateway.line_of(header(&text, "x-request-id"));
        assert_eq!(line["code"], status, "{shown:?}: {line}");
        assert_eq!(line["flags"], "DPE", "{shown:?}: {line}");
        assert_eq!(line["details"], details, "{shown:?}: {line}");
        assert_eq!(line["path"], path, "{shown:?}: {line}");
        assert_eq!(line["termination"], "refused", "{shown:?}: {line}");
    }
    let counted = scene
        .gateway
        .metric("tollgate_requests_total{termination=\"refused\"}")
        .await;
    assert_eq!(counted, 7.0);
    // The client's SDK reads why.
    let head =
        format!("POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n");
    let text = raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    assert!(
        text.contains("{\"error\":{\"message\":\"more than one content-length\""),
        "{text}"
    );
    assert!(scene.mock.requests().is_empty());
}

#[tokio::test]
async fn a_slow_head_has_its_line_too() {
    let scene = Scene::plain(&[]);
    let text = raw(scene.gateway.http, b"GET /echo HTTP/1.1\r\nslow: ")
        .await
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    let line = scene.gateway.line_of(header(&text, "x-request-id"));
    assert_eq!(
        (&line["code"], &line["flags"]),
        (&"408".into(), &"-".into()),
        "{line}"
    );
    assert_eq!(line["details"], "request_header_timeout", "{line}");
}

#[tokio::test]
async fn a_broken_chunk_is_the_clients_fault() {
    let scene = Scene::openai(&[]);
    let head = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\nx-request-id: broken-chunk\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\n{CHAT}"
    );
    let text = raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    let line = scene.gateway.line_of("broken-chunk");
    assert_eq!(
        (&line["flags"], &line["details"]),
        (&"DPE".into(), &"http1.codec_error".into()),
        "{line}"
    );
    assert!(scene.mock.requests().is_empty());
}

/// An answer that comes before its request has been read is not lost in a reset.
#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let scene = Scene::openai(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    let head = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 1024 * 1024];
    for _ in 0..16 {
        stream.write_all(&piece).await.unwrap();
    }
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.contains("104857600"), "{text}");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let scene = Scene::plain(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    let head = b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let asked = say(&mut stream, head, "\r\n\r\n").await;
    assert_eq!(asked, "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = say(&mut stream, b"hello", "\"hello\"").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // The connection goes on, and one whose body nobody wants is not asked for it.
    let refused = b"POST /echo HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(refused).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
}

#[tokio::test]
async fn an_old_client_may_stay() {
    let scene = Scene::plain(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    let request = b"GET /bytes/3 HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n";
    for _ in 0..2 {
        let answer = say(&mut stream, request, "\r\n\r\nabc").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert_eq!(header(&answer, "connection"), "keep-alive", "{answer}");
    }
    stream
        .write_all(b"GET /bytes/3 HTTP/1.0\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut last = String::new();
    stream.read_to_string(&mut last).await.unwrap();
    assert!(last.ends_with("\r\n\r\nabc"), "{last}");
    assert_eq!(header(&last, "connection"), "close", "{last}");
}

/// Many requests in one write, with bodies of every kind: each gets its own answer, in order.
#[tokio::test]
async fn pipelined_bodies_are_kept_apart() {
    let scene = Scene::plain(&[]);
    let mut text = String::new();
    for number in 0..20 {
        text.push_str(&match number % 3 {
            0 => format!("POST /echo?{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nGET / \n"),
            1 => format!("POST /echo?{number} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nGET\r\n3\r\n / \r\n0\r\n\r\n"),
            _ => format!("GET /echo?{number} HTTP/1.1\r\nhost: x\r\n\r\n"),
        });
    }
    text.push_str("GET /bytes/1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answers = raw(scene.gateway.http, text.as_bytes()).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 21, "{answers}");
    let seen = scene.mock.requests();
    let queries: Vec<_> = seen
        .iter()
        .map(|request| request.uri.query().unwrap_or_default())
        .collect();
    let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(queries[..20], expected);
    for (number, request) in seen.iter().take(20).enumerate() {
        let body = if number % 3 == 2 { "" } else { "GET / " };
        assert_eq!(request.body, body, "{number}");
    }
}

/// A client that is gone is noticed while the vendor is silent, also when it has asked for more already.
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_vendors_work() {
    let scene = Scene::openai(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    let head = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\nx-request-id: left\r\nx-mock-fault: stall-between\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{CHAT_STREAM}",
        CHAT_STREAM.len()
    );
    let seen = say(&mut stream, head.as_bytes(), "data:").await;
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    drop(stream);
    scene
        .vendor_sees(|seen| {
            seen.first()
                .is_some_and(|first| first.end != tollgate_mock_llm::End::Open)
        })
        .await;
    let line = scene.gateway.line_of("left");
    assert_eq!(
        (&line["termination"], &line["flags"]),
        (&"client_gone".into(), &"DC".into()),
        "{line}"
    );
}
