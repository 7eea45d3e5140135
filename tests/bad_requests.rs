//! Requests that are wrong: what the client is told, and that the vendor never hears of them.

use bytes::Bytes;
use http::{Request, StatusCode};
use tollgate_testkit::client::{Protocol, fed_body, get, open_with, post_json, raw, send, send_h2c};
use tollgate_testkit::process::Gateway;

use crate::support::{
    CHAT, CHAT_PATH, Scene, Sight, bridge, documents, flags, gateway, higress_config, ingress_for, mock,
    ordered,
};

/// The status of the last answer in what came over a connection.
fn status_of(text: &str) -> &str {
    text.strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap_or(text)
}

#[tokio::test]
async fn an_unknown_path_is_404_nr() {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress_for("api.example", "api", "/v1", "mock.static", &[]),
        crate::support::verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    for uri in [
        "http://api.example/v2/chat/completions",
        "http://other.example/v1/chat/completions",
    ] {
        let (mut request, id) = ordered("", CHAT);
        *request.uri_mut() = uri.parse().unwrap();
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{uri}");
        assert_eq!(answer.header("x-request-id"), id);
        let line = gateway.line_of(&id);
        assert_eq!(line["flags"], "NR", "{line}");
        assert_eq!(line["details"], "route_not_found", "{line}");
    }
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn json_that_is_none_is_400_in_the_clients_dialect() {
    let scene = Scene::openai(&[]);
    for body in [
        "{\"model\":",
        "not json",
        "\"text\"",
        "[]",
        "17",
        "null",
        "{\"model\":\"a\"} trailing",
        "\u{feff}{}",
    ] {
        let (request, id) = ordered("", body);
        let answer = send(scene.gateway.http, request).await.unwrap();
        assert!(
            answer.status.is_client_error() || answer.status.is_server_error(),
            "{body:?}: {}",
            answer.status
        );
        let text = answer.text();
        assert!(
            text.contains("failed to process request body"),
            "{body:?}: {text}"
        );
        if answer.status == 400 {
            assert_eq!(
                answer.json()["error"]["type"],
                "invalid_request_error",
                "{body:?}: {text}"
            );
        }
        let line = scene.gateway.line_of(&id);
        assert_eq!(line["termination"], "refused", "{line}");
        assert_eq!(line["details"], "ai-proxy.proc_req_body_failed", "{line}");
    }
    let (request, _) = ordered("", "{\"model\":");
    assert_eq!(
        send(scene.gateway.http, request).await.unwrap().status,
        400,
        "broken JSON"
    );
    assert!(scene.mock.requests().is_empty(), "the vendor heard of it");
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
}

#[tokio::test]
async fn an_api_that_the_vendor_lacks_is_refused() {
    let scene = Scene::vendor("{ type: deepseek, apiTokens: [sk-gateway] }", &[]);
    let answer = send(
        scene.gateway.http,
        post_json("/v1/embeddings", r#"{"model":"m","input":"x"}"#),
    )
    .await
    .unwrap();
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("content-type"), "text/plain");
    assert_eq!(
        answer.text(),
        "failed to process request body: unsupported API name"
    );
    assert!(scene.mock.requests().is_empty());
}

#[tokio::test]
async fn messages_of_a_claude_client_that_are_no_json() {
    let scene = Scene::openai(&[]);
    let answer = send(scene.gateway.http, post_json("/v1/messages", "{\"model\":"))
        .await
        .unwrap();
    assert!(answer.status == 400 || answer.status == 500, "{}", answer.text());
    assert!(scene.mock.requests().is_empty());
}

/// `ai-proxy` with a small buffer limit cannot be had: its own is 100 MB. This body is larger.
#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_names_the_limit() {
    let scene = Scene::openai(&[]);
    // Announced: refused before a byte of it is read.
    let head = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 999999999\r\n\r\n"
    );
    let text = raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    assert_eq!(status_of(&text), "413", "{text}");
    assert!(text.contains("ai-proxy body limit is 104857600 bytes"), "{text}");
    // Not announced: refused when it gets there.
    let piece = Bytes::from(vec![b' '; 1024 * 1024]);
    let (sender, body) = fed_body(1);
    let request = Request::post(CHAT_PATH)
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let feeding = async {
        for _ in 0..110 {
            if sender.send(piece.clone()).await.is_err() {
                break;
            }
        }
        drop(sender);
    };
    let asking = async {
        open_with(scene.gateway.http, Protocol::Http2, request)
            .await
            .unwrap()
            .finish()
            .await
    };
    let ((), answer) = tokio::join!(feeding, asking);
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("104857600"),
        "{}",
        answer.text()
    );
    assert!(scene.mock.requests().is_empty());
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
}

