//! Modules in the running gateway: a WAT filter as a plugin, replaced while requests run, and modules that break.

use std::net::SocketAddr;
use std::path::PathBuf;

use http::Request;
use tollgate_testkit::client::{self, get};
use tollgate_testkit::process::Gateway;

use crate::support::{
    PATIENCE, Sight, bridge, documents, gateway, ingress, mock, module_version, newer_module, verbose_log,
};

/// A filter that answers with this text, or, for an empty one, adds the header `x-module` to the request.
pub(crate) fn answering(text: &str) -> String {
    let length = text.len();
    format!(
        r#"(module
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 16) "{text}")
        (func (export "proxy_abi_version_0_2_100"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const {length}) (i32.const 0) (i32.const 0) (i32.const -1)))
          (i32.const 1)))"#
    )
}

/// A module that traps on each request.
const TRAPPING: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;

struct Modules {
    directory: tempfile::TempDir,
}

impl Modules {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a module; a whole file appears at once.
    fn write(&self, name: &str, text: &str) {
        let fresh = self.path("fresh");
        std::fs::write(&fresh, wat::parse_str(text).unwrap()).unwrap();
        std::fs::rename(fresh, self.path(name)).unwrap();
    }

    fn plugin(&self, name: &str, strategy: &str) -> String {
        format!(
            "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: filter\n  namespace: \
             higress-system\nspec:\n  url: file://{}\n  failStrategy: {strategy}\n",
            self.path(name).display()
        )
    }
}

async fn text(gateway: &Gateway) -> (u16, String) {
    let answer = client::send(gateway.http, get("/")).await.unwrap();
    (answer.status.as_u16(), answer.text())
}

/// What `tollgate plugins --live` prints.
pub(crate) fn gateway_command(gateway: &Gateway) -> String {
    let admin = gateway.admin.to_string();
    let output = std::process::Command::new(crate::support::BINARY)
        .args(["plugins", "--live", "--admin", &admin])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn scene(plugin: &str) -> (tollgate_mock_llm::Handle, String) {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        plugin.to_owned(),
        verbose_log(),
    ]);
    (mock, text)
}

#[tokio::test]
async fn a_module_runs_in_the_chain_and_a_new_file_takes_over_while_the_old_one_serves() {
    let modules = Modules::new();
    modules.write("filter.wasm", &answering("version one"));
    let (_mock, documents) = scene(&modules.plugin("filter.wasm", "FAIL_CLOSE"));
    let gateway = gateway().file("scene.yaml", &documents).unwrap().go().unwrap();
    assert_eq!(text(&gateway).await, (200, "version one".to_owned()));
    let dump: serde_json::Value = serde_json::from_str(&gateway.admin("/config_dump").await.text()).unwrap();
    let shown = &dump["modules"][0];
    assert_eq!(
        (&shown["plugin"], &shown["abi"]),
        (&"higress-system.filter".into(), &"0.2.100".into())
    );
    assert_eq!(shown["digest"].as_str().unwrap().len(), 64);

    let command = gateway_command(&gateway);
    assert!(
        command.contains("higress-system.filter") && command.contains("current"),
        "{command}"
    );

    let before = module_version(&gateway).await;
    modules.write("filter.wasm", &answering("version two"));
    newer_module(&gateway, before).await;
    assert_eq!(text(&gateway).await, (200, "version two".to_owned()));

    // What is no module leaves the version that runs alone, with a diagnostic.
    std::fs::write(modules.path("filter.wasm"), "<html>").unwrap();
    let told = gateway
        .errors
        .wait_for(|line| line.contains("this is no Wasm module: the version before it stays"));
    told.unwrap();
    assert_eq!(text(&gateway).await, (200, "version two".to_owned()));
}

#[tokio::test]
async fn limits_of_modules_are_set_by_their_names() {
    let modules = Modules::new();
    // Its memory has 128 KiB.
    modules.write("filter.wasm", &answering("within its limits"));
    let (_mock, documents) = scene(&modules.plugin("filter.wasm", "FAIL_CLOSE"));
    let start = || gateway().file("scene.yaml", &documents).unwrap();
    for (limits, status) in [
        ("wasm_memory_limit=128KiB,wasm_calls_limit=1", 200),
        ("wasm_memory_limit=64KiB", 500),
        ("wasm_module_limit=1GiB", 200),
    ] {
        let gateway = start().variable("TOLLGATE_WASM_LIMIT", limits).go().unwrap();
        assert_eq!(text(&gateway).await.0, status, "{limits}");
    }
    modules.write("filter.wasm", &answering(&"a long module".repeat(100)));
    let small = start()
        .option("--wasm-limit", "wasm_module_limit=1KiB")
        .go()
        .unwrap();
    assert_eq!(text(&small).await.0, 500);
    let wrong = start()
        .option("--wasm-limit", "wasm_memory_limit=64ms")
        .go()
        .unwrap_err();
    for part in [
        "--wasm-limit",
        "wasm_memory_limit=64ms",
        "65536 to 4294967296 bytes",
    ] {
        assert!(wrong.contains(part), "{wrong}");
    }
}

/// A filter that sends every request to this address.
fn picking(address: SocketAddr) -> String {
    let text = address.to_string();
    let length = text.len();
    format!(
        r#"(module
        (import "env" "proxy_set_upstream_override_host" (func $pick (param i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 16) "{text}")
        (func (export "proxy_abi_version_0_2_100"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $pick (i32.const 16) (i32.const {length}))))"#
    )
}

