//! The configs of one WasmPlugin as a list of rules and a global one, whichever way they are written.
//!
//! Higress's own fields (`matchRules`, `defaultConfig`) and the raw form underneath (`pluginConfig`, or a
//! `defaultConfig` with `_rules_` in it) end up the same here. Nothing is parsed yet.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tollgate_kinds::WasmPlugin;
use tollgate_kinds::wasm_plugin::{MatchRule, RouteType};

/// The configs of one plugin.
#[derive(Debug, Default)]
pub(crate) struct Written<'a> {
    /// For requests that no rule matches.
    pub(crate) global: Option<Config<'a>>,
    /// First match wins.
    pub(crate) rules: Vec<Rule<'a>>,
}

/// One config and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Config<'a> {
    pub(crate) value: Cow<'a, Value>,
    pub(crate) field: String,
}

/// A config for some requests.
#[derive(Debug, Clone)]
pub(crate) struct Rule<'a> {
    pub(crate) config: Config<'a>,
    /// Field path of the rule itself.
    pub(crate) field: String,
    pub(crate) scope: Scope,
    /// What is strange about it.
    pub(crate) warning: Option<&'static str>,
}

/// What a rule is for. One of these decides; Higress looks for routes, then domains, then services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These routes, and of those only requests to these services if any are named.
    Routes {
        names: Vec<String>,
        services: Vec<String>,
    },
    /// These hosts.
    Domains(Vec<String>),
    /// These services.
    Services(Vec<String>),
    /// Routes whose names begin so.
    RoutePrefixes(Vec<String>),
}

/// Reads the configs of a plugin; `None` when it is switched off.
pub(crate) fn read(plugin: &WasmPlugin) -> Option<Written<'_>> {
    let spec = &plugin.spec;
    if let Some(raw) = &spec.plugin_config {
        return Some(from_raw(raw, "spec.pluginConfig"));
    }
    let active = || {
        spec.match_rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| !rule.config_disable)
    };
    let rules: Vec<Rule<'_>> = active()
        .map(|(index, rule)| from_match_rule(index, rule))
        .collect();
    let global = spec
        .default_config
        .as_ref()
        .filter(|_| !spec.default_config_disable);
    if rules.is_empty() {
        return match (global, spec.default_config_disable) {
            (_, true) => None,
            (Some(raw), _) => Some(from_raw(raw, "spec.defaultConfig")),
            // Neither default nor rules: some plugins need no config at all.
            (None, _) => Some(Written {
                global: Some(empty("spec")),
                rules,
            }),
        };
    }
    // `{}` next to rules is no global config, while `{}` alone is one.
    let global = global
        .map(|raw| without_rules(raw, "spec.defaultConfig"))
        .filter(|config| !is_empty(&config.value));
    Some(Written { global, rules })
}

fn empty(field: &str) -> Config<'static> {
    Config {
        value: Cow::Owned(Value::Object(Map::new())),
        field: field.to_owned(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn from_match_rule(index: usize, rule: &MatchRule) -> Rule<'_> {
    let field = format!("spec.matchRules[{index}]");
    let config = match &rule.config {
        Some(value) => Config {
            value: Cow::Borrowed(value),
            field: format!("{field}.config"),
        },
        None => empty(&field),
    };
    let name = |name: &String| match rule.route_type {
        RouteType::Http => name.clone(),
        RouteType::Grpc => format!("GRPC/{name}"),
    };
    let (scope, warning) = if !rule.ingress.is_empty() {
        let warning = (!rule.domain.is_empty()).then_some("`domain` does not count next to `ingress`");
        let names = rule.ingress.iter().map(name).collect();
        let services = rule.service.clone();
        (Scope::Routes { names, services }, warning)
    } else if !rule.domain.is_empty() {
        let warning = (!rule.service.is_empty()).then_some("`service` does not count next to `domain`");
        (Scope::Domains(rule.domain.clone()), warning)
    } else {
        (Scope::Services(rule.service.clone()), None)
    };
    Rule {
        config,
        field,
        scope,
        warning,
    }
}

/// The form underneath: `_rules_` with `_match_*_` in each rule, everything else global.
fn from_raw<'a>(raw: &'a Value, field: &str) -> Written<'a> {
    let items = raw.get("_rules_").and_then(Value::as_array);
    let rules: Vec<Rule<'a>> = items
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, item)| raw_rule(item, format!("{field}._rules_[{index}]")))
        .collect();
    let global = without_rules(raw, field);
    let has_global = items.is_none() || !is_empty(&global.value);
    Written {
        global: has_global.then_some(global),
        rules,
    }
}

fn without_rules<'a>(raw: &'a Value, field: &str) -> Config<'a> {
    let value = match raw {
        Value::Object(fields) if fields.contains_key("_rules_") => {
            let mut fields = fields.clone();
            fields.shift_remove("_rules_");
            Cow::Owned(Value::Object(fields))
        }
        other => Cow::Borrowed(other),
    };
    Config {
        value,
        field: field.to_owned(),
    }
}

/// `None` for a rule that matches nothing.
fn raw_rule(item: &Value, field: String) -> Option<Rule<'static>> {
    let fields = item.as_object()?;
    let list = |key: &str| -> Vec<String> {
        let items = fields.get(key).and_then(Value::as_array);
        let texts = items.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let (routes, domains) = (list("_match_route_"), list("_match_domain_"));
    let (services, prefixes) = (list("_match_service_"), list("_match_route_prefix_"));
    let scope = if !routes.is_empty() {
        Scope::Routes {
            names: routes,
            services,
        }
    } else if !domains.is_empty() {
        Scope::Domains(domains)
    } else if !services.is_empty() {
        Scope::Services(services)
    } else if !prefixes.is_empty() {
        Scope::RoutePrefixes(prefixes)
    } else {
        return None;
    };
    let mut fields = fields.clone();
    fields.retain(|key, _| !key.starts_with("_match_"));
    Some(Rule {
        config: Config {
            value: Cow::Owned(Value::Object(fields)),
            field: field.clone(),
        },
        field,
        scope,
        warning: None,
    })
}
