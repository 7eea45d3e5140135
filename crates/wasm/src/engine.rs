//! The compilers and their clock: made when the first module comes, so that a gateway without modules pays nothing.
//!
//! Wasmtime's LTS line with only what proxy-wasm modules need: threads, 64-bit and several memories stay off. There are
//! two: one that is done soon, and one whose code is good; a large module is compiled by both, one after the other.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Engine, EngineWeak, Module, OptLevel, RegallocAlgorithm};

/// How often running guests are looked at.
const EPOCH: Duration = Duration::from_millis(10);

/// How much trouble the compiler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Done in half the time, on all processors; its code takes twice as long.
    First,
    /// Code for as long as the module runs, compiled on one processor.
    Full,
}

/// Where modules run that were compiled with care.
static FULL: OnceLock<Result<Engine, String>> = OnceLock::new();
/// Where modules run meanwhile.
static FIRST: Passing = Passing(Mutex::new(None));

/// An engine that lives as long as something of it does: one that has compiled keeps what it needed for its largest
/// function, once for each thread, and a large module of Go leaves tens of megabytes so.
pub(crate) struct Passing(pub(crate) Mutex<Option<EngineWeak>>);

impl Passing {
    pub(crate) fn get(&self) -> Result<Engine, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = known.as_ref().and_then(EngineWeak::upgrade) {
            return Ok(engine);
        }
        let made = fresh(Tier::First)?;
        *known = Some(made.weak());
        Ok(made)
    }
}

/// The engine that modules of a tier run on.
///
/// # Errors
/// When the machine cannot run compiled code, in words for a diagnostic.
pub(crate) fn engine(tier: Tier) -> Result<Engine, String> {
    match tier {
        Tier::First => FIRST.get(),
        Tier::Full => FULL.get_or_init(|| fresh(Tier::Full)).clone(),
    }
}

/// One of its own, for a compilation that shall leave nothing behind.
pub(crate) fn fresh(tier: Tier) -> Result<Engine, String> {
    make(tier).map_err(|cause| format!("modules cannot be run here: {cause:#}"))
}

/// Name of the threads that the first compiler works on.
pub(crate) const COMPILER: &str = "wasm-compile";

/// Compiles a module.
///
/// # Errors
/// What is wrong with the module, in words for a diagnostic.
pub(crate) fn compile(engine: &Engine, tier: Tier, bytes: &[u8]) -> Result<Module, String> {
    let work = || Module::new(engine, bytes);
    let made = match tier {
        Tier::First => on_all_processors(work)?,
        Tier::Full => work(),
    };
    made.map_err(|cause| format!("the module cannot be compiled: {cause:#}"))
}

/// On threads that end with the work: those of a pool that stays would keep what they needed, tens of megabytes.
pub(crate) fn on_all_processors<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, String> {
    let threads = rayon::ThreadPoolBuilder::new().thread_name(|_| COMPILER.to_owned());
    let pool = threads
        .build()
        .map_err(|cause| format!("there are no threads to compile on: {cause}"))?;
    Ok(pool.install(work))
}

fn make(tier: Tier) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    match tier {
        Tier::First => config
            .cranelift_opt_level(OptLevel::None)
            .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass),
        Tier::Full => config.cranelift_opt_level(OptLevel::Speed),
    };
    config
        .epoch_interruption(true)
        .parallel_compilation(tier == Tier::First)
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

/// Lets this thread run only where no other wants to. Only a thread that ends with its work may be given away so.
pub(crate) fn step_back() {
    const LAST: i32 = 19;
    // It is compiled all the same where that is not possible.
    let _ = rustix::process::nice(LAST);
}

/// CPU time that this thread has used.
pub(crate) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}
