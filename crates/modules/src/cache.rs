//! Fetched modules on disk, by URL, so that a restart needs no network. A file that is not what was written is not used.
//!
//! A private image is not for everybody who can spell its name: the entry remembers by marks whose credentials the
//! registry took, and the fetcher asks the registry anew for anybody else. A mark is a keyed digest, never a secret.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tollgate_base::Secret;

use crate::digest::{hex, sha256_hex};

/// How long an unused module is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Marks of others that an entry keeps.
const MOST_MARKS: usize = 32;
/// Name of the file with the key that marks are made with, and its length in bytes.
const KEY: &str = "key";
const KEY_LENGTH: usize = 32;

/// What is known of a cached module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) url: String,
    /// Of the module.
    pub(crate) sha256: String,
    /// Of the image's manifest; empty for a module that came from the web.
    pub(crate) manifest_digest: String,
    /// Who was given it.
    #[serde(default)]
    pub(crate) given_to: Vec<Mark>,
}

/// Stands for the credentials that a module was fetched with; nobody's is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark(String);

impl Mark {
    /// Of somebody who told no credentials.
    pub(crate) const ANYBODY: Self = Self(String::new());
}

impl Entry {
    /// Whether the bearer may have it unasked: it was given to the same credentials, or to anybody.
    pub(crate) fn is_for(&self, bearer: &Mark) -> bool {
        self.given_to.contains(bearer) || self.given_to.contains(&Mark::ANYBODY)
    }

    /// The same module was given to others before: they need not ask again.
    pub(crate) fn keep_others(&mut self, before: Self) {
        if before.sha256 == self.sha256 && before.manifest_digest == self.manifest_digest {
            let others = before
                .given_to
                .into_iter()
                .filter(|mark| !self.given_to.contains(mark));
            let others: Vec<Mark> = others.take(MOST_MARKS).collect();
            self.given_to.extend(others);
        }
    }
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

    /// The mark of credentials for a registry. `None`: none can be made here, so nothing is known of who they are.
    pub(crate) fn mark(&self, registry: &str, login: Option<&Secret>) -> Option<Mark> {
        let Some(login) = login else {
            return Some(Mark::ANYBODY);
        };
        let key = self.key().inspect_err(|cause| {
            tracing::warn!(%cause, "private images cannot be kept on disk");
        });
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key.ok()?));
        for part in [registry, "\n", login.expose()] {
            context.update(part.as_bytes());
        }
        Some(Mark(hex(context.sign().as_ref())))
    }

    /// The directory's own secret; a new one when there is none that is whole.
    fn key(&self) -> io::Result<Vec<u8>> {
        let path = self.0.join(KEY);
        if let Ok(key) = std::fs::read(&path)
            && key.len() == KEY_LENGTH
        {
            return Ok(key);
        }
        self.prepare()?;
        let mut key = vec![0; KEY_LENGTH];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no random bytes"))?;
        write(&path, &key)?;
        Ok(key)
    }

    /// Makes the directory if need be; nobody else may enter it.
    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        std::fs::set_permissions(&self.0, Permissions::from_mode(0o700))
    }

    /// Keeps a module. Both files appear whole or not at all.
    pub(crate) fn store(&self, entry: &Entry, bytes: &[u8]) -> io::Result<()> {
        self.prepare()?;
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
    drop(std::fs::remove_file(&partial));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
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
            given_to: vec![Mark::ANYBODY],
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

    #[test]
    fn a_mark_tells_credentials_apart_over_restarts_and_tells_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| Cache::new(directory.path().join(name));
        let secret = Secret::new("dXNlcjpzM2NyZXQ=");
        let mark = |cache: &Cache, registry: &str| cache.mark(registry, Some(&secret)).unwrap();
        let own = mark(&open("a"), "r");
        assert_eq!(own, mark(&open("a"), "r"));
        assert_ne!(own, mark(&open("a"), "other"));
        assert_ne!(own, mark(&open("b"), "r"), "the key is not in it");
        assert_ne!(own, open("a").mark("r", Some(&Secret::new("x"))).unwrap());
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path().join("a")), 0o700);
        assert_eq!(mode(directory.path().join("a/key")), 0o600);
    }

    #[test]
    fn an_entry_is_for_those_it_was_given_to() {
        let mark = |text: &str| Mark(text.to_owned());
        let entry = |sha256: &str, given_to: &[&str]| Entry {
            url: "oci://r/p:1".to_owned(),
            sha256: sha256.to_owned(),
            manifest_digest: "m".to_owned(),
            given_to: given_to.iter().map(|text| mark(text)).collect(),
        };
        let mut private = entry("s", &["a"]);
        assert!(private.is_for(&mark("a")));
        assert!(!private.is_for(&mark("b")) && !private.is_for(&Mark::ANYBODY));
        assert!(entry("s", &[""]).is_for(&mark("b")));
        assert!(
            !entry("s", &[]).is_for(&Mark::ANYBODY),
            "written by an older gateway"
        );
        private.keep_others(entry("another", &["c"]));
        assert!(!private.is_for(&mark("c")), "another module was given to c");
        private.keep_others(entry("s", &["a", "b"]));
        assert_eq!(private.given_to, [mark("a"), mark("b")]);
    }
}
