//! What modules cost, held in an optimised build: `scripts/setup wasm`, then `cargo test --profile quick -p
//! tollgate-wasm --lib -- speed --nocapture --test-threads 1` shows the figures.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tollgate_artefacts::Artefacts;
use tollgate_modules::sha256_hex;

use super::harness::{Bench, Setup, get, run_in_real_time};
use crate::artefact::Artefact;
use crate::engine::{Tier, cpu_time};
use crate::vm::Vm;

/// CPU time that a module which looks at headers alone adds to a request.
const CALL: Duration = Duration::from_micros(25);
/// CPU time until a module of 9 MB runs that was never seen, and that of one that was.
const COLD: Duration = Duration::from_secs(6);
const CACHED: Duration = Duration::from_millis(50);
/// What an instance holds, its heap included.
const MEMORY: usize = 12 * 1024 * 1024;
const INSTANCES: usize = 20;

fn built(name: &str) -> Vec<u8> {
    let path = format!("{}/../../.cache/wasm/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|_| panic!("{path} is missing: run scripts/setup wasm"))
}

async fn spent(bench: &Bench, requests: u32) -> Duration {
    let begun = cpu_time();
    for _ in 0..requests {
        let mut request = get("/");
        for (name, value) in [
            ("x-request-id", "1-2-3"),
            ("user-agent", "test"),
            ("accept", "*/*"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(bench.send(request).await.status, 200);
    }
    (cpu_time() - begun) / requests
}

#[test]
#[cfg_attr(debug_assertions, ignore = "measured where it is optimised")]
fn speed_of_a_module_that_looks_at_headers() {
    run_in_real_time(async {
        let bare = Setup::default().bare();
        let bytes = built("headers-go.wasm");
        for tier in [Tier::First, Tier::Full] {
            let artefact = Artefact::compile("headers", &bytes, tier, None).unwrap();
            let with = Setup::default().bench_with(artefact);
            spent(&with, 3000).await;
            // Turn by turn, so that other load hits both; the least of each is nearest to the truth.
            let (mut least, mut least_with) = (Duration::MAX, Duration::MAX);
            for _ in 0..10 {
                least = least.min(spent(&bare, 1000).await);
                least_with = least_with.min(spent(&with, 1000).await);
            }
            let added = least_with.saturating_sub(least);
            println!(
                "{tier:?}: a request takes {least:?} without, {least_with:?} with the module: {added:?} more"
            );
            assert!(tier == Tier::First || added < CALL);
        }
    });
}

fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|row| row.strip_prefix("VmRSS:")).unwrap();
    let kib: usize = row.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[test]
#[cfg_attr(debug_assertions, ignore = "measured where it is optimised")]
fn speed_of_loading_nine_megabytes_and_what_an_instance_holds() {
    let bytes = built("large-go.wasm");
    let digest = sha256_hex(&bytes);
    let directory = tempfile::tempdir().unwrap();
    let kept = Artefacts::open(directory.path().join("compiled"), 1 << 30).unwrap();

    let begun = process_cpu();
    let first = Artefact::compile(&digest, &bytes, Tier::First, None).unwrap();
    let cold = process_cpu() - begun;
    drop(first);
    let begun = process_cpu();
    drop(Artefact::compile(&digest, &bytes, Tier::Full, Some(&kept)).unwrap());
    let full = process_cpu() - begun;
    println!(
        "{} bytes: {cold:?} of CPU until they run, {full:?} for the better code",
        bytes.len()
    );
    assert!(cold < COLD);

    let mut least = Duration::MAX;
    for _ in 0..10 {
        let begun = cpu_time();
        // As at a start: the module is read and checked, its code likewise.
        assert_eq!(sha256_hex(&built("large-go.wasm")), digest);
        drop(Artefact::load(&digest, &kept).unwrap());
        least = least.min(cpu_time() - begun);
    }
    println!("from disk: {least:?} of CPU");
    assert!(least < CACHED);

    let bench = Setup::default().bench_with(Artefact::load(&digest, &kept).unwrap());
    let generation = &bench.generation;
    let warm = Vm::start(generation, None).unwrap();
    let before = resident();
    let many: Vec<_> = (0..INSTANCES)
        .map(|_| Vm::start(generation, None).unwrap())
        .collect();
    let each = resident().saturating_sub(before) / INSTANCES;
    println!("an instance holds {} KiB", each / 1024);
    assert!(each < MEMORY);
    drop((many, warm));
}
