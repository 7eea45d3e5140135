//! The other commands: what they print and their exit codes.

use std::process::Output;

use serde_json::Value;
use tollgate_testkit::client::{post_json, send};
use tollgate_testkit::process::Start;

use crate::support::{BINARY, CHAT_PATH, Sight, ai_proxy, bridge, documents, gateway, ingress};

/// Runs `tollgate COMMAND --config config …` on these files.
fn on_files(command: &'static str, files: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut start = Start::new(BINARY)
        .unwrap()
        .command(command)
        .option("--config", "config");
    for (name, text) in files {
        start = start.file(name, text).unwrap();
    }
    for argument in arguments {
        start = start.flag(argument);
    }
    start.output().unwrap()
}

/// `tollgate check` on these files.
pub(crate) fn check(files: &[(&str, &str)], arguments: &[&str]) -> Output {
    on_files("check", files, arguments)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn llm() -> String {
    documents(&[
        bridge(&[("mock", "127.0.0.1:9".parse().unwrap())]),
        ingress("llm", "/v1", "mock.static", &[]),
        ingress("rest", "/", "mock.static", &[]),
        ai_proxy("llm", "{ type: openai, apiTokens: [sk-gateway] }"),
    ])
}

#[test]
fn check_is_silent_about_good_documents() {
    let output = check(&[("good.yaml", &llm())], &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        printed(&output),
        complained(&output)
    );
    assert_eq!(printed(&output), "");
}

#[test]
fn check_accepts_the_first_document() {
    let document = include_str!("../examples/ai-proxy/01-ai-proxy.yaml");
    let start = Start::new(BINARY)
        .unwrap()
        .command("check")
        .file("01-ai-proxy.yaml", document)
        .unwrap();
    let start = start.option("--config", "config").flag("--envsubst");
    let start = start
        .variable("LLM", "qwen")
        .variable("LLM_DOMAIN", "dashscope.aliyuncs.com");
    let output = start.variable("API_TOKEN", "sk-x").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        printed(&output),
        complained(&output)
    );
}

