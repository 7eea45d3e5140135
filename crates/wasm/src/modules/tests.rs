//! A large module is compiled twice: it runs soon, and goes over to better code as to another version.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_modules::{Fetcher, Options, PullPolicy, Wanted};
use tollgate_upstream::Shared;

use super::{FIRST_PAUSE, LARGE, LONGEST_PAUSE, Modules, aside, asks_anew};
use crate::artefact::Artefact;
use crate::engine::{COMPILER, Tier, on_all_processors};
use crate::tests::harness::{module, run_in_real_time};
use crate::{Limits, Spec};

fn padded(size: usize) -> Vec<u8> {
    module("0_2_100", &format!("(data \"{}\")", "x".repeat(size)))
}

fn modules(kept: Option<&Path>) -> Modules {
    let shared = Shared::new(
        tokio::runtime::Handle::current(),
        &tollgate_upstream::Options::default(),
    );
    let fetcher = Fetcher::new(shared, Options::default());
    Modules::new(Limits::default(), None, Some(fetcher), kept.map(Path::to_owned))
}

fn spec(name: &str, path: &Path) -> Spec {
    Spec {
        name: name.to_owned(),
        root_id: String::new(),
        source: Wanted {
            url: format!("file://{}", path.display()),
            ..Wanted::default()
        },
        config: "{}".into(),
        env: Vec::new(),
        fail_open: false,
    }
}

fn spec_at(url: String) -> Spec {
    let mut spec = spec("a", Path::new(""));
    spec.source.url = url;
    spec
}

/// Number, code and tier of what is in force, after a configuration that names these.
fn publish(modules: &Modules, specs: &[Spec]) -> Vec<Option<(u64, u64, Tier)>> {
    modules.begin();
    let found: Vec<_> = specs.iter().map(|spec| modules.find(spec.clone())).collect();
    modules.published();
    let told = found.into_iter().map(|found| {
        let one = found.generation?;
        Some((one.version, one.id, one.artefact.tier))
    });
    told.collect()
}

#[test]
fn a_large_module_runs_soon_and_goes_on_with_better_code_under_the_same_version() {
    run_in_real_time(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("module.wasm");
        std::fs::write(&path, padded(LARGE)).unwrap();
        let kept = directory.path().join("compiled");
        let modules = modules(Some(&kept));
        let specs = ["a", "b"].map(|name| spec(name, &path));
        let turn = modules.0.optimising.acquire().await.unwrap();
        publish(&modules, &specs);
        modules.settled().await;
        let first = publish(&modules, &specs);
        assert!(first.iter().all(|one| one.unwrap().2 == Tier::First), "{first:?}");
        let digest = tollgate_modules::sha256_hex(&padded(LARGE));
        assert!(
            Artefact::load(&digest, modules.kept().unwrap()).is_none(),
            "code made in a hurry was kept"
        );
        let mut changes = modules.changes();
        changes.mark_unchanged();
        drop(turn);
        changes.changed().await.unwrap();
        let better = publish(&modules, &specs);
        for (first, better) in first.iter().zip(&better) {
            let (first, better) = (first.unwrap(), better.unwrap());
            assert_eq!((better.0, better.2), (first.0, Tier::Full));
            assert_ne!(better.1, first.1, "workers would not notice");
        }
        let shown: Vec<_> = modules
            .show()
            .into_iter()
            .filter(|one| one.state == "current")
            .collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0].version, first[0].unwrap().0);
        // The next start has the better code at once.
        assert!(Artefact::load(&digest, modules.kept().unwrap()).is_some());
    });
}

#[test]
fn a_small_module_is_compiled_once() {
    run_in_real_time(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("module.wasm");
        std::fs::write(&path, padded(10)).unwrap();
        let modules = modules(None);
        let specs = [spec("a", &path)];
        publish(&modules, &specs);
        modules.settled().await;
        assert_eq!(publish(&modules, &specs)[0].unwrap().2, Tier::Full);
    });
}

/// As when the file is replaced after its document, or while it is read.
#[test]
fn the_same_bytes_written_again_are_no_new_version() {
    run_in_real_time(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("module.wasm");
        std::fs::write(&path, padded(10)).unwrap();
        let modules = modules(None);
        let specs = [spec("a", &path)];
        publish(&modules, &specs);
        modules.settled().await;
        let first = publish(&modules, &specs);
        let load_again = async || {
            // The file's time is another one.
            modules.reload_if_changed(&Arc::new(specs[0].clone()), Some((SystemTime::UNIX_EPOCH, 1)));
            modules.settled().await;
            publish(&modules, &specs)
        };
        assert_eq!(load_again().await, first);
        std::fs::write(&path, padded(11)).unwrap();
        assert_ne!(load_again().await, first);
    });
}

fn compilers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim() == COMPILER).count()
}

/// What a thread has allocated for itself goes back when it ends.
#[test]
fn no_thread_of_the_compiler_is_left_behind() {
    run_in_real_time(async {
        let look = || (rayon::current_thread_index(), compilers());
        let (index, meanwhile) = aside("tested", move || on_all_processors(look))
            .await
            .unwrap()
            .unwrap();
        assert!(index.is_some() && meanwhile > 0, "{index:?} of {meanwhile}");
        let gone = async {
            while compilers() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    });
}

/// Answers each request with the next of these, and counts what was asked.
async fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<AtomicUsize>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/module.wasm", socket.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    drop(tollgate_base::task::spawn_local("a server", async move {
        for answer in answers {
            let (mut client, _) = socket.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(client.read(&mut head).await.unwrap() > 0);
            count.fetch_add(1, Ordering::Relaxed);
            client.write_all(&answer).await.unwrap();
        }
    }));
    (url, asked)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What a test's clock shows later, without the wait.
