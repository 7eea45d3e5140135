//! A disk that fills up under log and ledger: requests are answered as before, metrics show what waits and what is lost,
//! and both go on by themselves once there is room again.
//!
//! The disk is a real one of four megabytes, mounted for the gateway alone; the test reaches it through `/proc`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_base::clock;
use tollgate_testkit::client::send;
use tollgate_testkit::process::{Gateway, Start};

use crate::support::{
    BINARY, CHAT, PATIENCE, Sight, ai_proxy, bridge, documents, ingress, mock, ordered, wasm_plugin,
};

/// Starts the gateway in a mount namespace of its own, with the disk at `$DISK`.
const ON_A_SMALL_DISK: &str = r#"#!/bin/sh
own=$([ "$(id -u)" = 0 ] || echo --map-root-user)
exec unshare $own --mount sh -c \
  'mount -t tmpfs -o size=4m small "$DISK" && exec "$TOLLGATE" "$@"' sh "$@"
"#;

const LOG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  mesh: |
    accessLogFormat: |
      {"id":"%REQ(X-REQUEST-ID)%","ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%","more":"%REQ(USER-AGENT)%"}
"#;

/// Requests while the disk is full: more rows and lines than whatever is still found room for.
const MANY: usize = 600;

/// The gateway, and the disk as the test sees it.
struct Scene {
    gateway: Gateway,
    disk: PathBuf,
    _mock: tollgate_mock_llm::Handle,
}

fn scene() -> Scene {
    let tools = tempfile::tempdir().unwrap();
    let starter = tools.path().join("start");
    std::fs::write(&starter, ON_A_SMALL_DISK).unwrap();
    std::fs::set_permissions(&starter, PermissionsExt::from_mode(0o755)).unwrap();
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin(
            "ai-statistics",
            "  defaultConfig: { use_default_attributes: true }\n",
        ),
        LOG.to_owned(),
    ]);
    let start = Start::new(&starter).unwrap().file("scene.yaml", &text).unwrap();
    let disk = start.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let gateway = start
        .variable("DISK", disk.display())
        .variable("TOLLGATE", BINARY)
        .option("--data", disk.join("data").display())
        .option("--access-log", disk.join("access.log").display())
        .go()
        .unwrap();
    let root = Path::new("/proc").join(gateway.id().to_string()).join("root");
    let disk = root.join(disk.strip_prefix("/").unwrap());
    Scene {
        gateway,
        disk,
        _mock: mock,
    }
}

impl Scene {
    /// Asks so many times, one after the other; the median of the times that it took.
    async fn ask(&self, count: usize) -> Duration {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = clock::now();
            let answer = send(self.gateway.http, ordered("", CHAT).0).await.unwrap();
            times.push(began.elapsed());
            assert_eq!((answer.status.as_u16(), answer.cut), (200, None));
        }
        times.sort_unstable();
        times[count / 2]
    }

    async fn counts<const N: usize>(&self, names: [&str; N]) -> [f64; N] {
        let mut counts = [0.0; N];
        for (count, name) in counts.iter_mut().zip(names) {
            *count = self.gateway.metric(&format!("{name}{{}}")).await;
        }
        counts
    }

    /// Waits until these metrics are as wanted.
    async fn wait<const N: usize>(&self, names: [&str; N], wanted: impl Fn([f64; N]) -> bool) -> [f64; N] {
        let until = clock::now() + PATIENCE;
        loop {
            let counts = self.counts(names).await;
            if wanted(counts) {
                return counts;
            }
            let said = || self.gateway.errors.all();
            assert!(clock::now() < until, "{names:?} are {counts:?}; {:#?}", said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const ROWS: [&str; 2] = ["tollgate_ledger_rows_total", "tollgate_ledger_rows_waiting"];
const LINES: [&str; 2] = [
    "tollgate_access_log_lines_total",
    "tollgate_access_log_dropped_total",
];

#[tokio::test]
async fn a_full_disk_slows_no_request_is_seen_in_metrics_and_is_got_over() {
    let scene = scene();
    let before = scene.ask(50).await;
    scene
        .wait(ROWS, |[written, waiting]| (written, waiting) == (50.0, 0.0))
        .await;
    scene
        .wait(LINES, |[written, dropped]| (written, dropped) == (50.0, 0.0))
        .await;

    let filler = scene.disk.join("filler");
    let full = std::fs::write(&filler, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let meanwhile = scene.ask(MANY).await;
    // A request that waited for a disk would wait for a pause between two tries at least.
    assert!(
        meanwhile < before * 3 + Duration::from_millis(20),
        "{before:?}, then {meanwhile:?}"
    );
    let all = (50 + MANY) as f64;
    let [_, waiting] = scene
        .wait(ROWS, |[written, waiting]| {
            waiting > 0.0 && written + waiting == all
        })
        .await;
    let [_, dropped] = scene
        .wait(LINES, |[written, dropped]| {
            dropped > 0.0 && written + dropped == all
        })
        .await;
    assert!(
        waiting > 100.0 && dropped > 100.0,
        "{waiting} rows wait, {dropped} lines are lost"
    );
    for said in [
        "access log cannot be written",
        "the usage ledger cannot be written",
    ] {
        scene.gateway.errors.wait_for(|line| line.contains(said)).unwrap();
    }

    std::fs::remove_file(&filler).unwrap();
    // Rows have waited, lines are gone.
    scene
        .wait(ROWS, |[written, waiting]| (written, waiting) == (all, 0.0))
        .await;
    scene.ask(50).await;
    scene
        .wait(LINES, |[written, lost]| {
            lost == dropped && written + lost == all + 50.0
        })
        .await;
    scene
        .wait(ROWS, |[written, waiting]| (written, waiting) == (all + 50.0, 0.0))
        .await;
    let log = std::fs::read_to_string(scene.disk.join("access.log")).unwrap();
    let last: Vec<_> = log.lines().rev().take(50).collect();
    assert!(
        last.iter()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{last:#?}"
    );
}
