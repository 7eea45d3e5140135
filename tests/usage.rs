//! What every answer of a vendor costs, told the same way wherever one looks, whichever plugins are there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_mock_llm::Options;
use tollgate_observe::Vocabularies;
use tollgate_testkit::client::{self, Answer, send};

use crate::clients::{python, run_script};
use crate::support::{
    CHAT, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, counted, documents, gateway, higress_config, ingress,
    mock, ordered, verbose_log, wasm_plugin,
};

/// Sums of `tollgate_usage_tokens_total` that are not zero.
async fn tokens(scene: &Scene) -> BTreeMap<String, u64> {
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    let lines = page.lines().filter_map(|line| {
        let (labels, value) = line
            .strip_prefix("tollgate_usage_tokens_total{")?
            .split_once("} ")?;
        Some((labels.to_owned(), value.parse().unwrap()))
    });
    lines.filter(|(_, value)| *value > 0).collect()
}

/// The route `api` with these plugins.
fn scene(plugins: &[String]) -> Scene {
    scene_with("", plugins)
}

/// The same with more settings.
fn scene_with(settings: &str, plugins: &[String]) -> Scene {
    let mock = mock(Options::default());
    let mut parts = vec![
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        higress_config(settings).replace(
            "{\"id\":",
            "{\"ai_log\":\"%FILTER_STATE(wasm.ai_log:PLAIN)%\",\"consumer\":\"%REQ(X-MSE-CONSUMER)%\",\"id\":",
        ),
    ];
    parts.extend_from_slice(plugins);
    Scene {
        gateway: gateway()
            .file("scene.yaml", &documents(&parts))
            .unwrap()
            .go()
            .unwrap(),
        mock,
    }
}

const OPENAI: &str = "{ type: openai, apiTokens: [sk-gateway] }";

