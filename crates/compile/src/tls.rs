//! Server certificates: which Secret serves which host, and what is wrong with those that cannot.
//!
//! A host of an Ingress gets the Secret of the first `spec.tls` entry that names it literally; without one, or
//! (when asked for) without that Secret, `higress-https` may supply one. The first Ingress that claims a host keeps
//! it. A bad certificate leaves only its own host without TLS. What a host asks of its clients is in `terms`.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tollgate_kinds::Diagnostic;
use tollgate_snapshot::Certificates;
use tollgate_snapshot::certificate::Served;

use crate::Input;
use crate::annotations::{AUTHORITIES, DownstreamTls};
use crate::ingress::{Plan, PlannedHost};
use crate::secrets::certified_key;
use crate::terms::terms;

/// Chooses and builds the certificate of every host.
pub(crate) fn certificates(
    input: &Input<'_>,
    plans: &[Plan<'_>],
    diagnostics: &mut Vec<Diagnostic>,
) -> Certificates {
    let mut claimed: HashMap<&str, (&Plan<'_>, (String, String))> = HashMap::new();
    let mut built: HashMap<(String, String), Option<Arc<CertifiedKey>>> = HashMap::new();
    let mut certificates = Certificates::default();
    for plan in plans.iter().filter(|plan| plan.features.canary.is_none()) {
        if plan.ingress.spec.tls.is_empty() {
            continue;
        }
        for host in &plan.hosts {
            let Some((field, secret)) = secret_for(input, plan, host) else {
                continue;
            };
            if let Some((first, earlier)) = claimed.get(host.host.as_str()) {
                if *earlier != secret {
                    let first = &first.ingress.metadata;
                    let message = format!(
                        "the Ingress {}/{} has already chosen a Secret for host {}: this one is not used",
                        first.namespace, first.name, host.host
                    );
                    diagnostics.push(plan.ingress.warning(&field, message));
                }
                continue;
            }
            claimed.insert(&host.host, (plan, secret.clone()));
            let key = built
                .entry(secret.clone())
                .or_insert_with(|| build(input, plan, &field, &secret, diagnostics));
            if let Some(key) = key {
                let key = key.clone();
                let served = match asking(plans, &host.host) {
                    Some((asking, asked)) => hold_to(input, asking, asked, key, diagnostics),
                    None => Served {
                        key: Some(key),
                        terms: None,
                    },
                };
                certificates.ask_clients |= served.asks_clients();
                insert(&mut certificates, &host.host, served);
            }
        }
    }
    certificates
        .wildcard
        .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    certificates
}

/// The first Ingress of a host that asks something of handshakes.
fn asking<'p, 'a>(plans: &'p [Plan<'a>], host: &str) -> Option<(&'p Plan<'a>, &'p DownstreamTls)> {
    let mut own = plans.iter().filter(|plan| {
        plan.features.canary.is_none() && plan.hosts.iter().any(|planned| planned.host == host)
    });
    own.find_map(|plan| Some((plan, plan.features.downstream_tls.as_ref()?)))
}

/// The host with what it asks of clients; closed where they cannot be held to it.
fn hold_to(
    input: &Input<'_>,
    plan: &Plan<'_>,
    asked: &DownstreamTls,
    key: Arc<CertifiedKey>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Served {
    let field = plan.annotation(AUTHORITIES);
    let terms = terms(input, plan, asked, &key);
    let told = match &terms {
        Err(message) => Some(plan.ingress.error(&field, format!("{message}: its hosts are not served over TLS"))),
        Ok(terms) if terms.authorities.is_some() && plan.features.redirects.plain.is_none() => Some(plan.ingress.warning(
            &field,
            "over plain HTTP nobody is asked for a certificate: `higress.io/ssl-redirect: \"true\"` closes that way",
        )),
        Ok(_) => None,
    };
    if let Some(told) = told.filter(|told| !diagnostics.contains(told)) {
        diagnostics.push(told);
    }
    let terms = terms.ok().map(Arc::new);
    let key = terms.is_some().then_some(key);
    Served { key, terms }
}

fn insert(certificates: &mut Certificates, host: &str, served: Served) {
    if host == "*" {
        certificates.fallback = Some(served);
    } else if let Some(suffix) = host.strip_prefix('*') {
        certificates.wildcard.push((suffix.into(), served));
    } else {
        certificates.exact.insert(host.into(), served);
    }
}

/// The Secret that a host asks for, and the field that says so.
fn secret_for(
    input: &Input<'_>,
    plan: &Plan<'_>,
    host: &PlannedHost<'_>,
) -> Option<(String, (String, String))> {
    let entries = &plan.ingress.spec.tls;
    let position = entries.iter().position(|entry| {
        let any = entry.hosts.is_empty() && host.written == "*";
        any || entry.hosts.iter().any(|name| name == host.written)
    });
    let field = match position {
        Some(index) => format!("spec.tls[{index}]"),
        None => "spec.tls".to_owned(),
    };
    let https = input.global.https.as_ref();
    let supplied = || {
        let secret = https?.secret_for(&host.host)?;
        let (namespace, name) = secret
            .split_once('/')
            .unwrap_or((&input.options.system_namespace, secret));
        Some((namespace.to_owned(), name.to_owned()))
    };
    let named = position
        .and_then(|index| entries.get(index))
        .map(|entry| entry.secret_name.as_str())
        .filter(|name| !name.is_empty());
    let Some(name) = named else {
        return supplied().map(|secret| (field, secret));
    };
    let namespace = plan.ingress.metadata.namespace.clone();
    let missing = input.objects.secret(&namespace, name).is_none();
    let replacement = (missing && https.is_some_and(|https| https.fallback_for_invalid_secret))
        .then(supplied)
        .flatten();
    let secret = replacement.unwrap_or_else(|| (namespace, name.to_owned()));
    Some((field, secret))
}

fn build(
    input: &Input<'_>,
    plan: &Plan<'_>,
    field: &str,
    (namespace, name): &(String, String),
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Arc<CertifiedKey>> {
    let Some(secret) = input.objects.secret(namespace, name) else {
        let message =
            format!("the Secret {namespace}/{name} does not exist: its hosts are not served over TLS");
        diagnostics.push(plan.ingress.error(field, message));
        return None;
    };
    match certified_key(secret) {
        Ok(key) => Some(Arc::new(key)),
        Err(message) => {
            diagnostics.push(secret.error("", format!("{message}: its hosts are not served over TLS")));
            None
        }
    }
}
