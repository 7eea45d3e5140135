//! Which Ingresses count, and what one looks like once its annotations are read and its hosts are normalised.

use std::sync::Arc;

use tollgate_kinds::ingress::IngressPath;
use tollgate_kinds::{Diagnostic, Ingress};

use crate::annotations::{self, Features};
use crate::{Input, Options};

/// The class that an nginx controller takes by default; Higress treats it so too.
const NGINX_CLASS: &str = "nginx";
/// The annotation that came before `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// An Ingress that counts.
pub(crate) struct Plan<'a> {
    pub(crate) ingress: &'a Ingress,
    pub(crate) features: Features,
    /// Higress's route name of its paths.
    pub(crate) route_name: Arc<str>,
    pub(crate) hosts: Vec<PlannedHost<'a>>,
}

impl Plan<'_> {
    /// The field path of an annotation that counts under more than one prefix: the one that is there.
    pub(crate) fn annotation(&self, key: &str) -> String {
        let annotations = &self.ingress.metadata.annotations;
        let full = annotations
            .keys()
            .find(|full| full.rsplit_once('/').is_some_and(|(_, name)| name == key));
        match full {
            Some(full) => annotation_field(full),
            None => annotation_field(&format!("higress.io/{key}")),
        }
    }
}

/// One rule of an Ingress.
pub(crate) struct PlannedHost<'a> {
    /// Lower case; `*` for any.
    pub(crate) host: String,
    /// As written, for comparing with `spec.tls[].hosts`; `*` for none.
    pub(crate) written: &'a str,
    /// Field path of the rule.
    pub(crate) field: String,
    pub(crate) paths: &'a [IngressPath],
}

/// All Ingresses that count, in Higress's order.
pub(crate) fn plan<'a>(input: &Input<'a>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Plan<'a>> {
    let counted = input
        .objects
        .ingresses()
        .into_iter()
        .filter(|ingress| counts(ingress, input));
    counted
        .map(|ingress| plan_one(ingress, input.options, diagnostics))
        .collect()
}

fn plan_one<'a>(ingress: &'a Ingress, options: &Options, diagnostics: &mut Vec<Diagnostic>) -> Plan<'a> {
    let (features, notes) = annotations::read(&ingress.metadata.annotations);
    for note in notes {
        diagnostics.push(ingress.warning(&annotation_field(&note.key), note.message));
    }
    if let Some(note) = &features.unroutable {
        let message = format!("{}: the Ingress gets no routes", note.message);
        diagnostics.push(ingress.error(&annotation_field(&note.key), message));
    }
    let mut hosts = Vec::new();
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let written = if rule.host.is_empty() {
            "*"
        } else {
            rule.host.as_str()
        };
        if let Some(message) = host_fault(written) {
            diagnostics.push(ingress.error(&format!("{field}.host"), message));
        } else {
            if rule.paths.is_empty() && ingress.spec.default_backend.is_none() {
                diagnostics.push(ingress.warning(&field, "no paths, so the rule routes nothing"));
            }
            hosts.push(PlannedHost {
                host: written.to_ascii_lowercase(),
                written,
                field,
                paths: &rule.paths,
            });
        }
    }
    Plan {
        ingress,
        features,
        route_name: route_name(&ingress.metadata.namespace, &ingress.metadata.name, options).into(),
        hosts,
    }
}

/// The field path of an annotation.
pub(crate) fn annotation_field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// Higress's name of a route: the Ingress's, with its namespace outside the system namespace.
pub(crate) fn route_name(namespace: &str, name: &str, options: &Options) -> String {
    match namespace == options.system_namespace {
        true => name.to_owned(),
        false => format!("{namespace}/{name}"),
    }
}

fn host_fault(host: &str) -> Option<&'static str> {
    if host == "*" {
        return None;
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let valid = !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        });
    (!valid).then_some("expected a host name, possibly with `*.` before it, and without a port")
}

/// Whether the class and the namespace of an Ingress are ours.
fn counts(ingress: &Ingress, input: &Input<'_>) -> bool {
    let options = input.options;
    if let Some(namespace) = &options.watch_namespace
        && *namespace != ingress.metadata.namespace
    {
        return false;
    }
    let wanted = options.ingress_class.as_str();
    if wanted.is_empty() {
        return true;
    }
    if let Some(class) = ingress.metadata.annotations.get(CLASS_ANNOTATION) {
        return class == wanted || (wanted == NGINX_CLASS && class.is_empty());
    }
    let class = ingress.spec.ingress_class_name.as_deref();
    let class_exists = class.is_some_and(|name| input.objects.ingress_class("", name).is_some());
    match class {
        Some(class) => class == wanted || (wanted == NGINX_CLASS && class.is_empty() && !class_exists),
        None => wanted == NGINX_CLASS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_with_at_most_one_star_in_front() {
        for good in ["*", "a.com", "*.a.com", "localhost", "A.Com"] {
            assert_eq!(host_fault(good), None, "{good}");
        }
        for bad in [
            "a.com:80",
            "*a.com",
            "a.*.com",
            "",
            "a..com",
            "*.",
            "http://a.com",
        ] {
            assert!(host_fault(bad).is_some(), "{bad}");
        }
    }
}
