//! Call-outs of plugins: requests of their own to clusters of the configuration, over the worker's pools.
//!
//! They keep the generation of the request they belong to. They count neither as attempts nor in the access log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_plugin::{Caller, unknown_cluster};
use tollgate_snapshot::Snapshot;
use tollgate_upstream::Upstreams;

/// One exchange's way to other services.
pub(crate) struct Callouts {
    pub upstreams: Upstreams,
    pub snapshot: Arc<Snapshot>,
}

#[async_trait(?Send)]
impl Caller for Callouts {
    async fn call(&self, cluster: &str, request: Request, timeout: Duration) -> Result<Response, Error> {
        let found = self.snapshot.clusters.get(cluster);
        let cluster = found.ok_or_else(|| unknown_cluster(cluster))?;
        self.upstreams.call(cluster, request, timeout).await
    }
}
