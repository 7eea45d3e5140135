//! Routes before they are final: one per path of an Ingress, plus default backends and app roots, and the order in
//! which those of one host are tried.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::HeaderValue;
use tollgate_kinds::Diagnostic;
use tollgate_kinds::ingress::IngressBackend;
use tollgate_plugin::Origin;
use tollgate_snapshot::policy::{ErrorPage, Policy, Redirect, Timers};
use tollgate_snapshot::route::{Action, Matcher, PathMatch};

use crate::Input;
use crate::destinations::{Branch, Upstreams, scaled};
use crate::ingress::{Plan, PlannedHost};
use crate::origin;
use crate::path::RoutePath;

/// A route that can still change.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) name: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) path: RoutePath,
    pub(crate) matcher: Matcher,
    /// Length of its joined methods, for sorting; 0 without a condition.
    pub(crate) methods_length: usize,
    pub(crate) policy: Policy,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) redirect_plain: Option<Redirect>,
    pub(crate) branch: Branch,
    /// Equal for two routes that claim the same requests.
    pub(crate) key: String,
    pub(crate) sort: DraftSort,
}

/// What sort of route it is; the order is that in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DraftSort {
    AppRoot,
    /// A header canary: like an ordinary route, but no base for another canary.
    Canary,
    Ordinary,
    DefaultBackend,
}

impl Draft {
    /// The order in one host; equal ones keep the order in which they were written.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> impl Ord + use<> {
        let has_condition =
            self.methods_length > 0 || !self.matcher.headers.is_empty() || !self.matcher.queries.is_empty();
        let place = match self.sort {
            DraftSort::AppRoot => 0,
            DraftSort::DefaultBackend => 3,
            _ if self.path.is_everything() && !has_condition => 2,
            _ => 1,
        };
        (
            place,
            self.path.class(),
            Reverse(self.path.text.len()),
            // A method condition comes before none, the shorter one first.
            match self.methods_length {
                0 => usize::MAX,
                length => length,
            },
            Reverse(self.matcher.headers.len()),
            Reverse(self.matcher.queries.len()),
        )
    }

    /// What the route does once its branches are settled.
    pub(crate) fn action(&mut self) -> Action {
        if let Some(redirect) = self.redirect.take() {
            return Action::Redirect(redirect);
        }
        let branch = Branch {
            destinations: std::mem::take(&mut self.branch.destinations),
            weight_total: self.branch.weight_total,
        };
        match self.redirect_plain.take() {
            Some(redirect) => Action::RedirectPlain(redirect, scaled(branch)),
            None => Action::Forward(scaled(branch)),
        }
    }
}

/// One host while its routes are collected.
#[derive(Debug, Default)]
pub(crate) struct HostDraft {
    pub(crate) routes: Vec<Draft>,
    /// The last Ingress that asked for it wins.
    pub(crate) app_root: Option<(Redirect, Origin)>,
    /// Whether some route takes every path, so that no default backend is added.
    pub(crate) has_everything: bool,
}

/// Hosts by lower-case name.
pub(crate) type HostDrafts = BTreeMap<String, HostDraft>;

/// Compiles the paths of Ingresses, one after the other.
pub(crate) struct Drafter<'a> {
    pub(crate) input: &'a Input<'a>,
    pub(crate) upstreams: Upstreams<'a>,
    /// Who claimed what first, by host and key.
    pub(crate) claimed: HashMap<(String, String), String>,
}

