//! The virtual hosts: ordinary routes, then canaries, default backends and app roots, sorted and finished.
//!
//! The order of these steps is Higress's and can be seen: a canary finds only ordinary routes, and a default backend
//! yields to a path `/` of any Ingress.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_kinds::Diagnostic;
use tollgate_snapshot::{Hosts, Route, VirtualHost};

use crate::Input;
use crate::canary;
use crate::destinations::Upstreams;
use crate::ingress::Plan;
use crate::origin;
use crate::plugins::Chains;
use crate::routes::{Draft, DraftSort, Drafter, HostDrafts, app_root};

/// Compiles all hosts.
pub(crate) fn build(
    input: &Input<'_>,
    plans: &[Plan<'_>],
    upstreams: Upstreams<'_>,
    chains: &Chains,
    diagnostics: &mut Vec<Diagnostic>,
) -> Hosts {
    let mut drafter = Drafter {
        input,
        upstreams,
        claimed: HashMap::new(),
    };
    let mut drafts = HostDrafts::new();
    let routable = || plans.iter().filter(|plan| plan.features.unroutable.is_none());
    let ordinary = || routable().filter(|plan| plan.features.canary.is_none());
    for plan in ordinary() {
        for host in &plan.hosts {
            let draft = drafts.entry(host.host.clone()).or_default();
            drafter.add(plan, host, draft, diagnostics);
            if let Some(redirect) = &plan.features.redirects.app_root {
                let origin = origin::of_field(plan.ingress, &plan.annotation("app-root"));
                draft.app_root = Some((redirect.clone(), origin));
            }
        }
    }
    for plan in routable() {
        if let Some(canary) = &plan.features.canary {
            canary::apply(&drafter, plan, canary, &mut drafts, diagnostics);
        }
    }
    for plan in ordinary() {
        add_default_backend(&drafter, plan, &mut drafts, diagnostics);
    }
    finish(drafts, chains)
}

fn add_default_backend(
    drafter: &Drafter<'_>,
    plan: &Plan<'_>,
    drafts: &mut HostDrafts,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(backend) = &plan.ingress.spec.default_backend else {
        return;
    };
    let Some(route) = drafter.default_backend(plan, backend, diagnostics) else {
        return;
    };
    let any = drafts.entry("*".to_owned()).or_default();
    if !any.has_everything {
        // Of several default backends the last one serves all hosts.
        any.routes.retain(|draft| draft.sort != DraftSort::DefaultBackend);
        any.routes.push(route.clone());
    }
    for host in plan.hosts.iter().filter(|host| host.host != "*") {
        let draft = drafts.entry(host.host.clone()).or_default();
        if !draft.has_everything {
            draft.has_everything = true;
            draft.routes.push(route.clone());
        }
    }
}

fn finish(drafts: HostDrafts, chains: &Chains) -> Hosts {
    let mut hosts = Hosts::default();
    for (name, mut draft) in drafts {
        if let Some((redirect, origin)) = draft.app_root {
            draft.routes.push(app_root(&name, redirect, origin));
        }
        if draft.routes.is_empty() {
            continue;
        }
        draft.routes.sort_by(Draft::cmp);
        let routes = draft.routes.into_iter().map(|draft| route(draft, chains));
        let virtual_host = VirtualHost {
            name: name.as_str().into(),
            routes: routes.collect(),
        };
        if name == "*" {
            hosts.any = Some(virtual_host);
        } else if let Some(suffix) = name.strip_prefix('*') {
            hosts.wildcard.push((suffix.into(), virtual_host));
        } else {
            hosts.exact.insert(name.into(), virtual_host);
        }
    }
    hosts
        .wildcard
        .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    hosts
}

fn route(mut draft: Draft, chains: &Chains) -> Arc<Route> {
    let action = draft.action();
    Arc::new(Route {
        links: chains.links(&draft.name),
        name: draft.name,
        origin: draft.origin,
        matcher: draft.matcher,
        policy: draft.policy,
        action,
    })
}
