//! Five timers, each alone: a vendor that hangs somewhere ends in a 504 that names the timer, and so do log and metrics.

use std::time::Duration;

use tollgate_base::clock;
use tollgate_mock_llm::{End, Options, SilentPort, Tls};
use tollgate_testkit::client::{Answer, send};

use crate::support::{
    CHAT, CHAT_STREAM, Scene, Sight, bridge, documents, flags, gateway, ingress, mock, ordered, towards,
    verbose_log,
};

const SHORT: &str = "700ms";
const LIMIT: Duration = Duration::from_millis(700);
/// How much later than its limit a timer may fire on a loaded machine.
const SLACK: Duration = Duration::from_secs(5);

/// The 504 of one of our timers, in the client's dialect.
fn names_the_timer(answer: &Answer, timer: &str) {
    assert_eq!(answer.status, 504, "{}", answer.text());
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(message.contains(timer), "{}", answer.text());
}

/// The same where the answer had begun: an error event, no end marker.
fn event_names_the_timer(answer: &Answer, timer: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    assert!(!text.contains("[DONE]"), "{text}");
    let last: serde_json::Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert!(
        last["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .contains(timer),
        "{text}"
    );
    assert_eq!(last["error"]["type"], "timeout_error", "{text}");
}

async fn recorded(scene: &tollgate_testkit::process::Gateway, id: &str, timer: &str) {
    let line = scene.line_of(id);
    assert_eq!(line["termination"], format!("timeout_{timer}"), "{line}");
    let found = flags(&line["flags"]);
    assert!(found.contains(&"UT") || found.contains(&"UF"), "{line}");
    scene.terminated(&format!("timeout_{timer}"), 1.0).await;
    let page = scene.admin("/stats/prometheus").await.text();
    let counted = page.lines().any(|line| {
        line.starts_with("tollgate_upstream_timeouts_total") && line.contains(timer) && !line.ends_with(" 0")
    });
    assert!(counted, "no timeout counted for {timer}");
}

#[tokio::test]
async fn connect_to_a_port_that_is_silent() {
    let port = SilentPort::new().unwrap();
    let gateway = towards(port.addr(), &[("tollgate.dev/timeout-connect", SHORT)]);
    let (request, id) = ordered("", CHAT);
    let started = clock::now();
    let answer = send(gateway.http, request).await.unwrap();
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    names_the_timer(&answer, "connect");
    assert_eq!(gateway.line_of(&id)["termination"], "timeout_connect");
}

#[tokio::test]
async fn connect_counts_the_tls_handshake() {
    let tls = Tls {
        delay: Duration::from_secs(86_400),
        ..Tls::new(&["vendor.example"]).unwrap()
    };
    let vendor = mock(Options {
        tls: Some(tls),
        ..Options::default()
    });
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress(
            "api",
            "/",
            "mock.static",
            &[
                ("higress.io/backend-protocol", "HTTPS"),
                ("higress.io/proxy-ssl-name", "vendor.example"),
                ("higress.io/proxy-ssl-verify", "off"),
                ("tollgate.dev/timeout-connect", SHORT),
            ],
        ),
        verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let (request, id) = ordered("", CHAT);
    names_the_timer(&send(gateway.http, request).await.unwrap(), "connect");
    assert_eq!(gateway.line_of(&id)["termination"], "timeout_connect");
}

/// One hanging request on each route; how long it took.
async fn hang(scene: &Scene, fault: &str, body: &str) -> (Answer, String, Duration) {
    let started = clock::now();
    let (request, id) = ordered(fault, body);
    let answer = send(scene.gateway.http, request).await.unwrap();
    (answer, id, started.elapsed())
}

fn in_time(took: Duration) {
    assert!(took >= LIMIT && took < LIMIT + SLACK, "{took:?}");
}

#[tokio::test]
async fn response_head() {
    let annotations = [("tollgate.dev/timeout-response-head", SHORT)];
    for scene in [Scene::plain(&annotations), Scene::openai(&annotations)] {
        let (answer, id, took) = hang(&scene, "stall-head", CHAT).await;
        names_the_timer(&answer, "response_head");
        in_time(took);
        recorded(&scene.gateway, &id, "response_head").await;
        scene.vendor_sees(|seen| seen[0].end == End::ClientGone).await;
        // The head in time, and then silence: not this timer's business.
        let (mut opening, _) = scene.open_chat("stall-between", CHAT_STREAM).await;
        opening.read_until("data:").await.unwrap();
        assert!(
            tokio::time::timeout(LIMIT * 2, opening.read_until("[DONE]"))
                .await
                .is_err(),
            "the stream ended"
        );
    }
}

#[tokio::test]
async fn first_event() {
    let annotations = [("tollgate.dev/timeout-first-event", SHORT)];
    for scene in [Scene::plain(&annotations), Scene::openai(&annotations)] {
        let (answer, id, took) = hang(&scene, "stall-first", CHAT_STREAM).await;
        names_the_timer(&answer, "first_event");
        in_time(took);
        recorded(&scene.gateway, &id, "first_event").await;
        scene.vendor_sees(|seen| seen[0].end == End::ClientGone).await;
        let (mut opening, _) = scene.open_chat("stall-between", CHAT_STREAM).await;
        opening.read_until("data:").await.unwrap();
        assert!(
            tokio::time::timeout(LIMIT * 2, opening.read_until("[DONE]"))
                .await
                .is_err(),
            "the stream ended"
        );
    }
}

#[tokio::test]
async fn first_event_of_a_whole_answer() {
    let scene = Scene::plain(&[("tollgate.dev/timeout-first-event", SHORT)]);
    let (answer, id, _) = hang(&scene, "stall-first", CHAT).await;
    names_the_timer(&answer, "first_event");
    recorded(&scene.gateway, &id, "first_event").await;
}

#[tokio::test]
async fn silence_between_events() {
    let annotations = [("tollgate.dev/timeout-silence", SHORT)];
    for scene in [Scene::plain(&annotations), Scene::openai(&annotations)] {
        let (answer, id, took) = hang(&scene, "stall-between;after=3", CHAT_STREAM).await;
        event_names_the_timer(&answer, "silence");
        in_time(took);
        recorded(&scene.gateway, &id, "silence").await;
        scene.vendor_sees(|seen| seen[0].end == End::ClientGone).await;
        // Slow is not silent: the whole takes longer than the limit.
        let (answer, _, took) = hang(&scene, "pace;ms=100", CHAT_STREAM).await;
        assert_eq!(
            answer.events().last().map(String::as_str),
            Some("[DONE]"),
            "{}",
            answer.text()
        );
        assert!(took > LIMIT * 2, "{took:?}");
    }
}

#[tokio::test]
async fn total() {
    let annotations = [("higress.io/timeout", "1")];
    for scene in [Scene::plain(&annotations), Scene::openai(&annotations)] {
        let (answer, id, took) = hang(&scene, "stall-head", CHAT).await;
        names_the_timer(&answer, "total");
        assert!(
            took >= Duration::from_secs(1) && took < Duration::from_secs(1) + SLACK,
            "{took:?}"
        );
        recorded(&scene.gateway, &id, "total").await;
        let (answer, _, took) = hang(&scene, "pace;ms=150,tokens;n=200", CHAT_STREAM).await;
        event_names_the_timer(&answer, "total");
        assert!(took >= Duration::from_secs(1), "{took:?}");
        let (answer, _, _) = hang(&scene, "keep-alive-only", CHAT_STREAM).await;
        event_names_the_timer(&answer, "total");
    }
}

#[tokio::test]
async fn a_client_of_messages_reads_the_timeout_in_its_dialect() {
    let scene = Scene::vendor(
        "{ type: claude, apiTokens: [sk-gateway] }",
        &[("tollgate.dev/timeout-response-head", SHORT)],
    );
    let (mut request, _) = ordered(
        "stall-head",
        r#"{"model":"claude-sonnet-4","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#,
    );
    *request.uri_mut() = "/v1/messages".parse().unwrap();
    let answer = send(scene.gateway.http, request).await.unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json()["type"], "error", "{}", answer.text());
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("response_head"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn retries_do_not_prolong_the_total() {
    let scene = Scene::plain(&[
        ("higress.io/timeout", "1"),
        (
            "higress.io/proxy-next-upstream",
            "error,timeout,http_503,non_idempotent",
        ),
        ("higress.io/proxy-next-upstream-tries", "5"),
    ]);
    let (answer, _, took) = hang(&scene, "stall-head", CHAT).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(took < Duration::from_secs(1) + SLACK, "{took:?}");
}
