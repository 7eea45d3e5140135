//! `Fetcher`: a wanted module to checked bytes. One fetch for all who want the same; a failure is believed for 10 s.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tollgate_base::clock::{self, Instant};
use tollgate_upstream::{Reach, Shared};

use crate::ask::{Ask, Failure, ask};
use crate::cache::{Cache, Entry, Mark};
use crate::digest::sha256_hex;
use crate::login::Logins;
use crate::reference::{Image, Reference};
use crate::registry;
use crate::unpack;

/// How long an outcome is handed to others who want the same.
const BELIEVED: Duration = Duration::from_secs(10);

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PullPolicy {
    /// Always for the tag `latest`, else if not present.
    #[default]
    Unspecified,
    /// A module that was fetched from this URL before will do.
    IfNotPresent,
    /// Asked for each time somebody wants it.
    Always,
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Wanted {
    /// `url`; without a scheme it is an image.
    pub url: String,
    /// `sha256`, hexadecimal: of the manifest for an image, else of the module. Empty: not checked.
    pub sha256: String,
    /// `imagePullPolicy`.
    pub policy: PullPolicy,
    /// From `imagePullSecret`.
    pub logins: Logins,
}

/// A module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Begins as a module does.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the image's manifest; empty for other sources.
    pub manifest_digest: String,
}

/// Another place for the images whose names begin so: `r.example/plugins=mirror.local:5000/p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    from: String,
    to: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(Self {
                from: from.trim_end_matches('/').to_owned(),
                to: to.trim_end_matches('/').to_owned(),
            }),
            _ => Err(format!("{text:?}: expected REGISTRY[/PATH]=REGISTRY[/PATH]")),
        }
    }
}

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Options {
    /// Largest module in bytes. Default 256 MiB.
    pub limit: usize,
    /// Longest fetch of one module. Default 30 s for headers and bodies together.
    pub timeout: Duration,
    /// Where modules are kept over a restart. Default none.
    pub cache: Option<PathBuf>,
    /// The longest name that fits wins.
    pub mirrors: Vec<Mirror>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: 256 * 1024 * 1024,
            timeout: Duration::from_secs(30),
            cache: None,
            mirrors: Vec::new(),
        }
    }
}

type Outcome = Result<Fetched, String>;
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Outcome)>>>;

/// Gets modules. Made once; cheap to clone.
#[derive(Clone)]
pub struct Fetcher(Arc<Inner>);

struct Inner {
    shared: Shared,
    options: Options,
    cache: Option<Cache>,
    slots: Mutex<HashMap<Wanted, Slot>>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Uses the gateway's own names, roots and `--resolve`.
    #[must_use]
    pub fn new(shared: Shared, options: Options) -> Self {
        Self(Arc::new(Inner {
            shared,
            cache: options.cache.clone().map(Cache::new),
            options,
            slots: Mutex::default(),
        }))
    }

