//! The page "write your own": its Go and its Rust plugin, built in an empty folder by the page's own two commands, run
//! in the gateway.

use std::path::Path;
use std::process::Command;

use tollgate_testkit::client::send;

use crate::support::{CHAT, bridge, documents, gateway, ingress, mock, ordered, verbose_log};
use crate::wasm_languages::rust_is_left_out;

/// The page's section under this heading.
fn section(heading: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wasm.md")).unwrap();
    let (_, own) = page.split_once("## Write your own").unwrap();
    let (_, rest) = own.split_once(&format!("### {heading}\n")).unwrap();
    rest.split("\n### ").next().unwrap().to_owned()
}

/// The only block of a section in this language.
fn block<'s>(section: &'s str, language: &str) -> &'s str {
    let fence = format!("```{language}\n");
    let mut blocks = section.split(&fence).skip(1);
    let block = blocks
        .next()
        .unwrap_or_else(|| panic!("no {language} in {section}"));
    assert!(blocks.next().is_none(), "{language} twice in {section}");
    block.split("```").next().unwrap()
}

/// Runs the section's commands in `folder`, which are two.
fn build(section: &str, folder: &Path) {
    let commands: Vec<&str> = block(section, "bash").lines().collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder)
            // As a reader has it, not as this test was built.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {told}");
    }
}

/// What the vendor reads in `x-greeting` when this module is in the chain, with the config `greeting: good morning`.
async fn greeting(module: &Path) -> Option<String> {
    let mock = mock(tollgate_mock_llm::Options::default());
    let plugin = format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: my-filter\n  namespace: \
         higress-system\nspec:\n  url: file://{}\n  defaultConfig: {{ greeting: good morning }}\n",
        module.display()
    );
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        plugin,
        verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let (request, _) = ordered("", CHAT);
    assert_eq!(send(gateway.http, request).await.unwrap().status, 200);
    let seen = mock.requests();
    let value = seen[0].headers.get("x-greeting")?;
    Some(value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_pages_go_plugin_builds_with_two_commands_and_greets() {
    let folder = tempfile::tempdir().unwrap();
    let section = section("Go");
    std::fs::write(folder.path().join("main.go"), block(&section, "go")).unwrap();
    build(&section, folder.path());
    let told = greeting(&folder.path().join("my-filter.wasm")).await;
    assert_eq!(told.as_deref(), Some("good morning"));
}

#[tokio::test]
async fn the_pages_rust_plugin_builds_with_two_commands_and_greets() {
    if rust_is_left_out("the page's plugin in Rust") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let section = section("Rust");
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), block(&section, "toml")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), block(&section, "rust")).unwrap();
    build(&section, folder.path());
    let module = folder.path().join("target/wasm32-wasip1/release/my_filter.wasm");
    assert_eq!(greeting(&module).await.as_deref(), Some("hello"));
}
