//! From a backend to weighted destinations: the Service or the `destination` lines, their clusters, and shares that
//! add up to 100.

use std::sync::Arc;

use tollgate_kinds::Diagnostic;
use tollgate_kinds::ingress::{IngressBackend, ServiceBackend, ServicePortRef};
use tollgate_snapshot::Cluster;
use tollgate_snapshot::policy::{HeaderControl, Mirror};
use tollgate_snapshot::route::Destination;

use crate::Input;
use crate::annotations::{MirrorTarget, WrittenDestination};
use crate::clusters::{Clusters, cluster_name};
use crate::ingress::Plan;
use crate::registries::BRIDGE_NAME;
use crate::services::{KnownService, ServiceTable, kubernetes_host};

/// Port of the listener: what a destination without port means when its service has several.
const LISTENER_PORT: u16 = 80;

/// Everything that destinations are looked up in.
pub(crate) struct Upstreams<'a> {
    pub(crate) services: &'a ServiceTable,
    pub(crate) clusters: &'a Clusters,
}

/// A destination before the weights are scaled.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) weight: i64,
    pub(crate) cluster: Result<Arc<Cluster>, Arc<str>>,
    pub(crate) headers: HeaderControl,
    pub(crate) fallbacks: Vec<Arc<Cluster>>,
    pub(crate) arm: Option<Arc<str>>,
}

impl Planned {
    /// Name of the cluster, existing or not.
    fn name(&self) -> &Arc<str> {
        match &self.cluster {
            Ok(cluster) => &cluster.name,
            Err(name) => name,
        }
    }
}

/// The destinations of one backend and what their weights are shares of (0: of their own sum).
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) destinations: Vec<Planned>,
    pub(crate) weight_total: i64,
}

impl Branch {
    /// Several destinations of one Ingress are arms of their own, by cluster.
    fn with_arms(mut self) -> Self {
        if self.destinations.len() > 1 {
            for planned in &mut self.destinations {
                planned.arm = Some(planned.name().clone());
            }
        }
        self
    }

    /// The branch is one of several for the same requests: what has no arm of its own is in this one.
    pub(crate) fn is_arm(&mut self, name: &Arc<str>) {
        for planned in &mut self.destinations {
            planned.arm.get_or_insert_with(|| name.clone());
        }
    }
}

