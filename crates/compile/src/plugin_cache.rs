//! Plugins by their config, so that a reload keeps those that did not change: their counters, health and caches live
//! on, and nothing is parsed twice.
//!
//! Holds no plugin alive: one that the generation in force no longer uses is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, io};

use aws_lc_rs::digest;
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_kinds::WasmPlugin;
use tollgate_plugin::Plugin;
use tollgate_plugins::table::{Row, Shared};

/// Cheap to clone; all clones are one cache.
#[derive(Clone, Default)]
pub struct PluginCache(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    plugins: HashMap<Key, Cached>,
    /// What the rules of a plugin share, by object, built-in and global config.
    shared: HashMap<(String, &'static str, Digest), Shared>,
}

/// Configs may hold secrets: only their number is shown.
impl fmt::Debug for PluginCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plugins = self.lock().plugins.len();
        write!(formatter, "PluginCache({plugins})")
    }
}

/// What stands for a config where two are compared: it may be megabytes, and each rule has the global one.
pub(crate) type Digest = [u8; 32];

/// The digest of a config; SHA-256, so that no two are taken for one.
pub(crate) fn digest(config: &Value) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    // Writing to a digest cannot fail, and a value can always be written.
    drop(serde_json::to_writer(Hashing(&mut context), config));
    let mut short = Digest::default();
    for (into, from) in short.iter_mut().zip(context.finish().as_ref()) {
        *into = *from;
    }
    short
}

struct Hashing<'a>(&'a mut digest::Context);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What makes two plugins the same: object with its extensions, place in it, built-in and config.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Key {
    object: String,
    extensions: BTreeMap<String, String>,
    field: String,
    row: &'static str,
    has_rules: bool,
    global: Option<Digest>,
    rule: Option<Digest>,
}

impl Key {
    pub(crate) fn new(plugin: &WasmPlugin, row: &'static Row, field: &str) -> Self {
        Self {
            object: object(plugin),
            extensions: extensions(plugin),
            field: field.to_owned(),
            row: row.name,
            has_rules: false,
            global: None,
            rule: None,
        }
    }

    /// The global config itself, or what the rule builds on; and whether there are rules.
    pub(crate) fn global(mut self, config: Option<Digest>, has_rules: bool) -> Self {
        self.global = config;
        self.has_rules = has_rules;
        self
    }

    pub(crate) fn rule(mut self, config: Option<&Value>) -> Self {
        self.rule = config.map(digest);
        self
    }
}

fn object(plugin: &WasmPlugin) -> String {
    format!("{}/{}", plugin.metadata.namespace, plugin.metadata.name)
}

/// The annotations of ours on an object.
pub(crate) fn extensions(plugin: &WasmPlugin) -> BTreeMap<String, String> {
    let all = plugin.metadata.annotations.iter();
    all.filter(|(name, _)| name.starts_with("tollgate.dev/"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

struct Cached {
    plugin: Weak<dyn Plugin>,
    warnings: Vec<ConfigError>,
}

/// What a parser returned and warned of.
pub(crate) type Parsed = (Result<Arc<dyn Plugin>, ConfigError>, Vec<ConfigError>);

impl PluginCache {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin with this key if it still runs, else a fresh one. A failure is not kept.
    pub(crate) fn get_or_parse(&self, key: Key, parse: impl FnOnce() -> Parsed) -> Parsed {
        if let Some(cached) = self.lock().plugins.get(&key)
            && let Some(plugin) = cached.plugin.upgrade()
        {
            return (Ok(plugin), cached.warnings.clone());
        }
        let parsed = parse();
        if let (Ok(plugin), warnings) = &parsed {
            let cached = Cached {
                plugin: Arc::downgrade(plugin),
                warnings: warnings.clone(),
            };
            self.lock().plugins.insert(key, cached);
        }
        parsed
    }

    /// What the configs of a plugin with this global config share.
    pub(crate) fn shared(&self, plugin: &WasmPlugin, row: &'static Row, global: Digest) -> Shared {
        let key = (object(plugin), row.name, global);
        self.lock().shared.entry(key).or_default().clone()
    }

    /// Forgets what nobody uses any more.
    pub(crate) fn sweep(&self) {
        let mut entries = self.lock();
        entries
            .plugins
            .retain(|_, cached| cached.plugin.strong_count() > 0);
        entries.shared.retain(|_, shared| shared.is_used());
    }
}
