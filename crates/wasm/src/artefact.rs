//! `Artefact`: one compiled module, shared by everything that runs the same bytes.

use tollgate_artefacts::Artefacts;
use wasmtime::{InstancePre, Module};

use crate::engine::{Tier, compile, engine, fresh};
use crate::host;
use crate::state::State;

/// Version of the proxy-wasm interface that a module was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abi {
    V0_1_0,
    V0_2_0,
    V0_2_1,
    /// Higress's: header callbacks return Envoy's own statuses.
    V0_2_100,
}

/// Exports that tell the version, the newest first.
const MARKERS: [(&str, Abi); 4] = [
    ("proxy_abi_version_0_2_100", Abi::V0_2_100),
    ("proxy_abi_version_0_2_1", Abi::V0_2_1),
    ("proxy_abi_version_0_2_0", Abi::V0_2_0),
    ("proxy_abi_version_0_1_0", Abi::V0_1_0),
];

impl Abi {
    pub(crate) fn is_first(self) -> bool {
        self == Self::V0_1_0
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
            Self::V0_2_100 => "0.2.100",
        }
    }
}

/// One compiled module.
pub(crate) struct Artefact {
    /// SHA-256 of the module, hexadecimal.
    pub(crate) digest: String,
    pub(crate) abi: Abi,
    pub(crate) tier: Tier,
    pub(crate) linked: InstancePre<State>,
    /// Whether its machine code came from disk.
    pub(crate) cached: bool,
}

impl Artefact {
    /// Compiles; what is good is kept for the next start. Takes seconds of CPU for a large module.
    ///
    /// # Errors
    /// What is wrong with the module, in words for a diagnostic.
    pub(crate) fn compile(
        digest: &str,
        bytes: &[u8],
        tier: Tier,
        kept: Option<&Artefacts>,
    ) -> Result<Self, String> {
        let kept = kept.filter(|_| tier == Tier::Full);
        let Some(kept) = kept else {
            let module = compile(&engine(tier)?, tier, bytes)?;
            return Self::link(digest, &module, tier, false);
        };
        let module = compile(&fresh(tier)?, tier, bytes)?;
        match kept.keep(&module, digest) {
            Ok(()) => {
                // As the next start finds it, and the compiler goes with all that it holds.
                if let Some(module) = kept.load(&engine(tier)?, digest) {
                    return Self::link(digest, &module, tier, false);
                }
            }
            Err(cause) => tracing::warn!(digest, %cause, "a compiled module cannot be kept on disk"),
        }
        Self::link(digest, &module, tier, false)
    }

    /// What an earlier run compiled; `None` when there is nothing that may be loaded.
    pub(crate) fn load(digest: &str, kept: &Artefacts) -> Option<Self> {
        let module = kept.load(&engine(Tier::Full).ok()?, digest)?;
        Self::link(digest, &module, Tier::Full, true).ok()
    }

    fn link(digest: &str, module: &Module, tier: Tier, cached: bool) -> Result<Self, String> {
        let exports = |name: &str| module.get_export(name).is_some();
        let marker = MARKERS.iter().find(|(name, _)| exports(name));
        let (_, abi) = marker.ok_or("Missing or unknown Proxy-Wasm ABI version")?;
        if !exports("proxy_on_memory_allocate") && !exports("malloc") {
            return Err("Wasm module is missing malloc function.".to_owned());
        }
        if !exports("memory") {
            return Err("the module exports no memory".to_owned());
        }
        let linker = host::linker(module.engine(), module).map_err(|cause| format!("{cause:#}"))?;
        let linked = linker
            .instantiate_pre(module)
            .map_err(|cause| format!("the module imports what no host provides: {cause:#}"))?;
        Ok(Self {
            digest: digest.to_owned(),
            abi: *abi,
            tier,
            linked,
            cached,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let bytes = wat::parse_str(text).unwrap();
        Artefact::compile("digest", &bytes, Tier::Full, None)
            .err()
            .unwrap()
    }

    #[test]
    fn modules_that_cannot_be_plugins_are_refused_in_words() {
        let marker = r#"(func (export "proxy_abi_version_0_2_1"))"#;
        let allocator = r#"(func (export "malloc") (param i32) (result i32) i32.const 8)"#;
        let memory = r#"(memory (export "memory") 1)"#;
        assert_eq!(refusal("(module)"), "Missing or unknown Proxy-Wasm ABI version");
        assert_eq!(
            refusal(&format!("(module {marker})")),
            "Wasm module is missing malloc function."
        );
        assert_eq!(
            refusal(&format!("(module {marker} {allocator})")),
            "the module exports no memory"
        );
        let import = r#"(import "env" "proxy_unheard_of" (func (param i32)))"#;
        let unknown = refusal(&format!("(module {import} {marker} {allocator} {memory})"));
        assert!(unknown.contains("proxy_unheard_of"), "{unknown}");
        let import = r#"(import "env" "proxy_log" (func (param i64)))"#;
        let wrong = refusal(&format!("(module {import} {marker} {allocator} {memory})"));
        assert!(
            wrong.contains("proxy_log") && wrong.contains("incompatible"),
            "{wrong}"
        );
        let garbage = Artefact::compile("digest", b"\0asm\x01\0\0\0junk", Tier::Full, None)
            .err()
            .unwrap();
        assert!(garbage.starts_with("the module cannot be compiled"), "{garbage}");
        let shared = refusal(r#"(module (memory (export "memory") 1 1 shared))"#);
        assert!(shared.contains("threads"), "{shared}");
        let wide = refusal(r#"(module (memory (export "memory") i64 1))"#);
        assert!(wide.contains("memory64"), "{wide}");
    }

    /// One that has compiled holds what it needed for as long as it lives.
    #[test]
    fn what_is_kept_runs_on_an_engine_that_has_compiled_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Artefacts::open(directory.path().join("kept"), 1 << 20).unwrap();
        let bytes = crate::tests::harness::module("0_2_100", "");
        let made = Artefact::compile("d", &bytes, Tier::Full, Some(&kept)).unwrap();
        let running = made.linked.module().engine();
        assert!(wasmtime::Engine::same(running, &engine(Tier::Full).unwrap()));
        assert!(!made.cached);
        let unkept = compile(&fresh(Tier::Full).unwrap(), Tier::Full, &bytes).unwrap();
        assert!(!wasmtime::Engine::same(unkept.engine(), running));
    }

    #[test]
    fn the_first_engine_goes_with_the_last_module_on_it() {
        let place = crate::engine::Passing(std::sync::Mutex::new(None));
        let (one, other) = (place.get().unwrap(), place.get().unwrap());
        assert!(wasmtime::Engine::same(&one, &other));
        let module = compile(&one, Tier::First, &crate::tests::harness::module("0_2_100", "")).unwrap();
        let weak = one.weak();
        drop((one, other));
        assert!(weak.upgrade().is_some());
        drop(module);
        // The clock of its guests may look at it just now.
        while weak.upgrade().is_some() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn unknown_parts_of_wasi_are_answered_and_known_ones_may_be_imported_twice() {
        let text = r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_symlink" (func (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_100"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) i32.const 8))"#;
        let made = Artefact::compile("d", &wat::parse_str(text).unwrap(), Tier::First, None).unwrap();
        assert_eq!(made.abi, Abi::V0_2_100);
    }
}
