//! Odd but legal messages: targets, header bytes, repeated headers, framings, large prompts.

use bytes::Bytes;
use http::Request;
use tollgate_testkit::client::{Protocol, fed_body, open_with, post_json, raw, send, send_h2c};

use crate::support::{
    CHAT, CHAT_PATH, Scene, bridge, documents, gateway, ingress, ingress_for, mock, raw_server, towards,
};

#[tokio::test]
async fn an_absolute_target_names_the_host() {
    let vendor = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress_for("api.example", "api", "/", "mock.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let ask = async |head: &str| raw(gateway.http, head.as_bytes()).await.unwrap();
    let answer =
        ask("GET http://api.example/echo HTTP/1.1\r\nhost: other.example\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer =
        ask("GET http://other.example/echo HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(vendor.requests().len(), 1);
    assert_eq!(vendor.requests()[0].host(), Some("api.example"));
}

#[tokio::test]
async fn header_bytes_that_are_no_utf_8_pass_and_the_log_stays_json() {
    let vendor = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let head =
        b"GET /echo?caf\xe9 HTTP/1.1\r\nhost: x\r\nuser-agent: caf\xe9 \x80\xff\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.http, head).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let head = b"GET /echo HTTP/1.1\r\nhost: x\r\nx-request-id: bytes-1\r\nuser-agent: caf\xe9 \x80\xff\r\nconnection: close\r\n\r\n";
    let answer = raw(gateway.http, head).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let sent = vendor.requests().pop().unwrap();
    assert_eq!(sent.headers["user-agent"].as_bytes(), b"caf\xe9 \x80\xff");
    // Lines that are no UTF-8 are never seen here.
    gateway.log.wait_for(|line| line.contains("bytes-1")).unwrap();
    for line in gateway.log.all() {
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn repeated_headers_stay_repeated_and_in_order() {
    let answered = b"HTTP/1.1 200 OK\r\nset-cookie: a=1; path=/\r\nx-one: 1\r\nset-cookie: b=2\r\nset-cookie: c=3\r\nserver: vendor\r\ncontent-length: 2\r\n\r\nok";
    let gateway = towards(raw_server(answered).await, &[]);
    let answer = send(gateway.http, post_json("/", "{}")).await.unwrap();
    let cookies: Vec<&str> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(cookies, ["a=1; path=/", "b=2", "c=3"]);
    assert_eq!(answer.header("server"), "vendor");
    assert_eq!(answer.text(), "ok");
}

#[tokio::test]
async fn answers_that_end_with_the_connection_or_come_after_a_hint() {
    for bytes in [
        &b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end"[..],
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end",
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nd;ext=1\r\nuntil the end\r\n0\r\n\r\n",
    ] {
        let gateway = towards(raw_server(bytes).await, &[]);
        let answer = send(gateway.http, post_json("/", "{}")).await.unwrap();
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "until the end"), "{shown}");
        assert_eq!(answer.cut, None, "{shown}");
    }
}

#[tokio::test]
async fn a_chunked_json_body_is_read_and_sent_on_with_its_length() {
    let scene = Scene::vendor(
        "{ type: openai, apiTokens: [sk-gateway], modelMapping: { 'gpt-*': mapped } }",
        &[],
    );
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (sender, body) = fed_body(1);
        let request = Request::post(CHAT_PATH)
            .header("content-type", "application/json; charset=utf-8")
            .body(body);
        let feeding = async move {
            for byte in CHAT.as_bytes().chunks(3) {
                sender.send(Bytes::from_static(byte)).await.unwrap();
            }
        };
        let asking = async {
            open_with(scene.gateway.http, protocol, request.unwrap())
                .await
                .unwrap()
                .finish()
                .await
        };
        let ((), answer) = tokio::join!(feeding, asking);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent = scene.last();
        assert_eq!(sent.body, CHAT.replace("gpt-4o", "mapped"));
        assert_eq!(
            sent.header("content-length"),
            Some(sent.body.len().to_string().as_str())
        );
        assert!(sent.header("transfer-encoding").is_none(), "{:?}", sent.headers);
    }
}

#[tokio::test]
async fn a_prompt_of_ten_megabytes_passes_byte_for_byte() {
    let scene = Scene::openai(&[]);
    let picture = "QUJD".repeat(2_500_000);
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{picture}"}}}},{{"type":"text","text":"What is this?"}}]}}]}}"#
    );
    for over_h2 in [false, true] {
        let request = post_json(CHAT_PATH, body.clone());
        let answer = match over_h2 {
            true => send_h2c(scene.gateway.http, request).await.unwrap(),
            false => send(scene.gateway.http, request).await.unwrap(),
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.json()["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(text.starts_with("I see 1 image."), "{text}");
        let sent = scene.last();
        assert_eq!(sent.body_length, body.len() as u64);
        assert!(
            body.as_bytes().starts_with(&sent.body),
            "the beginning that the vendor kept differs"
        );
    }
}

#[tokio::test]
async fn expectations_are_met_here() {
    let scene = Scene::plain(&[]);
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    let answer = raw(scene.gateway.http, head.as_bytes()).await.unwrap();
    assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(scene.last().body, "ok");
}
