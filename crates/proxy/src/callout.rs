//! Call-outs of plugins: requests of their own to clusters of the configuration, over the worker's pools.
//!
//! They keep the generation of the request they belong to and appear in its trace. They count neither as attempts nor
//! in the access log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_observe::trace::{Kind, Slot};
use tollgate_plugin::{Caller, unknown_cluster};
use tollgate_snapshot::{Cluster, Live, Snapshot};
use tollgate_upstream::Upstreams;

use crate::spans;

/// One exchange's way to other services.
pub(crate) struct Callouts {
    pub upstreams: Upstreams,
    pub snapshot: Arc<Snapshot>,
    pub trace: Slot,
}

/// A worker's way to other services outside of any request: always on the newest generation.
pub(crate) struct WorkerCallouts {
    pub upstreams: Upstreams,
    pub live: Live,
}

impl Callouts {
    fn cluster(&self, name: &str) -> Result<&Arc<Cluster>, Error> {
        let found = self.snapshot.clusters.get(name);
        found.ok_or_else(|| unknown_cluster(name))
    }
}

impl WorkerCallouts {
    fn now(&self) -> Callouts {
        Callouts {
            upstreams: self.upstreams.clone(),
            snapshot: self.live.load(),
            trace: Slot::default(),
        }
    }
}

#[async_trait(?Send)]
impl Caller for Callouts {
    async fn call(&self, cluster: &str, mut request: Request, timeout: Duration) -> Result<Response, Error> {
        let span = spans::open(&self.trace, Kind::CallOut, cluster, &mut request);
        let outcome = match self.cluster(cluster) {
            Ok(found) => self.upstreams.call(found, request, timeout).await,
            Err(unknown) => Err(unknown),
        };
        spans::close(span, outcome)
    }

    fn knows(&self, cluster: &str) -> bool {
        self.snapshot.clusters.contains_key(cluster)
    }

    async fn address(&self, cluster: &str) -> Result<SocketAddr, Error> {
        self.upstreams.address(self.cluster(cluster)?).await
    }

    fn hosts(&self, cluster: &str) -> Vec<(SocketAddr, bool)> {
        let found = self.snapshot.clusters.get(cluster);
        found.map_or_else(Vec::new, |cluster| self.upstreams.addresses(cluster))
    }
}

#[async_trait(?Send)]
impl Caller for WorkerCallouts {
    async fn call(&self, cluster: &str, request: Request, timeout: Duration) -> Result<Response, Error> {
        self.now().call(cluster, request, timeout).await
    }

    fn knows(&self, cluster: &str) -> bool {
        self.live.load().clusters.contains_key(cluster)
    }

    async fn address(&self, cluster: &str) -> Result<SocketAddr, Error> {
        self.now().address(cluster).await
    }

    fn hosts(&self, cluster: &str) -> Vec<(SocketAddr, bool)> {
        self.now().hosts(cluster)
    }
}