#[test]
fn check_prints_one_diagnostic_a_line() {
    let bad = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: typed\n  namespace: ns\nspec:\n  rules: 17\n";
    let output = check(&[("bad.yaml", bad)], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = printed(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("config/bad.yaml:7: error: Ingress ns/typed: spec.rules: "),
        "{}",
        lines[0]
    );

    let output = check(&[("bad.yaml", bad)], &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value: Value = serde_json::from_str(printed(&output).trim()).unwrap();
    let of = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (of("severity"), of("kind"), of("name")),
        ("error".into(), "Ingress".into(), "typed".into()),
        "{value}"
    );
    assert_eq!(
        (&value["line"], of("field")),
        (&Value::from(7), "spec.rules".into()),
        "{value}"
    );
}

#[test]
fn check_of_a_directory_that_is_not_there() {
    let output = Start::new(BINARY)
        .unwrap()
        .command("check")
        .option("--config", "nowhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(complained(&output).lines().count(), 1, "{}", complained(&output));
    assert!(complained(&output).contains("nowhere"), "{}", complained(&output));
}

#[test]
fn a_flag_that_does_not_exist_is_a_usage_error() {
    for (command, flag) in [
        ("run", "--no-such-flag"),
        ("check", "--frobnicate"),
        ("demo", "--nope"),
    ] {
        let output = Start::new(BINARY)
            .unwrap()
            .command(command)
            .flag(flag)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(complained(&output).contains(flag), "{}", complained(&output));
    }
    for (flag, value) in [("--http", "nonsense"), ("--drain", "soon"), ("--workers", "0")] {
        let output = Start::new(BINARY)
            .unwrap()
            .command("run")
            .option("--config", "config")
            .option(flag, value);
        let output = output.output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{flag} {value}: {}",
            complained(&output)
        );
        assert!(complained(&output).contains(flag), "{}", complained(&output));
    }
    let output = Start::new(BINARY)
        .unwrap()
        .command("no-such-command")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_value_that_only_turns_out_bad_later_is_one_line() {
    for (flag, value) in [
        ("--resolve", "nonsense"),
        ("--log", "a=b=c"),
        ("--access-log", "/no/such/dir/log"),
    ] {
        let output = Start::new(BINARY)
            .unwrap()
            .command("run")
            .option("--config", "config")
            .option("--http", "127.0.0.1:0")
            .option("--admin", "off")
            .option(flag, value)
            .output()
            .unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{flag} {value}: {:?}",
            output.status
        );
        assert!(
            complained(&output).contains(flag),
            "{flag}: {}",
            complained(&output)
        );
    }
}

#[test]
fn explain_names_route_plugins_upstream_and_losers() {
    let arguments = ["-X", "POST", "http://any.host/v1/chat/completions"];
    let output = on_files("explain", &[("scene.yaml", &llm())], &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", complained(&output));
    let text = printed(&output);
    for part in ["route llm", "ai-proxy", "scene.yaml:", "outbound|80||mock.static"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains("sk-gateway"), "a token was told: {text}");
    let output = on_files(
        "explain",
        &[("scene.yaml", &llm())],
        &["http://any.host/elsewhere"],
    );
    let text = printed(&output);
    let lost = text
        .lines()
        .find(|line| line.contains("route llm "))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(lost.contains("path") && text.contains("route rest "), "{text}");
}

#[test]
fn explain_as_json() {
    let output = on_files(
        "explain",
        &[("scene.yaml", &llm())],
        &["--json", "http://any.host/elsewhere"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", complained(&output));
    let value: Value = serde_json::from_str(&printed(&output)).unwrap();
    let text = value.to_string();
    assert!(
        text.contains("rest") && text.contains("outbound|80||mock.static"),
        "{value:#}"
    );
}

#[test]
fn explain_of_a_request_without_a_route() {
    let only = documents(&[
        bridge(&[("mock", "127.0.0.1:9".parse().unwrap())]),
        crate::support::ingress_for("api.example", "llm", "/v1", "mock.static", &[]),
    ]);
    let output = on_files("explain", &[("scene.yaml", &only)], &["http://other.example/v1"]);
    let text = printed(&output) + &complained(&output);
    assert!(
        text.contains("404") || text.to_lowercase().contains("no route"),
        "{text}"
    );
    let output = on_files("explain", &[("scene.yaml", &only)], &["not a url"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}", output.status);
}

#[test]
fn plugins_lists_ai_proxy() {
    let output = Start::new(BINARY).unwrap().command("plugins").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        printed(&output).lines().any(|line| line.starts_with("ai-proxy ")),
        "{}",
        printed(&output)
    );
    let output = Start::new(BINARY)
        .unwrap()
        .command("plugins")
        .flag("--json")
        .output()
        .unwrap();
    let rows: Value = serde_json::from_str(&printed(&output)).unwrap();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "ai-proxy")
        .unwrap();
    assert!(
        row["fields"].as_array().is_some_and(|fields| !fields.is_empty()),
        "{row}"
    );
}

#[test]
fn help_and_version() {
    for command in ["--help", "--version"] {
        let output = Start::new(BINARY).unwrap().command(command).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(
            printed(&output).to_lowercase().contains("tollgate"),
            "{}",
            printed(&output)
        );
    }
}

#[tokio::test]
async fn demo_answers_the_documents_request() {
    let gateway = gateway().command("demo").go().unwrap();
    let body = r#"{"model":"qwen-max-0403","messages":[{"role":"user","content":"你是谁？"}]}"#;
    let answer = send(gateway.http, post_json(CHAT_PATH, body)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], "930774f8-7fc9-9d97-8d13-fc9201ae66f9");
    let streamed = body.replacen('{', r#"{"stream":true,"#, 1);
    let answer = send(gateway.http, post_json(CHAT_PATH, streamed)).await.unwrap();
    assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
    let banner = format!("curl http://{}/v1/chat/completions", gateway.http);
    gateway.errors.wait_for(|line| line.contains(&banner)).unwrap();
    assert_eq!(gateway.admin("/healthz/ready").await.status, 200);
}

#[tokio::test]
async fn mock_llm_serves_alone() {
    let mut child = std::process::Command::new(BINARY)
        .args(["mock-llm", "--listen", "127.0.0.1:0", "--pace", "0"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stderr.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let address = line.trim().rsplit('=').next().unwrap().parse().unwrap();
    let answer = send(address, post_json(CHAT_PATH, crate::support::CHAT)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.unwrap().status, 200);
}
