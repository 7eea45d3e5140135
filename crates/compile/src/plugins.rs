//! WasmPlugins → the chain of each route.
//!
//! Every config is parsed once and shared by all routes that use it. Which rules can apply on a route is decided here;
//! what depends on the request (domain, service) stays a condition on the candidate. A config that cannot be used
//! fails only for the requests it is for: with `FAIL_CLOSE` they are refused, with `FAIL_OPEN` the plugin is skipped.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_kinds::wasm_plugin::{FailStrategy, Phase as WrittenPhase};
use tollgate_kinds::{Diagnostic, WasmPlugin};
use tollgate_modules::Logins;
use tollgate_plugin::{
    Candidate, Condition, DomainPattern, Link, Order, Origin, Phase, Plugin, ServicePattern,
};
use tollgate_plugins::table::{ParseContext, Row, Shared};
use tollgate_wasm::WasmPlugin as Module;

use crate::failed::Failed;
use crate::image::{self, Runtime};
use crate::plugin_cache::{Digest, Key, digest, extensions};
use crate::rules::{self, Config, Scope};
use crate::{Input, origin, templates, wasm};

/// The chains of all routes.
#[derive(Default)]
pub(crate) struct Chains {
    plugins: Vec<Compiled>,
}

/// One plugin with all its configs.
struct Compiled {
    name: Arc<str>,
    order: Order,
    candidates: Vec<Candidate>,
    /// For each candidate which routes it is for.
    reaches: Vec<Reach>,
    /// Candidates by route name, in rule order.
    by_route: HashMap<Box<str>, Vec<usize>>,
    /// Candidates that are not for named routes, in rule order.
    anywhere: Vec<usize>,
}

/// What a WasmPlugin runs.
enum Runs {
    Builtin(&'static Row),
    Module,
    Nothing,
}

/// Which routes a config is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// All, and requests without a route.
    Every,
    /// Those in `by_route`.
    Named,
    /// Those whose names begin so.
    Prefixes(Vec<String>),
}

impl Chains {
    /// The links of a route.
    pub(crate) fn links(&self, route: &str) -> Vec<Link> {
        self.choose(|plugin| {
            let named = plugin.by_route.get(route).map_or(&[][..], Vec::as_slice);
            let anywhere = plugin
                .anywhere
                .iter()
                .filter(|index| match plugin.reaches.get(**index) {
                    Some(Reach::Prefixes(prefixes)) => {
                        prefixes.iter().any(|prefix| route.starts_with(prefix))
                    }
                    _ => true,
                });
            let mut indices: Vec<usize> = named.iter().chain(anywhere).copied().collect();
            indices.sort_unstable();
            indices
        })
    }

    /// The links of requests that no route matches. No destination was chosen for them either.
    pub(crate) fn unrouted(&self) -> Vec<Link> {
        self.choose(|plugin| {
            let anywhere = plugin.anywhere.iter().copied();
            let applies = |index: &usize| {
                let services = plugin
                    .candidates
                    .get(*index)
                    .is_some_and(|candidate| matches!(candidate.condition, Condition::Services(_)));
                plugin.reaches.get(*index) == Some(&Reach::Every) && !services
            };
            anywhere.filter(applies).collect()
        })
    }

    fn choose(&self, select: impl Fn(&Compiled) -> Vec<usize>) -> Vec<Link> {
        let mut links = Vec::new();
        for (ordinal, plugin) in self.plugins.iter().enumerate() {
            let mut candidates = Vec::new();
            for candidate in select(plugin)
                .iter()
                .filter_map(|index| plugin.candidates.get(*index))
            {
                candidates.push(candidate.clone());
                if candidate.condition == Condition::Always {
                    break;
                }
            }
            if !candidates.is_empty() {
                links.push(Link {
                    name: plugin.name.clone(),
                    ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
                    order: plugin.order,
                    candidates,
                });
            }
        }
        links
    }
}

