//! The vendors' own clients, unmodified: each script prints one line a check and fails with the first that fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use tollgate_mock_llm::{End, Options};
use tollgate_testkit::process::Gateway;

use crate::support::{PATIENCE, Scene, ai_proxy, bridge, documents, gateway, ingress, mock, wasm_plugin};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients")
}

/// The Python that has the vendors' packages.
pub(crate) fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/clients/python/bin/python");
    assert!(
        path.exists(),
        "the vendors' Python clients are not installed: run `make setup`"
    );
    path
}

fn node() -> PathBuf {
    let packages = scripts().join("node_modules/openai");
    assert!(
        packages.exists(),
        "the vendors' Node clients are not installed: run `make setup`"
    );
    PathBuf::from("node")
}

/// Runs a script beside the others; what it printed.
pub(crate) async fn run_script(mut command: Command) -> String {
    command
        .current_dir(scripts())
        .env("NO_PROXY", "127.0.0.1")
        .env_remove("OPENAI_API_KEY")
        .env_remove("OPENAI_BASE_URL");
    // The clients' own timeouts end them.
    let ran = tokio::task::spawn_blocking(move || (format!("{command:?}"), command.output()));
    let (what, output) = ran.await.unwrap();
    let output = output.unwrap_or_else(|cause| panic!("{what}: {cause}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {}\n{printed}{complained}",
        output.status
    );
    printed
}

const CLAUDE: &str = "{ type: claude, apiTokens: [sk-gateway] }";

/// Runs a client's script against one gateway; `more` are its further arguments.
async fn passes(program: PathBuf, script: &str, url: &str, more: &[&str], checks: usize) {
    let mut command = Command::new(program);
    command.arg(script).arg(url).args(more);
    let printed = run_script(command).await;
    let passed = printed.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(
        passed >= checks,
        "{passed} checks instead of {checks}:\n{printed}"
    );
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.http)
}

/// What every script did to the vendor: keys replaced, the aborted stream closed.
async fn vendor_was_treated_well(scene: &Scene) {
    for request in scene.mock.requests() {
        let key = request
            .header("authorization")
            .or(request.header("x-api-key"))
            .unwrap_or_default();
        assert!(
            key.contains("sk-gateway"),
            "{} {} carried {key:?}",
            request.method,
            request.uri
        );
        assert!(
            !format!("{:?}", request.headers).contains("sk-client"),
            "{:?}",
            request.headers
        );
    }
    let aborted =
        |seen: &[tollgate_mock_llm::Recorded]| seen.iter().any(|request| request.end == End::ClientGone);
    let seen = scene.mock.log().wait_until(PATIENCE, aborted).await;
    assert!(seen.is_ok(), "the aborted stream was never closed at the vendor");
}

#[tokio::test]
async fn openai_python() {
    let scene = Scene::openai(&[]);
    passes(python(), "openai_client.py", &url(&scene.gateway, "/v1"), &[], 12).await;
    vendor_was_treated_well(&scene).await;
}

#[tokio::test]
async fn openai_node() {
    let scene = Scene::openai(&[]);
    passes(node(), "openai_client.mjs", &url(&scene.gateway, "/v1"), &[], 12).await;
    vendor_was_treated_well(&scene).await;
}

#[tokio::test]
async fn anthropic_python() {
    let scene = Scene::vendor(CLAUDE, &[]);
    passes(
        python(),
        "anthropic_client.py",
        &url(&scene.gateway, ""),
        &["claude"],
        13,
    )
    .await;
    vendor_was_treated_well(&scene).await;
    let seen = scene.mock.requests();
    assert!(
        seen.iter()
            .all(|request| request.path().starts_with("/v1/messages"))
    );
    let beta = seen.iter().find(|request| {
        request
            .header("anthropic-beta")
            .is_some_and(|beta| beta.contains("two"))
    });
    let beta = beta.expect("anthropic-beta reaches the vendor");
    assert_eq!(
        beta.header("anthropic-beta"),
        Some("one-2025-01-01,two-2025-01-01")
    );
    assert_eq!(
        beta.json()["field_of_tomorrow"]["a"][1],
        2,
        "unknown fields reach the vendor"
    );
}

#[tokio::test]
async fn anthropic_node() {
    let scene = Scene::vendor(CLAUDE, &[]);
    passes(node(), "anthropic_client.mjs", &url(&scene.gateway, ""), &[], 8).await;
    vendor_was_treated_well(&scene).await;
}

#[tokio::test]
async fn anthropic_python_to_an_openai_vendor() {
    let scene = Scene::openai(&[]);
    passes(python(), "anthropic_client.py", &url(&scene.gateway, ""), &[], 8).await;
    vendor_was_treated_well(&scene).await;
    assert!(
        scene
            .mock
            .requests()
            .iter()
            .all(|request| request.path() == "/v1/chat/completions")
    );
}

#[tokio::test]
async fn anthropic_node_to_an_openai_vendor() {
    let scene = Scene::openai(&[]);
    passes(node(), "anthropic_client.mjs", &url(&scene.gateway, ""), &[], 8).await;
    vendor_was_treated_well(&scene).await;
}

