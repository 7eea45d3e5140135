//! However an answer ends, it is counted once, and what the vendor said is what is counted.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_observe::Metrics;
use tollgate_observe::usage::Source;

use super::{Scene, Step, data, delta, play, play_with, say};

fn usage(input: u64, output: u64) -> Step {
    data(
        &json!({"model": "m", "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}}),
    )
}

fn counted(left: &super::Left) -> (Option<Source>, u64, u64) {
    let usage = left.record.usage.borrow();
    let sum = |name: &str| -> u64 {
        let family = format!("route_upstream_model_consumer_metric_{name}{{");
        let lines = left.metrics();
        let values = lines.iter().filter(|line| line.starts_with(&family));
        values
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!(
        (sum("input_token"), sum("output_token")),
        (usage.tokens.input, usage.tokens.output)
    );
    (usage.source, usage.tokens.input, usage.tokens.output)
}

#[tokio::test(start_paused = true)]
async fn the_last_report_counts_whatever_follows() {
    for answer in [
        vec![delta("a"), usage(5, 3), usage(5, 8), say("data: [DONE]\n\n")],
        vec![delta("a"), say("data: [DONE]\n\n"), usage(5, 8)],
        vec![usage(5, 8), Step::Cut],
        vec![
            say("data: {\"model\":\"m\",\"us"),
            say("age\":{\"prompt_tokens\":5,\"completion_to"),
            say("kens\":8,\"total_tokens\":13}}"),
        ],
        vec![usage(5, 8), data(&json!({"usage": null}))],
        vec![usage(5, 8), data(&json!({"error": {"message": "x"}}))],
        vec![say(
            "data: {\"model\":\"m\",\r\ndata: \"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8,\"total_tokens\":13}}\r\n\r\n",
        )],
    ] {
        let left = play(Scene::stream(json!({}), answer.clone())).await;
        assert_eq!(counted(&left), (Some(Source::Provider), 5, 8), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_report_tokens_are_estimated_and_marked() {
    for takes in [None, Some(2)] {
        let mut scene = Scene::stream(json!({}), vec![delta("abcd"), delta("你"), Step::Cut]);
        scene.takes = takes;
        let left = play(scene).await;
        // Four characters of the question, none of them ASCII; `abcd` and one more character of the answer.
        assert_eq!(counted(&left), (Some(Source::Estimated), 4, 2));
        assert_eq!(left.ai_log()["usage_source"], "estimated");
        assert!(
            left.metrics()
                .iter()
                .any(|line| line == "tollgate_usage_tokens_total{source=\"estimated\",type=\"output\"} 2")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_report_is_no_last_word() {
    let start = say(
        "data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
    );
    let text = say("data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"abcdefghijklmnop\"}}\n\n");
    let mut scene = Scene::stream(json!({}), vec![start, text, Step::Cut]);
    scene.path = "/v1/messages";
    assert_eq!(counted(&play(scene).await), (Some(Source::Estimated), 10, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_of_a_model_costs_nothing() {
    let mut refused = Scene::chat(json!({}));
    refused.status = 429;
    refused.answer = vec![say(r#"{"error":{"message":"slow down"}}"#)];
    let mut page = Scene::chat(json!({}));
    (page.path, page.content_type) = ("/index.html", "text/html");
    page.answer = vec![say("<html>content")];
    let mut picture = Scene::chat(json!({}));
    (picture.path, picture.content_type) = ("/v1/files/1/content", "application/octet-stream");
    for scene in [refused, page, picture] {
        let path = scene.path;
        let left = play(scene).await;
        assert_eq!(left.record.usage.borrow().source, None, "{path}");
        assert!(left.metrics().is_empty(), "{path} {:?}", left.metrics());
    }
}

#[tokio::test(start_paused = true)]
async fn two_instances_count_once() {
    let left = play_with(Scene::chat(json!({"enable": true})), Metrics::new(), 2).await;
    assert_eq!(counted(&left), (Some(Source::Provider), 11, 101));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_pays_for_what_the_vendor_reported() {
    let answer = vec![delta("a"), usage(5, 8), Step::Wait(1000), say("data: [DONE]\n\n")];
    for (takes, source) in [
        (0, Source::Estimated),
        (1, Source::Estimated),
        (2, Source::Provider),
    ] {
        let mut scene = Scene::stream(json!({}), answer.clone());
        scene.takes = Some(takes);
        let left = play(scene).await;
        assert_eq!(counted(&left).0, Some(source), "{takes}");
        assert_eq!(left.received.len(), takes);
    }
}

#[tokio::test(start_paused = true)]
async fn frames_pass_as_they_come_and_at_once() {
    let mut scene = Scene::stream(
        json!({"use_default_attributes": true}),
        vec![say("data: {\"a\""), Step::Wait(60_000), say(":1}\n"), say("\n")],
    );
    scene.takes = Some(1);
    let before = tokio::time::Instant::now();
    let left = play(scene).await;
    assert_eq!(left.received, ["data: {\"a\""]);
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn long_answers_keep_memory_bounded_and_their_usage() {
    let config = json!({"value_length_limit": 1000, "attributes": [{"key": "answer", "apply_to_log": true}]});
    let text = "x".repeat(100_000);
    let mut answer: Vec<_> = (0..200).map(|_| delta(&text)).collect();
    answer.push(usage(5, 8));
    let left = play(Scene::stream(config, answer)).await;
    assert_eq!(left.ai_log()["answer"].as_str().unwrap().len(), 1013);
    assert_eq!(counted(&left).0, Some(Source::Provider));
    let mut scene = Scene::chat(json!({}));
    scene.path = "/v1/embeddings";
    scene.answer = vec![say(r#"{"model":"e","data":["#)];
    scene.answer.extend((0..200).map(|_| say("1".repeat(100_000))));
    scene
        .answer
        .push(say(r#"],"usage":{"prompt_tokens":7,"total_tokens":7}}"#));
    let left = play(scene).await;
    assert_eq!(counted(&left), (Some(Source::Provider), 7, 0));
    assert_eq!(left.ai_log()["model"], "e");
}

#[tokio::test(start_paused = true)]
async fn hostile_values_stay_inside_their_places() {
    let long = "m".repeat(100_000);
    let mut scene = Scene::chat(json!({"enable": true}));
    scene.answer = vec![say(
        json!({"id": long, "model": format!("\"}}\n{{evil{long}"), "usage": {"prompt_tokens": u64::MAX, "completion_tokens": 1, "total_tokens": 3}}).to_string(),
    )];
    let left = play(scene).await;
    let log = left.ai_log();
    assert!(log["model"].as_str().unwrap().len() <= 256 && log["chat_id"].as_str().unwrap().len() <= 256);
    let line = left
        .metrics()
        .into_iter()
        .find(|line| line.contains("total_token"))
        .unwrap();
    assert!(line.contains("ai_model=\"\\\"}\\n{evil"), "{line}");
    let state = left.state("wasm.model").unwrap();
    let read: Value = serde_json::from_str(&format!("{{\"model\":\"{state}\"}}")).unwrap();
    assert!(read["model"].as_str().unwrap().starts_with("\"}\n{evil"));
}

#[tokio::test(start_paused = true)]
async fn a_vendor_that_cannot_be_reached_costs_nothing_and_is_noted() {
    let mut scene = Scene::chat(json!({"attributes": [{"key": "question", "apply_to_log": true}]}));
    scene.status = 0;
    let left = play(scene).await;
    assert!(left.metrics().is_empty());
    assert_eq!(
        left.ai_log(),
        json!({"api": "-", "chat_round": 1, "question": "你是谁？"})
    );
}

#[tokio::test(start_paused = true)]
async fn compressed_answers_are_read_and_pass_compressed() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    for streamed in [true, false] {
        let text = if streamed {
            "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8,\"total_tokens\":13}}\n\n"
        } else {
            "{\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8,\"total_tokens\":13}}"
        };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        let compressed = encoder.finish().unwrap();
        let mut scene = if streamed {
            Scene::stream(json!({}), Vec::new())
        } else {
            Scene::chat(json!({}))
        };
        scene.response_headers = vec![("content-encoding", "gzip")];
        scene.answer = compressed
            .chunks(10)
            .map(|part| Step::Bytes(part.to_vec()))
            .collect();
        let left = play(scene).await;
        assert_eq!(counted(&left), (Some(Source::Provider), 5, 8), "{streamed}");
        assert_eq!(left.received.concat(), compressed);
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_count_though_no_answer_follows_them() {
    for status in [0, 500] {
        let from_answer = json!({"key": "model", "value_source": "response_body", "value": "model", "apply_to_log": status == 0});
        let mut scene = Scene::chat(json!({"enable": true, "attributes": [from_answer]}));
        (scene.spends, scene.status) = (Some((7, 3)), status);
        let left = play(scene).await;
        assert_eq!(counted(&left), (Some(Source::Provider), 7, 3), "{status}");
        let log = left.ai_log();
        assert_eq!(
            (&log["model"], &log["total_token"]),
            (&json!("m"), &json!(10)),
            "{status}"
        );
        let plain = left
            .families()
            .into_iter()
            .find(|line| line.starts_with("route_upstream_model_input_token{"));
        assert!(plain.is_some_and(|line| line.ends_with(" 7")), "{status}");
        assert_eq!(left.state("wasm.output_token").as_deref(), Some("3"), "{status}");
        assert_eq!(
            left.tag("gen_ai.usage.total_tokens").as_deref(),
            Some("10"),
            "{status}"
        );
    }
    let mut scene = Scene::chat(json!({"disable_openai_usage": true}));
    (scene.spends, scene.status) = (Some((7, 3)), 0);
    assert_eq!(play(scene).await.families(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn paths_of_vendors_own_are_estimated_too() {
    for (path, source) in [
        ("/api/v3/chat/completions", Some(Source::Estimated)),
        ("/api/paas/v4/chat/completions", Some(Source::Estimated)),
        (
            "/openai/deployments/x/chat/completions?api-version=1",
            Some(Source::Estimated),
        ),
        ("/openai/deployments/x/embeddings", Some(Source::Estimated)),
        (
            "/api/v1/services/aigc/text-generation/generation",
            Some(Source::Estimated),
        ),
        (
            "/api/v1/services/aigc/multimodal-generation/generation",
            Some(Source::Estimated),
        ),
        ("/api/v3/responses", Some(Source::Estimated)),
        ("/anthropic/messages", Some(Source::Estimated)),
        ("/api/items", None),
    ] {
        let mut scene = Scene::chat(json!({}));
        scene.path = path;
        scene.answer = vec![say(r#"{"content":"abcd"}"#)];
        assert_eq!(play(scene).await.record.usage.borrow().source, source, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_gemini_says_before_the_end_is_no_last_word() {
    let chunk = |usage: &Value| {
        data(&json!({"candidates": [{"content": {"parts": [{"text": "abcdefgh"}]}}], "usageMetadata": usage}))
    };
    let first = json!({"promptTokenCount": 9, "cachedContentTokenCount": 4, "totalTokenCount": 9});
    let last = json!({"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14});
    for (answer, expected) in [
        (
            vec![chunk(&first), chunk(&first), Step::Cut],
            (Source::Estimated, 9, 4, 13),
        ),
        (vec![chunk(&first), chunk(&last)], (Source::Provider, 9, 5, 14)),
    ] {
        let mut scene = Scene::stream(json!({}), answer);
        scene.path = "/v1beta/models/gemini-2.5:streamGenerateContent";
        let left = play(scene).await;
        let (source, input, output) = counted(&left);
        let total = left.record.usage.borrow().tokens.total;
        assert_eq!((source.unwrap(), input, output, total), expected);
    }
}

/// An answer of Gemini's `streamGenerateContent` that was not asked for as events.
fn array(pieces: Vec<Step>) -> Scene {
    let mut scene = Scene::chat(json!({"attributes": [
        {"key": "said", "value_source": "response_streaming_body", "value": "candidates.0.content.parts.0.text",
            "rule": "append", "apply_to_log": true}]}));
    scene.path = "/v1beta/models/gemini-2.5:streamGenerateContent";
    scene.content_type = "application/json; charset=UTF-8";
    scene.answer = pieces;
    scene
}

#[tokio::test(start_paused = true)]
async fn an_array_that_grows_is_a_stream_of_its_elements() {
    let element = |text: &str, usage: &Value| {
        json!({"candidates": [{"content": {"parts": [{"text": text}]}}], "usageMetadata": usage}).to_string()
    };
    let none = json!(null);
    let first = json!({"promptTokenCount": 9, "totalTokenCount": 9});
    let last = json!({"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14});
    for (pieces, expected) in [
        // Cut before a report, and before the last one.
        (
            vec![say("[".to_owned() + &element("abcdefgh", &none)), Step::Cut],
            (Source::Estimated, None, 2, "abcdefgh"),
        ),
        (
            vec![
                say("[".to_owned() + &element("abcd", &first)),
                say("\n,\n".to_owned() + &element("efgh", &first) + "\n,\n{\"candidates\""),
                Step::Cut,
            ],
            (Source::Estimated, Some(9), 2, "abcdefgh"),
        ),
        (
            vec![
                say("["),
                Step::Wait(500),
                say(element("abcd", &first)),
                Step::Wait(500),
                say(",".to_owned() + &element("efgh", &last)),
                say("]"),
            ],
            (Source::Provider, Some(9), 5, "abcdefgh"),
        ),
    ] {
        let left = play(array(pieces)).await;
        let (source, input, output) = counted(&left);
        assert_eq!((source, output), (Some(expected.0), expected.2));
        assert!(expected.1.is_none_or(|expected| expected == input), "{input}");
        let log = left.ai_log();
        assert_eq!(
            (&log["said"], &log["response_type"]),
            (&json!(expected.3), &json!("stream"))
        );
        if source == Some(Source::Provider) {
            assert_eq!(log["llm_first_token_duration"], 500, "{log}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_array_of_any_length_is_read_in_bounded_memory() {
    const PIECE: usize = 1024 * 1024;
    let mut pieces = vec![say("[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"")];
    pieces.extend(vec![Step::Bytes(vec![b'a'; PIECE]); 20]);
    pieces.push(say("\"}]}}]}"));
    pieces.extend(vec![say(",{\"candidates\":[]}"); 10_000]);
    pieces.push(say(
        ",{\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":5,\"totalTokenCount\":14}}]",
    ));
    let left = play(array(pieces)).await;
    assert_eq!(counted(&left), (Some(Source::Provider), 9, 5));
    assert!(!left.keeps_a_body());
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_may_end_without_its_blank_line() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    let text =
        "data: {\"model\":\"m\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":8,\"total_tokens\":13}}";
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let mut scene = Scene::stream(json!({}), vec![Step::Bytes(packed.clone())]);
    scene.response_headers = vec![("content-encoding", "gzip")];
    assert_eq!(counted(&play(scene).await), (Some(Source::Provider), 5, 8));
    // What is cut is not read as if it were whole.
    let mut scene = Scene::stream(json!({}), vec![Step::Bytes(packed), Step::Cut]);
    scene.response_headers = vec![("content-encoding", "gzip")];
    assert_eq!(counted(&play(scene).await).0, Some(Source::Estimated));
}
