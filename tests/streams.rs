//! Streamed answers: every byte as the vendor sent it, each event as soon as it is there.

use http::Request;
use tollgate_mock_llm::End;
use tollgate_testkit::client::{Protocol, open_with, send};

use crate::support::{CHAT_STREAM, Scene, Sight, flags, ordered};

/// Whatever the bytes look like, they come out as they went in.
async fn same_bytes(scene: &Scene, what: &str, faults: &[&str]) {
    for fault in faults {
        let vendors = send(scene.mock.addr(), ordered(fault, CHAT_STREAM).0)
            .await
            .unwrap();
        let (answer, line) = scene.chat(fault, CHAT_STREAM).await;
        assert_eq!(answer.status, 200, "{what} {fault}: {}", answer.text());
        assert_eq!(answer.cut, None, "{what} {fault}");
        same(&format!("{what} {fault}"), &answer.body, &vendors.body);
        assert_eq!(
            answer.header("content-type"),
            vendors.header("content-type"),
            "{what} {fault}"
        );
        // An error of the vendor is an end, but no good one.
        let ends = if fault.starts_with("error-event") {
            "upstream_error"
        } else {
            "completed"
        };
        assert_eq!(line["termination"], ends, "{what} {fault}: {line}");
        assert_eq!(
            line["sent"],
            vendors.body.len().to_string(),
            "{what} {fault}: {line}"
        );
    }
}

/// Says where two bodies differ, not how long they are.
fn same(what: &str, found: &[u8], wanted: &[u8]) {
    let differs = found.iter().zip(wanted).position(|(one, other)| one != other);
    let at = differs.unwrap_or(found.len().min(wanted.len()));
    if found.len() != wanted.len() || differs.is_some() {
        let show = |body: &[u8]| {
            String::from_utf8_lossy(&body[at.saturating_sub(40)..body.len().min(at + 80)]).into_owned()
        };
        panic!(
            "{what}: {} bytes instead of {}; from byte {at}: {:?} instead of {:?}",
            found.len(),
            wanted.len(),
            show(found),
            show(wanted),
        );
    }
}

const SHAPES: &[&str] = &[
    "",
    "lf",
    "crlf",
    "cr",
    "split;bytes=1",
    "split;bytes=2",
    "split;bytes=3",
    "split;bytes=7",
    "split;bytes=13",
    "trickle;bytes=1",
    "packed;events=5",
    "packed;events=1000",
    "crlf,split;bytes=1",
    "cr,split;bytes=1",
    "crlf,packed;events=3",
    "cr,packed;events=1000",
    "bom",
    "keep-alive",
    "chinese,split;bytes=1",
    "reasoning",
    "gzip",
    "br",
    "zstd",
];

const ODDITIES: &[&str] = &[
    "error-event",
    "error-event;after=3;code=503",
    "malformed",
    "done-twice",
    "unknown-events",
    "usage-absent",
    "usage-null",
    "usage-cumulative",
    "usage-per-event",
    "usage-after-done",
    "usage-in-choice",
];

#[tokio::test]
async fn any_shape_of_bytes_passes_as_it_is() {
    same_bytes(&Scene::plain(&[]), "plain", SHAPES).await;
}

#[tokio::test]
async fn any_shape_of_bytes_passes_ai_proxy_as_it_is() {
    same_bytes(&Scene::openai(&[]), "ai-proxy", SHAPES).await;
}

#[tokio::test]
async fn any_shape_of_bytes_passes_from_an_h2_vendor() {
    same_bytes(
        &Scene::plain(&[("higress.io/backend-protocol", "HTTP2")]),
        "h2",
        SHAPES,
    )
    .await;
}

#[tokio::test]
async fn odd_events_pass_as_they_are() {
    same_bytes(&Scene::plain(&[]), "plain", ODDITIES).await;
    same_bytes(&Scene::openai(&[]), "ai-proxy", ODDITIES).await;
}

#[tokio::test]
async fn an_event_of_ten_megabytes_passes() {
    same_bytes(&Scene::plain(&[]), "plain", &["big-event"]).await;
    same_bytes(&Scene::openai(&[]), "ai-proxy", &["big-event"]).await;
}

