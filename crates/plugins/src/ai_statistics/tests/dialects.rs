//! Usage in every dialect and in every shape in which vendors send it: counted once, and right.

use std::io::Write;

use serde_json::json;
use tollgate_observe::usage::{Source, Tokens};

use super::{Scene, Step, play};

/// One way to tell usage.
struct Case {
    name: &'static str,
    path: &'static str,
    /// Events of a stream, or a plain answer.
    events: &'static [&'static str],
    streamed: bool,
    model: Option<&'static str>,
    /// Input, output, total, cached, reasoning.
    tokens: [u64; 5],
}

const CHAT: &str = "/v1/chat/completions";

const CASES: &[Case] = &[
    Case {
        name: "chat",
        path: CHAT,
        events: &[
            r#"{"id":"1","model":"gpt-4o","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"completion_tokens_details":{"reasoning_tokens":25},"prompt_tokens_details":{"cached_tokens":80}}}"#,
        ],
        streamed: false,
        model: Some("gpt-4o"),
        tokens: [100, 50, 150, 80, 25],
    },
    Case {
        name: "chat, usage null in every chunk but the last",
        path: CHAT,
        events: &[
            r#"{"id":"1","model":"gpt-4o","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            r#"{"id":"1","model":"gpt-4o","choices":[{"delta":{"content":"hi"}}],"usage":null}"#,
            r#"{"id":"1","model":"gpt-4o","choices":[{"delta":{"content":" \"usage\":{\"prompt_tokens\":9}"}}],"usage":null}"#,
            r#"{"id":"1","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":8,"total_tokens":13}}"#,
            "[DONE]",
        ],
        streamed: true,
        model: Some("gpt-4o"),
        tokens: [5, 8, 13, 0, 0],
    },
    Case {
        name: "chat, cumulative and the last null",
        path: CHAT,
        events: &[
            r#"{"model":"qwen","choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#,
            r#"{"model":"qwen","choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
            r#"{"model":"qwen","choices":[{"delta":{"content":"c"}}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#,
            r#"{"model":"qwen","choices":[],"usage":null}"#,
        ],
        streamed: true,
        model: Some("qwen"),
        tokens: [5, 3, 8, 0, 0],
    },
    Case {
        name: "chat, after the end",
        path: CHAT,
        events: &[
            r#"{"model":"m","choices":[{"delta":{"content":"a"}}]}"#,
            "[DONE]",
            r#"{"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#,
        ],
        streamed: true,
        model: Some("m"),
        tokens: [5, 1, 6, 0, 0],
    },
    Case {
        name: "chat, in the last choice",
        path: CHAT,
        events: &[
            r#"{"model":"kimi","choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"model":"kimi","choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}]}"#,
        ],
        streamed: true,
        model: Some("kimi"),
        tokens: [5, 1, 6, 0, 0],
    },
    Case {
        name: "DeepSeek's cache",
        path: CHAT,
        events: &[
            r#"{"model":"deepseek-chat","usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6,"prompt_cache_hit_tokens":2,"prompt_cache_miss_tokens":3}}"#,
        ],
        streamed: false,
        model: Some("deepseek-chat"),
        tokens: [5, 1, 6, 2, 0],
    },
    Case {
        name: "completions",
        path: "/v1/completions",
        events: &[
            r#"{"model":"m","choices":[{"text":"a","index":0}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
        ],
        streamed: false,
        model: Some("m"),
        tokens: [3, 4, 7, 0, 0],
    },
    Case {
        name: "embeddings",
        path: "/v1/embeddings",
        events: &[
            r#"{"object":"list","data":[{"embedding":[0.1,-0.2]}],"model":"e","usage":{"prompt_tokens":5,"total_tokens":5}}"#,
        ],
        streamed: false,
        model: Some("e"),
        tokens: [5, 0, 5, 0, 0],
    },
    Case {
        name: "images",
        path: "/v1/images/generations",
        events: &[
            r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":10,"output_tokens":4160,"total_tokens":4170,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}}"#,
        ],
        streamed: false,
        model: None,
        tokens: [10, 4160, 4170, 0, 0],
    },
    Case {
        name: "responses",
        path: "/v1/responses",
        events: &[
            r#"{"id":"r","model":"gpt-5","output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":4},"output_tokens":87,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":123}}"#,
        ],
        streamed: false,
        model: Some("gpt-5"),
        tokens: [36, 87, 123, 4, 3],
    },
    Case {
        name: "responses, streamed",
        path: "/v1/responses",
        events: &[
            r#"{"type":"response.created","response":{"id":"r","model":"gpt-5","usage":null}}"#,
            r#"{"type":"response.output_text.delta","delta":"a"}"#,
            r#"{"type":"response.output_text.delta","delta":"b"}"#,
            r#"{"type":"response.completed","response":{"id":"r","model":"gpt-5","usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}"#,
        ],
        streamed: true,
        model: Some("gpt-5"),
        tokens: [3, 4, 7, 0, 0],
    },
    Case {
        name: "messages",
        path: "/v1/messages",
        events: &[
            r#"{"id":"m","type":"message","model":"claude","content":[{"type":"text","text":"a"}],"usage":{"input_tokens":10,"output_tokens":20,"cache_read_input_tokens":5,"cache_creation_input_tokens":2}}"#,
        ],
        streamed: false,
        model: Some("claude"),
        tokens: [10, 20, 37, 5, 0],
    },
    Case {
        name: "messages, streamed",
        path: "/v1/messages",
        events: &[
            r#"{"type":"message_start","message":{"id":"m","model":"claude","usage":{"input_tokens":10,"output_tokens":1,"cache_read_input_tokens":5,"cache_creation_input_tokens":2}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":20}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        streamed: true,
        model: Some("claude"),
        tokens: [10, 20, 37, 5, 0],
    },
    Case {
        name: "Gemini",
        path: "/v1beta/models/gemini-2.5:generateContent",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"thoughtsTokenCount":5,"cachedContentTokenCount":1,"totalTokenCount":15},"modelVersion":"gemini-2.5-flash","responseId":"x"}"#,
        ],
        streamed: false,
        model: Some("gemini-2.5-flash"),
        tokens: [4, 6, 15, 1, 5],
    },
    Case {
        name: "Gemini, streamed",
        path: "/v1beta/models/gemini-2.5:streamGenerateContent?alt=sse",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"gemini-2.5-flash"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"b"}]}}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"totalTokenCount":10},"modelVersion":"gemini-2.5-flash"}"#,
        ],
        streamed: true,
        model: Some("gemini-2.5-flash"),
        tokens: [4, 6, 10, 0, 0],
    },
    Case {
        name: "Gemini, streamed as an array",
        path: "/v1beta/models/gemini-2.5:streamGenerateContent",
        events: &[
            "[{\n  \"candidates\": [{\"content\": {\"parts\": [{\"text\": \"a\\\"]}\"}]}}],\n  \"usageMetadata\": {\"promptTokenCount\": 4, \"totalTokenCount\": 4},\n  \"modelVersion\": \"gemini-2.5-flash\"\n}\n",
            ",\r\n{\n  \"candidates\": [{\"content\": {\"parts\": [{\"text\": \"b\"}]}}],\n  \"usageMetadata\": {\"promptTokenCount\": 4, \"candidatesTokenCount\": 6, \"totalTokenCount\": 10},\n  \"modelVersion\": \"gemini-2.5-flash\"\n}\n]",
        ],
        streamed: false,
        model: Some("gemini-2.5-flash"),
        tokens: [4, 6, 10, 0, 0],
    },
    Case {
        name: "DashScope's own",
        path: "/api/v1/services/aigc/text-generation/generation",
        events: &[
            r#"{"output":{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]},"usage":{"input_tokens":7,"output_tokens":9,"total_tokens":16},"request_id":"q"}"#,
        ],
        streamed: false,
        model: None,
        tokens: [7, 9, 16, 0, 0],
    },
    Case {
        name: "DashScope's own, streamed",
        path: "/api/v1/services/aigc/text-generation/generation",
        events: &[
            r#"{"output":{"choices":[{"message":{"content":"a"},"finish_reason":"null"}]},"usage":{"input_tokens":7,"output_tokens":1,"total_tokens":8}}"#,
            r#"{"output":{"choices":[{"message":{"content":"b"},"finish_reason":"stop"}]},"usage":{"input_tokens":7,"output_tokens":9,"total_tokens":16}}"#,
        ],
        streamed: true,
        model: None,
        tokens: [7, 9, 16, 0, 0],
    },
];

