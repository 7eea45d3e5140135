//! What every answer of a vendor costs, told the same way wherever one looks, whichever plugins are there.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tollgate_mock_llm::Options;
use tollgate_observe::Vocabularies;
use tollgate_testkit::client::send;

use crate::clients::{python, run_script};
use crate::support::{
    CHAT, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, documents, gateway, higress_config, ingress, mock,
    ordered, wasm_plugin,
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
