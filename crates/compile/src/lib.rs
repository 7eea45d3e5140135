//! From documents to the compiled world: [`compile`] takes all objects in force and returns a snapshot and everything
//! that is wrong with them.
//!
//! Pure: no I/O, no clock, no environment. It never stops at a fault: what cannot be used is left out, as little of it
//! as possible, and a diagnostic names kind, object, field and place. Order and names of routes and clusters are
//! Higress's, since logs, metrics and plugin rules refer to them.
#![forbid(unsafe_code)]

mod annotations;
mod canary;
mod clusters;
mod destinations;
mod explain;
mod failed;
mod hosts;
mod image;
mod ingress;
mod origin;
mod path;
mod plugin_cache;
mod plugins;
mod registries;
mod routes;
mod rules;
mod secrets;
mod services;
mod settings;
mod templates;
mod terms;
mod tls;
mod tracing;
mod wasm;

use tollgate_kinds::{Diagnostic, Objects};
use tollgate_plugins::table::{self, Row};
use tollgate_snapshot::{Settings, Snapshot};
use tollgate_store::Stores;

pub use explain::{
    Chosen, ExplainedDestination, ExplainedPlugin, Explanation, TriedHost, TriedRoute, explain,
};
pub use plugin_cache::PluginCache;

use destinations::Upstreams;
use settings::Global;

/// What the compiler is told besides the objects.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of McpBridge, WasmPlugins and settings; its routes have bare names. Default `higress-system`.
    pub system_namespace: String,
    /// Class of the Ingresses that count; empty (the default) accepts every one.
    pub ingress_class: String,
    /// Only Ingresses of this namespace; `None` (the default) means all.
    pub watch_namespace: Option<String>,
    /// Domain of Kubernetes Services. Default `cluster.local`.
    pub cluster_domain: String,
    /// Finds a built-in plugin by name. Default: the table of built-in plugins.
    pub builtins: fn(&str) -> Option<&'static Row>,
    /// Plugins of the generation in force: one whose config has not changed is used again, with its state.
    pub cache: PluginCache,
    /// Where plugins count. Default: this process's memory, and nothing is ever connected.
    pub stores: Stores,
    /// Modules and how far each has come: only looked up here.
    pub modules: tollgate_wasm::Modules,
    /// Looks up a variable of the gateway's own environment, for `vmConfig.env` with `HOST`.
    pub environment: fn(&str) -> Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            system_namespace: "higress-system".to_owned(),
            ingress_class: String::new(),
            watch_namespace: None,
            cluster_domain: "cluster.local".to_owned(),
            builtins: table::find,
            cache: PluginCache::default(),
            stores: Stores::default(),
            modules: tollgate_wasm::Modules::default(),
            environment: |_| None,
        }
    }
}

/// What every step of the compilation reads.
pub(crate) struct Input<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) options: &'a Options,
    pub(crate) global: Global,
}

/// Compiles `objects`. The snapshot's generation is 0; whoever publishes it counts.
///
/// An error means that something was left out; a warning that everything is in force but probably not as meant.
#[must_use]
pub fn compile(objects: &Objects, options: &Options) -> (Snapshot, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let global = settings::compile(objects, options, &mut diagnostics);
    let input = Input {
        objects,
        options,
        global,
    };
    let mut services = services::from_kubernetes(&input, &mut diagnostics);
    registries::add(&input, &mut services, &mut diagnostics);
    let plans = ingress::plan(&input, &mut diagnostics);
    let clusters = clusters::build(&input, &plans, &services, &mut diagnostics);
    let chains = plugins::compile(&input, &mut diagnostics);
    let upstreams = Upstreams {
        services: &services,
        clusters: &clusters,
    };
    let hosts = hosts::build(&input, &plans, upstreams, &chains, &mut diagnostics);
    let certificates = tls::certificates(&input, &plans, &mut diagnostics);
    let tracing = tracing::compile(&input, &clusters, &mut diagnostics);
    let snapshot = Snapshot {
        generation: 0,
        hosts,
        clusters,
        unrouted: chains.unrouted(),
        certificates,
        settings: Settings {
            tracing,
            ..input.global.settings
        },
    };
    (snapshot, diagnostics)
}
