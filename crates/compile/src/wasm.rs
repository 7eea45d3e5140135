//! A WasmPlugin that runs its module: what the module is asked to be, from the object's fields.
//!
//! The module does its own rule matching: it gets all configs as one JSON object, `_rules_` and all, as Higress's
//! controller hands them to Envoy.

use serde_json::{Map, Value, json};
use tollgate_kinds::WasmPlugin;
use tollgate_kinds::wasm_plugin::{
    EnvSource, FailStrategy, ImagePullPolicy, MatchRule, RouteType, WasmPluginSpec,
};
use tollgate_modules::{Logins, PullPolicy, Wanted};
use tollgate_wasm::Spec;

/// What the object asks for; `None` when it is switched off. `render` replaces templates in a config.
pub(crate) fn spec(
    plugin: &WasmPlugin,
    logins: Logins,
    environment: fn(&str) -> Option<String>,
    render: impl FnMut(&str, &Value) -> Value,
) -> Option<Spec> {
    let spec = &plugin.spec;
    let config = config(spec, render)?;
    let env = spec.vm_config.env.iter().filter_map(|variable| {
        let value = match variable.value_from {
            EnvSource::Inline => Some(variable.value.clone()),
            EnvSource::Host => environment(&variable.name),
        };
        value.map(|value| (variable.name.clone(), value))
    });
    Some(Spec {
        name: format!("{}.{}", plugin.metadata.namespace, plugin.metadata.name),
        root_id: spec.plugin_name.clone(),
        source: Wanted {
            url: spec.url.clone(),
            sha256: spec.sha256.clone(),
            policy: match spec.image_pull_policy {
                ImagePullPolicy::Unspecified => PullPolicy::Unspecified,
                ImagePullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
                ImagePullPolicy::Always => PullPolicy::Always,
            },
            logins,
        },
        config: config.into_bytes().into(),
        env: env.collect(),
        fail_open: spec.fail_strategy == FailStrategy::Open,
    })
}

/// The config's text; empty for none at all.
fn config(spec: &WasmPluginSpec, mut render: impl FnMut(&str, &Value) -> Value) -> Option<String> {
    if let Some(raw) = &spec.plugin_config {
        return Some(text(render("spec.pluginConfig", raw)));
    }
    let active: Vec<(usize, &MatchRule)> = spec
        .match_rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| !rule.config_disable)
        .collect();
    if spec.default_config_disable && active.is_empty() {
        return None;
    }
    let global = spec
        .default_config
        .as_ref()
        .filter(|_| !spec.default_config_disable);
    let mut whole = match global.map(|global| render("spec.defaultConfig", global)) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    if !active.is_empty() {
        let field = |index: usize| format!("spec.matchRules[{index}].config");
        let rules = active
            .iter()
            .map(|(index, rule)| one_rule(rule, |value| render(&field(*index), value)));
        let rules: Vec<Value> = rules.collect();
        match whole.get_mut("_rules_").and_then(Value::as_array_mut) {
            Some(written) => written.extend(rules),
            None => drop(whole.insert("_rules_".to_owned(), Value::Array(rules))),
        }
    }
    Some(text(Value::Object(whole)))
}

fn one_rule(rule: &MatchRule, render: impl FnOnce(&Value) -> Value) -> Value {
    let mut fields = match rule.config.as_ref().map(render) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let routes: Vec<String> = match rule.route_type {
        RouteType::Http => rule.ingress.clone(),
        // Higress gives the kind in the place of each name.
        RouteType::Grpc => rule.ingress.iter().map(|_| "GRPC".to_owned()).collect(),
    };
    for (key, list) in [
        ("_match_route_", &routes),
        ("_match_service_", &rule.service),
        ("_match_domain_", &rule.domain),
    ] {
        if !list.is_empty() {
            fields.insert(key.to_owned(), json!(list));
        }
    }
    Value::Object(fields)
}

fn text(value: Value) -> String {
    match &value {
        Value::Object(fields) if fields.is_empty() => String::new(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(spec: Value) -> Option<String> {
        let spec: WasmPluginSpec = serde_json::from_value(spec).unwrap();
        config(&spec, |_, value| value.clone())
    }

    #[test]
    fn a_module_gets_all_configs_as_higress_writes_them() {
        let spec = json!({
            "defaultConfig": {"a": 1},
            "matchRules": [
                {"ingress": ["r1"], "service": ["s.dns"], "config": {"a": 2}},
                {"domain": ["x.com"], "configDisable": true, "config": {"a": 3}},
                {"domain": ["y.com"]},
            ],
        });
        assert_eq!(
            written(spec).unwrap(),
            r#"{"a":1,"_rules_":[{"a":2,"_match_route_":["r1"],"_match_service_":["s.dns"]},{"_match_domain_":["y.com"]}]}"#
        );
        let raw = json!({"pluginConfig": {"x": true}, "defaultConfig": {"a": 1}});
        assert_eq!(written(raw).unwrap(), r#"{"x":true}"#);
        assert_eq!(written(json!({})).unwrap(), "");
        assert_eq!(written(json!({"defaultConfig": {}})).unwrap(), "");
        assert_eq!(
            written(json!({"defaultConfig": {"a": 1}, "defaultConfigDisable": true})),
            None
        );
    }
}