/// Compiles all plugins of the system namespace, in chain order.
pub(crate) fn compile(input: &Input<'_>, diagnostics: &mut Vec<Diagnostic>) -> Chains {
    let mut plugins = Vec::new();
    input.options.modules.begin();
    for plugin in input.objects.wasm_plugins() {
        if plugin.metadata.namespace != input.options.system_namespace {
            let message = format!(
                "only plugins in namespace `{}` count: this one is ignored",
                input.options.system_namespace
            );
            diagnostics.push(plugin.warning("metadata.namespace", message));
            continue;
        }
        plugins.extend(
            Compiler {
                input,
                plugin,
                diagnostics,
                has_rules: false,
                shared: Shared::default(),
            }
            .compile(),
        );
    }
    input.options.cache.sweep();
    // Stable: equal places keep the order in which the objects were created.
    plugins.sort_by_key(|plugin| plugin.order);
    Chains { plugins }
}

struct Compiler<'a, 'd> {
    input: &'a Input<'a>,
    plugin: &'a WasmPlugin,
    diagnostics: &'d mut Vec<Diagnostic>,
    has_rules: bool,
    /// What the configs of this plugin share.
    shared: Shared,
}

/// What a parser gets besides the rule.
#[derive(Clone, Copy, Default)]
struct Global<'v> {
    config: Option<&'v Value>,
    digest: Option<Digest>,
}

