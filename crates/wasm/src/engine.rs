//! The compiler and its clock: made when the first module comes, so that a gateway without modules pays nothing.
//!
//! Wasmtime's LTS line with only what proxy-wasm modules need: threads, 64-bit and several memories stay off.

use std::sync::OnceLock;
use std::time::Duration;

use wasmtime::{Config, Engine, OptLevel};

/// How often running guests are looked at.
const EPOCH: Duration = Duration::from_millis(10);

static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();

/// The process's engine.
///
/// # Errors
/// When the machine cannot run compiled code, in words for a diagnostic.
pub(crate) fn engine() -> Result<&'static Engine, String> {
    let made =
        ENGINE.get_or_init(|| make().map_err(|cause| format!("modules cannot be run here: {cause:#}")));
    made.as_ref().map_err(Clone::clone)
}

fn make() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .parallel_compilation(true)
        .memory_init_cow(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_simd(true)
        .wasm_multi_value(true)
        .wasm_bulk_memory(true)
        .wasm_tail_call(true)
        .wasm_relaxed_simd(false);
    let engine = Engine::new(&config)?;
    let clock = engine.weak();
    std::thread::Builder::new()
        .name("wasm-epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = clock.upgrade() {
                engine.increment_epoch();
                drop(engine);
                // Nobody ever unparks this thread: it is a sleep that no clippy rule has to excuse.
                std::thread::park_timeout(EPOCH);
            }
        })?;
    Ok(engine)
}

/// CPU time that this thread has used.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}