#[tokio::test]
async fn a_module_picks_the_host_of_the_upstream() {
    let mocks = [(); 2].map(|()| mock(tollgate_mock_llm::Options::default()));
    let [first, second] = [&mocks[0], &mocks[1]].map(tollgate_mock_llm::Handle::addr);
    let modules = Modules::new();
    modules.write("filter.wasm", &picking(second));
    let registry = bridge(&[("mock", first)]).replace(&first.to_string(), &format!("{first},{second}"));
    let parts = [
        registry,
        ingress("api", "/", "mock.static", &[]),
        modules.plugin("filter.wasm", "FAIL_CLOSE"),
    ];
    let text = documents(&parts);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    for _ in 0..4 {
        client::send(gateway.http, get("/")).await.unwrap();
    }
    let seen = mocks.each_ref().map(|mock| mock.requests().len());
    assert_eq!(seen, [0, 4]);
}

#[tokio::test]
async fn a_restart_compiles_nothing_and_a_damaged_file_is_compiled_again() {
    let modules = Modules::new();
    modules.write("filter.wasm", &answering("compiled once"));
    let (_mock, documents) = scene(&modules.plugin("filter.wasm", "FAIL_CLOSE"));
    let data = modules.path("data");
    let came_from_disk = async || {
        let start = gateway().file("scene.yaml", &documents).unwrap();
        let gateway = start.option("--data", data.display()).go().unwrap();
        assert_eq!(text(&gateway).await, (200, "compiled once".to_owned()));
        let line = gateway.errors.wait_for(|line| line.contains("module ready"));
        line.unwrap().contains("from_disk=true")
    };
    assert!(!came_from_disk().await);
    assert!(came_from_disk().await);
    let compiled = std::fs::read_dir(data.join("compiled")).unwrap();
    let mut files = compiled.map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|ending| ending == "cwasm"));
    let file = file.expect("a compiled module");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(!came_from_disk().await);
    assert!(came_from_disk().await);
}

#[tokio::test]
async fn a_module_that_traps_costs_its_own_requests_only() {
    let modules = Modules::new();
    modules.write("trap.wasm", TRAPPING);
    let (mock, documents) = scene(&modules.plugin("trap.wasm", "FAIL_CLOSE"));
    let gateway = gateway().file("scene.yaml", &documents).unwrap().go().unwrap();
    let request = || {
        Request::builder()
            .uri("/")
            .header("x-request-id", "trapped")
            .body(bytes::Bytes::new())
            .unwrap()
    };
    let answer = client::send(gateway.http, request()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (503, String::new()));
    assert_eq!(gateway.line_of("trapped")["details"], "wasm_fail_stream");
    assert!(
        gateway
            .metric("tollgate_wasm_traps_total{plugin=\"higress-system.filter\"}")
            .await
            >= 1.0
    );
    assert!(mock.requests().is_empty());

    let before = module_version(&gateway).await;
    gateway
        .write("scene.yaml", &documents.replace("FAIL_CLOSE", "FAIL_OPEN"))
        .unwrap();
    newer_module(&gateway, before).await;
    let answer = client::send(gateway.http, request()).await.unwrap();
    assert_ne!(answer.status.as_u16(), 503);
    assert_eq!(mock.requests().len(), 1);
}

/// A filter that marks answers with its version.
fn marking(version: u8) -> String {
    format!(
        r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "x-version{version}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $add (i32.const 2) (i32.const 16) (i32.const 9) (i32.const 25) (i32.const 1))))"#
    )
}

/// An upstream whose first answer ends only when it is told to; the others end at once.
pub(crate) async fn patient_upstream(end: tokio::sync::oneshot::Receiver<()>) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tollgate_base::task::spawn("patient upstream", async move {
        let mut end = Some(end);
        while let Ok((mut stream, _)) = listener.accept().await {
            let end = end.take();
            drop(tollgate_base::task::spawn("answer", async move {
                let mut piece = [0; 4096];
                drop(stream.read(&mut piece).await);
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
                drop(stream.write_all(head.as_bytes()).await);
                if let Some(end) = end {
                    drop(end.await);
                }
                drop(stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await);
            }));
        }
    }));
    address
}

async fn shown(gateway: &Gateway) -> Vec<(String, u64)> {
    let dump: serde_json::Value = serde_json::from_str(&gateway.admin("/config_dump").await.text()).unwrap();
    let modules = dump["modules"].as_array().unwrap().iter();
    modules
        .map(|module| {
            let state = module["state"].as_str().unwrap().to_owned();
            (state, module["requests_in_flight"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn open_requests_end_on_the_version_they_began_with_and_its_memory_goes() {
    let modules = Modules::new();
    modules.write("mark.wasm", &marking(1));
    let (end, ended) = tokio::sync::oneshot::channel();
    let upstream = patient_upstream(ended).await;
    let text = documents(&[
        bridge(&[("mock", upstream)]),
        ingress("api", "/", "mock.static", &[]),
        modules.plugin("mark.wasm", "FAIL_CLOSE"),
        verbose_log(),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let open = client::open(gateway.http, get("/")).await.unwrap();
    assert_eq!(open.headers["x-version"], "1");
    let before = module_version(&gateway).await;
    modules.write("mark.wasm", &marking(2));
    newer_module(&gateway, before).await;
    let second = client::send(gateway.http, get("/")).await.unwrap();
    assert_eq!(
        (&second.headers["x-version"], second.text()),
        (&"2".parse().unwrap(), "firstlast".to_owned())
    );
    let both = [("current".to_owned(), 0), ("draining".to_owned(), 1)];
    let settled = tokio::time::timeout(PATIENCE, async { while shown(&gateway).await != both {} });
    settled
        .await
        .expect("the second request has settled, the first has not");
    end.send(()).unwrap();
    assert_eq!(open.finish().await.text(), "firstlast");
    let gone = tokio::time::timeout(PATIENCE, async { while shown(&gateway).await.len() > 1 {} });
    gone.await.expect("the old version is given back");
}
