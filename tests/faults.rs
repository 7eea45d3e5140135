//! What a client, the log and the metrics get of each thing that a vendor can do wrong.

use http::StatusCode;
use serde_json::Value;
use tollgate_mock_llm::{Options, RefusingPort, Tls};
use tollgate_testkit::client::{Answer, send};

use crate::support::{
    CHAT, CHAT_PATH, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, documents, flags, gateway, ingress,
    ordered, raw_server, towards, verbose_log,
};

/// The scenes that every fault is tried on: the plain route, and the one with `ai-proxy`.
fn both() -> [(&'static str, Scene); 2] {
    [("plain", Scene::plain(&[])), ("ai-proxy", Scene::openai(&[]))]
}

/// The same request sent to the vendor itself.
async fn direct(scene: &Scene, fault: &str, body: &str) -> Answer {
    send(scene.mock.addr(), ordered(fault, body).0).await.unwrap()
}

/// The error object of one of our own answers.
fn own_error(answer: &Answer) -> Value {
    let error = answer.json()["error"].clone();
    assert!(
        error["message"].is_string() && error["type"].is_string(),
        "{}",
        answer.text()
    );
    error
}

#[tokio::test]
async fn a_vendors_error_keeps_its_status_headers_and_body() {
    for (name, scene) in both() {
        let codes = [
            400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529,
        ];
        for code in codes {
            let fault = code.to_string();
            let vendors = direct(&scene, &fault, CHAT).await;
            let (answer, line) = scene.chat(&fault, CHAT).await;
            assert_eq!(answer.status.as_u16(), code, "{name}");
            assert_eq!(answer.body, vendors.body, "{name} {code}");
            assert_eq!(
                answer.header("content-type"),
                vendors.header("content-type"),
                "{name} {code}"
            );
            assert_eq!(line["termination"], "completed", "{name} {line}");
            assert_eq!(line["details"], "via_upstream", "{name} {line}");
        }
        scene.gateway.terminated("completed", codes.len() as f64).await;
    }
}

#[tokio::test]
async fn retry_after_reaches_the_client_in_every_spelling() {
    for (name, scene) in both() {
        for (fault, header) in [
            ("429;retry-after=7", "retry-after"),
            ("429;retry-after-ms=1500", "retry-after-ms"),
            ("503;retry-after-date=60", "retry-after"),
        ] {
            let (answer, _) = scene.chat(fault, CHAT).await;
            assert!(
                !answer.header(header).is_empty(),
                "{name} {fault}: {:?}",
                answer.headers
            );
            if header == "retry-after-ms" || fault.contains("=7") {
                assert_eq!(
                    answer.header(header),
                    direct(&scene, fault, CHAT).await.header(header),
                    "{name}"
                );
            }
        }
    }
}

#[tokio::test]
async fn odd_whole_answers_pass_as_they_are() {
    let faults = [
        "html;code=502",
        "html;code=200",
        "empty",
        "error-200",
        "content-type",
        "garbage",
        "gzip",
        "deflate",
        "br",
        "zstd",
    ];
    for (name, scene) in both() {
        for fault in faults {
            let vendors = direct(&scene, fault, CHAT).await;
            let (answer, line) = scene.chat(fault, CHAT).await;
            assert_eq!(answer.status, vendors.status, "{name} {fault}");
            assert_eq!(answer.body, vendors.body, "{name} {fault}");
            for header in ["content-type", "content-encoding"] {
                assert_eq!(answer.header(header), vendors.header(header), "{name} {fault}");
            }
            assert_eq!(answer.cut, None, "{name} {fault}");
            assert_eq!(line["termination"], "completed", "{name} {fault}: {line}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_comes_encoded_unasked_is_translated_all_the_same() {
    let scene = Scene::vendor("{ type: claude, apiTokens: [sk-gateway] }", &[]);
    // What differs from answer to answer.
    let lasting = |answer: &Answer| {
        let events = answer.events();
        let texts = if events.is_empty() {
            vec![answer.text()]
        } else {
            events
        };
        let without_times = |text: String| match serde_json::from_str::<Value>(&text) {
            Ok(mut event) => {
                event["created"] = Value::Null;
                event
            }
            Err(_) => Value::String(text),
        };
        texts.into_iter().map(without_times).collect::<Vec<_>>()
    };
    for body in [CHAT, CHAT_STREAM] {
        let (healthy, _) = scene.chat("", body).await;
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let (answer, line) = scene.chat(coding, body).await;
            assert_eq!(answer.status, 200, "{coding}: {}", answer.text());
            assert_eq!(lasting(&answer), lasting(&healthy), "{coding}");
            assert!(!answer.headers.contains_key("content-encoding"), "{coding}");
            assert_eq!(line["termination"], "completed", "{coding}: {line}");
        }
    }
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let (answer, line) = scene.chat(&format!("{coding},cut;how=end"), CHAT_STREAM).await;
        assert!(!answer.text().contains("[DONE]"), "{coding}: {}", answer.text());
        assert_ne!(line["termination"], "completed", "{coding}: {line}");
    }
}

#[tokio::test]
async fn a_compressed_answer_that_passes_and_stops_too_soon_is_cut_off() {
    let scene = Scene::plain(&[]);
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let (answer, line) = scene.chat(&format!("{coding},cut;how=end"), CHAT_STREAM).await;
        assert!(answer.cut.is_some(), "{coding}: a clean end");
        assert_eq!(line["termination"], "upstream_cut", "{coding}: {line}");
        assert!(flags(&line["flags"]).contains(&"UC"), "{coding}: {line}");
    }
}

#[tokio::test]
async fn no_answer_is_a_503_that_names_the_broken_connection() {
    for (name, scene) in both() {
        for fault in ["reset", "close"] {
            let (answer, line) = scene.chat(fault, CHAT).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{name} {fault}");
            let message = own_error(&answer)["message"].as_str().unwrap().to_owned();
            assert!(
                message.contains("connection termination"),
                "{name} {fault}: {message}"
            );
            assert!(flags(&line["flags"]).contains(&"UC"), "{name} {fault}: {line}");
            assert_eq!(line["termination"], "upstream_error", "{name} {fault}: {line}");
        }
        scene.gateway.terminated("upstream_error", 2.0).await;
        assert_eq!(
            scene.chat("", CHAT).await.0.status,
            200,
            "{name}: the next request is served"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_is_503_uf() {
    let port = RefusingPort::new().unwrap();
    let gateway = towards(port.addr(), &[]);
    let (request, id) = ordered("", CHAT);
    let answer = send(gateway.http, request).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let message = own_error(&answer)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("connection failure"), "{message}");
    assert!(
        !answer.text().contains(&port.addr().to_string()),
        "addresses are the operator's: {message}"
    );
    let line = gateway.line_of(&id);
    assert!(flags(&line["flags"]).contains(&"UF"), "{line}");
    assert_eq!(line["termination"], "upstream_error", "{line}");
    assert_eq!(line["cluster"], "outbound|80||mock.static", "{line}");
    let failure = line["failure"].as_str().unwrap();
    assert!(failure.to_lowercase().contains("refused"), "{failure}");
    gateway.terminated("upstream_error", 1.0).await;
}

#[tokio::test]
async fn a_cluster_without_endpoints_is_503_uh() {
    let text = documents(&[
        bridge(&[]),
        ingress("api", "/", "nowhere.static", &[]),
        verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let (request, id) = ordered("", CHAT);
    let answer = send(gateway.http, request).await.unwrap();
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text()
    );
    let line = gateway.line_of(&id);
    assert!(["UH", "NC"].contains(&line["flags"].as_str().unwrap()), "{line}");
}

#[tokio::test]
async fn a_host_that_does_not_resolve_is_503() {
    let bridge = "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata:\n  name: default\n  namespace: \
                  higress-system\nspec:\n  registries:\n  - { name: lost, type: dns, domain: no-such-host.invalid, port: 80 }\n";
    let text = documents(&[
        bridge.to_owned(),
        ingress("api", "/", "lost.dns", &[]),
        verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let (request, id) = ordered("", CHAT);
    let answer = send(gateway.http, request).await.unwrap();
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text()
    );
    let line = gateway.line_of(&id);
    let found = flags(&line["flags"]);
    assert!(found.contains(&"UF") || found.contains(&"UH"), "{line}");
}

#[tokio::test]
async fn what_is_not_http_is_502_upe() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1 two hundred OK\r\n\r\n",
    ] {
        let address = raw_server(bytes).await;
        let gateway = towards(address, &[]);
        let (request, id) = ordered("", CHAT);
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(
            answer.status,
            StatusCode::BAD_GATEWAY,
            "{bytes:?}: {}",
            answer.text()
        );
        assert!(
            own_error(&answer)["message"]
                .as_str()
                .unwrap()
                .contains("protocol error"),
            "{}",
            answer.text()
        );
        let line = gateway.line_of(&id);
        assert!(flags(&line["flags"]).contains(&"UPE"), "{line}");
        assert_eq!(line["termination"], "upstream_error", "{line}");
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_cut_is_never_whole_for_the_client() {
    for (name, scene) in both() {
        for fault in ["length-short", "cut-body;after=10"] {
            let (request, id) = ordered(fault, CHAT);
            // Nothing at all if the cut came before the head went out, else a reset after the part that came.
            if let Ok(answer) = send(scene.gateway.http, request).await {
                assert!(answer.cut.is_some(), "{name} {fault}: {}", answer.text());
            }
            let line = scene.gateway.line_of(&id);
            assert!(flags(&line["flags"]).contains(&"UC"), "{name} {fault}: {line}");
            assert_eq!(line["termination"], "upstream_cut", "{name} {fault}: {line}");
        }
        scene.gateway.terminated("upstream_cut", 2.0).await;
    }
}

#[tokio::test]
async fn surplus_bytes_behind_an_answer_harm_nobody() {
    for (name, scene) in both() {
        let (answer, _) = scene.chat("length-long", CHAT).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.json()["object"], "chat.completion", "{name}");
        for _ in 0..3 {
            assert_eq!(
                scene.chat("", CHAT).await.0.status,
                200,
                "{name}: the next request"
            );
        }
    }
}

/// An error event of OpenAI's dialect at the end, whole events before it, and no end marker.
fn ends_in_an_error_event(what: &str, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{what}");
    let text = answer.text();
    assert!(!text.contains("[DONE]"), "{what}: {text}");
    assert!(!text.contains(r#""finish_reason":"stop""#), "{what}: {text}");
    let events = answer.events();
    let last: Value = serde_json::from_str(
        events
            .last()
            .unwrap_or_else(|| panic!("{what}: no event: {text}")),
    )
    .unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    assert!(last["error"]["message"].is_string(), "{what}: {text}");
    for event in &events {
        let parsed = serde_json::from_str::<Value>(event);
        assert!(parsed.is_ok(), "{what}: half an event went out: {event:?}");
    }
    last["error"].clone()
}

#[tokio::test]
async fn a_cut_stream_ends_in_an_error_event() {
    for (name, scene) in both() {
        let mut cuts = 0.0;
        for place in ["cut", "cut-in-character", "cut-in-data", "cut-in-data;at=9"] {
            for how in ["close", "reset"] {
                let fault = format!("{place};how={how}");
                let what = format!("{name} {fault}");
                let (answer, line) = scene.chat(&fault, CHAT_STREAM).await;
                let error = ends_in_an_error_event(&what, &answer);
                assert_eq!(error["code"], "upstream_cut", "{what}: {error}");
                assert!(flags(&line["flags"]).contains(&"UC"), "{what}: {line}");
                assert_eq!(line["termination"], "upstream_cut", "{what}: {line}");
                cuts += 1.0;
            }
        }
        scene.gateway.terminated("upstream_cut", cuts).await;
        scene.gateway.terminated("completed", 0.0).await;
    }
}

#[tokio::test]
async fn a_stream_cut_between_tool_arguments_ends_in_an_error_event() {
    let body = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"weather"}],"tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}]}"#;
    for (name, scene) in both() {
        for after in 1..4 {
            let fault = format!("cut-in-arguments;after={after}");
            let (answer, line) = scene.chat(&fault, body).await;
            ends_in_an_error_event(&format!("{name} {fault}"), &answer);
            assert_eq!(line["termination"], "upstream_cut", "{name} {fault}: {line}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_but_cleanly_is_not_taken_for_whole() {
    let scene = Scene::openai(&[]);
    let (answer, line) = scene.chat("cut;how=end", CHAT_STREAM).await;
    ends_in_an_error_event("cut;how=end", &answer);
    assert_eq!(line["termination"], "upstream_cut", "{line}");
}

#[tokio::test]
async fn a_stream_cut_over_h2_ends_in_an_error_event() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "HTTP2")]);
    for fault in ["rst-stream", "goaway-error", "cut;how=stream", "cut;how=reset"] {
        let (answer, line) = scene.chat(fault, CHAT_STREAM).await;
        ends_in_an_error_event(fault, &answer);
        assert_eq!(line["termination"], "upstream_cut", "{fault}: {line}");
    }
    assert_eq!(scene.last().version, http::Version::HTTP_2);
}

#[tokio::test]
async fn a_goaway_without_error_cuts_nothing() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "HTTP2")]);
    let (answer, line) = scene.chat("goaway", CHAT_STREAM).await;
    assert_eq!(
        answer.events().last().map(String::as_str),
        Some("[DONE]"),
        "{}",
        answer.text()
    );
    assert_eq!(line["termination"], "completed", "{line}");
    assert_eq!(
        scene.chat("", CHAT).await.0.status,
        200,
        "the next request goes over a new connection"
    );
}