impl Drafter<'_> {
    /// Adds the routes of one host of an Ingress to `host_draft`.
    pub(crate) fn add(
        &mut self,
        plan: &Plan<'_>,
        host: &PlannedHost<'_>,
        host_draft: &mut HostDraft,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        for index in 0..host.paths.len() {
            let Some(draft) = self.draft(plan, host, index, diagnostics) else {
                continue;
            };
            let claim = (host.host.clone(), draft.key.clone());
            let field = format!("{}.http.paths[{index}]", host.field);
            if let Some(first) = self.claimed.get(&claim) {
                let message = format!(
                    "{first} already has this path on host {}: this one is left out",
                    host.host
                );
                diagnostics.push(plan.ingress.warning(&field, message));
                continue;
            }
            let metadata = &plan.ingress.metadata;
            self.claimed
                .insert(claim, format!("Ingress {}/{}", metadata.namespace, metadata.name));
            host_draft.has_everything |= draft.path.is_everything();
            host_draft.routes.push(draft);
        }
    }

    /// The route of one path; `None` when it was left out.
    pub(crate) fn draft(
        &self,
        plan: &Plan<'_>,
        host: &PlannedHost<'_>,
        index: usize,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Draft> {
        let entry = host.paths.get(index)?;
        let field = format!("{}.http.paths[{index}]", host.field);
        let features = &plan.features;
        let path = RoutePath::new(entry.path_type, &entry.path, features.path, &features.rewrite);
        let compiled = path.and_then(|path| Ok((path.matcher()?, path)));
        let (path_match, path) = match compiled {
            Ok(compiled) => compiled,
            Err(message) => {
                let message = format!("{message}: the path is left out");
                diagnostics.push(plan.ingress.error(&format!("{field}.path"), message));
                return None;
            }
        };
        let branch = self.upstreams.branch(
            self.input,
            plan,
            &entry.backend,
            &format!("{field}.backend"),
            diagnostics,
        )?;
        let matcher = Matcher {
            path: path_match,
            ignore_case: features.path.ignore_case,
            methods: features.conditions.methods.clone(),
            headers: features.conditions.headers.clone(),
            queries: features.conditions.queries.clone(),
        };
        Some(Draft {
            name: plan.route_name.clone(),
            origin: origin::of_field(plan.ingress, &field),
            key: format!("{}\n{}", path.key(), features.conditions.key),
            methods_length: features.conditions.methods_length(),
            policy: self.policy(plan, &path, diagnostics),
            redirect: features.redirects.always.clone(),
            redirect_plain: features.redirects.plain.clone(),
            path,
            matcher,
            branch,
            sort: DraftSort::Ordinary,
        })
    }

    /// The route of `spec.defaultBackend`. As in Higress the annotations of its Ingress do not shape it, but those that
    /// limit who may come and how long an answer may take hold here too.
    pub(crate) fn default_backend(
        &self,
        plan: &Plan<'_>,
        backend: &IngressBackend,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Draft> {
        let field = "spec.defaultBackend";
        let branch = self
            .upstreams
            .branch(self.input, plan, backend, field, diagnostics)?;
        Some(Draft {
            name: format!("{}-default", plan.route_name).into(),
            origin: origin::of_field(plan.ingress, field),
            key: String::new(),
            methods_length: 0,
            policy: Policy {
                timers: self.timers(plan),
                allowed_sources: plan.features.allowed_sources.clone(),
                ..Policy::default()
            },
            redirect: None,
            redirect_plain: None,
            path: RoutePath::everything(),
            matcher: anything(PathMatch::Any),
            branch,
            sort: DraftSort::DefaultBackend,
        })
    }

    /// What `custom-http-errors` asks for; that the default backend exists is checked where it becomes a fallback.
    fn error_page(&self, plan: &Plan<'_>) -> Option<Arc<ErrorPage>> {
        let features = &plan.features;
        let backend = features.default_backend.as_ref()?;
        if features.replaced_errors.is_empty() {
            return None;
        }
        let service = format!("{}/{}", backend.namespace(plan.ingress), backend.service);
        Some(Arc::new(ErrorPage {
            statuses: features.replaced_errors.clone(),
            cluster: self.upstreams.default_backend(self.input, plan)?.clone(),
            route: HeaderValue::try_from(format!("{}-fallback", plan.route_name)).ok()?,
            service: HeaderValue::try_from(service).ok()?,
        }))
    }

    fn timers(&self, plan: &Plan<'_>) -> Timers {
        let global = &self.input.global;
        plan.features
            .timers
            .resolve(&global.settings, global.route_timeout)
    }

    fn policy(&self, plan: &Plan<'_>, path: &RoutePath, diagnostics: &mut Vec<Diagnostic>) -> Policy {
        let features = &plan.features;
        let rewrite = features.rewrite.for_route(path, features.path.ignore_case);
        let rewrite = rewrite.unwrap_or_else(|(key, message)| {
            let warning = plan
                .ingress
                .warning(&plan.annotation(key), format!("{message}: ignored"));
            if !diagnostics.contains(&warning) {
                diagnostics.push(warning);
            }
            None
        });
        Policy {
            timers: self.timers(plan),
            retry: features.retry.clone().unwrap_or_default(),
            rewrite,
            error_page: self.error_page(plan),
            mirror: self.upstreams.mirror(self.input, plan, diagnostics),
            upstream_host: features.rewrite.host.clone(),
            headers: features.headers.clone(),
            cors: features.cors.clone(),
            allowed_sources: features.allowed_sources.clone(),
            rate: features.rate.clone(),
        }
    }
}

/// The redirect of `/` that `app-root` asks for.
pub(crate) fn app_root(host: &str, redirect: Redirect, origin: Origin) -> Draft {
    Draft {
        name: format!("{host}-app-root").into(),
        origin,
        path: RoutePath::everything(),
        matcher: anything(PathMatch::Exact("/".into())),
        methods_length: 0,
        policy: Policy::default(),
        redirect: Some(redirect),
        redirect_plain: None,
        branch: Branch {
            destinations: Vec::new(),
            weight_total: 0,
        },
        key: String::new(),
        sort: DraftSort::AppRoot,
    }
}

fn anything(path: PathMatch) -> Matcher {
    Matcher {
        path,
        ignore_case: false,
        methods: Vec::new(),
        headers: Vec::new(),
        queries: Vec::new(),
    }
}