#[tokio::test]
async fn a_header_that_is_too_large_is_431() {
    let scene = Scene::plain(&[]);
    let large = "x".repeat(80 * 1024);
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nbig: {large}\r\n\r\n");
    let text = raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    assert_eq!(status_of(&text), "431", "{text}");
    let request = Request::get("/")
        .header("big", large.as_str())
        .body(Bytes::new())
        .unwrap();
    // What is over by less than the limit again is answered by us, and has its line.
    let answer = send_h2c(scene.gateway.http, request).await.unwrap();
    assert_eq!(answer.status, 431, "{}", answer.text());
    assert!(
        answer.text().contains("request headers are too large"),
        "{}",
        answer.text()
    );
    let line = scene.gateway.line_of(answer.header("x-request-id"));
    assert_eq!(line["details"], "http2.headers_too_large", "{line}");
    assert!(flags(&line["flags"]).contains(&"DPE"), "{line}");
    let many = (0..101).fold(Request::get("/"), |request, number| {
        request.header(format!("h-{number}"), "x")
    });
    let answer = send_h2c(scene.gateway.http, many.body(Bytes::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status, 431, "{}", answer.text());
    let line = scene.gateway.line_of(answer.header("x-request-id"));
    assert_eq!(line["details"], "http2.too_many_headers", "{line}");
    assert!(scene.mock.requests().is_empty());
    // Beyond that the protocol refuses by itself.
    let huge = Request::get("/").header("big", "x".repeat(200 * 1024));
    if let Ok(answer) = send_h2c(scene.gateway.http, huge.body(Bytes::new()).unwrap()).await {
        assert_eq!(answer.status, 431);
    }
    assert!(scene.mock.requests().is_empty());
    let request = Request::get("/echo")
        .header("big", &large[..40 * 1024])
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        send(scene.gateway.http, request).await.unwrap().status,
        200,
        "40 KB are within the limit"
    );
}

#[tokio::test]
async fn the_header_limit_is_configurable() {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        crate::support::ingress("api", "/", "mock.static", &[]),
        higress_config("    downstream:\n      maxRequestHeadersKb: 16\n"),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let sized = |kilobytes: usize| {
        let large = "x".repeat(kilobytes * 1024);
        format!("GET /echo HTTP/1.1\r\nhost: x\r\nbig: {large}\r\nconnection: close\r\n\r\n")
    };
    assert_eq!(
        status_of(&raw(gateway.http, sized(24).as_bytes()).await.unwrap()),
        "431"
    );
    assert_eq!(
        status_of(&raw(gateway.http, sized(12).as_bytes()).await.unwrap()),
        "200"
    );
}

#[tokio::test]
async fn a_request_head_that_does_not_end_is_408() {
    let scene = Scene::plain(&[]);
    let text = raw(scene.gateway.http, b"GET /echo HTTP/1.1\r\nhost: x\r\nslow: ")
        .await
        .unwrap();
    assert_eq!(status_of(&text), "408", "{text}");
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    assert!(scene.mock.requests().is_empty());
}

/// Bytes that could mean two requests, or none.
#[tokio::test]
async fn ambiguous_framing_is_400_and_closes() {
    let scene = Scene::plain(&[]);
    let requests: &[&str] = &[
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET /echo HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        "GET /echo HTTP/1.1\r\nhost: user@x\r\n\r\n",
        "GET /echo HTTP/1.1\r\n\r\n",
        "GET  /echo HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /echo HTTP/1.1\r\nhost: x\r\nna me: v\r\n\r\n",
        "GET /echo HTTP/1.1\r\nhost : x\r\n\r\n",
        "GET /echo HTTP/1.1\r\nhost: x\r\nv: a\0b\r\n\r\n",
        "NONSENSE\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x00\r\n\r\n",
    ];
    for request in requests {
        let text = raw(scene.gateway.http, request.as_bytes()).await.unwrap();
        assert_eq!(status_of(&text), "400", "{request:?}: {text:?}");
    }
    let heard: Vec<String> = scene
        .mock
        .requests()
        .iter()
        .map(|request| request.path().to_owned())
        .collect();
    assert!(heard.is_empty(), "the vendor heard {heard:?}");
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
}

