//! `Modules`: every version of every WasmPlugin that the configuration names, and how far each has come.
//!
//! The compiler only looks up here what is ready. What is wanted and unknown is fetched, compiled and tried on the
//! background runtime; each change is announced, and the configuration is compiled again. Until a new version is ready,
//! and when it never will be, the last one runs on. What could not be fetched is asked for again, at growing intervals. A large module runs soon, on code that was made in a hurry, and
//! changes over to good code as to another version.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tollgate_artefacts::Artefacts;
use tollgate_base::clock::{self, Instant};
use tollgate_base::task;
use tollgate_modules::{Fetched, Fetcher, PullPolicy, Wanted};
use tollgate_observe::Metrics;

use crate::artefact::Artefact;
use crate::engine::{COMPILER, Tier, step_back};
use crate::generation::{Generation, Host, Shown, Spec};
use crate::limits::Limits;
use crate::vm::Vm;

/// How often the files of modules are looked at.
const FILE_CHECK: Duration = Duration::from_millis(500);
/// Until a module that could not be fetched is asked for again, and the longest of the pauses, which double. The fetcher
/// believes an answer for as long as the first.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How often modules on disk that nobody names any more are looked for.
const PURGE_EVERY: Duration = Duration::from_hours(1);
/// From so many bytes on a module is worth being compiled twice.
pub(crate) const LARGE: usize = 1024 * 1024;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Modules(Arc<Inner>);

struct Inner {
    host: Arc<Host>,
    /// `None` where configurations are only checked: nothing is loaded there.
    fetcher: Option<Fetcher>,
    kept: Kept,
    table: Mutex<Table>,
    live: watch::Sender<Live>,
    changes: watch::Sender<u64>,
    /// One module is compiled at a time: requests need the processors too.
    compiling: Semaphore,
    /// The same for what nobody waits for.
    optimising: Semaphore,
}

/// Compiled modules on disk: opened when the first module comes, so that a gateway without modules makes no directory.
struct Kept {
    path: Option<PathBuf>,
    opened: OnceLock<Option<Artefacts>>,
}

impl Kept {
    fn open(&self, limit: u64) -> Option<&Artefacts> {
        let path = self.path.as_ref()?;
        let opened = self.opened.get_or_init(|| {
            let opened = Artefacts::open(path.clone(), limit);
            let told = opened.inspect_err(|cause| {
                tracing::warn!(path = %path.display(), %cause, "compiled modules are not kept on disk");
            });
            told.ok()
        });
        opened.as_ref()
    }
}

type Live = Arc<Vec<Arc<Generation>>>;
/// What tells that a file is another one now.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Default)]
struct Table {
    entries: HashMap<Arc<Spec>, Entry>,
    /// The version in force of each plugin, by name.
    current: HashMap<String, Arc<Generation>>,
    /// What the newest compilation asked for, in its order.
    wanted: Vec<Arc<Spec>>,
    /// Versions of the objects, by the plugin's name, where a change of it alone asks for the module anew.
    revisions: HashMap<String, String>,
    artefacts: HashMap<String, Weak<Artefact>>,
    /// Versions that were in force.
    past: Vec<Weak<Generation>>,
    watching: bool,
}

#[derive(Default)]
struct Entry {
    ready: Option<Arc<Generation>>,
    fault: Option<String>,
    loading: bool,
    stamp: Stamp,
    /// When it was fetched, or that failed.
    asked: Option<Instant>,
    /// The object's version that it was asked for.
    revision: Option<String>,
    /// It could not be fetched, which may change; or the object has changed.
    again: Option<Again>,
}

impl Entry {
    /// The object has changed: soon, but not while the fetcher would give its last answer once more.
    fn ask_anew(&mut self, revision: String) {
        self.revision = Some(revision);
        self.again = Some(Again {
            at: self.asked.map_or_else(clock::now, |asked| asked + FIRST_PAUSE),
            pause: FIRST_PAUSE / 2,
        });
    }
}

/// When what could not be fetched is asked for again.
#[derive(Debug, Clone, Copy)]
struct Again {
    at: Instant,
    pause: Duration,
}

impl Again {
    fn after(before: Option<Self>) -> Self {
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        Self {
            at: clock::now() + pause,
            pause,
        }
    }
}