async fn later(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

#[test]
fn what_could_not_be_fetched_is_asked_for_again() {
    run_in_real_time(async {
        let (url, asked) = serve(vec![
            answer("403 Forbidden", b""),
            answer("404 Not Found", b""),
            answer("200 OK", &padded(10)),
        ])
        .await;
        let modules = modules(None);
        let specs = [spec_at(url)];
        publish(&modules, &specs);
        modules.settled().await;
        assert_eq!(publish(&modules, &specs), [None]);
        let fault = modules.find(specs[0].clone()).fault.unwrap();
        assert!(fault.contains("403"), "{fault}");
        let due = Arc::new(specs[0].clone());
        let ask_again = async |after: Duration, expected: usize| {
            later(after).await;
            modules.reload_if_due(&due);
            modules.settled().await;
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{after:?}");
        };
        ask_again(FIRST_PAUSE / 2, 1).await;
        ask_again(FIRST_PAUSE, 2).await;
        // The next pause is twice as long.
        ask_again(FIRST_PAUSE, 2).await;
        ask_again(FIRST_PAUSE, 3).await;
        assert!(publish(&modules, &specs)[0].is_some());
        assert_eq!(modules.find(specs[0].clone()).fault, None);
    });
}

/// As `publish`, for one object with a `resourceVersion`.
fn publish_revised(modules: &Modules, spec: &Spec, revision: Option<&str>) -> Option<u64> {
    modules.begin();
    let found = modules.find_revised(spec.clone(), revision);
    modules.published();
    Some(found.generation?.version)
}

#[test]
fn a_module_that_is_always_asked_for_is_asked_for_anew_when_its_object_has_changed() {
    run_in_real_time(async {
        let (one, other) = (padded(10), padded(11));
        let texts = [&one[..], &one, &other].map(|bytes| answer("200 OK", bytes));
        let (url, asked) = serve(
            [
                texts.to_vec(),
                vec![answer("404 Not Found", b"")],
                vec![texts[2].clone()],
            ]
            .concat(),
        )
        .await;
        let modules = modules(None);
        let mut wanted = spec_at(url);
        wanted.source.policy = PullPolicy::Always;
        let due = Arc::new(wanted.clone());
        let revised = async |revision: Option<&str>, expected: usize| {
            publish_revised(&modules, &wanted, revision);
            later(FIRST_PAUSE).await;
            modules.reload_if_due(&due);
            modules.settled().await;
            assert_eq!(asked.load(Ordering::Relaxed), expected, "{revision:?}");
            publish_revised(&modules, &wanted, revision).unwrap()
        };
        let first = revised(Some("1"), 1).await;
        assert_eq!(revised(Some("1"), 1).await, first);
        assert_eq!(revised(None, 1).await, first);
        // The same bytes are no new version.
        assert_eq!(revised(Some("2"), 2).await, first);
        let second = revised(Some("3"), 3).await;
        assert!(second > first);
        // Not while the fetcher would give its last answer again.
        publish_revised(&modules, &wanted, Some("in between"));
        modules.reload_if_due(&due);
        modules.settled().await;
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        // Where it is not to be had, the one before it stays, and it is asked for until it is there.
        assert_eq!(revised(Some("4"), 4).await, second);
        assert!(modules.find(wanted.clone()).fault.unwrap().contains("404"));
        assert_eq!(revised(Some("4"), 5).await, second);
        assert_eq!(modules.find(wanted.clone()).fault, None);
    });
}

#[test]
fn only_what_is_always_asked_for_is_asked_for_anew() {
    let asked_anew = |url: &str, policy| {
        asks_anew(&Wanted {
            url: url.to_owned(),
            policy,
            ..Wanted::default()
        })
    };
    for (url, policy, expected) in [
        ("oci://r.example/p:1", PullPolicy::Always, true),
        ("http://h/m.wasm", PullPolicy::Always, true),
        ("oci://r.example/p:latest", PullPolicy::IfNotPresent, false),
        ("oci://r.example/p:1", PullPolicy::Unspecified, false),
        ("oci://r.example/p:latest", PullPolicy::Unspecified, true),
        ("r.example:5000/p", PullPolicy::Unspecified, true),
        ("r.example/p@sha256:00", PullPolicy::Unspecified, false),
        ("http://h/latest", PullPolicy::Unspecified, false),
    ] {
        assert_eq!(asked_anew(url, policy), expected, "{url} {policy:?}");
    }
}

#[test]
fn a_module_that_cannot_run_is_not_fetched_again() {
    run_in_real_time(async {
        let broken = b"\0asm\x01\0\0\0 and no more".to_vec();
        let (url, asked) = serve(vec![answer("200 OK", &broken), answer("200 OK", &broken)]).await;
        let modules = modules(None);
        let specs = [spec_at(url)];
        publish(&modules, &specs);
        modules.settled().await;
        assert!(modules.find(specs[0].clone()).fault.is_some());
        later(LONGEST_PAUSE * 2).await;
        modules.reload_if_due(&Arc::new(specs[0].clone()));
        modules.settled().await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    });
}
