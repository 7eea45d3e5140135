//! A large module is compiled twice: it runs soon, and goes over to better code as to another version.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tollgate_modules::{Fetcher, Options, Wanted};
use tollgate_upstream::Shared;

use super::{LARGE, Modules, aside};
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