/// The answer as bytes.
fn bytes_of(case: &Case, line_end: &str) -> Vec<u8> {
    if !case.streamed {
        return case.events.concat().into_bytes();
    }
    let framed = case.events.iter().map(|event| {
        let name = serde_json::from_str::<serde_json::Value>(event)
            .ok()
            .and_then(|event| {
                event["type"]
                    .as_str()
                    .map(|name| format!("event: {name}{line_end}"))
            });
        format!("{}data: {event}{line_end}{line_end}", name.unwrap_or_default())
    });
    framed.collect::<String>().into_bytes()
}

async fn check(case: &Case, answer: Vec<Step>, coding: Option<&'static str>, shape: &str) {
    let mut scene = if case.streamed {
        Scene::stream(json!({}), answer)
    } else {
        Scene {
            answer,
            ..Scene::chat(json!({}))
        }
    };
    scene.path = case.path;
    scene
        .response_headers
        .extend(coding.map(|coding| ("content-encoding", coding)));
    let left = play(scene).await;
    let usage = left.record.usage.borrow();
    let [input, output, total, cached, reasoning] = case.tokens;
    let expected = Tokens {
        input,
        output,
        total,
        cached,
        reasoning,
        cache_written: usage.tokens.cache_written,
    };
    let name = case.name;
    assert_eq!(usage.source, Some(Source::Provider), "{name} {shape}");
    assert_eq!(usage.tokens, expected, "{name} {shape}");
    assert_eq!(usage.model.as_deref(), case.model, "{name} {shape}");
    for (family, sum) in [
        ("input_token", input),
        ("output_token", output),
        ("total_token", total),
    ] {
        let family = format!("route_upstream_model_consumer_metric_{family}{{");
        let counted = left
            .metrics()
            .iter()
            .filter(|line| line.starts_with(&family))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum::<u64>();
        assert_eq!(counted, sum, "{name} {shape} {family}");
    }
}

