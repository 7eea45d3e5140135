//! Bodies in both directions: byte for byte, of any size, in constant memory.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{Protocol, fed_body, get, open_with, post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{CHAT_PATH, Scene, bridge, documents, gateway, ingress, mock, ordered, wasm_plugin};

/// Legal JSON that no serialiser would write: members in odd order and twice, numbers in odd spellings, unknown
/// members, escapes, and blanks.
const ODD_JSON: &str = "\r\n{ \"zeta\" : 1.0e+2 ,\"n\":1E2,\t\"big\":123456789012345678901234567890,\"tiny\":1e-7, \
     \"unknown\":{\"b\":[ 1,2 ,3 ],\"a\":null},\"temperature\":0.10, \"dup\":1,\"dup\":2,\"\\u0061\\/\":\"\\ud83d\\ude00\\u00e9é\", \
     \"model\" : \"gpt-4o\", \"messages\":[ {\"content\":\"Hi\",\"role\":\"user\",\"x\":-0} ] ,\"last\":true}\n";

#[tokio::test]
async fn an_unchanged_body_passes_byte_for_byte() {
    let vendors = [
        "{ type: openai, apiTokens: [sk-gateway] }",
        "{ type: qwen, apiTokens: [sk-gateway] }",
        "{ type: deepseek, apiTokens: [sk-gateway] }",
        "{ type: openai, apiTokens: [sk-gateway], protocol: original }",
    ];
    let scenes = vendors
        .iter()
        .map(|provider| (*provider, Scene::vendor(provider, &[])));
    for (name, scene) in scenes.chain([("plain", Scene::plain(&[]))]) {
        let (answer, _) = scene.chat("", ODD_JSON).await;
        assert_eq!(scene.last().body, ODD_JSON, "{name}");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let length = ODD_JSON.len().to_string();
        assert_eq!(
            scene.last().header("content-length"),
            Some(length.as_str()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn only_the_mapped_model_changes() {
    let scene = Scene::vendor(
        "{ type: openai, apiTokens: [sk-gateway], modelMapping: { 'gpt-4*': a-much-longer-model-name } }",
        &[],
    );
    scene.chat("", ODD_JSON).await;
    assert_eq!(
        scene.last().body,
        ODD_JSON.replace("gpt-4o", "a-much-longer-model-name")
    );
    let length = scene.last().body.len().to_string();
    assert_eq!(scene.last().header("content-length"), Some(length.as_str()));
}

#[tokio::test]
async fn an_answer_passes_byte_for_byte() {
    for scene in [Scene::plain(&[]), Scene::openai(&[])] {
        let vendors = send(scene.mock.addr(), ordered("", crate::support::CHAT).0)
            .await
            .unwrap();
        let (answer, line) = scene.chat("", crate::support::CHAT).await;
        assert_eq!(answer.body, vendors.body);
        assert_eq!(answer.header("content-length"), vendors.header("content-length"));
        assert_eq!(line["termination"], "completed", "{line}");
    }
}

/// Pieces of every length up to a prime, so that borders fall everywhere.
fn pieces(total: usize) -> impl Iterator<Item = Bytes> {
    let pattern = Bytes::from((0..=255u8).cycle().take(9_973 + 256).collect::<Vec<u8>>());
    let mut sent = 0;
    let mut number = 0usize;
    std::iter::from_fn(move || {
        let length = (number * 7_919 % 9_973 + 1).min(total - sent);
        let piece = pattern.slice(sent % 256..sent % 256 + length);
        sent += length;
        number += 1;
        (length > 0).then_some(piece)
    })
}

async fn mirror(gateway: &Gateway, protocol: Protocol, total: usize) {
    let (sender, body) = fed_body(4);
    let feeding = async move {
        for piece in pieces(total) {
            sender.send(piece).await.unwrap();
        }
    };
    let asking = async {
        let request = Request::post("/mirror")
            .header("content-type", "application/octet-stream")
            .body(body)
            .unwrap();
        open_with(gateway.http, protocol, request)
            .await
            .unwrap()
            .finish()
            .await
    };
    let ((), answer) = tokio::join!(feeding, asking);
    assert_eq!((answer.status.as_u16(), &answer.cut), (200, &None));
    let wanted: Vec<u8> = pieces(total).flat_map(|piece| piece.to_vec()).collect();
    assert!(
        answer.body == wanted,
        "{} bytes came back of {total}",
        answer.body.len()
    );
}

#[tokio::test]
async fn bodies_stream_in_both_directions_at_once() {
    for annotations in [&[][..], &[("higress.io/backend-protocol", "HTTP2")]] {
        let scene = Scene::plain(annotations);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for total in [0, 1, 65_535, 3_000_000] {
                mirror(&scene.gateway, protocol, total).await;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let scene = Scene::plain(&[]);
    let (sender, body) = fed_body(1);
    let request = Request::post("/mirror").body(body).unwrap();
    sender.send(Bytes::from_static(b"first")).await.unwrap();
    let mut opening = open_with(scene.gateway.http, Protocol::Http2, request)
        .await
        .unwrap();
    opening.read_until("first").await.unwrap();
    sender.send(Bytes::from_static(b"second")).await.unwrap();
    opening.read_until("second").await.unwrap();
    drop(sender);
    assert_eq!(opening.finish().await.cut, None);
}

const LARGE: usize = 200 * 1024 * 1024;
/// What 200 MB may cost, in KiB.
const GROWTH: u64 = 20 * 1024;

/// Uploads 200 MB and reports the largest memory seen.
async fn upload(gateway: &Gateway, path: &str) -> (serde_json::Value, u64) {
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let (sender, body) = fed_body(4);
    let feeding = async move {
        let mut peak = 0;
        for number in 0..LARGE / piece.len() {
            sender.send(piece.clone()).await.unwrap();
            if number % 64 == 0 {
                peak = peak.max(gateway.memory_kib());
            }
        }
        peak
    };
    let asking = async {
        let request = Request::post(path)
            .header("content-type", "application/octet-stream")
            .body(body)
            .unwrap();
        open_with(gateway.http, Protocol::Http1, request)
            .await
            .unwrap()
            .finish()
            .await
    };
    let (peak, answer) = tokio::join!(feeding, asking);
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.json(), peak)
}

#[tokio::test]
async fn two_hundred_megabytes_go_up_in_constant_memory() {
    for scene in [Scene::plain(&[]), Scene::openai(&[])] {
        // Whatever is allocated once is allocated by then.
        send(scene.gateway.http, post_json("/echo", "{}")).await.unwrap();
        let before = scene.gateway.memory_kib();
        let (account, peak) = upload(&scene.gateway, "/echo").await;
        assert_eq!(account["body_length"], LARGE);
        assert!(
            peak < before + GROWTH,
            "{before} KiB before, {peak} KiB while it passed"
        );
    }
}

#[tokio::test]
async fn an_upload_that_a_body_rule_cannot_hold_is_refused_in_bounded_memory() {
    const GIGABYTE: usize = 1024 * 1024 * 1024;
    // What the plugin may hold.
    const HELD: u64 = 32 * 1024;
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        wasm_plugin(
            "request-block",
            "  defaultConfig: { block_bodies: [forbidden] }\n",
        ),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    send(gateway.http, post_json("/echo", "{}")).await.unwrap();
    let before = gateway.memory_kib();
    let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let said = format!("content-length: {GIGABYTE}");
    for framing in ["transfer-encoding: chunked", &said] {
        let socket = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
        let (mut answers, mut requests) = socket.into_split();
        let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        requests.write_all(head.as_bytes()).await.unwrap();
        let (mut taken, mut peak) = (0, 0);
        let feeding = async {
            loop {
                requests.write_all(&piece).await.unwrap();
                taken += piece.len();
                assert!(taken < GIGABYTE, "the whole gigabyte was taken");
                peak = peak.max(gateway.memory_kib());
            }
        };
        let mut answer = vec![0; 4096];
        // A client that sends until it is answered, and no further.
        let length = tokio::select! {
            length = answers.read(&mut answer) => length.unwrap(),
            () = feeding => unreachable!(),
        };
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
        assert!(
            peak < before + HELD + GROWTH,
            "{framing}: {before} KiB before, {peak} KiB at most"
        );
    }
    assert_eq!(mock.requests().len(), 1, "nothing of it reached the vendor");
}

#[tokio::test]
async fn two_hundred_megabytes_come_down_in_constant_memory() {
    let scene = Scene::plain(&[]);
    send(scene.gateway.http, get("/bytes/1000")).await.unwrap();
    let before = scene.gateway.memory_kib();
    let request = get(&format!("/bytes/{LARGE}")).map(|body| http_body_util::Full::new(body).boxed());
    let mut opening = open_with(scene.gateway.http, Protocol::Http1, request)
        .await
        .unwrap();
    let (mut length, mut peak, mut reads) = (0, 0, 0u32);
    while let Some(piece) = opening.next().await {
        let piece = piece.unwrap();
        assert_eq!(
            piece[0],
            b'a' + u8::try_from(length % 26).unwrap(),
            "at byte {length}"
        );
        length += piece.len();
        reads += 1;
        if reads % 256 == 0 {
            peak = peak.max(scene.gateway.memory_kib());
        }
    }
    assert_eq!(length, LARGE);
    assert!(
        peak < before + GROWTH,
        "{before} KiB before, {peak} KiB while it passed"
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_vendor_back() {
    let scene = Scene::plain(&[]);
    send(scene.gateway.http, get("/bytes/1000")).await.unwrap();
    let before = scene.gateway.memory_kib();
    let request = get(&format!("/bytes/{LARGE}")).map(|body| http_body_util::Full::new(body).boxed());
    let mut opening = open_with(scene.gateway.http, Protocol::Http1, request)
        .await
        .unwrap();
    opening.next().await.unwrap().unwrap();
    // The vendor writes until every buffer on the way is full; then it has written the same twice.
    let mut written = 0;
    loop {
        let now = scene.last().events;
        if now > 0 && now == written {
            break;
        }
        written = now;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(
        written < (LARGE / 16_384 / 2) as u64,
        "the vendor wrote {written} frames to a client that reads none"
    );
    let peak = scene.gateway.memory_kib();
    assert!(
        peak < before + GROWTH,
        "{before} KiB before, {peak} KiB while the client slept"
    );
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let scene = Scene::plain(&[]);
    for path in ["/status/204", "/status/304"] {
        let answer = send(scene.gateway.http, get(path)).await.unwrap();
        assert_eq!(answer.status.as_str(), &path[8..], "{path}");
        assert!(
            answer.body.is_empty() && answer.cut.is_none(),
            "{path}: {answer:?}"
        );
    }
    let head = Request::builder()
        .method(Method::HEAD)
        .uri("/bytes/1234")
        .body(Bytes::new())
        .unwrap();
    let answer = send(scene.gateway.http, head).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-length")),
        (200, "1234")
    );
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn a_compressed_request_passes_untouched() {
    let scene = Scene::openai(&[]);
    let compressed = Bytes::from_static(b"\x1f\x8b\x08\x00not really gzip");
    let request = Request::post("/echo")
        .header("content-type", "application/x-custom")
        .header("content-encoding", "gzip")
        .body(compressed.clone())
        .unwrap();
    let answer = send(scene.gateway.http, request).await.unwrap();
    assert_eq!(
        answer.json()["headers"]["content-encoding"][0],
        "gzip",
        "{}",
        answer.text()
    );
    assert_eq!(scene.last().body, compressed);
    assert_eq!(scene.last().path(), "/echo", "an unknown path is kept");
    assert_ne!(scene.last().path(), CHAT_PATH);
}