#[tokio::test]
async fn openai_python_to_qwen_and_claude() {
    for provider in ["{ type: qwen, apiTokens: [sk-gateway] }", CLAUDE] {
        let scene = Scene::vendor(provider, &[]);
        let mut command = Command::new(python());
        command
            .arg("openai_client.py")
            .arg(format!("http://{}/v1", scene.gateway.http))
            .arg("chat");
        let printed = run_script(command).await;
        assert!(
            printed.lines().filter(|line| line.starts_with("ok ")).count() >= 4,
            "{printed}"
        );
    }
}

/// Each consumer is listed the models of its routes, by the gateway itself.
#[tokio::test]
async fn openai_clients_list_the_models_that_they_may_use() {
    let provider =
        |mapping: &str| format!("{{ type: openai, apiTokens: [sk-gateway], modelMapping: {mapping} }}");
    let keys = "  defaultConfig:\n    consumers: [{ name: ann, credential: Bearer key-ann }, { name: bob, credential: Bearer key-bob }]\n    \
        keys: [authorization]\n    in_query: false\n    global_auth: true\n  matchRules:\n  - ingress: [vip]\n    config: { allow: [ann] }\n";
    let proxies = ai_proxy("api", &provider("{ fast: gpt-4o-mini, \"*\": gpt-4o }"))
        + &format!(
            "  - ingress: [vip]\n    config:\n      provider: {}\n",
            provider("{ large: gpt-4.1 }")
        );
    let mock = mock(Options::default());
    let parts = [
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ingress("vip", "/vip", "mock.static", &[]),
        proxies,
        wasm_plugin("key-auth", keys).replace("UNSPECIFIED_PHASE", "AUTHN"),
        wasm_plugin("model-list", "  defaultConfig: {}\n").replace("priority: 100", "priority: 730"),
    ];
    let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
    let gateway = start.go().unwrap();
    let url = url(&gateway, "/v1");
    for arguments in [
        &["key-ann", "fast", "gpt-4o", "large"][..],
        &["key-bob", "fast", "gpt-4o"],
    ] {
        passes(python(), "openai_models.py", &url, arguments, 4).await;
        passes(node(), "openai_models.mjs", &url, arguments, 4).await;
    }
    assert!(mock.requests().is_empty(), "no vendor is asked");
}

#[tokio::test]
async fn websockets_python() {
    let scene = Scene::plain(&[]);
    let mut command = Command::new(python());
    command
        .arg("websocket_client.py")
        .arg(format!("ws://{}/socket", scene.gateway.http));
    let printed = run_script(command).await;
    assert!(
        printed.lines().filter(|line| line.starts_with("ok ")).count() >= 3,
        "{printed}"
    );
}

#[tokio::test]
async fn grpc_python() {
    let scene = Scene::plain(&[("higress.io/backend-protocol", "GRPC")]);
    let mut command = Command::new(python());
    command.arg("grpc_client.py").arg(scene.gateway.http.to_string());
    let printed = run_script(command).await;
    assert!(
        printed.lines().filter(|line| line.starts_with("ok ")).count() >= 3,
        "{printed}"
    );
}

fn curl(gateway: &Gateway, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
    command.arg(format!("http://{}{path}", gateway.http));
    command
}

#[tokio::test]
async fn curl_as_in_the_first_document() {
    let scene = Scene::openai(&[]);
    let body = "{\n    \"model\":\"qwen-max-0403\",\n    \"messages\": [\n      {\n        \"role\": \"user\",\n        \"content\": \"你是谁？\"\n      }\n    ]\n}";
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let mut command = curl(&scene.gateway, "/v1/chat/completions");
        command.args([
            version,
            "--location",
            "--header",
            "Content-Type: application/json",
            "--data",
            body,
        ]);
        let answer: serde_json::Value = serde_json::from_str(&run_script(command).await).unwrap();
        assert_eq!(answer["id"], "930774f8-7fc9-9d97-8d13-fc9201ae66f9", "{version}");
    }
    let mut command = curl(&scene.gateway, "/v1/chat/completions");
    let streamed = body.replacen('{', "{\"stream\":true,", 1);
    command.args([
        "--no-buffer",
        "--header",
        "Content-Type: application/json",
        "--data",
        &streamed,
    ]);
    assert!(run_script(command).await.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn curl_waits_for_100_continue_and_uploads_a_file() {
    let scene = Scene::plain(&[]);
    let file = scene.gateway.directory.path().join("upload");
    std::fs::write(&file, vec![b'u'; 5_000_000]).unwrap();
    let mut command = curl(&scene.gateway, "/echo");
    command.args([
        "--verbose",
        "--header",
        "Expect: 100-continue",
        "--expect100-timeout",
        "50",
        "--data-binary",
    ]);
    command.arg(format!("@{}", file.display()));
    let started = tollgate_base::clock::now();
    let answer: serde_json::Value = serde_json::from_str(&run_script(command).await).unwrap();
    assert_eq!(answer["body_length"], 5_000_000);
    assert!(
        started.elapsed() < std::time::Duration::from_secs(45),
        "the 100 never came"
    );
}
