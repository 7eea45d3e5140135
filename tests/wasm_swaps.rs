//! A plugin whose module and config change two hundred times under load, with a stream open all the while: no request
//! fails, the stream ends on the version it began with, the memory comes back, and what operators see is true.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value;
use tollgate_modules::sha256_hex;
use tollgate_testkit::client::{self, get};
use tollgate_testkit::process::Gateway;

use crate::support::{PATIENCE, Sight, bridge, documents, gateway, ingress};
use crate::wasm::{gateway_command, patient_upstream};

const SWAPS: u32 = 200;
/// Number of the version before the first swap.
const FIRST: u32 = 3;
/// Requests under way at any time.
const CLIENTS: usize = 4;
/// After so many swaps what is made once has been made.
const WARM: u32 = 50;

/// The module of a swap: tells its config in the answer's head, and once more at its end.
fn module(swap: u32) -> Vec<u8> {
    let number = (swap + 1) / 3;
    let text = format!(
        r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (data (i32.const 16) "x-version")
        (data (i32.const 100) "module {number}")
        (func (export "proxy_abi_version_0_2_100"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 131072))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (i32.eqz (call $get (i32.const 7) (i32.const 0) (i32.const 99) (i32.const 32) (i32.const 36))))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $add (i32.const 2) (i32.const 16) (i32.const 9) (i32.load (i32.const 32)) (i32.load (i32.const 36))))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
          (if (local.get 2)
            (then (drop (call $set (i32.const 1) (local.get 1) (i32.const 0) (i32.load (i32.const 32)) (i32.load (i32.const 36))))))
          (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

/// The documents after so many swaps: by turns the config changes, the module behind the same address and its digest,
/// and the address.
struct Versions {
    directory: tempfile::TempDir,
    upstream: std::net::SocketAddr,
}

impl Versions {
    fn path(&self, swap: u32) -> PathBuf {
        self.directory
            .path()
            .join(format!("module-{}.wasm", swap / 3 % 2))
    }

    /// Puts the module of this swap in its place and gives the documents.
    fn write(&self, swap: u32) -> String {
        let digest = digest(swap);
        put(&self.path(swap), &module(swap));
        let plugin = format!(
            "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: swapped\n  namespace: \
             higress-system\nspec:\n  url: file://{}\n  sha256: {digest}\n  failStrategy: FAIL_CLOSE\n  defaultConfig: \
             {}\n",
            self.path(swap).display(),
            config(swap)
        );
        let parts = [
            bridge(&[("mock", self.upstream)]),
            ingress("api", "/", "mock.static", &[]),
            plugin,
        ];
        documents(&parts)
    }
}

fn digest(swap: u32) -> String {
    sha256_hex(&module(swap))
}

/// The config of a swap: the version that answers show.
fn config(swap: u32) -> String {
    format!("{{\"version\":{}}}", version(swap))
}

fn version(swap: u32) -> u32 {
    (swap - 1) / 3 * 3 + 1
}

/// A whole file appears at once.
fn put(path: &Path, bytes: &[u8]) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, bytes).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// The number in a version's mark.
fn number(mark: &str) -> u32 {
    let value: Value = serde_json::from_str(mark).unwrap_or_else(|error| panic!("{error}: {mark}"));
    value["version"].as_u64().unwrap().try_into().unwrap()
}

async fn shown(gateway: &Gateway) -> Vec<Value> {
    let dump: Value = serde_json::from_str(&gateway.admin("/config_dump").await.text()).unwrap();
    dump["modules"].as_array().unwrap().clone()
}

/// Asks without pause until it is over; each answer is whole and from a version that was in force meanwhile.
async fn ask(
    http: std::net::SocketAddr,
    in_force: Rc<AtomicU32>,
    written: Rc<AtomicU32>,
    over: Rc<AtomicBool>,
) -> u32 {
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let oldest = in_force.load(Ordering::Relaxed);
        let answer = client::send(http, get("/")).await.unwrap();
        let newest = written.load(Ordering::Relaxed);
        assert_eq!(answer.status, 200, "{answer:?}");
        let mark = answer.header("x-version").to_owned();
        let version = number(&mark);
        assert!(
            (oldest..=newest).contains(&version),
            "{version} between {oldest} and {newest}"
        );
        assert_eq!(
            answer.text(),
            format!("firstlast{mark}"),
            "one version from head to end"
        );
        answered += 1;
    }
    answered
}

