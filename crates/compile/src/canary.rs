//! Canary Ingresses: a variant of a route that another Ingress has, by header (a route of its own before the base) or
//! by weight (one more destination of the base).
//!
//! The base is the ordinary route of the same host with the same path and the same match annotations; without one a
//! path of a canary does nothing.

use std::sync::Arc;

use tollgate_kinds::Diagnostic;
use tollgate_snapshot::Cluster;
use tollgate_snapshot::route::TextMatch;

use crate::annotations::{Canary, Variant};
use crate::destinations::{Branch, Planned};
use crate::ingress::Plan;
use crate::routes::{Draft, DraftSort, Drafter, HostDrafts};

/// Applies one canary Ingress to the routes that are there.
pub(crate) fn apply(
    drafter: &Drafter<'_>,
    plan: &Plan<'_>,
    canary: &Canary,
    drafts: &mut HostDrafts,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Some(variant) = &canary.variant else { return };
    for host in &plan.hosts {
        for index in 0..host.paths.len() {
            let Some(mut draft) = drafter.draft(plan, host, index, diagnostics) else {
                continue;
            };
            let routes = drafts.get_mut(&host.host).map(|draft| &mut draft.routes);
            let base = routes.and_then(|routes| {
                let position = routes
                    .iter()
                    .position(|route| route.sort == DraftSort::Ordinary && route.key == draft.key)?;
                Some((routes, position))
            });
            let Some((routes, position)) = base else {
                let field = format!("{}.http.paths[{index}]", host.field);
                let message = "no Ingress has a route with the same host, path and match annotations: \
                               this path of the canary is ignored";
                diagnostics.push(plan.ingress.warning(&field, message));
                continue;
            };
            let Some(base) = routes.get_mut(position) else {
                continue;
            };
            fall_back_to(base, &mut draft.branch);
            let stable = base.name.clone();
            base.branch.is_arm(&stable);
            match variant {
                Variant::Header(name, text_match) => {
                    let route = by_header(base, draft, name, text_match);
                    routes.insert(position, route);
                }
                Variant::Weight { weight, total } => by_weight(base, draft, *weight, *total),
            }
        }
    }
}

/// The canary's destination goes to the stable one, and then where that one would go, while it cannot serve.
fn fall_back_to(base: &Draft, branch: &mut Branch) {
    let stable = base.branch.destinations.first();
    let (Some(stable), Some(first)) = (stable, branch.destinations.first_mut()) else {
        return;
    };
    let own: Option<Arc<Cluster>> = stable.cluster.as_ref().ok().cloned();
    first.fallbacks = own.into_iter().chain(stable.fallbacks.iter().cloned()).collect();
}

/// Everything of the base, except destinations and header edits, for requests with one more header.
fn by_header(base: &Draft, mut canary: Draft, name: &str, text_match: &TextMatch) -> Draft {
    canary.branch.is_arm(&canary.name);
    let mut route = base.clone();
    route.name = canary.name;
    route.origin = canary.origin;
    route.branch = canary.branch;
    route.policy.headers = canary.policy.headers;
    // Higress lets this condition replace those of the base; then a request that the base refuses could get in.
    route.matcher.headers.push((name.into(), text_match.clone()));
    route.sort = DraftSort::Canary;
    route
}

/// One more destination; from now on each destination has its own header edits.
fn by_weight(base: &mut Draft, canary: Draft, weight: i64, total: i64) {
    if let [only] = base.branch.destinations.as_mut_slice() {
        only.headers = std::mem::take(&mut base.policy.headers);
    }
    if base.branch.weight_total == 0 {
        base.branch.weight_total = total;
    }
    if let Some(first) = canary.branch.destinations.into_iter().next() {
        base.branch.destinations.push(Planned {
            weight,
            arm: Some(canary.name),
            headers: canary.policy.headers,
            ..first
        });
    }
}
