//! What is charged in every dialect, who is refused, and reservations.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::usage::{Source, Tokens};
use tollgate_plugin::Plugin;

use crate::testing::{Outcome, compiled, fault, get, post, run, run_left, run_with};

fn limit(tokens: u64, more: Value) -> Arc<dyn Plugin> {
    let mut config = json!({"rule_name": "r", "global_threshold": {"token_per_minute": tokens}});
    let members = more.as_object().cloned().unwrap_or_default();
    config.as_object_mut().unwrap().extend(members);
    compiled("ai-token-ratelimit", &config).unwrap()
}

fn answer(content_type: &str, text: &str) -> Response {
    let response = http::Response::builder().header("content-type", content_type);
    response.body(Body::bytes(text.to_owned())).unwrap()
}

async fn ask(plugin: &Arc<dyn Plugin>, content_type: &str, text: &str) -> Outcome {
    let vendor = |_: &Request| answer(content_type, text);
    run_with(plugin, post("/v1/chat/completions", &[], "{}"), &vendor).await
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

#[tokio::test(start_paused = true)]
async fn every_dialect_is_charged_what_it_says_streamed_or_not() {
    let chunk = |value: Value| format!("data: {value}\n\n");
    let openai = json!({"usage": {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}});
    let responses = json!({"usage": {"input_tokens": 6, "output_tokens": 4, "total_tokens": 10}});
    let anthropic = json!({"type": "message", "usage": {"input_tokens": 6, "output_tokens": 4, "cache_read_input_tokens": 99}});
    let gemini =
        json!({"usageMetadata": {"promptTokenCount": 6, "candidatesTokenCount": 4, "totalTokenCount": 10}});
    let embeddings = json!({"usage": {"prompt_tokens": 10, "total_tokens": 10}});
    let deltas = chunk(json!({"choices": [{"delta": {"content": "a"}}]}));
    let cases = [
        ("chat", JSON, openai.to_string()),
        (
            "chat stream",
            EVENTS,
            format!("{deltas}{}data: [DONE]\n\n", chunk(openai.clone())),
        ),
        ("responses", JSON, responses.to_string()),
        (
            "responses stream",
            EVENTS,
            chunk(json!({"type": "response.completed", "response": responses})),
        ),
        ("messages", JSON, anthropic.to_string()),
        (
            "messages stream",
            EVENTS,
            format!(
                "{}{}",
                chunk(
                    json!({"type": "message_start", "message": {"usage": {"input_tokens": 6, "output_tokens": 1}}})
                ),
                chunk(json!({"type": "message_delta", "usage": {"output_tokens": 4}}))
            ),
        ),
        ("gemini", JSON, gemini.to_string()),
        (
            "gemini stream",
            EVENTS,
            format!("{deltas}{}", chunk(gemini.clone())),
        ),
        ("embeddings", JSON, embeddings.to_string()),
    ];
    for (name, content_type, text) in cases {
        // Two answers of ten make twenty: not above the limit, the third is let in; then it is.
        let plugin = limit(20, json!({"rule_name": name}));
        for _ in 0..3 {
            let outcome = ask(&plugin, content_type, &text).await;
            assert_eq!(
                (outcome.status, outcome.text.as_str()),
                (200, text.as_str()),
                "{name}"
            );
        }
        let refused = ask(&plugin, content_type, &text).await;
        assert_eq!((refused.status, refused.forwarded), (429, false), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_back() {
    let plugin = limit(1, json!({"rejected_msg": "no tokens left"}));
    let text = json!({"usage": {"prompt_tokens": 6, "completion_tokens": 4}}).to_string();
    assert_eq!(ask(&plugin, JSON, &text).await.status, 200);
    let refused = ask(&plugin, JSON, &text).await;
    assert_eq!((refused.status, refused.text.as_str()), (429, "no tokens left"));
    assert_eq!(refused.headers["x-tokenratelimit-reset"], "60");
    assert_eq!(&**refused.record.details.borrow(), "ai-token-ratelimit.rejected");
    let log = refused.record.ai_log_text().unwrap();
    assert!(log.contains("token_ratelimit_status"), "{log}");
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(ask(&plugin, JSON, &text).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn answers_without_usage_and_errors_cost_nothing() {
    let plugin = limit(1, json!({}));
    for _ in 0..5 {
        assert_eq!(ask(&plugin, "text/plain", "ok").await.status, 200);
        let vendor = |_: &Request| {
            let mut response = answer(JSON, r#"{"usage":{"prompt_tokens":9,"completion_tokens":9}}"#);
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        };
        let failed = run_with(&plugin, post("/v1/chat/completions", &[], "{}"), &vendor).await;
        assert_eq!(failed.status, 502);
    }
}

const RESERVE: &str = "tollgate.dev/admission";

#[tokio::test(start_paused = true)]
async fn reserved_requests_at_once_do_not_overrun_the_limit() {
    let plugin = limit(100, json!({RESERVE: "reserve"}));
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"abcd"}]}"#;
    let usage = r#"{"usage":{"prompt_tokens":1,"completion_tokens":9,"total_tokens":10}}"#;
    let gate = Rc::new(tokio::sync::Semaphore::new(0));
    // All of them are under way before the first is answered.
    let local = tokio::task::LocalSet::new();
    let outcomes = local.run_until(async {
        let requests = (0..200).map(|_| {
            let (plugin, gate) = (plugin.clone(), gate.clone());
            async move {
                let slow =
                    crate::testing::run_slow(&plugin, post("/v1/chat/completions", &[], body), &gate, || {
                        answer(JSON, usage)
                    });
                slow.await.status
            }
        });
        let all = futures_util::future::join_all(requests);
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(200);
        };
        futures_util::future::join(all, open).await.0
    });
    let admitted = outcomes.await.into_iter().filter(|status| *status == 200).count();
    assert_eq!(admitted, 10);
    assert_eq!(
        run(&plugin, post("/v1/chat/completions", &[], body)).await.status,
        429
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_reservation_does_not_use_goes_back() {
    let plugin = limit(100, json!({RESERVE: "reserve"}));
    let body = r#"{"max_tokens":90,"messages":[{"role":"user","content":"abcd"}]}"#;
    let request = || post("/v1/chat/completions", &[], body);
    for _ in 0..20 {
        let usage = |_: &Request| answer(JSON, r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
        assert_eq!(
            run_with(&plugin, request(), &usage).await.status,
            200,
            "2 of 91 are used"
        );
        let failed = |_: &Request| {
            let mut response = answer(JSON, "{}");
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        };
        let refused = run_with(&plugin, request(), &failed).await.status;
        assert!(refused == 502 || refused == 429);
        if refused == 429 {
            return;
        }
    }
    panic!("forty tokens are used: ninety do not fit any more");
}

#[tokio::test]
async fn no_body_reserves_nothing_and_a_wrong_admission_is_told() {
    let plugin = limit(1, json!({RESERVE: "reserve"}));
    for _ in 0..3 {
        assert_eq!(run(&plugin, get("/v1/models", &[])).await.status, 200);
    }
    let config = json!({"rule_name": "r", "global_threshold": {"token_per_day": 1}, RESERVE: "yes"});
    assert_eq!(
        fault("ai-token-ratelimit", &config),
        "tollgate.dev/admission: must be check or reserve"
    );
}

#[tokio::test(start_paused = true)]
async fn rounds_cost_though_the_client_left_between_them() {
    let body = r#"{"max_tokens":1}"#;
    let spent = Tokens {
        input: 60,
        output: 40,
        total: 100,
        ..Tokens::default()
    };
    for admission in ["check", "reserve"] {
        let plugin = limit(50, json!({RESERVE: admission}));
        let request = || post("/v1/chat/completions", &[], body);
        run_left(&plugin, request(), spent).await;
        assert_eq!(run(&plugin, request()).await.status, 429, "{admission}");
        // What was reserved goes back where nothing was spent.
        let plugin = limit(50, json!({RESERVE: admission, "rule_name": "none"}));
        run_left(
            &plugin,
            post("/v1/chat/completions", &[], r#"{"max_tokens":45}"#),
            Tokens::default(),
        )
        .await;
        assert_eq!(run(&plugin, request()).await.status, 200, "{admission}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_model_answered_is_not_estimated() {
    let plugin = limit(1, json!({}));
    for (request, source) in [
        (get("/api/items", &[]), None),
        (post("/api/items", &[], "{}"), None),
        (post("/v1/chat/completions", &[], "{}"), Some(Source::Estimated)),
    ] {
        let items = |_: &Request| answer(JSON, r#"{"content":"abcdefgh"}"#);
        let outcome = run_with(&plugin, request, &items).await;
        assert_eq!(
            (outcome.status, outcome.record.usage.borrow().source),
            (200, source)
        );
    }
    assert_eq!(run(&plugin, get("/api/items", &[])).await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn the_prompt_is_estimated_where_its_body_is_at_hand() {
    let body = json!({"messages": [{"role": "user", "content": "a".repeat(40)}]}).to_string();
    let streamed = || {
        let mut request = post("/v1/chat/completions", &[], "");
        let piece = http_body::Frame::data(bytes::Bytes::from(body.clone()));
        let pieces = futures_util::stream::iter([Ok::<_, tollgate_base::Error>(piece)]);
        *request.body_mut() = Body::boxed(http_body_util::StreamBody::new(pieces));
        request
    };
    let whole = || post("/v1/chat/completions", &[], body.clone());
    let cases: [(Value, &dyn Fn() -> Request, u64); 3] = [
        (json!({}), &whole, 10),
        // Passing through, it is known to nobody.
        (json!({}), &streamed, 0),
        // A reservation has read it.
        (json!({RESERVE: "reserve"}), &streamed, 10),
    ];
    let answers = [
        (JSON, r#"{"content":"abcdefgh"}"#),
        (EVENTS, "data: {\"content\":\"abcdefgh\"}\n\n"),
    ];
    for (more, request, input) in cases {
        let plugin = limit(5000, more.clone());
        for (content_type, text) in answers {
            let outcome = run_with(&plugin, request(), &|_: &Request| answer(content_type, text)).await;
            let tokens = outcome.record.usage.borrow().tokens;
            assert_eq!((tokens.input, tokens.output), (input, 2), "{more} {text}");
        }
    }
}