#[tokio::test(start_paused = true)]
async fn usage_is_counted_once_and_right_in_every_dialect_and_shape() {
    for case in CASES {
        for line_end in ["\n", "\r\n", "\r"] {
            let all = bytes_of(case, line_end);
            for size in [1, 7, 64, all.len()] {
                let frames = all.chunks(size).map(|frame| Step::Bytes(frame.to_vec()));
                check(case, frames.collect(), None, &format!("{line_end:?} {size}")).await;
            }
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes_of(case, "\n")).unwrap();
        let packed = gzip.finish().unwrap();
        for size in [1, 40, packed.len()] {
            let frames = packed.chunks(size).map(|frame| Step::Bytes(frame.to_vec()));
            check(case, frames.collect(), Some("gzip"), &format!("gzip {size}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_hundred_megabytes_is_counted_by_its_end() {
    const PIECE: usize = 1024 * 1024;
    let mut answer = vec![Step::Say(
        r#"{"model":"m","choices":[{"message":{"content":""#.to_owned(),
    )];
    answer.extend(vec![Step::Bytes(vec![b'a'; PIECE]); 100]);
    answer.push(Step::Say(
        r#""}}],"usage":{"prompt_tokens":5,"completion_tokens":8,"total_tokens":13}}"#.to_owned(),
    ));
    let mut scene = Scene::chat(json!({"attributes": [
        {"key": "answer", "value_source": "response_body", "value": "choices.0.message.content", "apply_to_log": true}]}));
    scene.answer = answer;
    let left = play(scene).await;
    let usage = left.record.usage.borrow();
    assert_eq!(
        (usage.tokens.input, usage.tokens.output, usage.source),
        (5, 8, Some(Source::Provider))
    );
    assert!(left.record.ai_log_text().unwrap().len() < 200_000);
}
