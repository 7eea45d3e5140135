//! Plugins by their config, so that a reload keeps those that did not change: their counters, health and caches live
//! on, and nothing is parsed twice.
//!
//! Holds no plugin alive: one that the generation in force no longer uses is gone.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_kinds::WasmPlugin;
use tollgate_plugin::Plugin;
use tollgate_plugins::table::Row;

/// Cheap to clone; all clones are one cache.
#[derive(Clone, Default)]
pub struct PluginCache(Arc<Mutex<HashMap<Key, Cached>>>);

/// Configs may hold secrets: only their number is shown.
impl fmt::Debug for PluginCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        write!(formatter, "PluginCache({entries})")
    }
}

/// What makes two plugins the same: object with its extensions, place in it, built-in and config.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Key {
    object: String,
    extensions: BTreeMap<String, String>,
    field: String,
    row: &'static str,
    global: Option<String>,
    rule: Option<String>,
}

impl Key {
    pub(crate) fn new(
        plugin: &WasmPlugin,
        row: &'static Row,
        field: &str,
        global: Option<&Value>,
        rule: Option<&Value>,
    ) -> Self {
        Self {
            object: format!("{}/{}", plugin.metadata.namespace, plugin.metadata.name),
            extensions: extensions(plugin),
            field: field.to_owned(),
            row: row.name,
            global: global.map(Value::to_string),
            rule: rule.map(Value::to_string),
        }
    }
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
    /// The plugin with this key if it still runs, else a fresh one. A failure is not kept.
    pub(crate) fn get_or_parse(&self, key: Key, parse: impl FnOnce() -> Parsed) -> Parsed {
        let entries = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = entries().get(&key)
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
            entries().insert(key, cached);
        }
        parsed
    }

    /// Forgets what nobody uses any more.
    pub(crate) fn sweep(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, cached| cached.plugin.strong_count() > 0);
    }
}
