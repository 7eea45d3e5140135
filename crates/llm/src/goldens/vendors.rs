//! Goldens: every request of `testdata/<api>/` as every vendor of the table gets it. A new row or a new request grows
//! the files by itself; `cargo insta review` accepts what changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::providers::Provider;
use crate::providers::request::BodyContext;
use crate::providers::row::BodyRule;
use crate::providers::table::ROWS;
use crate::providers::wire::Outgoing;
use crate::{Api, path};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use tollgate_body::JsonDocument;

/// Configs besides each row's plain one.
fn variants() -> Vec<(String, Value)> {
    let plain = ROWS.iter().filter(|row| row.built).map(|row| {
        let config = json!({"type": row.name, "ollamaServerHost": "ollama.local", "ollamaServerPort": 11434, "azureServiceUrl": "https://r.azure.com?api-version=V"});
        (row.name.to_owned(), config)
    });
    let mut all: Vec<_> = plain.collect();
    all.push((
        "claude (Claude Code)".into(),
        json!({"type": "claude", "claudeCodeMode": true}),
    ));
    all.push((
        "qwen (native)".into(),
        json!({"type": "qwen", "qwenEnableCompatible": false, "qwenEnableSearch": true}),
    ));
    for (_, config) in &mut all {
        config["apiTokens"] = json!(["sk-test"]);
        config["modelMapping"] = json!({"*": "mapped-model"});
    }
    all
}

fn requests(api: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(api);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// What the vendor gets, as text.
fn upstream(config: &Value, request: &Value) -> String {
    let provider = Provider::parse(config).unwrap();
    let mut client_path = request["path"].as_str().unwrap().to_owned();
    let mut api = provider.api_of(&path::decoded(&client_path)).unwrap();
    let claude_client =
        api == Api::AnthropicMessages && !provider.serves(api) && provider.row.body != BodyRule::NeverRead;
    if claude_client {
        api = Api::Chat;
        client_path = "/v1/chat/completions".to_owned();
    }
    let mut headers = HeaderMap::new();
    let mut target = provider.upstream_path(Some(api), &client_path);
    provider.authorize(&mut headers, "sk-test");
    if let Some(wire) = &provider.wire {
        wire.head(&mut headers, &mut target);
    }
    let sent = request["body"].to_string();
    let mut document = JsonDocument::parse(Bytes::from(sent.clone())).unwrap();
    let mut outgoing = Outgoing {
        provider: &provider,
        headers: &mut headers,
        path: &mut target,
    };
    let mut model = String::new();
    let body = if provider.refuses(api) {
        "refused: unsupported API name".to_owned()
    } else if !provider.reads_body(api) {
        "untouched".to_owned()
    } else {
        match provider.edit_body(
            BodyContext {
                api,
                claude_client,
                context_file: None,
            },
            &mut document,
            &mut outgoing,
        ) {
            Err(fault) => format!("refused: {}", fault.text()),
            Ok(facts) => {
                model = facts.model;
                match document.to_bytes() {
                    same if same == sent => "untouched".to_owned(),
                    edited => String::from_utf8(edited.to_vec()).unwrap(),
                }
            }
        }
    };
    let target = provider.with_model(target, &model);
    let host = provider.host.as_ref().map_or("(client's)", |host| host.as_str());
    let mut text = format!("POST {host}{target}\n");
    for (name, value) in &headers {
        writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    text + &body
}

fn check(api: &str) {
    for file in requests(api) {
        let request: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let sections: Vec<String> = variants()
            .iter()
            .map(|(vendor, config)| format!("=== {vendor}\n{}", upstream(config, &request)))
            .collect();
        insta::with_settings!({
            snapshot_path => file.parent().unwrap(), prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_snapshot!(name, sections.join("\n\n"));
        });
    }
}

#[test]
fn chat() {
    check("chat");
}

#[test]
fn embeddings() {
    check("embeddings");
}

#[test]
fn completions() {
    check("completions");
}

#[test]
fn responses() {
    check("responses");
}

#[test]
fn messages() {
    check("messages");
}
