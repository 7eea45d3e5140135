//! Call-outs of plugins: requests of their own to clusters of the configuration, over the worker's pools.
//!
//! They keep the generation of the request they belong to and appear in its trace. They count neither as attempts nor
//! in the access log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_observe::trace::{Kind, Slot};
use tollgate_plugin::{Caller, unknown_cluster};
use tollgate_snapshot::Snapshot;
use tollgate_upstream::Upstreams;

use crate::spans;

/// One exchange's way to other services.
pub(crate) struct Callouts {
    pub upstreams: Upstreams,
    pub snapshot: Arc<Snapshot>,
    pub trace: Slot,
}

#[async_trait(?Send)]
impl Caller for Callouts {
    async fn call(&self, cluster: &str, mut request: Request, timeout: Duration) -> Result<Response, Error> {
        let span = spans::open(&self.trace, Kind::CallOut, cluster, &mut request);
        let outcome = match self.snapshot.clusters.get(cluster) {
            Some(found) => self.upstreams.call(found, request, timeout).await,
            None => Err(unknown_cluster(cluster)),
        };
        spans::close(span, outcome)
    }
}