#[tokio::test]
async fn trailers_pass() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "HTTP2")]);
    let (request, _) = ordered("trailers", CHAT_STREAM);
    let body = request.map(|body| http_body_util::BodyExt::boxed(http_body_util::Full::new(body)));
    let answer = open_with(scene.gateway.http, Protocol::Http2, body)
        .await
        .unwrap()
        .finish()
        .await;
    assert!(answer.trailers.is_some_and(|trailers| !trailers.is_empty()));
}

#[tokio::test]
async fn events_arrive_while_the_vendor_is_silent() {
    for scene in [Scene::plain(&[]), Scene::openai(&[])] {
        for after in [1, 2, 5] {
            let (mut opening, _) = scene
                .open_chat(&format!("stall-between;after={after}"), CHAT_STREAM)
                .await;
            let events = |text: &str| text.matches("\n\n").count();
            let mut seen = String::new();
            // The opening event and as many with content.
            while events(&seen) < after + 1 {
                let piece = opening.next().await.expect("an open stream").unwrap();
                seen.push_str(&String::from_utf8_lossy(&piece));
            }
            assert!(!seen.contains("[DONE]"), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_ends_the_vendors_work() {
    for scene in [Scene::plain(&[]), Scene::openai(&[])] {
        let (mut opening, id) = scene.open_chat("stall-between", CHAT_STREAM).await;
        opening.read_until("data:").await.unwrap();
        drop(opening);
        scene
            .vendor_sees(|seen| seen.iter().all(|request| request.end == End::ClientGone))
            .await;
        let line = scene.gateway.line_of(&id);
        assert_eq!(line["termination"], "client_gone", "{line}");
        assert!(flags(&line["flags"]).contains(&"DC"), "{line}");
        scene.gateway.terminated("client_gone", 1.0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_vendors_work() {
    let scene = Scene::openai(&[]);
    let (request, id) = ordered("black-hole", CHAT_STREAM);
    let asking = send(scene.gateway.http, request);
    tokio::select! {
        answer = asking => panic!("answered: {answer:?}"),
        _ = scene.vendor_sees(|seen| seen.len() == 1) => {}
    }
    scene.vendor_sees(|seen| seen[0].end == End::ClientGone).await;
    assert_eq!(scene.gateway.line_of(&id)["termination"], "client_gone");
}

#[tokio::test]
async fn a_silent_stream_delays_no_other() {
    let scene = Scene::openai(&[]);
    let mut silent = Vec::new();
    for _ in 0..20 {
        let (mut opening, _) = scene.open_chat("stall-between", CHAT_STREAM).await;
        opening.read_until("data:").await.unwrap();
        silent.push(opening);
    }
    for _ in 0..20 {
        let (answer, _) = scene.chat("", CHAT_STREAM).await;
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
    }
    assert_eq!(silent.len(), 20);
}

#[tokio::test]
async fn a_hundred_streams_at_once_are_each_whole() {
    let scene = Scene::openai(&[]);
    let wanted = send(scene.mock.addr(), ordered("", CHAT_STREAM).0)
        .await
        .unwrap()
        .body;
    let streams = (0..100).map(|_| {
        send(
            scene.gateway.http,
            ordered("pace;ms=3,split;bytes=11", CHAT_STREAM).0,
        )
    });
    for answer in futures_util::future::join_all(streams).await {
        same("one of a hundred", &answer.unwrap().body, &wanted);
    }
    scene.gateway.terminated("completed", 100.0).await;
}

#[tokio::test]
async fn streams_share_one_h2_connection_of_a_client() {
    let scene = Scene::openai(&[]);
    let requests = (0..3).map(|_| {
        let (request, _): (Request<bytes::Bytes>, _) = ordered("crlf,split;bytes=5", CHAT_STREAM);
        tollgate_testkit::client::send_h2c(scene.gateway.http, request)
    });
    for answer in futures_util::future::join_all(requests).await {
        assert!(answer.unwrap().text().ends_with("data: [DONE]\r\n\r\n"));
    }
}