/// Waits until operators see this swap's module in force, and a client its config.
async fn taken(gateway: &Gateway, versions: &Versions, swap: u32) {
    let url = format!("file://{}", versions.path(swap).display());
    let wait = async {
        loop {
            let current = &shown(gateway).await[0];
            if current["digest"] != digest(swap) || current["url"] != url {
                continue;
            }
            let answer = client::send(gateway.http, get("/")).await.unwrap();
            if answer.header("x-version") == config(swap) {
                return;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("swap {swap} is not taken; said: {:#?}", gateway.errors.all());
    }
}

/// Swaps again and again; the memory after `WARM` of them.
async fn swap(gateway: &Gateway, versions: &Versions, in_force: &AtomicU32, written: &AtomicU32) -> u64 {
    let mut warm = 0;
    for swap in FIRST + 1..=FIRST + SWAPS {
        written.store(version(swap), Ordering::Relaxed);
        gateway.write("scene.yaml", &versions.write(swap)).unwrap();
        taken(gateway, versions, swap).await;
        in_force.store(version(swap), Ordering::Relaxed);
        if swap == FIRST + WARM {
            warm = gateway.memory_kib();
        }
    }
    warm
}

#[tokio::test]
async fn two_hundred_swaps_under_load_lose_nothing() {
    let (end, ended) = tokio::sync::oneshot::channel();
    let versions = Versions {
        directory: tempfile::tempdir().unwrap(),
        upstream: patient_upstream(ended).await,
    };
    let text = versions.write(FIRST);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let open = client::open(gateway.http, get("/")).await.unwrap();
    assert_eq!(open.headers["x-version"], config(FIRST));

    let fresh = || Rc::new(AtomicU32::new(version(FIRST)));
    let (in_force, written) = (fresh(), fresh());
    let over = Rc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|_| ask(gateway.http, in_force.clone(), written.clone(), over.clone()));
    let swaps = async {
        let warm = swap(&gateway, &versions, &in_force, &written).await;
        over.store(true, Ordering::Relaxed);
        warm
    };
    let (answered, warm) = futures_util::future::join(futures_util::future::join_all(clients), swaps).await;
    let answered: u32 = answered.iter().sum();
    assert!(answered > SWAPS, "{answered} requests");

    // The stream has held its version; what served the others is gone.
    let two = async {
        loop {
            let modules = shown(&gateway).await;
            if modules.len() == 2 && modules[0]["requests_in_flight"] == 0 {
                return modules;
            }
        }
    };
    let modules = tokio::time::timeout(PATIENCE, two)
        .await
        .expect("only the stream's old version stays");
    assert_eq!(
        (
            &modules[1]["state"],
            &modules[1]["digest"],
            &modules[1]["requests_in_flight"]
        ),
        (&"draining".into(), &digest(FIRST).into(), &1.into())
    );
    end.send(()).unwrap();
    assert_eq!(open.finish().await.text(), format!("firstlast{}", config(FIRST)));
    let gone = tokio::time::timeout(PATIENCE, async { while shown(&gateway).await.len() > 1 {} });
    gone.await.expect("the old version is given back");

    let last = gateway.memory_kib();
    println!("{SWAPS} swaps, {answered} requests, {warm} KiB after {WARM} swaps, {last} KiB at the end");
    assert!(
        last * 100 <= warm * 105,
        "{last} KiB at the end, {warm} KiB after {WARM} swaps"
    );
    let current = &shown(&gateway).await[0];
    assert_eq!(
        (
            &current["state"],
            &current["digest"],
            &current["traps"],
            &current["requests_in_flight"]
        ),
        (
            &"current".into(),
            &digest(FIRST + SWAPS).into(),
            &0.into(),
            &0.into()
        )
    );
    let live = gateway_command(&gateway);
    let lines: Vec<&str> = live
        .lines()
        .filter(|line| line.contains("higress-system.swapped"))
        .collect();
    assert_eq!(lines.len(), 1, "{live}");
    assert!(lines[0].contains("current"), "{live}");
}