#[tokio::test]
async fn a_connection_without_close_notify_is_a_whole_answer_if_it_is_whole() {
    let tls = Tls {
        alpn: vec!["http/1.1".to_owned()],
        ..Tls::new(&["vendor.example"]).unwrap()
    };
    let vendor = crate::support::mock(Options {
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
                ("higress.io/proxy-ssl-server-name", "on"),
            ],
        ),
        verbose_log(),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, vendor.authority_pem().unwrap()).unwrap();
    let gateway = start.variable("SSL_CERT_FILE", roots.display()).go().unwrap();
    for body in [CHAT, CHAT_STREAM] {
        let (request, id) = ordered("no-close-notify", body);
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.cut),
            (200, &None),
            "{}",
            answer.text()
        );
        assert_eq!(gateway.line_of(&id)["termination"], "completed");
    }
}

#[tokio::test]
async fn a_cut_messages_stream_ends_in_anthropics_error_event() {
    let mock = crate::support::mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: claude, apiTokens: [sk-gateway] }"),
        verbose_log(),
    ]);
    let scene = Scene {
        gateway: gateway().file("scene.yaml", &text).unwrap().go().unwrap(),
        mock,
    };
    let body = r#"{"model":"claude-sonnet-4","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    for fault in ["cut", "cut-in-data", "cut-in-character", "cut;how=reset"] {
        let (mut request, id) = ordered(fault, body);
        *request.uri_mut() = "/v1/messages".parse().unwrap();
        request
            .headers_mut()
            .insert("anthropic-version", "2023-06-01".parse().unwrap());
        let answer = send(scene.gateway.http, request).await.unwrap();
        let text = answer.text();
        assert_eq!(answer.status, 200, "{fault}: {text}");
        assert!(!text.contains("message_stop"), "{fault}: {text}");
        assert!(text.contains("event: error\n"), "{fault}: {text}");
        let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
        assert_eq!(last["type"], "error", "{fault}: {text}");
        assert!(last["error"]["message"].is_string(), "{fault}: {text}");
        assert_eq!(
            scene.gateway.line_of(&id)["termination"],
            "upstream_cut",
            "{fault}"
        );
    }
}

#[tokio::test]
async fn a_cut_download_ends_in_a_reset() {
    let scene = Scene::plain(&[]);
    let (mut request, id) = ordered("cut-body;after=10", CHAT);
    *request.uri_mut() = "/echo".parse().unwrap();
    if let Ok(answer) = send(scene.gateway.http, request).await {
        assert!(answer.cut.is_some(), "{}", answer.text());
    }
    assert_eq!(scene.gateway.line_of(&id)["termination"], "upstream_cut");
}

#[tokio::test]
async fn retries_reach_a_healthy_vendor() {
    let retry = [
        ("higress.io/proxy-next-upstream", "http_503,non_idempotent"),
        ("higress.io/proxy-next-upstream-tries", "3"),
    ];
    let scene = Scene::plain(&retry);
    let (answer, line) = scene.chat("503;first=2", CHAT).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(line["attempts"], "3", "{line}");
    assert_eq!(scene.mock.requests().len(), 3);
    let bodies: Vec<_> = scene
        .mock
        .requests()
        .iter()
        .map(|request| request.body.clone())
        .collect();
    assert!(
        bodies.iter().all(|body| body == CHAT),
        "each attempt carries the body"
    );
    assert_eq!(scene.last().path(), CHAT_PATH);
}