impl<'a> Compiler<'a, '_> {
    fn compile(mut self) -> Option<Compiled> {
        let written = rules::read(self.plugin)?;
        let runs = self.runs();
        if matches!(runs, Runs::Module)
            && let Some(plugin) = self.module()
        {
            // One candidate for every request: the module matches its rules itself.
            let mut compiled = self.empty(&self.plugin.metadata.name);
            let origin = origin::of_field(self.plugin, "spec");
            compiled.add(Condition::Always, Reach::Every, Some(plugin), origin);
            return Some(compiled);
        }
        let builtin = match runs {
            Runs::Builtin(row) => Some(row),
            Runs::Module | Runs::Nothing => None,
        };
        let mut compiled = match builtin {
            Some(builtin) => self.empty(builtin.name),
            None => self.empty(&self.plugin.metadata.name),
        };
        let global_config = written.global.as_ref().map(|config| self.rendered(config));
        self.has_rules = !written.rules.is_empty();
        let whole = self.global(builtin, global_config.as_deref());
        // A global config that cannot be used does not count next to rules, as in Higress. But where it would have
        // asked who comes, nobody comes.
        let may_miss = self.has_rules && builtin.is_some_and(|row| !row.guards());
        let mut inherited = Global::default();
        let mut global = None;
        if let (Some(config), Some(_)) = (&written.global, &global_config) {
            match self.parse(builtin, whole, None, config) {
                Some(plugin) => {
                    inherited = whole;
                    global = Some((config, Some(plugin)));
                }
                None if may_miss => {}
                None => global = Some((config, self.failed(&compiled.name))),
            }
        }
        for rule in &written.rules {
            if let Some(warning) = rule.warning {
                self.diagnostics.push(self.plugin.warning(&rule.field, warning));
            }
            let value = self.rendered(&rule.config);
            let plugin = match value.get("_disable_") {
                Some(Value::Bool(true)) => None,
                _ => self
                    .parse(builtin, inherited, Some(&value), &rule.config)
                    .or_else(|| self.failed(&compiled.name)),
            };
            let origin = self.origin(&rule.config);
            compiled.add_rule(&rule.scope, plugin, origin);
        }
        if let Some((config, plugin)) = global {
            let origin = self.origin(config);
            compiled.add(Condition::Always, Reach::Every, plugin, origin);
        }
        Some(compiled)
    }

    fn empty(&self, name: &str) -> Compiled {
        Compiled {
            name: name.into(),
            order: self.order(),
            candidates: Vec::new(),
            reaches: Vec::new(),
            by_route: HashMap::new(),
            anywhere: Vec::new(),
        }
    }

    /// Credentials for the module's registry; none, with a diagnostic, from a Secret that cannot be used.
    fn logins(&mut self) -> Logins {
        let name = &self.plugin.spec.image_pull_secret;
        if name.is_empty() {
            return Logins::default();
        }
        let secret = self.input.objects.secret(&self.plugin.metadata.namespace, name);
        let text = secret.and_then(|secret| secret.spec.data.get(".dockerconfigjson")?.expose_text());
        let read = match text {
            Some(text) => Logins::from_docker_config(text.as_bytes()),
            None => Err(format!("there is no Secret {name} with a .dockerconfigjson")),
        };
        read.unwrap_or_else(|fault| {
            let message = format!("{fault}: the registry is asked without credentials");
            self.diagnostics
                .push(self.plugin.warning("spec.imagePullSecret", message));
            Logins::default()
        })
    }

    /// The plugin as a module; `None` while there is no version that can run.
    fn module(&mut self) -> Option<Arc<dyn Plugin>> {
        let environment = self.input.options.environment;
        let logins = self.logins();
        let spec = wasm::spec(self.plugin, logins, environment, |field, value| {
            let config = Config {
                value: std::borrow::Cow::Borrowed(value),
                field: field.to_owned(),
            };
            self.rendered(&config).into_owned()
        })?;
        let revision = self.plugin.metadata.resource_version.as_deref();
        let found = self.input.options.modules.find_revised(spec, revision);
        if let Some(fault) = found.fault {
            let consequence = match (&found.generation, self.plugin.spec.fail_strategy) {
                (Some(_), _) => "the version before it stays",
                (None, FailStrategy::Close) => "its requests get 500",
                (None, FailStrategy::Open) => "it is skipped",
            };
            let message = format!("{fault}: {consequence}");
            self.diagnostics.push(self.plugin.error("spec.url", message));
        }
        let module = Module::new(found.generation?);
        Some(Arc::new(module))
    }

    /// What runs; `Nothing` comes with a diagnostic.
    fn runs(&mut self) -> Runs {
        let field = format!("metadata.annotations[{}]", image::RUNTIME);
        let runtime = image::runtime(self.plugin).unwrap_or_else(|message| {
            self.diagnostics.push(self.plugin.warning(&field, message));
            Runtime::Either
        });
        let names = image::names(self.plugin);
        let found = names.iter().find_map(|name| (self.input.options.builtins)(name));
        let missing = match (runtime, found) {
            (Runtime::Either | Runtime::Native, Some(row)) => return Runs::Builtin(row),
            (Runtime::Native, None) => {
                "no built-in plugin has this name, and the annotation forbids the module"
            }
            (Runtime::Either | Runtime::Wasm, _) if self.plugin.spec.url.is_empty() => {
                "no built-in plugin has this name, and there is no module"
            }
            (Runtime::Either | Runtime::Wasm, _) => return Runs::Module,
        };
        let consequence = match self.plugin.spec.fail_strategy {
            FailStrategy::Close => "its requests get 500",
            FailStrategy::Open => "it is skipped",
        };
        let message = format!("{missing}: {consequence}");
        self.diagnostics.push(self.plugin.error("spec.url", message));
        Runs::Nothing
    }

    /// What all configs of the plugin build on.
    fn global<'v>(&mut self, builtin: Option<&'static Row>, config: Option<&'v Value>) -> Global<'v> {
        let digest = config.map(digest);
        if let (Some(row), Some(digest)) = (builtin, digest) {
            self.shared = self.input.options.cache.shared(self.plugin, row, digest);
        }
        Global { config, digest }
    }

    /// The config with its templates replaced.
    fn rendered<'v>(&mut self, config: &'v Config<'_>) -> std::borrow::Cow<'v, Value> {
        let (value, missing) = templates::render(&config.value, self.input.objects, self.input.options);
        for reference in missing {
            let message = format!("{reference} leads to no value of a Secret: it stays as written");
            self.diagnostics.push(self.plugin.error(&config.field, message));
        }
        value
    }

    /// One config; `None` (with a diagnostic, unless the plugin itself is missing) when it cannot be used.
    fn parse(
        &mut self,
        builtin: Option<&'static Row>,
        global: Global<'_>,
        rule: Option<&Value>,
        config: &Config<'_>,
    ) -> Option<Arc<dyn Plugin>> {
        let row = builtin?;
        let key = Key::new(self.plugin, row, &config.field)
            .global(global.digest, self.has_rules)
            .rule(rule);
        let (parsed, warnings) = self.input.options.cache.get_or_parse(key, || {
            let context = ParseContext::new(self.has_rules, self.shared.clone())
                .with_annotations(extensions(self.plugin))
                .with_stores(self.input.options.stores.clone());
            let parsed = (row.parse)(global.config, rule, &context);
            (parsed, context.take_warnings())
        });
        let place = |fault: ConfigError| {
            let fault = fault.within(&config.field);
            (fault.field, fault.message)
        };
        for warning in warnings {
            let (field, message) = place(warning);
            self.diagnostics.push(self.plugin.warning(&field, message));
        }
        match parsed {
            Ok(plugin) => Some(plugin),
            Err(fault) => {
                let (field, message) = place(fault);
                self.diagnostics.push(self.plugin.error(&field, message));
                None
            }
        }
    }

    /// What runs where a config cannot be used.
    fn failed(&self, name: &Arc<str>) -> Option<Arc<dyn Plugin>> {
        match self.plugin.spec.fail_strategy {
            FailStrategy::Open => None,
            FailStrategy::Close => Some(Arc::new(Failed {
                name: (**name).into(),
            })),
        }
    }

    fn origin(&self, config: &Config<'_>) -> Origin {
        origin::of_field(self.plugin, &config.field)
    }

    fn order(&self) -> Order {
        let phase = match self.plugin.spec.phase {
            WrittenPhase::Unspecified => Phase::Unspecified,
            WrittenPhase::Authn => Phase::Authn,
            WrittenPhase::Authz => Phase::Authz,
            WrittenPhase::Stats => Phase::Stats,
        };
        Order::new(phase, self.plugin.spec.priority)
    }
}