/// Why a version cannot run.
enum Fault {
    /// It is not to be had now.
    Unfetched(String),
    /// It is here and cannot run.
    Broken(String),
}

impl Fault {
    fn text(&self) -> &str {
        match self {
            Self::Unfetched(text) | Self::Broken(text) => text,
        }
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Self::Broken(text)
    }
}

/// How far a plugin has come.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// What can run: the version asked for, else the one before it.
    pub generation: Option<Arc<Generation>>,
    /// Why the version asked for cannot run, in words for a diagnostic.
    pub fault: Option<String>,
}

impl Default for Modules {
    fn default() -> Self {
        Self::new(Limits::default(), None, None, None)
    }
}

impl fmt::Debug for Modules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Modules({})", self.lock().entries.len())
    }
}

impl Modules {
    /// None yet. Nothing is made before the first module is wanted. In `kept` compiled modules outlive the process.
    #[must_use]
    pub fn new(
        limits: Limits,
        metrics: Option<Arc<Metrics>>,
        fetcher: Option<Fetcher>,
        kept: Option<PathBuf>,
    ) -> Self {
        Self(Arc::new(Inner {
            host: Host::new(limits, metrics),
            fetcher,
            kept: Kept {
                path: kept,
                opened: OnceLock::new(),
            },
            table: Mutex::default(),
            live: watch::Sender::default(),
            changes: watch::Sender::new(0),
            compiling: Semaphore::new(1),
            optimising: Semaphore::new(1),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A compilation begins: what an earlier one asked for no longer counts.
    pub fn begin(&self) {
        let mut table = self.lock();
        table.wanted.clear();
        table.revisions.clear();
    }

    /// Asks for a plugin and says how far it has come.
    #[must_use]
    pub fn find(&self, spec: Spec) -> Lookup {
        let mut table = self.lock();
        let spec = Arc::new(spec);
        let entry = table.entries.get(&spec);
        let (ready, fault) = match entry {
            Some(entry) => (entry.ready.clone(), entry.fault.clone()),
            None => (None, None),
        };
        let generation = ready.or_else(|| table.current.get(&spec.name).cloned());
        table.wanted.push(spec);
        Lookup { generation, fault }
    }

    /// The same for an object that carries a version of its own (`resourceVersion`). When only that changes, a module that
    /// `imagePullPolicy` always asks for is asked for anew; it is a new version if it has become another one.
    #[must_use]
    pub fn find_revised(&self, spec: Spec, revision: Option<&str>) -> Lookup {
        let known = revision.filter(|_| asks_anew(&spec.source)).map(str::to_owned);
        if let Some(revision) = known {
            self.lock().revisions.insert(spec.name.clone(), revision);
        }
        self.find(spec)
    }

    /// Changes whenever a version became ready or failed: time to compile again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The versions in force, for the workers.
    pub(crate) fn live(&self) -> watch::Receiver<Live> {
        self.0.live.subscribe()
    }

    pub(crate) fn queued(&self) -> watch::Receiver<u64> {
        self.0.host.queued.subscribe()
    }

    /// After a configuration was published: what it uses is in force, what it lacks is loaded, what it no longer names
    /// goes once its last request has ended. Needs the background runtime around it.
    pub fn published(&self) {
        let mut table = self.lock();
        let mut live = Vec::new();
        for spec in table.wanted.clone() {
            let revision = table.revisions.get(&spec.name).cloned();
            let entry = table.entries.entry(spec.clone()).or_default();
            if entry.ready.is_none() && entry.fault.is_none() && !entry.loading {
                entry.loading = true;
                entry.revision = revision;
                self.load(spec.clone());
            } else if let Some(revision) = revision.filter(|_| !entry.loading)
                && entry.revision.as_ref() != Some(&revision)
            {
                entry.ask_anew(revision);
            }
            if let Some(ready) = entry.ready.clone() {
                table.current.insert(spec.name.clone(), ready);
            }
            live.extend(table.current.get(&spec.name).cloned());
        }
        table.forget_unwanted();
        table.note_past(&live);
        if !table.wanted.is_empty() && !std::mem::replace(&mut table.watching, true) {
            self.watch();
        }
        drop(table);
        let ids = |list: &[Arc<Generation>]| -> Vec<u64> { list.iter().map(|one| one.id).collect() };
        self.0.live.send_if_modified(|known| {
            let changed = ids(known) != ids(&live);
            *known = Arc::new(live);
            changed
        });
    }

    /// Waits until nothing is being loaded any more.
    pub async fn settled(&self) {
        let mut changes = self.changes();
        while self.lock().entries.values().any(|entry| entry.loading) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// All versions that run or still end requests.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let live = self.0.live.borrow().clone();
        let is_live = |id: u64| live.iter().any(|generation| generation.id == id);
        let past: Vec<_> = self.lock().past.iter().filter_map(Weak::upgrade).collect();
        let draining = past.iter().filter(|generation| !is_live(generation.id));
        let mut shown: Vec<Shown> = live.iter().map(|generation| generation.show("current")).collect();
        shown.extend(draining.map(|generation| generation.show("draining")));
        shown
    }

    fn load(&self, spec: Arc<Spec>) {
        let modules = self.clone();
        drop(task::spawn("wasm module", async move {
            let started = clock::now();
            let stamp = modules.stamp(&spec).await;
            let made = modules.make(&spec).await;
            if made.as_ref().is_ok_and(|made| modules.is_ready(&spec, made)) {
                return modules.note(&spec, stamp, made);
            }
            let outcome = match &made {
                Ok(made) if made.artefact.cached => "cached",
                Ok(_) => "ready",
                Err(_) => "failed",
            };
            if let Some(own) = &modules.0.host.own {
                own.loaded(outcome, started.elapsed());
            }
            match &made {
                Ok(made) => tracing::info!(
                    plugin = spec.name, version = made.version, digest = made.artefact.digest,
                    from_disk = made.artefact.cached,
                    took = ?started.elapsed(), "module ready"
                ),
                Err(fault) => tracing::warn!(plugin = spec.name, "module refused: {}", fault.text()),
            }
            let ready = made.as_ref().ok().cloned();
            modules.note(&spec, stamp, made);
            if let Some(full) = ready.and_then(|made| modules.better_than(&made)) {
                modules.upgrade(full).await;
            }
        }));
    }

    fn note(&self, spec: &Arc<Spec>, stamp: Stamp, made: Result<Arc<Generation>, Fault>) {
        if let Some(entry) = self.lock().entries.get_mut(spec) {
            entry.loading = false;
            entry.stamp = stamp;
            entry.asked = Some(clock::now());
            entry.fault = made.as_ref().err().map(|fault| fault.text().to_owned());
            entry.again = matches!(made, Err(Fault::Unfetched(_))).then(|| Again::after(entry.again));
            if let Ok(generation) = made {
                entry.ready = Some(generation);
            }
        }
        self.announce();
    }

    fn announce(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn make(&self, spec: &Arc<Spec>) -> Result<Arc<Generation>, Fault> {
        let nowhere = || Fault::Broken("nothing is fetched here".to_owned());
        let fetcher = self.0.fetcher.as_ref().ok_or_else(nowhere)?;
        let fetched = fetcher.fetch(&spec.source).await.map_err(Fault::Unfetched)?;
        if let Some(same) = self.ready(spec, &fetched.sha256) {
            return Ok(same);
        }
        let artefact = self.artefact(fetched).await?;
        Ok(tried(Generation::new(spec.clone(), artefact, self.0.host.clone())).await?)
    }

    /// What runs from these very bytes. A file that was only touched, or written while its document was read, is no new
    /// version.
    fn ready(&self, spec: &Spec, digest: &str) -> Option<Arc<Generation>> {
        let table = self.lock();
        let ready = table.entries.get(spec)?.ready.as_ref()?;
        (ready.artefact.digest == digest).then(|| ready.clone())
    }

    fn is_ready(&self, spec: &Spec, made: &Generation) -> bool {
        let ready = self.ready(spec, &made.artefact.digest);
        ready.is_some_and(|ready| ready.id == made.id)
    }

    /// Compiles a module that runs already once more, behind everything else, and hands it over to the better code.
    fn optimise(&self, digest: String, bytes: Bytes) {
        let modules = self.clone();
        drop(task::spawn("wasm optimising", async move {
            let turn = modules.0.optimising.acquire().await;
            if modules.known(&digest).is_none() {
                return;
            }
            let started = clock::now();
            let outcome = modules.compile_behind(digest.clone(), bytes).await;
            drop(turn);
            match outcome {
                Ok(full) => {
                    modules.upgrade(modules.share(full)).await;
                    if let Some(own) = &modules.0.host.own {
                        own.loaded("optimised", started.elapsed());
                    }
                    tracing::info!(digest, took = ?started.elapsed(), "module optimised");
                }
                Err(cause) => tracing::warn!(digest, "a module stays as it is: {cause}"),
            }
        }));
    }

    async fn compile_behind(&self, digest: String, bytes: Bytes) -> Result<Artefact, String> {
        let modules = self.clone();
        let work = move || {
            step_back();
            Artefact::compile(&digest, &bytes, Tier::Full, modules.kept())
        };
        aside("wasm-optimise", work).await?
    }

    /// Every version that runs on the first code of this module goes on with this one, as with a version of its own.
    async fn upgrade(&self, full: Arc<Artefact>) {
        let waiting = self.lock().on_first_code(&full.digest);
        for old in waiting {
            match tried(old.recompiled(full.clone())).await {
                Ok(better) => self.lock().replace(&old, &better),
                Err(cause) => tracing::warn!(plugin = old.spec.name, "a module stays as it is: {cause}"),
            }
        }
        self.announce();
    }

    /// Good code that was ready before a version on the first code was.
    fn better_than(&self, made: &Generation) -> Option<Arc<Artefact>> {
        let known = self.known(&made.artefact.digest)?;
        (made.artefact.tier == Tier::First && known.tier == Tier::Full).then_some(known)
    }

    fn known(&self, digest: &str) -> Option<Arc<Artefact>> {
        self.lock().artefacts.get(digest).and_then(Weak::upgrade)
    }
}

/// Does on a thread of its own what takes tens of megabytes: the allocator gives a thread's memory back when it ends.
async fn aside<R: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, String> {
    let (told, outcome) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(move || drop(told.send(work())))
        .map_err(|cause| cause.to_string())?;
    outcome
        .await
        .map_err(|_| "the module could not be compiled".to_owned())
}

/// An instance of it has started and taken its config.
async fn tried(generation: Arc<Generation>) -> Result<Arc<Generation>, String> {
    let tried = generation.clone();
    let trial = tokio::task::spawn_blocking(move || Vm::start(&tried, None).map(|vm| vm.retire()));
    match trial.await {
        Ok(Ok(())) => Ok(generation),
        Ok(Err(cause)) => Err(format!("the module does not start: {cause}")),
        Err(_) => Err("the module could not be tried".to_owned()),
    }
}

impl Modules {
    async fn artefact(&self, fetched: Fetched) -> Result<Arc<Artefact>, String> {
        let Fetched {
            bytes,
            sha256: digest,
            ..
        } = fetched;
        let broken = |_| "the module could not be compiled".to_owned();
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        // What is on disk waits for no compilation.
        let (modules, name) = (self.clone(), digest.clone());
        let load = move || Artefact::load(&name, modules.kept()?);
        let loaded = tokio::task::spawn_blocking(load).await.map_err(broken)?;
        if let Some(loaded) = loaded {
            return Ok(self.share(loaded));
        }
        let turn = self.0.compiling.acquire().await;
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let tier = match bytes.len() >= LARGE {
            true => Tier::First,
            false => Tier::Full,
        };
        let (modules, name, module) = (self.clone(), digest.clone(), bytes.clone());
        let compile = move || Artefact::compile(&name, &module, tier, modules.kept());
        let compiled = aside(COMPILER, compile).await;
        drop(turn);
        let shared = self.share(compiled??);
        if tier == Tier::First {
            self.optimise(digest, bytes);
        }
        Ok(shared)
    }

    fn kept(&self) -> Option<&Artefacts> {
        self.0.kept.open(self.0.host.limits.cache as u64)
    }

    /// The same for all who come later.
    fn share(&self, artefact: Artefact) -> Arc<Artefact> {
        let artefact = Arc::new(artefact);
        let digest = artefact.digest.clone();
        self.lock().artefacts.insert(digest, Arc::downgrade(&artefact));
        artefact
    }

    async fn stamp(&self, spec: &Spec) -> Stamp {
        let path = spec.source.url.strip_prefix("file://")?;
        let file = tokio::fs::metadata(path).await.ok()?;
        Some((file.modified().ok()?, file.len()))
    }

    /// A changed file is a new version of the plugin whose document names it; what could not be fetched may be there now.
    fn watch(&self) {
        let modules = self.clone();
        drop(task::spawn("wasm sources", async move {
            let mut purge_at = clock::now() + PURGE_EVERY;
            loop {
                tokio::time::sleep(FILE_CHECK).await;
                let wanted = modules.lock().wanted.clone();
                for spec in &wanted {
                    if spec.source.url.starts_with("file://") {
                        let stamp = modules.stamp(spec).await;
                        modules.reload_if_changed(spec, stamp);
                    } else {
                        modules.reload_if_due(spec);
                    }
                }
                if purge_at <= clock::now() {
                    purge_at = clock::now() + PURGE_EVERY;
                    modules.purge(&wanted).await;
                }
            }
        }));
    }

    /// Removes from disk what was fetched for configurations of the past.
    async fn purge(&self, wanted: &[Arc<Spec>]) {
        let Some(fetcher) = self.0.fetcher.clone() else {
            return;
        };
        let in_use = wanted.iter().map(|spec| spec.source.url.clone()).collect();
        // It goes through a directory. If it panics, the next one comes.
        drop(tokio::task::spawn_blocking(move || fetcher.purge(&in_use)).await);
    }

    fn reload_if_due(&self, spec: &Arc<Spec>) {
        let mut table = self.lock();
        if let Some(entry) = table.entries.get_mut(spec)
            && !entry.loading
            && entry.again.is_some_and(|again| again.at <= clock::now())
        {
            entry.loading = true;
            self.load(spec.clone());
        }
    }

    fn reload_if_changed(&self, spec: &Arc<Spec>, stamp: Stamp) {
        let mut table = self.lock();
        if let Some(entry) = table.entries.get_mut(spec)
            && !entry.loading
            && stamp.is_some()
            && entry.stamp != stamp
        {
            entry.loading = true;
            self.load(spec.clone());
        }
    }
}

impl Table {
    /// What runs on a module's first code.
    fn on_first_code(&self, digest: &str) -> Vec<Arc<Generation>> {
        let ready = self.entries.values().filter_map(|entry| entry.ready.as_ref());
        let mut found: Vec<Arc<Generation>> = Vec::new();
        for one in ready.chain(self.current.values()) {
            let is_first = one.artefact.tier == Tier::First && one.artefact.digest == digest;
            if is_first && !found.iter().any(|known| known.id == one.id) {
                found.push(one.clone());
            }
        }
        found
    }

    fn replace(&mut self, old: &Generation, by: &Arc<Generation>) {
        let ready = self.entries.values_mut().filter_map(|entry| entry.ready.as_mut());
        for place in ready.chain(self.current.values_mut()) {
            if place.id == old.id {
                *place = by.clone();
            }
        }
    }

    fn forget_unwanted(&mut self) {
        let wanted: HashSet<&Arc<Spec>> = self.wanted.iter().collect();
        let names: HashSet<&str> = self.wanted.iter().map(|spec| spec.name.as_str()).collect();
        self.entries.retain(|spec, _| wanted.contains(spec));
        self.current.retain(|name, _| names.contains(name.as_str()));
        self.artefacts.retain(|_, artefact| artefact.strong_count() > 0);
    }

    fn note_past(&mut self, live: &[Arc<Generation>]) {
        self.past.retain(|generation| generation.strong_count() > 0);
        for generation in live {
            let known = |past: &Weak<Generation>| std::ptr::eq(past.as_ptr(), Arc::as_ptr(generation));
            if !self.past.iter().any(known) {
                self.past.push(Arc::downgrade(generation));
            }
        }
    }
}

/// Whether `imagePullPolicy` asks for a module again when its object has changed; it always does for the tag `latest`,
/// where it says nothing. A file is watched.
fn asks_anew(source: &Wanted) -> bool {
    let (scheme, rest) = source.url.split_once("://").unwrap_or(("oci", &source.url));
    let name = rest.rsplit('/').next().unwrap_or_default();
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    match source.policy {
        PullPolicy::Always => scheme != "file",
        PullPolicy::IfNotPresent => false,
        PullPolicy::Unspecified => scheme == "oci" && tag == "latest" && !name.contains('@'),
    }
}

#[cfg(test)]
mod tests;