#[tokio::test]
async fn answers_are_accounted_for_without_ai_statistics() {
    let scene = scene(&[ai_proxy("api", OPENAI)]);
    let (answer, _) = scene.chat("", CHAT).await;
    let told = answer.json()["usage"].clone();
    let count = |name: &str| told[name].as_u64().unwrap();
    let (input, output) = (count("prompt_tokens"), count("completion_tokens"));
    let sums = |times: u64| {
        BTreeMap::from([
            (r#"source="provider",type="input""#.to_owned(), times * input),
            (r#"source="provider",type="output""#.to_owned(), times * output),
        ])
    };
    assert_eq!(tokens(&scene).await, sums(1));
    scene.chat("", CHAT_STREAM).await;
    scene.chat("gzip", CHAT_STREAM).await;
    assert_eq!(tokens(&scene).await, sums(3));
    scene.chat("429", CHAT).await;
    assert_eq!(tokens(&scene).await, sums(3));
    scene.chat("usage-absent", CHAT_STREAM).await;
    let with_estimate = tokens(&scene).await;
    assert!(with_estimate[r#"source="estimated",type="input""#] > 0);
    assert!(with_estimate[r#"source="estimated",type="output""#] > 0);
}

#[tokio::test]
async fn tokens_of_known_models_are_counted_where_the_vendor_tells_none() {
    let settings = "  tollgate-usage: |\n    tokenizer: openai\n";
    for statistics in [true, false] {
        let mut plugins = vec![ai_proxy("api", OPENAI)];
        if statistics {
            plugins.push(wasm_plugin(
                "ai-statistics",
                "  defaultConfig: { enable: true }\n",
            ));
        }
        let scene = scene_with(settings, &plugins);
        // The vendor counts words and signs, the vocabulary its own pieces: "Who are you?" is 4, and 4 and 3 around it.
        let (answer, _) = scene.chat("", CHAT).await;
        let text = answer.json()["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        let before = tokens(&scene).await;
        scene.chat("usage-absent", CHAT_STREAM).await;
        scene.chat("usage-absent", CHAT).await;
        let after = tokens(&scene).await;
        let said = Vocabularies::load().unwrap().count("gpt-4o", &text).unwrap();
        assert_eq!(after[r#"source="counted",type="input""#], 2 * 11, "{after:?}");
        assert_eq!(
            after[r#"source="counted",type="output""#],
            2 * said,
            "{text}: {after:?}"
        );
        scene
            .chat("usage-absent", &CHAT.replace("gpt-4o", "unknown-model"))
            .await;
        let last = tokens(&scene).await;
        assert_eq!(
            last.keys().filter(|key| key.contains("estimated")).count(),
            2,
            "{last:?}"
        );
        assert_eq!(
            last.keys().filter(|key| key.contains("provider")).count(),
            before.len()
        );
    }
}

/// Asks Gemini in its own dialect, with a fault ordered from the mock.
async fn ask_gemini(scene: &Scene, query: &str, fault: &str) -> (Answer, Value) {
    let (mut request, id) = ordered(fault, r#"{"contents":[{"parts":[{"text":"Who are you?"}]}]}"#);
    let path = format!("/v1beta/models/gemini-2.5-flash:streamGenerateContent{query}");
    *request.uri_mut() = path.parse().unwrap();
    let answer = client::open(scene.gateway.http, request)
        .await
        .unwrap()
        .finish()
        .await;
    (answer, scene.gateway.line_of(&id))
}

/// The tokens that a line tells: source, input, output.
fn told(line: &Value) -> (String, u64, u64) {
    let log: Value = serde_json::from_str(line["ai_log"].as_str().unwrap()).unwrap();
    let count = |name: &str| log[name].as_u64().unwrap_or_else(|| panic!("{line}"));
    let source = log["usage_source"].as_str().unwrap_or("provider");
    (source.to_owned(), count("input_token"), count("output_token"))
}

#[tokio::test]
async fn an_array_that_gemini_streams_is_read_like_its_events() {
    let scene = scene(&[
        ai_proxy(
            "api",
            "{ type: openai, apiTokens: [sk-gateway], protocol: original }",
        ),
        wasm_plugin("ai-statistics", "  defaultConfig: {}\n").replace("priority: 100", "priority: 200"),
    ]);
    let (events, line) = ask_gemini(&scene, "?alt=sse", "").await;
    assert_eq!(events.status, 200, "{}", events.text());
    let expected = told(&line);
    assert!(expected.0 == "provider" && expected.2 > 0, "{line}");
    for fault in ["", "split;bytes=7", "gzip"] {
        let (array, line) = ask_gemini(&scene, "", fault).await;
        assert_eq!(array.header("content-type"), "application/json; charset=UTF-8");
        assert_eq!(
            (array.cut.is_none(), &line["termination"]),
            (true, &"completed".into()),
            "{fault}: {line}"
        );
        assert_eq!(told(&line), expected, "{fault}");
        if fault != "gzip" {
            assert!(array.json().is_array());
        }
    }
    // The running total is no last word: what was said is counted as said.
    for (fault, ends) in [
        ("cut;after=5;how=end", "upstream_cut"),
        ("cut;after=5;how=reset", "upstream_cut"),
        ("cut;after=5;how=end,gzip", "upstream_cut"),
        ("usage-absent,cut;after=5;how=end", "upstream_cut"),
        ("error-event;after=5;code=503", "upstream_error"),
    ] {
        let (answer, line) = ask_gemini(&scene, "", fault).await;
        assert_eq!(line["termination"], ends, "{fault}: {line}");
        assert_eq!(
            answer.cut.is_some(),
            ends == "upstream_cut",
            "{fault} must not look whole"
        );
        let (_, input, output) = told(&line);
        assert!(input > 0 && (3..=7).contains(&output), "{fault}: {line}");
    }
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    let streams = counted(
        &page,
        "route_upstream_model_consumer_metric_llm_stream_duration_count",
        "",
    );
    assert_eq!(streams, 9, "{page}");
}

/// Megabytes of a large answer.
const LARGE: usize = 100;

/// A vendor whose every answer is a chat completion of a hundred megabytes, with its usage at the end.
async fn large_vendor() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tollgate_base::task::spawn("large vendor", async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever reads no further has its reasons.
            drop(answer_largely(stream).await);
        }
    }));
    address
}

async fn answer_largely(mut stream: TcpStream) -> std::io::Result<()> {
    const BEFORE: &[u8] =
        br#"{"id":"1","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    const BEHIND: &[u8] =
        br#""},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":8,"total_tokens":13}}"#;
    let piece = vec![b'a'; 1024 * 1024];
    let mut seen = Vec::new();
    while !seen.ends_with(CHAT.as_bytes()) {
        if stream.read_buf(&mut seen).await? == 0 {
            return Ok(());
        }
    }
    let length = BEFORE.len() + LARGE * piece.len() + BEHIND.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(BEFORE).await?;
    for _ in 0..LARGE {
        stream.write_all(&piece).await?;
    }
    stream.write_all(BEHIND).await
}

#[tokio::test]
async fn an_answer_of_a_hundred_megabytes_is_counted_in_bounded_memory() {
    let statistics = "  defaultConfig: { attributes: [{ key: said, value_source: response_body, value: choices.0.message.content, \
        apply_to_log: true }] }\n";
    // What docs/plugins/ai-statistics.md says; the process alone would grow by more than a hundred.
    for (plugins, growth_mib) in [
        (vec![ai_proxy("api", OPENAI)], 12),
        (
            vec![
                ai_proxy("api", OPENAI),
                wasm_plugin("ai-statistics", statistics).replace("priority: 100", "priority: 200"),
            ],
            30,
        ),
    ] {
        let (small, large) = (mock(Options::default()), large_vendor().await);
        let mut parts = vec![
            bridge(&[("small", small.addr()), ("large", large)]),
            ingress(
                "api",
                "/large",
                "large.static",
                &[("higress.io/rewrite-target", "/")],
            ),
            ingress("first", "/", "small.static", &[]),
            verbose_log(),
        ];
        parts.extend(plugins);
        let gateway = gateway()
            .file("scene.yaml", &documents(&parts))
            .unwrap()
            .go()
            .unwrap();
        // Whatever is allocated once is allocated by then.
        assert_eq!(send(gateway.http, ordered("", CHAT).0).await.unwrap().status, 200);
        let before = gateway.peak_memory_kib();
        let (mut request, id) = ordered("", CHAT);
        *request.uri_mut() = "/large/v1/chat/completions".parse().unwrap();
        let mut answer = client::open(gateway.http, request).await.unwrap();
        let mut length = 0;
        while let Some(piece) = answer.next().await {
            length += piece.unwrap().len();
        }
        assert!(length > LARGE * 1024 * 1024, "{length}");
        assert_eq!(gateway.line_of(&id)["termination"], "completed");
        let page = gateway.admin("/stats/prometheus").await.text();
        let told = counted(
            &page,
            "tollgate_usage_tokens_total",
            "source=\"provider\",type=\"output\"",
        );
        assert!(told >= 8, "{page}");
        let grown = gateway.peak_memory_kib() - before;
        assert!(grown < growth_mib * 1024, "{grown} KiB for {length} bytes");
    }
}

#[tokio::test]
async fn nobody_names_himself_a_consumer() {
    let scene = scene(&[
        ai_proxy("api", OPENAI),
        wasm_plugin("ai-statistics", "  defaultConfig: {}\n"),
    ]);
    let (mut request, id) = ordered("", CHAT);
    request
        .headers_mut()
        .insert("x-mse-consumer", "somebody-else".parse().unwrap());
    assert_eq!(send(scene.gateway.http, request).await.unwrap().status, 200);
    let line: Value = scene.gateway.line_of(&id);
    assert_eq!(line["consumer"], "-");
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    assert!(page.contains(r#"ai_consumer="none""#), "{page}");
    assert!(!page.contains("somebody-else"), "{page}");
    let seen = scene.last();
    assert!(!format!("{seen:?}").contains("somebody-else"), "{seen:?}");
}

#[tokio::test]
async fn prometheus_own_parser_reads_every_family() {
    let scene = scene(&[
        ai_proxy("api", OPENAI),
        wasm_plugin("ai-statistics", "  defaultConfig: { enable: true }\n"),
    ]);
    for fault in ["", "cut;after=3", "usage-absent", "429", "reset"] {
        let (request, id) = ordered(fault, CHAT_STREAM);
        drop(send(scene.gateway.http, request).await);
        scene.gateway.line_of(&id);
    }
    let mut command = Command::new(python());
    command
        .arg("metrics.py")
        .arg(format!("http://{}/stats/prometheus", scene.gateway.admin));
    let printed = run_script(command).await;
    let samples: BTreeMap<String, Value> = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (family, kind) = line.split_once(' ').unwrap();
        // The parser calls each counter by the newer form of its name.
        let shown = match kind {
            "histogram" => format!("{family}_count{{"),
            "counter" => format!("{}_total{{", family.trim_end_matches("_total")),
            _ => format!("{family}{{"),
        };
        assert!(
            samples.keys().any(|series| series.starts_with(&shown)),
            "{family} is not read: {samples:#?}"
        );
    }
    let labels = "ai_cluster=outbound|80||mock.static,ai_model=gpt-4o,ai_route=api";
    assert!(
        samples[&format!("route_upstream_model_input_token_total{{{labels}}}")]
            .as_f64()
            .unwrap()
            > 0.0
    );
}