    /// Gets a module. Who wants the same at the same time shares one fetch.
    ///
    /// # Errors
    /// What is wrong, in words for a diagnostic; never a credential.
    pub async fn fetch(&self, wanted: &Wanted) -> Outcome {
        // A file costs nobody else anything, and the one that is there now is meant.
        if wanted.url.starts_with("file://") {
            return self.get(wanted).await;
        }
        let slot = self.slot(wanted);
        let mut outcome = slot.lock().await;
        let fresh = |at: &Instant| clock::now().saturating_duration_since(*at) < BELIEVED;
        if let Some((_, known)) = outcome.as_ref().filter(|known| fresh(&known.0)) {
            return known.clone();
        }
        let limit = self.0.options.timeout;
        let fetched = match tokio::time::timeout(limit, self.get(wanted)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!(
                "{}: not fetched within {} s",
                wanted.url,
                limit.as_secs_f32()
            )),
        };
        *outcome = Some((clock::now(), fetched.clone()));
        fetched
    }

    /// Removes cached modules that nobody uses and that are older than a day.
    pub fn purge(&self, in_use: &HashSet<String>) {
        let Some(cache) = &self.0.cache else { return };
        match cache.purge(in_use, clock::wall()) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "unused modules removed from the cache"),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => tracing::warn!(%cause, "the module cache cannot be cleaned"),
        }
    }

    /// The slot of `wanted`; what nobody waits for and nobody may be told any more is forgotten.
    fn slot(&self, wanted: &Wanted) -> Slot {
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| {
            let is_stale = || {
                slot.try_lock().is_ok_and(|outcome| {
                    outcome
                        .as_ref()
                        .is_none_or(|known| clock::now().saturating_duration_since(known.0) >= BELIEVED)
                })
            };
            Arc::strong_count(slot) > 1 || !is_stale()
        });
        slots.entry(wanted.clone()).or_default().clone()
    }

    async fn get(&self, wanted: &Wanted) -> Outcome {
        match Reference::parse(&wanted.url)? {
            Reference::File(path) => self.read(&path, wanted).await,
            Reference::Web(uri) => {
                let may_reuse = wanted.policy != PullPolicy::Always;
                self.cached(wanted, may_reuse, Some(Mark::ANYBODY), self.download(uri, wanted))
                    .await
            }
            Reference::Image(image) => {
                let may_reuse = image.is_pinned()
                    || match wanted.policy {
                        PullPolicy::Always => false,
                        PullPolicy::IfNotPresent => true,
                        PullPolicy::Unspecified => image.version != "latest",
                    };
                let image = self.mirrored(image);
                let bearer = self.mark(&image, wanted);
                self.cached(wanted, may_reuse, bearer, self.pull(image, wanted))
                    .await
            }
        }
    }

    /// As whom the registry of `image` is asked.
    fn mark(&self, image: &Image, wanted: &Wanted) -> Option<Mark> {
        let cache = self.0.cache.as_ref()?;
        cache.mark(image.host(), wanted.logins.basic(image.host()))
    }

    /// What the cache has, if it will do and the bearer may have it; else what `fetch` gives, kept for the next time.
    /// Nothing is kept for a bearer that is not known.
    async fn cached(
        &self,
        wanted: &Wanted,
        may_reuse: bool,
        bearer: Option<Mark>,
        fetch: impl Future<Output = Outcome>,
    ) -> Outcome {
        let (Some(cache), Some(bearer)) = (&self.0.cache, bearer) else {
            return fetch.await;
        };
        let kept = cache.load(&wanted.url);
        if may_reuse
            && let Some((entry, bytes)) = &kept
            && entry.is_for(&bearer)
        {
            let known = if entry.manifest_digest.is_empty() {
                &entry.sha256
            } else {
                &entry.manifest_digest
            };
            if wanted.sha256.is_empty() || wanted.sha256.eq_ignore_ascii_case(known) {
                return Ok(Fetched {
                    bytes: bytes.clone(),
                    sha256: entry.sha256.clone(),
                    manifest_digest: entry.manifest_digest.clone(),
                });
            }
        }
        let fetched = fetch.await?;
        let mut entry = Entry {
            url: wanted.url.clone(),
            sha256: fetched.sha256.clone(),
            manifest_digest: fetched.manifest_digest.clone(),
            given_to: vec![bearer],
        };
        if let Some((before, _)) = kept {
            entry.keep_others(before);
        }
        if let Err(cause) = cache.store(&entry, &fetched.bytes) {
            tracing::warn!(url = wanted.url, %cause, "the module cannot be kept on disk");
        }
        Ok(fetched)
    }

    async fn read(&self, path: &Path, wanted: &Wanted) -> Outcome {
        let fault = |cause: std::io::Error| format!("cannot read {}: {cause}", path.display());
        let limit = self.0.options.limit;
        let size = tokio::fs::metadata(path).await.map_err(fault)?.len();
        if usize::try_from(size).unwrap_or(usize::MAX) > limit {
            return Err(unpack::too_large(limit));
        }
        let bytes = tokio::fs::read(path).await.map_err(fault)?;
        match unpack::is_module(&bytes) {
            true => checked(bytes.into(), wanted),
            false => Err("this is no Wasm module".to_owned()),
        }
    }

    async fn download(&self, uri: http::Uri, wanted: &Wanted) -> Outcome {
        let limit = self.0.options.limit;
        let what = Ask {
            uri,
            accept: "",
            authorization: None,
            reach: Reach::Anywhere,
            limit,
        };
        let response = ask(&self.0.shared, &what).await.map_err(Failure::into_text)?;
        if response.status() != http::StatusCode::OK {
            return Err(format!(
                "{}: the server answers {}",
                wanted.url,
                response.status()
            ));
        }
        let body = response.into_body();
        let unpacked = tokio::task::spawn_blocking(move || unpack::from_web(&body, limit)).await;
        checked(unpacked.map_err(|cause| cause.to_string())??.into(), wanted)
    }

    async fn pull(&self, image: Image, wanted: &Wanted) -> Outcome {
        let limit = self.0.options.limit;
        let pulled = registry::pull(&self.0.shared, &image, &wanted.logins, &wanted.sha256, limit).await?;
        Ok(Fetched {
            sha256: sha256_hex(&pulled.module),
            bytes: pulled.module.into(),
            manifest_digest: pulled.manifest_digest,
        })
    }

    fn mirrored(&self, image: Image) -> Image {
        let name = format!("{}/{}", image.registry, image.repository);
        let fits = |mirror: &&Mirror| {
            name.strip_prefix(&mirror.from)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some(mirror) = self
            .0
            .options
            .mirrors
            .iter()
            .filter(fits)
            .max_by_key(|mirror| mirror.from.len())
        else {
            return image;
        };
        let moved = format!("{}{}", mirror.to, &name[mirror.from.len()..]);
        match moved.split_once('/') {
            Some((registry, repository)) => Image {
                registry: registry.to_owned(),
                repository: repository.to_owned(),
                version: image.version,
            },
            None => image,
        }
    }
}

fn checked(bytes: Bytes, wanted: &Wanted) -> Outcome {
    let sha256 = sha256_hex(&bytes);
    if !wanted.sha256.is_empty() && !wanted.sha256.eq_ignore_ascii_case(&sha256) {
        return Err(format!(
            "module downloaded from {} has checksum {sha256}, which does not match: {}",
            wanted.url, wanted.sha256
        ));
    }
    Ok(Fetched {
        bytes,
        sha256,
        manifest_digest: String::new(),
    })
}