impl Compiled {
    fn add(
        &mut self,
        condition: Condition,
        reach: Reach,
        plugin: Option<Arc<dyn Plugin>>,
        origin: Origin,
    ) -> usize {
        let index = self.candidates.len();
        if reach != Reach::Named {
            self.anywhere.push(index);
        }
        self.candidates.push(Candidate {
            condition,
            plugin,
            origin,
        });
        self.reaches.push(reach);
        index
    }

    fn add_rule(&mut self, scope: &Scope, plugin: Option<Arc<dyn Plugin>>, origin: Origin) {
        let services = |names: &[String]| {
            Condition::Services(names.iter().map(|name| ServicePattern::parse(name)).collect())
        };
        match scope {
            Scope::Domains(domains) => {
                let patterns = domains.iter().map(|domain| DomainPattern::parse(domain));
                self.add(
                    Condition::Domains(patterns.collect()),
                    Reach::Every,
                    plugin,
                    origin,
                );
            }
            Scope::Services(names) => {
                self.add(services(names), Reach::Every, plugin, origin);
            }
            Scope::RoutePrefixes(prefixes) => {
                self.add(
                    Condition::Always,
                    Reach::Prefixes(prefixes.clone()),
                    plugin,
                    origin,
                );
            }
            Scope::Routes {
                names,
                services: limited,
            } => {
                let condition = match limited.is_empty() {
                    true => Condition::Always,
                    false => services(limited),
                };
                let index = self.add(condition, Reach::Named, plugin, origin);
                for name in names {
                    let indices = self.by_route.entry(name.as_str().into()).or_default();
                    if indices.last() != Some(&index) {
                        indices.push(index);
                    }
                }
            }
        }
    }
}