impl Upstreams<'_> {
    /// The destinations of a backend; `None` (with a diagnostic) when it names none. `field` is the backend's path.
    pub(crate) fn branch(
        &self,
        input: &Input<'_>,
        plan: &Plan<'_>,
        backend: &IngressBackend,
        field: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Branch> {
        let mut branch = if let Some(service) = &backend.service {
            let planned = self.service(input, plan, service, field, diagnostics)?;
            Branch {
                destinations: vec![planned],
                weight_total: 0,
            }
        } else {
            self.written(plan, backend, field, diagnostics)?
        };
        self.add_default_backend(input, plan, &mut branch, diagnostics);
        Some(branch)
    }

    fn service(
        &self,
        input: &Input<'_>,
        plan: &Plan<'_>,
        backend: &ServiceBackend,
        field: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Planned> {
        let namespace = &plan.ingress.metadata.namespace;
        let service = input.objects.service(namespace, &backend.name);
        let mut report =
            |field: String, message: String| diagnostics.push(plan.ingress.error(&field, message));
        if backend.name.is_empty() {
            report(
                format!("{field}.service.name"),
                "missing: the path is left out".to_owned(),
            );
            return None;
        }
        let number = match &backend.port {
            ServicePortRef::Number(number) => Some(*number),
            ServicePortRef::Name(_) => service
                .and_then(|found| found.spec.port(&backend.port))
                .map(|port| port.port),
            ServicePortRef::Unset => None,
        };
        let Some(number) = number else {
            let message = match (&backend.port, service) {
                (ServicePortRef::Unset, _) => "missing: the path is left out".to_owned(),
                (_, None) => format!(
                    "the Service {namespace}/{} does not exist, so its port name means nothing: the path is left out",
                    backend.name
                ),
                _ => format!(
                    "the Service {namespace}/{} has no port with this name: the path is left out",
                    backend.name
                ),
            };
            report(format!("{field}.service.port"), message);
            return None;
        };
        let host = kubernetes_host(namespace, &backend.name, input);
        let planned = self.planned(&host, number, "", 100);
        if planned.cluster.is_err() {
            let what = match service {
                None => format!("the Service {namespace}/{} does not exist", backend.name),
                Some(_) => format!("the Service {namespace}/{} has no port {number}", backend.name),
            };
            let message = format!("{what}: requests get 503");
            diagnostics.push(plan.ingress.warning(&format!("{field}.service"), message));
        }
        Some(planned)
    }

    /// The `destination` annotation of an Ingress whose backend is the McpBridge.
    fn written(
        &self,
        plan: &Plan<'_>,
        backend: &IngressBackend,
        field: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Branch> {
        let Some(resource) = &backend.resource else {
            let message = "neither a service nor a resource: the path is left out";
            diagnostics.push(plan.ingress.error(field, message));
            return None;
        };
        let is_bridge = resource.api_group == "networking.higress.io"
            && resource.kind == "McpBridge"
            && resource.name == BRIDGE_NAME;
        if !is_bridge {
            let message = "only the McpBridge `default` of networking.higress.io is known";
            diagnostics.push(plan.ingress.warning(&format!("{field}.resource"), message));
        }
        let Some(written) = &plan.features.destination else {
            let message = "needs a valid annotation higress.io/destination: the path is left out";
            diagnostics.push(plan.ingress.error(&format!("{field}.resource"), message));
            return None;
        };
        let destinations = written
            .destinations
            .iter()
            .map(|destination| self.destination(plan, destination, diagnostics));
        let branch = Branch {
            destinations: destinations.collect(),
            weight_total: written.weight_sum,
        };
        Some(branch.with_arms())
    }

    fn destination(
        &self,
        plan: &Plan<'_>,
        written: &WrittenDestination,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Planned {
        let service = self.services.find(&written.host);
        let mut warn = |message: String| {
            let warning = plan.ingress.warning(&plan.annotation("destination"), message);
            // One annotation serves all paths of its Ingress.
            if !diagnostics.contains(&warning) {
                diagnostics.push(warning);
            }
        };
        let port = written.port.unwrap_or_else(|| match service {
            Some(KnownService { ports }) => match ports.as_slice() {
                [only] => only.number,
                several if several.iter().any(|port| port.number == LISTENER_PORT) => LISTENER_PORT,
                several => {
                    let first = several.first().map_or(LISTENER_PORT, |port| port.number);
                    warn(format!(
                        "the service {} has several ports: {first} is used",
                        written.host
                    ));
                    first
                }
            },
            None => LISTENER_PORT,
        });
        let planned = self.planned(&written.host, port, &written.subset, written.weight);
        if planned.cluster.is_err() {
            let what = match service {
                None => format!("no service {} is known", written.host),
                Some(_) if !written.subset.is_empty() => {
                    format!("the service {} has no subset {}", written.host, written.subset)
                }
                Some(_) => format!("the service {} has no port {port}", written.host),
            };
            warn(format!("{what}: requests get 503"));
        }
        planned
    }

    fn planned(&self, host: &str, port: u16, subset: &str, weight: i64) -> Planned {
        let name = cluster_name(host, port, subset);
        let cluster = match self.clusters.get(name.as_str()) {
            Some(cluster) => Ok(cluster.clone()),
            None => Err(name.into()),
        };
        Planned {
            weight,
            cluster,
            headers: HeaderControl::default(),
            fallbacks: Vec::new(),
            arm: None,
        }
    }

    /// The cluster of `default-backend`: the first port of its Service.
    pub(crate) fn default_backend(&self, input: &Input<'_>, plan: &Plan<'_>) -> Option<&Arc<Cluster>> {
        let wanted = plan.features.default_backend.as_ref()?;
        let host = kubernetes_host(wanted.namespace(plan.ingress), &wanted.service, input);
        let port = self.services.find(&host)?.ports.first()?;
        self.clusters.get(cluster_name(&host, port.number, "").as_str())
    }

    /// Where `mirror-target-*` sends copies; `None` when the Ingress wants none, or (with a diagnostic) when there is no such
    /// service.
    pub(crate) fn mirror(
        &self,
        input: &Input<'_>,
        plan: &Plan<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Arc<Mirror>> {
        let wanted = plan.features.mirror.as_ref()?;
        let (host, port) = match &wanted.target {
            MirrorTarget::Named(host, port) => (host.clone(), Some(*port)),
            MirrorTarget::Service { service, port, .. } => {
                let host = kubernetes_host(wanted.target.namespace(plan.ingress), service, input);
                let first = || Some(self.services.find(&host)?.ports.first()?.number);
                let port = port.or_else(first);
                (host, port)
            }
        };
        let cluster = port.and_then(|port| self.clusters.get(cluster_name(&host, port, "").as_str()));
        if cluster.is_none() {
            let what = port.map_or_else(|| host.clone(), |port| format!("{host} with port {port}"));
            let message = format!("no service {what} is known: nothing is mirrored");
            let warning = plan
                .ingress
                .warning(&plan.annotation(wanted.target.key()), message);
            if !diagnostics.contains(&warning) {
                diagnostics.push(warning);
            }
        }
        let percent = wanted.percent;
        let cluster = cluster.filter(|_| percent > 0)?.clone();
        Some(Arc::new(Mirror { cluster, percent }))
    }

    /// `default-backend`: takes over while the first destination does not exist or has no healthy endpoint.
    fn add_default_backend(
        &self,
        input: &Input<'_>,
        plan: &Plan<'_>,
        branch: &mut Branch,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let Some(wanted) = &plan.features.default_backend else {
            return;
        };
        let namespace = wanted.namespace(plan.ingress);
        match (self.default_backend(input, plan), branch.destinations.first_mut()) {
            (Some(cluster), Some(first)) => first.fallbacks.push(cluster.clone()),
            _ => {
                let message = format!(
                    "no Service {namespace}/{} with a port exists: ignored",
                    wanted.service
                );
                let warning = plan.ingress.warning(&plan.annotation("default-backend"), message);
                if !diagnostics.contains(&warning) {
                    diagnostics.push(warning);
                }
            }
        }
    }
}

/// Scales the weights to whole percent: each but the first is cut down, the first gets what remains. Destinations
/// without a share are left out.
pub(crate) fn scaled(branch: Branch) -> Vec<Destination> {
    let Branch {
        mut destinations,
        weight_total,
    } = branch;
    if let [only] = destinations.as_mut_slice() {
        only.weight = 100;
    } else {
        let others: i64 = destinations.iter().skip(1).map(|planned| planned.weight).sum();
        let total = others.max(weight_total).max(1);
        let mut rest = 100;
        for planned in destinations.iter_mut().skip(1) {
            planned.weight = percent(planned.weight, total);
            rest -= planned.weight;
        }
        if let Some(first) = destinations.first_mut() {
            first.weight = rest;
        }
    }
    let kept = destinations.into_iter().filter_map(|planned| {
        let weight = u32::try_from(planned.weight).ok().filter(|weight| *weight > 0)?;
        Some(Destination {
            weight,
            cluster: planned.cluster,
            headers: planned.headers,
            fallbacks: planned.fallbacks,
            arm: planned.arm,
        })
    });
    kept.collect()
}

/// Single precision and truncation are Higress's; another rounding would move whole percents between branches.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "weights are small, and the loss is the reference's own"
)]
fn percent(weight: i64, total: i64) -> i64 {
    (weight as f32 / total as f32 * 100.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[i64], weight_total: i64) -> Vec<u32> {
        let destinations = weights.iter().map(|weight| Planned {
            weight: *weight,
            cluster: Err("x".into()),
            headers: HeaderControl::default(),
            fallbacks: Vec::new(),
            arm: None,
        });
        let branch = Branch {
            destinations: destinations.collect(),
            weight_total,
        };
        scaled(branch)
            .iter()
            .map(|destination| destination.weight)
            .collect()
    }

    #[test]
    fn shares_add_up_to_100() {
        assert_eq!(shares(&[7], 7), [100]);
        assert_eq!(shares(&[70, 30], 100), [70, 30]);
        assert_eq!(shares(&[1, 1, 1], 3), [34, 33, 33]);
        assert_eq!(shares(&[50, 70], 120), [42, 58]);
        assert_eq!(shares(&[100, 0], 100), [100]);
        assert_eq!(shares(&[100, 100], 100), [100]);
        assert_eq!(shares(&[100, 10], 1000), [99, 1]);
        assert_eq!(shares(&[0, 0], 0), [100]);
    }
}
