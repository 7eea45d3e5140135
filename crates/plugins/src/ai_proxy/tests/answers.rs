//! What a client gets.

use serde_json::json;

use super::*;

fn claude() -> Arc<dyn Plugin> {
    plugin(json!({"type": "claude", "apiTokens": ["t"]}))
}

fn question() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
}

fn from_claude_client() -> Request {
    post("/v1/messages", &question().to_string())
}

/// Frames of a body until its end or error.
async fn frames(response: Response) -> (String, Option<Error>) {
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(frame) =
        std::future::poll_fn(|context| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), context))
            .await
    {
        match frame {
            Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

#[tokio::test]
async fn an_openai_vendors_answer_keeps_its_bytes() {
    let openai = plugin(json!({"type": "openai"}));
    let odd = "{ \"id\" : 1.0,\r\n \"choices\":[] }";
    let answer = Scripted {
        status: 200,
        content_type: "application/json",
        frames: vec![Ok(odd.into())],
    };
    assert_eq!(
        text_of(run(&openai, &Vendor::answering([answer]), chat(question())).await).await,
        odd
    );
    let stream = ["data: {\"a\":1}\r\n", "\r\n: ping\n\ndata:[DO", "NE]\r\r"];
    let vendor = Vendor::answering([Scripted::events(&stream)]);
    assert_eq!(
        frames(run(&openai, &vendor, chat(question())).await).await.0,
        stream.concat()
    );
}

#[tokio::test]
async fn a_vendors_error_keeps_status_and_body() {
    let error = json!({"error": {"message": "slow down"}});
    for request in [chat(question()), from_claude_client()] {
        let vendor = Vendor::answering([Scripted::json(429, &error)]);
        let response = run(&plugin(json!({"type": "openai"})), &vendor, request).await;
        assert_eq!(response.status(), 429);
        assert_eq!(json_of(response).await, error);
    }
    let created = Vendor::answering([Scripted::json(201, &json!({"odd": 1}))]);
    assert_eq!(
        json_of(run(&claude(), &created, chat(question())).await).await,
        json!({"odd": 1})
    );
}

#[tokio::test]
async fn claudes_answer_for_an_openai_client() {
    let answer = json!({"id": "msg", "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 2, "output_tokens": 1}});
    let response = run(
        &claude(),
        &Vendor::answering([Scripted::json(200, &answer)]),
        chat(question()),
    )
    .await;
    let translated = json_of(response).await;
    assert_eq!(translated["choices"][0]["message"]["content"], "hello");
    assert_eq!(translated["usage"]["total_tokens"], 3);
    let native = Vendor::answering([Scripted::json(200, &answer)]);
    assert_eq!(
        json_of(run(&claude(), &native, from_claude_client()).await).await,
        answer
    );
}

const CLAUDE_STREAM: &[&str] = &[
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"usage\":{\"input_tokens\":2}}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n: keep-alive\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hé\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":1}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
];

#[tokio::test]
async fn claudes_stream_for_an_openai_client() {
    let vendor = Vendor::answering([Scripted::events(CLAUDE_STREAM)]);
    let (text, error) = frames(run(&claude(), &vendor, chat(question())).await).await;
    assert!(error.is_none());
    assert!(text.contains(": keep-alive\n\n"), "comments pass");
    assert!(text.contains("\"delta\":{\"content\":\"hé\"}"), "{text}");
    assert!(text.contains("\"finish_reason\":\"stop\""));
    assert!(
        text.ends_with("\"total_tokens\":3}}\n\ndata: [DONE]\n\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_cut_stream_stays_cut() {
    for last in [Some(Err(())), None] {
        let mut scripted = Scripted::events(&CLAUDE_STREAM[..3]);
        scripted.frames.extend(last);
        let (text, error) =
            frames(run(&claude(), &Vendor::answering([scripted]), chat(question())).await).await;
        assert_eq!(error.unwrap().reason(), "upstream_cut");
        assert!(!text.contains("[DONE]") && !text.contains("\"stop\""), "{text}");
    }
    let half = Scripted::events(&["data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"]);
    let response = run(
        &plugin(json!({"type": "openai"})),
        &Vendor::answering([half]),
        from_claude_client(),
    )
    .await;
    let (text, error) = frames(response).await;
    assert_eq!(error.unwrap().reason(), "upstream_cut");
    assert!(text.contains("text_delta") && !text.contains("message_stop"));
}

#[tokio::test]
async fn an_error_inside_a_stream_is_told_in_the_clients_dialect() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let mut exchange = exchange();
    let vendor = Vendor::answering([Scripted::events(&[CLAUDE_STREAM[0], error])]);
    let response = run_in(&mut exchange, &claude(), &vendor, chat(question()))
        .await
        .unwrap();
    let (text, cut) = frames(response).await;
    assert!(cut.is_none());
    assert!(text.contains("data: {\"error\":{\"message\":\"busy\""), "{text}");
    assert!(!text.contains("[DONE]"));
    assert_eq!(
        exchange.record.termination.get().unwrap().name(),
        "upstream_error"
    );
}

#[tokio::test]
async fn an_openai_stream_for_a_claude_client() {
    let vendor = Vendor::answering([Scripted::events(&[
        "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    ])]);
    let response = run(&plugin(json!({"type": "openai"})), &vendor, from_claude_client()).await;
    let (text, error) = frames(response).await;
    assert!(error.is_none());
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn answers_that_cannot_be_translated_say_so() {
    let cases = [
        (
            chat(question()),
            json!({"type": "error", "error": {"type": "a", "message": "b"}}),
            "failed to process response body: claude response error, error_type: a, error_message: b",
        ),
        (
            chat(question()),
            json!("<html>"),
            "failed to process response body: unable to unmarshal claude response",
        ),
    ];
    for (request, answer, expected) in cases {
        let mut exchange = exchange();
        let vendor = Vendor::answering([Scripted::json(200, &answer)]);
        let response = run_in(&mut exchange, &claude(), &vendor, request).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(
            *exchange.record.details.borrow(),
            "ai-proxy.proc_resp_body_failed"
        );
        assert!(text_of(response).await.starts_with(expected));
    }
    let html = Scripted {
        status: 200,
        content_type: "text/html",
        frames: vec![Ok("<html>".into())],
    };
    let response = run(
        &plugin(json!({"type": "openai"})),
        &Vendor::answering([html]),
        from_claude_client(),
    )
    .await;
    assert_eq!(response.status(), 500);
    assert!(
        text_of(response)
            .await
            .starts_with("failed to convert response to claude format: ")
    );
}

#[tokio::test]
async fn moonshots_usage_moves_and_other_events_keep_their_bytes() {
    let vendor = Vendor::answering([Scripted::events(&[
        "data:  {\"choices\" : [] }\n\n",
        "data: {\"choices\":[{\"index\":0,\"usage\":{\"total_tokens\":1}}]}\n\n",
    ])]);
    let moonshot = plugin(json!({"type": "moonshot", "apiTokens": ["t"]}));
    let (text, _) = frames(run(&moonshot, &vendor, chat(question())).await).await;
    assert_eq!(
        text,
        "data:  {\"choices\" : [] }\n\ndata: {\"choices\":[{\"index\":0}],\"usage\":{\"total_tokens\":1}}\n\n"
    );
}

#[tokio::test]
async fn thinking_is_promoted_for_every_vendor() {
    let openai = plugin(json!({"type": "openai", "promoteThinkingOnEmpty": true}));
    let answer = json!({"choices": [{"message": {"content": "", "reasoning_content": "r"}}]});
    let response = run(
        &openai,
        &Vendor::answering([Scripted::json(200, &answer)]),
        chat(question()),
    )
    .await;
    assert_eq!(
        json_of(response).await,
        json!({"choices": [{"message": {"content": "r"}}]})
    );
}

#[tokio::test]
async fn an_answer_that_is_not_the_vendors_passes() {
    let local = json!({"cached": true});
    let vendor = Vendor::answering([Scripted::json(200, &local)]);
    vendor.is_local.set(true);
    assert_eq!(
        json_of(run(&claude(), &vendor, chat(question())).await).await,
        local
    );
}
