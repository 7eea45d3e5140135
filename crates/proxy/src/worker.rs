//! `Worker`: what one data-plane thread owns. Never leaves its thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tollgate_base::Shutdown;
use tollgate_snapshot::Live;
use tollgate_upstream::Upstreams;

use crate::ending::Ending;
use crate::gate::RateBuckets;
use crate::mirror::Mirrors;
use crate::observer::Observer;
use crate::pulse::Clients;
use crate::tracers::WorkerTracer;
use crate::turn::Turns;

/// One data-plane thread's belongings.
pub(crate) struct Worker {
    /// The configuration in force.
    pub live: Live,
    /// Pools and balancing.
    pub upstreams: Upstreams,
    /// Access log and metrics.
    pub observer: Observer,
    /// Where traces go.
    pub tracer: WorkerTracer,
    /// Copies of requests under way.
    pub mirrors: Mirrors,
    /// Token buckets of all workers.
    pub rates: Arc<RateBuckets>,
    /// Whether the gateway is going down.
    pub shutdown: Shutdown,
    /// Open client connections of this worker, handshakes and tunnels included.
    pub connections: Cell<u32>,
    /// Most of them.
    pub max_connections: u32,
    /// Those past their handshake.
    pub clients: Clients,
    /// Who goes first.
    pub turns: Turns,
    /// Tells open streams that the drain is over.
    pub ending: Rc<Ending>,
}
