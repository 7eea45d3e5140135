//! Puts a faulty object right with as little of its last good version as possible.
//!
//! Only a WasmPlugin can be taken apart: one bad rule must not keep the others from being updated.

use std::sync::Arc;

use tollgate_kinds::wasm_plugin::MatchRule;
use tollgate_kinds::{Diagnostic, Object, WasmPlugin};

/// What to do with a refused object.
pub(crate) enum Mend {
    /// Use this: the new version, its faulty rules as they were (or switched off if they never were good).
    Rules(Object),
    /// The faulty rules are those that were good before: the fault lies elsewhere.
    Outside,
    /// Nothing smaller than the whole object will do.
    Whole,
}

/// Looks at the new version beside the good one, given the new one's errors.
pub(crate) fn mend(good: &Object, bad: &Object, errors: &[&Diagnostic]) -> Mend {
    let (Object::WasmPlugin(old), Object::WasmPlugin(new)) = (good, bad) else {
        return Mend::Whole;
    };
    let mut plugin = WasmPlugin::clone(new);
    for error in errors {
        let index = rule_index(&error.field);
        let Some(rule) = index.and_then(|index| plugin.spec.match_rules.get_mut(index)) else {
            return Mend::Whole;
        };
        *rule = old
            .spec
            .match_rules
            .iter()
            .find(|known| is_for_the_same(known, rule))
            .cloned()
            .unwrap_or_else(|| switched_off(rule));
    }
    if plugin == **new {
        return Mend::Outside;
    }
    Mend::Rules(Object::WasmPlugin(Arc::new(plugin)))
}

/// The number in `spec.matchRules[N]…`.
fn rule_index(field: &str) -> Option<usize> {
    let (number, _) = field.strip_prefix("spec.matchRules[")?.split_once(']')?;
    number.parse().ok()
}

fn is_for_the_same(one: &MatchRule, other: &MatchRule) -> bool {
    one.ingress == other.ingress
        && one.domain == other.domain
        && one.service == other.service
        && one.route_type == other.route_type
}

/// Left in its place, so that the rules behind it keep their numbers.
fn switched_off(rule: &MatchRule) -> MatchRule {
    MatchRule {
        config: None,
        config_disable: true,
        ..rule.clone()
    }
}
