//! What can be spoken on either side: HTTP/1.1, h2, h2c, TLS with SNI and ALPN, WebSocket, gRPC.

use bytes::Bytes;
use http::{Request, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_mock_llm::{Authority, Options, Validity};
use tollgate_testkit::client::{
    Opening, Protocol, Secure, fed_body, get, open_tls, open_with, post_json, send, send_h2c,
};
use tollgate_testkit::process::Gateway;

use crate::support::{
    CHAT_PATH, CHAT_STREAM, Scene, Sight, bridge, documents, gateway, ingress, ingress_for, mock, ordered,
    verbose_log,
};

const H2: [(&str, &str); 1] = [("higress.io/backend-protocol", "HTTP2")];

#[tokio::test]
async fn each_version_in_and_out() {
    for (annotations, out) in [(&[][..], Version::HTTP_11), (&H2[..], Version::HTTP_2)] {
        let scene = Scene::plain(annotations);
        let one = send(scene.gateway.http, post_json("/echo?a=1&b=%2F", "body"))
            .await
            .unwrap();
        let two = send_h2c(scene.gateway.http, post_json("/echo?a=1&b=%2F", "body"))
            .await
            .unwrap();
        for answer in [one, two] {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let account = answer.json();
            assert_eq!(
                (&account["query"], &account["body"]),
                (&"a=1&b=%2F".into(), &"body".into()),
                "{account}"
            );
        }
        assert!(
            scene.mock.requests().iter().all(|request| request.version == out),
            "{out:?}"
        );
    }
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let scene = Scene::plain(&[]);
    let text =
        tollgate_testkit::client::raw(scene.gateway.http, b"GET /status/200 HTTP/1.0\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
    assert!(
        text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"),
        "{text}"
    );
}

#[tokio::test]
async fn a_connection_is_used_again_on_both_sides() {
    let scene = Scene::plain(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    for number in 0..5 {
        let request = format!("GET /bytes/10?{number} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with("abcdefghij") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "closed after {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    }
    let connections: std::collections::BTreeSet<u64> = scene
        .mock
        .requests()
        .iter()
        .map(|request| request.connection.number)
        .collect();
    assert_eq!(
        connections.len(),
        1,
        "one client connection lives on one worker, which keeps its upstream's"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let scene = Scene::plain(&[]);
    let wanted = ["/bytes/1", "/bytes/2", "/bytes/3"];
    let mut text: String = wanted
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
        .collect();
    text.push_str("GET /bytes/4 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = tollgate_testkit::client::raw(scene.gateway.http, text.as_bytes())
        .await
        .unwrap();
    let bodies: Vec<&str> = answer
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| part.split("HTTP/").next().unwrap())
        .collect();
    assert_eq!(bodies, ["a", "ab", "abc", "abcd"], "{answer}");
}

#[tokio::test]
async fn what_the_vendor_is_told_of_the_client() {
    let scene = Scene::plain(&[]);
    let request = Request::get("http://api.example:8080/echo")
        .header("x-forwarded-for", "203.0.113.7")
        .header("user-agent", "curl/8")
        .body(Bytes::new())
        .unwrap();
    let answer = send(scene.gateway.http, request).await.unwrap();
    let account = answer.json();
    let header = |name: &str| {
        account["headers"][name][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(account["host"], "api.example:8080");
    assert_eq!(header("x-forwarded-for"), "203.0.113.7,127.0.0.1");
    assert_eq!(header("x-forwarded-proto"), "http");
    assert_eq!(header("user-agent"), "curl/8");
    assert_eq!(header("x-request-id"), answer.header("x-request-id"));
    assert_eq!(answer.header("x-request-id").len(), 36, "a fresh one is a UUID");
}

#[tokio::test]
async fn nothing_is_added_to_an_answer_but_the_request_id() {
    let scene = Scene::plain(&[]);
    let direct = send(scene.mock.addr(), get("/bytes/5")).await.unwrap();
    let answer = send(scene.gateway.http, get("/bytes/5")).await.unwrap();
    let names = |answer: &tollgate_testkit::client::Answer| {
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.retain(|name| name != "x-request-id" && name != "date");
        names.sort();
        names
    };
    assert_eq!(names(&answer), names(&direct));
    assert!(!answer.header("x-request-id").is_empty());
}

/// A gateway with certificates for two hosts, each with its route.
fn secure() -> (Gateway, tollgate_mock_llm::Handle, Authority) {
    let authority = Authority::new().unwrap();
    let mock = mock(Options::default());
    let mut parts = vec![bridge(&[("mock", mock.addr())]), verbose_log()];
    for name in ["one.example", "two.example"] {
        let short = &name[..3];
        parts.push(secret(short, &authority, &[name]));
        parts.push(
            ingress_for(name, short, "/", "mock.static", &[])
                + &format!("  tls:\n  - hosts: [{name}]\n    secretName: {short}\n"),
        );
    }
    (
        gateway()
            .file("scene.yaml", &documents(&parts))
            .unwrap()
            .go()
            .unwrap(),
        mock,
        authority,
    )
}

pub(crate) fn secret(name: &str, authority: &Authority, hosts: &[&str]) -> String {
    let pair = authority.issue(hosts, Validity::Valid).unwrap();
    let indented = |pem: &str| {
        pem.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: higress-system\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&pair.certificate),
        indented(&pair.key)
    )
}

async fn secured(
    gateway: &Gateway,
    authority: &Authority,
    name: &str,
    protocol: Protocol,
) -> Result<Opening, String> {
    let secure = Secure {
        authority: &authority.pem(),
        name,
        protocol,
        identity: None,
    };
    let request = Request::get(format!("https://{name}/echo"))
        .body(Bytes::new())
        .unwrap();
    open_tls(gateway.https.unwrap(), &secure, request).await
}

#[tokio::test]
async fn tls_chooses_certificate_by_name_and_protocol_by_alpn() {
    let (gateway, mock, authority) = secure();
    for name in ["one.example", "two.example"] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let answer = secured(&gateway, &authority, name, protocol)
                .await
                .unwrap()
                .finish()
                .await;
            assert_eq!(answer.status, 200, "{name} {protocol:?}");
            assert_eq!(answer.json()["host"], name);
            assert_eq!(answer.json()["headers"]["x-forwarded-proto"][0], "https");
            let line = gateway.line_of(answer.header("x-request-id"));
            assert_eq!(line["route"], name[..3], "{line}");
        }
    }
    assert_eq!(mock.requests().len(), 4);
    let stranger = Authority::new().unwrap();
    assert!(
        secured(&gateway, &stranger, "one.example", Protocol::Http1)
            .await
            .is_err(),
        "another authority's"
    );
}

#[tokio::test]
async fn streams_pass_over_tls_and_h2() {
    let (gateway, _mock, authority) = secure();
    let secure = Secure {
        authority: &authority.pem(),
        name: "one.example",
        protocol: Protocol::Http2,
        identity: None,
    };
    let (mut request, _) = ordered("stall-between;after=3", CHAT_STREAM);
    *request.uri_mut() = format!("https://one.example{CHAT_PATH}").parse().unwrap();
    let mut opening = open_tls(gateway.https.unwrap(), &secure, request).await.unwrap();
    opening.read_until("data:").await.unwrap();
}

#[tokio::test]
async fn https_opens_with_the_first_certificate() {
    let authority = Authority::new().unwrap();
    let mock = mock(Options::default());
    let plain = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    // A port that was free a moment ago: the gateway cannot tell a port that it picks later.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = gateway()
        .file("plain.yaml", &plain)
        .unwrap()
        .option("--https", address)
        .go()
        .unwrap();
    assert!(
        gateway.https.is_none() && TcpStream::connect(address).await.is_err(),
        "nothing to serve there yet"
    );
    let tls = documents(&[
        secret("one", &authority, &["one.example"]),
        ingress_for("one.example", "one", "/", "mock.static", &[])
            + "  tls:\n  - hosts: [one.example]\n    secretName: one\n",
    ]);
    gateway.write("tls.yaml", &tls).unwrap();
    let pem = authority.pem();
    let secure = Secure {
        authority: &pem,
        name: "one.example",
        protocol: Protocol::Http2,
        identity: None,
    };
    let request = Request::get("https://one.example/echo")
        .body(Bytes::new())
        .unwrap();
    let answer = open_tls(address, &secure, request).await.unwrap().finish().await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_nobodys_request() {
    let (gateway, mock, _authority) = secure();
    let text = tollgate_testkit::client::raw(
        gateway.https.unwrap(),
        b"GET / HTTP/1.1\r\nhost: one.example\r\n\r\n",
    )
    .await;
    assert!(!text.unwrap_or_default().contains("200 OK"));
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn a_certificate_can_be_replaced_while_running() {
    let (gateway, _mock, old) = secure();
    let scene = std::fs::read_to_string(gateway.config().join("scene.yaml")).unwrap();
    let fresh = Authority::new().unwrap();
    let rest: Vec<&str> = scene
        .split("\n---\n")
        .filter(|part| !part.contains("name: one\n  namespace: higress-system\ntype"))
        .collect();
    assert_eq!(rest.len(), scene.split("\n---\n").count() - 1);
    let changed = format!(
        "{}\n---\n{}",
        rest.join("\n---\n"),
        secret("one", &fresh, &["one.example"])
    );
    let mut open = secured(&gateway, &old, "one.example", Protocol::Http2)
        .await
        .unwrap();
    gateway.write("scene.yaml", &changed).unwrap();
    assert!(
        secured(&gateway, &fresh, "one.example", Protocol::Http1)
            .await
            .is_ok()
    );
    assert!(
        secured(&gateway, &old, "one.example", Protocol::Http1)
            .await
            .is_err()
    );
    assert!(
        secured(&gateway, &old, "two.example", Protocol::Http1)
            .await
            .is_ok()
    );
    assert!(open.next().await.is_some(), "a connection of before goes on");
}

/// A frame of one text message, masked with zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..length]);
    }
    seen
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_survives_a_reload() {
    let scene = Scene::plain(&[]);
    let mut stream = TcpStream::connect(scene.gateway.http).await.unwrap();
    let handshake = "GET /socket HTTP/1.1\r\nhost: x\r\nx-request-id: socket-1\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: chat, other\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await)
        .unwrap()
        .to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert!(head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
    for round in 0..3 {
        let text = format!("hello {round}");
        stream.write_all(&text_frame(&text)).await.unwrap();
        read_until(&mut stream, text.as_bytes()).await;
        scene
            .gateway
            .write(
                "more.yaml",
                &ingress(&format!("more-{round}"), "/more", "mock.static", &[]),
            )
            .unwrap();
    }
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.first(), Some(&0x88), "the close is answered");
    drop(stream);
    let line = scene.gateway.line_of("socket-1");
    assert_eq!(
        (&line["code"], &line["termination"]),
        (&"101".into(), &"completed".into()),
        "{line}"
    );
}

#[tokio::test]
async fn a_refused_websocket_gets_the_vendors_answer() {
    let scene = Scene::plain(&[]);
    let request = Request::get("/status/403")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("x-mock-fault", "403")
        .body(Bytes::new())
        .unwrap();
    let answer = send(scene.gateway.http, request).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "GRPC")]);
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    let request = |status: Option<&str>| {
        let mut request = Request::post("/pkg.Service/Method")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(status) = status {
            request = request.header("x-mock-grpc-status", status);
        }
        request.body(message.clone()).unwrap()
    };
    let answer = send_h2c(scene.gateway.http, request(None)).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "application/grpc")
    );
    assert_eq!(answer.body, message);
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    let answer = send_h2c(scene.gateway.http, request(Some("7"))).await.unwrap();
    let trailers = answer.trailers.clone().unwrap_or_default();
    let status = trailers
        .get("grpc-status")
        .or_else(|| answer.headers.get("grpc-status"))
        .unwrap();
    assert_eq!(status, "7");
    let seen = scene.last();
    assert_eq!(
        (seen.version, seen.header("te")),
        (Version::HTTP_2, Some("trailers"))
    );
}

#[tokio::test]
async fn grpc_streams_in_both_directions() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "GRPC")]);
    let (sender, body) = fed_body(1);
    let request = Request::post("/pkg.Service/Chat")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    sender.send(Bytes::from_static(b"\0\0\0\0\x03one")).await.unwrap();
    let mut opening = open_with(scene.gateway.http, Protocol::Http2, request)
        .await
        .unwrap();
    opening.read_until("one").await.unwrap();
    sender.send(Bytes::from_static(b"\0\0\0\0\x03two")).await.unwrap();
    opening.read_until("two").await.unwrap();
    drop(sender);
    let answer = opening.finish().await;
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
}