/// RFC 9112 §6.1: the transfer coding counts, and nothing more is read from such a connection.
#[tokio::test]
async fn two_framings_are_one_request_and_the_end_of_the_connection() {
    let scene = Scene::plain(&[]);
    let request = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = raw(scene.gateway.http, request.as_bytes()).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(["200", "400"].contains(&status_of(&text)), "{text}");
    let seen = scene.mock.requests();
    assert!(
        seen.len() <= 1
            && seen
                .iter()
                .all(|request| request.path() == "/echo" && request.body == "ok"),
        "{seen:?}"
    );
    assert!(
        seen.iter().all(|request| request
            .header("content-length")
            .is_none_or(|length| length == "2")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_vendors_work() {
    let scene = Scene::plain(&[]);
    let head =
        b"POST /echo HTTP/1.1\r\nhost: x\r\nx-request-id: broken-off\r\ncontent-length: 100000\r\n\r\npart";
    let mut stream = tokio::net::TcpStream::connect(scene.gateway.http).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head)
        .await
        .unwrap();
    scene.vendor_sees(|seen| seen.len() == 1).await;
    drop(stream);
    scene
        .vendor_sees(|seen| seen[0].end != tollgate_mock_llm::End::Open)
        .await;
    assert_eq!(scene.gateway.line_of("broken-off")["termination"], "client_gone");
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
}

#[tokio::test]
async fn connect_and_asterisk_are_answered() {
    let scene = Scene::plain(&[]);
    let text = raw(
        scene.gateway.http,
        b"CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\nconnection: close\r\n\r\n",
    );
    let text = text.await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 501"),
        "{text}"
    );
    assert!(scene.mock.requests().is_empty(), "the gateway is nobody's tunnel");
}

async fn header_seen(gateway: &Gateway, name: &str, value: &str) -> serde_json::Value {
    let request = Request::get("/echo")
        .header(name, value)
        .body(Bytes::new())
        .unwrap();
    send(gateway.http, request).await.unwrap().json()["headers"].clone()
}

#[tokio::test]
async fn hop_by_hop_headers_stop_here() {
    let scene = Scene::plain(&[]);
    for (name, value) in [
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
    ] {
        let headers = header_seen(&scene.gateway, name, value).await;
        assert!(headers[name].is_null(), "{name}: {headers}");
    }
    let request = Request::get("/echo")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .body(Bytes::new());
    let answer = send(scene.gateway.http, request.unwrap()).await.unwrap();
    assert!(
        answer.json()["headers"]["x-secret"].is_null(),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn log_lines_stay_one_line_whatever_clients_send() {
    let scene = Scene::plain(&[]);
    let path = "/echo?q=%22%0a{\"fake\":\"line\"}";
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: evil\"}},{{\"a\r\nconnection: close\r\n\r\n"
    );
    raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    send(scene.gateway.http, get("/echo?last")).await.unwrap();
    scene
        .gateway
        .log
        .wait_for(|line| line.contains("/echo?last"))
        .unwrap();
    for line in scene.gateway.log.all() {
        let value: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["fake"].is_null() && value["path"].is_string(), "{line}");
        // A quotation mark has no place in a target: that one was refused.
        let expected = if value["path"] == path { "DPE" } else { "-" };
        assert_eq!(flags(&value["flags"]), [expected], "{line}");
    }
}

/// Damages a request in ways that depend on the seed alone.
fn damaged(request: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut bytes = request.to_vec();
    for _ in 0..=next(4) {
        let at = next(bytes.len());
        match next(5) {
            0 => bytes[at] = u8::try_from(next(256)).unwrap(),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, u8::try_from(next(256)).unwrap()),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn damaged_requests_harm_nobody() {
    let scene = Scene::openai(&[]);
    let whole = format!(
        "POST {CHAT_PATH}?a=b HTTP/1.1\r\nhost: api.example\r\ncontent-type: application/json\r\ncontent-length: {}\r\nuser-agent: damaged\r\n\r\n{CHAT}",
        CHAT.len()
    );
    let chunked = format!(
        "POST {CHAT_PATH} HTTP/1.1\r\nhost: api.example\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{CHAT}\r\n0\r\n\r\n",
        CHAT.len()
    );
    // A preface, SETTINGS, and HEADERS that mean nothing.
    let h2 =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01\x82\x86\x84\x41\x8a"
            .to_vec();
    let originals = [whole.into_bytes(), chunked.into_bytes(), h2];
    for round in 0..20u64 {
        let asks = (0..30u64).map(|number| {
            let original = &originals[usize::try_from(number % 3).unwrap()];
            let bytes = damaged(original, round * 30 + number + 1);
            let http = scene.gateway.http;
            async move {
                let mut stream = tokio::net::TcpStream::connect(http).await.unwrap();
                // The gateway may have closed already.
                drop(tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await);
                drop(tokio::io::AsyncWriteExt::shutdown(&mut stream).await);
                let mut answer = Vec::new();
                let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
                let ended = tokio::time::timeout(crate::support::PATIENCE, reading).await;
                assert!(
                    ended.is_ok(),
                    "left open after {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        });
        futures_util::future::join_all(asks).await;
    }
    assert_eq!(scene.chat("", CHAT).await.0.status, 200);
    let said = scene.gateway.errors.all().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}
