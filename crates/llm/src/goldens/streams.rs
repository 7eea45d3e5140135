//! Goldens of translated streams: `testdata/streams/<vendor>-<client>.sse`, cut at every byte and with every line end,
//! always gives the same events.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::Api;
use crate::providers::Provider;
use crate::providers::wire::Ended;
use crate::translate::{AnswerPlan, OutData, OutEvent};
use bytes::Bytes;
use regex::Regex;
use serde_json::json;
use tollgate_body::SseDecoder;

static CREATED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""created":\d+"#).unwrap());

/// File name, provider, whether the client speaks Anthropic.
fn cases() -> Vec<(&'static str, Provider, bool)> {
    let provider = |config| Provider::parse(&config).unwrap();
    vec![
        (
            "claude-openai",
            provider(json!({"type": "claude", "apiTokens": ["t"]})),
            false,
        ),
        ("openai-claude", provider(json!({"type": "openai"})), true),
        (
            "dashscope-openai",
            provider(json!({"type": "qwen", "apiTokens": ["t"], "qwenEnableCompatible": false})),
            false,
        ),
    ]
}

/// The client's events for a stream that comes in these pieces.
fn translate(provider: &Provider, claude_client: bool, pieces: &[&[u8]]) -> (Vec<OutEvent>, Ended) {
    let plan = AnswerPlan {
        api: Api::Chat,
        model: "mapped-model".into(),
        with_tools: false,
        claude_client,
        original: false,
    };
    let mut translator = plan.stream(provider);
    let mut decoder = SseDecoder::new();
    let mut out = Vec::new();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(event) = decoder.next_event() {
            events.push(event.unwrap());
        }
    }
    events.extend(decoder.finish());
    for event in events {
        if let Some(data) = event.data() {
            translator.event(event.event().unwrap_or_default(), &data, &mut out);
        }
    }
    let ended = translator.end(&mut out);
    (out, ended)
}

fn text(events: &[OutEvent]) -> String {
    let lines: Vec<String> = events
        .iter()
        .map(|event| match &event.data {
            OutData::Done => "[DONE]".to_owned(),
            OutData::Json(value) => format!(
                "{}{value}",
                event.name.map_or(String::new(), |name| format!("{name} "))
            ),
        })
        .collect();
    CREATED
        .replace_all(&lines.join("\n"), "\"created\":0")
        .into_owned()
}

#[test]
fn every_cut_and_every_line_end_gives_the_same_events() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/streams");
    for (name, provider, claude_client) in cases() {
        let whole = fs::read_to_string(folder.join(format!("{name}.sse"))).unwrap();
        let (events, ended) = translate(&provider, claude_client, &[whole.as_bytes()]);
        assert_eq!(ended, Ended::Whole);
        let expected = text(&events);
        insta::with_settings!({
            snapshot_path => folder.clone(), prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_snapshot!(name, expected);
        });
        for line_end in ["\n", "\r\n", "\r"] {
            let spelled = whole.replace('\n', line_end);
            let bytes = spelled.as_bytes();
            // The decoder has its own test of every cut; here a sample, and then all of them at once.
            for cut in (0..bytes.len()).step_by(17) {
                let (again, _) = translate(&provider, claude_client, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(
                    text(&again),
                    expected,
                    "{name} cut at {cut}, line end {line_end:?}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(text(&translate(&provider, claude_client, &single).0), expected);
        }
    }
}

#[test]
fn a_stream_that_stops_anywhere_before_its_end_is_never_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/streams");
    for (name, provider, claude_client) in cases() {
        let whole = fs::read_to_string(folder.join(format!("{name}.sse"))).unwrap();
        let says_so = match name {
            "claude-openai" => "\"stop_reason\":\"tool_use\"",
            "openai-claude" => "\"finish_reason\":\"tool_calls\"",
            _ => "\"finish_reason\":\"stop\"",
        };
        let complete = whole.find(says_so).unwrap();
        let boundaries = whole.match_indices("\n\n").map(|(at, _)| at + 2);
        for end in boundaries.filter(|end| *end <= complete) {
            let (events, ended) = translate(&provider, claude_client, &[&whole.as_bytes()[..end]]);
            assert_eq!(ended, Ended::Truncated, "{name} up to {end}");
            let so_far = text(&events);
            assert!(
                !so_far.contains("[DONE]") && !so_far.contains("message_stop"),
                "{name} up to {end}"
            );
        }
    }
}
