//! Compiled modules on disk, so that a restart compiles nothing. `wasm` asks here before it compiles, and hands over
//! what it compiled; nothing here is reached by a request.
//!
//! A compiled module is machine code that will run in this process: loading one is the only unsafe thing in the
//! gateway. It happens in one function, on bytes that carry a seal made with a key of this directory, for this module
//! and for this very compiler. What is damaged, cut, foreign or open to others is not loaded, and compiled again.

mod directory;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;

use aws_lc_rs::hmac;
use wasmtime::{Engine, Module};

use directory::Directory;

/// Begins every file; the digit is the layout's.
const MAGIC: &[u8; 8] = b"TOLLGWA1";
/// Bytes of the seal behind it.
const SEAL: usize = 32;

/// The compiled modules of one directory.
#[derive(Debug)]
pub struct Artefacts {
    directory: Directory,
    /// Bytes of all files together.
    limit: u64,
    key: hmac::Key,
}

impl Artefacts {
    /// Opens the directory, which is made if need be and belongs to the gateway's user alone. `limit` bounds all files
    /// together, in bytes; those that were used longest ago go first.
    ///
    /// # Errors
    /// When it is somebody else's, or cannot be read or written.
    pub fn open(path: PathBuf, limit: u64) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &directory.key()?);
        Ok(Self {
            directory,
            limit,
            key,
        })
    }

    /// The compiled form of the module with this SHA-256 (hexadecimal); `None` when there is none that may be loaded.
    #[must_use]
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Module> {
        let name = file_name(engine, digest);
        let bytes = match self.directory.read(&name, self.limit) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return None,
            Err(cause) => {
                tracing::warn!(file = name, %cause, "a compiled module cannot be used: it is compiled again");
                return None;
            }
        };
        let Some(code) = self.unsealed(&name, &bytes) else {
            tracing::warn!(
                file = name,
                "a compiled module is not as it was written: it is compiled again"
            );
            return None;
        };
        match trusted(engine, code) {
            Ok(module) => Some(module),
            Err(cause) => {
                tracing::warn!(
                    file = name,
                    "a compiled module is not for this gateway: {cause:#}"
                );
                None
            }
        }
    }

    /// Keeps a compiled module: a whole file or none.
    ///
    /// # Errors
    /// When it cannot be written, or is larger than all files together may be.
    pub fn keep(&self, module: &Module, digest: &str) -> io::Result<()> {
        let code = module
            .serialize()
            .map_err(|cause| io::Error::other(format!("{cause:#}")))?;
        let name = file_name(module.engine(), digest);
        let seal = self.seal(&name, &code);
        let length = u64::try_from(MAGIC.len() + SEAL + code.len()).unwrap_or(u64::MAX);
        if length > self.limit {
            return Err(io::Error::other(format!(
                "{length} bytes, more than all may have"
            )));
        }
        self.directory.make_room(self.limit - length)?;
        self.directory.write(&name, &[MAGIC, seal.as_ref(), &code])
    }

    fn seal(&self, name: &str, code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [MAGIC, name.as_bytes(), b"\n", code] {
            context.update(part);
        }
        context.sign()
    }

    /// What was sealed under this name; `None` when the seal does not fit.
    fn unsealed<'b>(&self, name: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (seal, code) = bytes.strip_prefix(MAGIC)?.split_at_checked(SEAL)?;
        let wanted = self.seal(name, code);
        aws_lc_rs::constant_time::verify_slices_are_equal(wanted.as_ref(), seal).ok()?;
        Some(code)
    }
}

/// The name says for what the file is: the module, and the compiler with its settings and the processor's features.
fn file_name(engine: &Engine, digest: &str) -> String {
    let mut compiler = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut compiler);
    format!("{digest}-{:016x}.cwasm", compiler.finish())
}

/// Machine code out of bytes whose seal was checked. They are copied: what happens to the file later changes nothing.
#[expect(
    unsafe_code,
    reason = "wasmtime trusts what it is given; the seal is why it may"
)]
fn trusted(engine: &Engine, code: &[u8]) -> wasmtime::Result<Module> {
    // SAFETY: `deserialize` must only see what `Module::serialize` made. `code` was sealed by `keep` right after
    // `serialize`, with a key that only this user can read, under a name that carries the engine's own compatibility
    // hash; `unsealed` has just found the seal whole. Wasmtime checks version and settings once more.
    unsafe { Module::deserialize(engine, code) }
}
