//! Fetched modules on disk, by URL, so that a restart needs no network. A file that is not what was written is not used.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;

/// How long an unused module is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What is known of a cached module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) url: String,
    /// Of the module.
    pub(crate) sha256: String,
    /// Of the image's manifest; empty for a module that came from the web.
    pub(crate) manifest_digest: String,
}

/// A directory that belongs to the gateway alone.
#[derive(Debug, Clone)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn paths(&self, url: &str) -> (PathBuf, PathBuf) {
        let name = sha256_hex(url.as_bytes());
        (
            self.0.join(format!("{name}.json")),
            self.0.join(format!("{name}.wasm")),
        )
    }

    /// The module of `url`, if it is there and whole.
    pub(crate) fn load(&self, url: &str) -> Option<(Entry, Bytes)> {
        let (about, content) = self.paths(url);
        let entry: Entry = serde_json::from_slice(&std::fs::read(about).ok()?).ok()?;
        let bytes = std::fs::read(&content).ok()?;
        if entry.url != url || entry.sha256 != sha256_hex(&bytes) {
            tracing::warn!(url, "a cached module is damaged: it is fetched again");
            return None;
        }
        Some((entry, bytes.into()))
    }

    /// Keeps a module. Both files appear whole or not at all.
    pub(crate) fn store(&self, entry: &Entry, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let (about, content) = self.paths(&entry.url);
        write(&content, bytes)?;
        write(&about, &serde_json::to_vec(entry)?)
    }

    /// Removes what is not in use and older than a day.
    pub(crate) fn purge(&self, in_use: &HashSet<String>, now: SystemTime) -> io::Result<usize> {
        let kept: HashSet<_> = in_use
            .iter()
            .map(|url| self.paths(url))
            .flat_map(|pair| [pair.0, pair.1])
            .collect();
        let mut removed = 0;
        for file in std::fs::read_dir(&self.0)? {
            let file = file?;
            let path = file.path();
            let is_ours = [Some(OsStr::new("json")), Some(OsStr::new("wasm"))].contains(&path.extension());
            let age = now
                .duration_since(file.metadata()?.modified()?)
                .unwrap_or_default();
            if is_ours && age > KEPT && !kept.contains(&path) {
                std::fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(format!("part{}", std::process::id()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_kept_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("modules"));
        let entry = Entry {
            url: "oci://r/p:1".to_owned(),
            sha256: sha256_hex(b"module"),
            manifest_digest: "m".to_owned(),
        };
        assert!(cache.load("oci://r/p:1").is_none());
        cache.store(&entry, b"module").unwrap();
        assert_eq!(
            cache.load("oci://r/p:1"),
            Some((entry.clone(), Bytes::from_static(b"module")))
        );
        assert!(cache.load("oci://r/p:2").is_none());
        std::fs::write(cache.paths(&entry.url).1, b"moduLe").unwrap();
        assert!(cache.load("oci://r/p:1").is_none(), "a damaged module was used");
        let tomorrow = tollgate_base::clock::wall() + KEPT * 2;
        assert_eq!(
            cache
                .purge(&HashSet::from([entry.url.clone()]), tomorrow)
                .unwrap(),
            0
        );
        assert_eq!(
            cache
                .purge(&HashSet::new(), tollgate_base::clock::wall())
                .unwrap(),
            0
        );
        assert_eq!(cache.purge(&HashSet::new(), tomorrow).unwrap(), 2);
    }
}
