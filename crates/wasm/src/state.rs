//! What host calls work on: the data of one instance's store.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tollgate_body::Request;
use tollgate_plugin::Caller;
use wasmtime::{Memory, StoreLimits, TypedFunc};

use crate::generation::Generation;
use crate::growth::Growth;
use crate::head::Head;
use crate::metrics::Series;
use crate::share::{Share, Total};
use crate::stream::Stream;

/// Id of the one plugin context of an instance.
pub(crate) const ROOT: u32 = 1;
/// Modules' own lines in the log of the process.
pub(crate) const LOG_TARGET: &str = "wasm";

static LAST_CONSUMER: AtomicU64 = AtomicU64::new(1);

/// What the guest is being called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `_initialize` or `_start`: only logging and WASI are allowed.
    Loading,
    /// `proxy_on_vm_start`: the VM configuration can be read.
    Starting,
    /// `proxy_on_configure`: the plugin configuration can be read.
    Configuring,
    /// Anything else.
    Running,
}

/// The answer of a call, readable during its callback.
#[derive(Debug, Default)]
pub(crate) struct CallAnswer {
    pub(crate) head: Option<Head>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// Answer of a Redis call.
    pub(crate) redis: Option<Bytes>,
}

/// A call that the guest asked for; sent once its callback has returned.
pub(crate) enum Order {
    Http {
        token: u32,
        cluster: String,
        request: Box<Request>,
        timeout: Duration,
        caller: Rc<dyn Caller>,
        share: Share,
    },
    Redis {
        token: u32,
        share: Share,
        cluster: String,
        query: Bytes,
        caller: Rc<dyn Caller>,
    },
}

/// Where a cluster's Redis is spoken to, as `redis_init` said.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedisSetting {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) database: u32,
    pub(crate) timeout: Duration,
}

/// Hashes an id that we gave out ourselves: it is looked up with every host call, and nobody can make them collide.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }

    fn write_u64(&mut self, id: u64) {
        // The golden ratio's bits: numbers that follow one another land far apart.
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by such an id.
pub(crate) type ById<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Data of one instance's store.
pub(crate) struct State {
    pub(crate) generation: Arc<Generation>,
    /// Set when the instance is made.
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<Rc<TypedFunc<u32, u32>>>,
    /// Room for a value on its way into the guest: one for all, so that a look-up allocates nothing.
    pub(crate) scratch: Vec<u8>,
    pub(crate) growth: Growth,
    pub(crate) stage: Stage,
    /// The context of the callback that runs.
    pub(crate) current: u32,
    /// Where the guest redirected its host calls.
    pub(crate) effective: Option<u32>,
    /// Boxed: a stream is large, and its place in the map moves.
    pub(crate) streams: ById<u32, Box<Stream>>,
    /// Milliseconds between ticks; 0: none.
    pub(crate) tick: u32,
    /// Grows when the period is set.
    pub(crate) tick_version: u32,
    /// The plugin context waits for `proxy_done` before it is deleted.
    pub(crate) done_awaited: bool,
    pub(crate) done_called: bool,
    /// The answer that a callback runs for.
    pub(crate) answer: Option<CallAnswer>,
    pub(crate) orders: Vec<Order>,
    pub(crate) next_token: u32,
    /// Calls under way.
    pub(crate) calls: usize,
    /// Bytes that these hold.
    pub(crate) call_bytes: Total,
    /// How calls without a request are sent; `None` in the instance that only tries a configuration.
    pub(crate) caller: Option<Rc<dyn Caller>>,
    pub(crate) redis: HashMap<String, RedisSetting>,
    pub(crate) lines_to: crate::redis::Lines,
    /// Metrics by their id without the two bits of the kind.
    pub(crate) series: Vec<Option<Series>>,
    /// Who this instance is among the consumers of queues.
    pub(crate) consumer: u64,
    /// Queues that it registered.
    pub(crate) queues: Vec<u32>,
    /// That a head was full was logged.
    pub(crate) told_full: bool,
    /// The guest asked for a fresh instance.
    pub(crate) rebuild: bool,
    /// What stands in the unfinished last line of standard output and error.
    pub(crate) lines: [Vec<u8>; 2],
    /// CPU time that the callback may use, and the time on the thread's clock when it was first looked at.
    pub(crate) allowance: Duration,
    pub(crate) noticed: Option<Duration>,
}

impl State {
    pub(crate) fn new(
        generation: Arc<Generation>,
        caller: Option<Rc<dyn Caller>>,
        limits: StoreLimits,
    ) -> Self {
        let growth = Growth {
            limits,
            generation: generation.clone(),
        };
        Self {
            generation,
            memory: None,
            allocate: None,
            scratch: Vec::new(),
            growth,
            stage: Stage::Loading,
            current: 0,
            effective: None,
            streams: ById::default(),
            tick: 0,
            tick_version: 0,
            done_awaited: false,
            done_called: false,
            answer: None,
            orders: Vec::new(),
            next_token: 0,
            calls: 0,
            call_bytes: Total::default(),
            caller,
            redis: HashMap::new(),
            lines_to: HashMap::new(),
            series: Vec::new(),
            consumer: LAST_CONSUMER.fetch_add(1, Ordering::Relaxed),
            queues: Vec::new(),
            told_full: false,
            rebuild: false,
            lines: [Vec::new(), Vec::new()],
            allowance: Duration::ZERO,
            noticed: None,
        }
    }

    /// The context that host calls are for: where the guest redirected them, while that still exists.
    pub(crate) fn context(&self) -> u32 {
        match self.effective {
            Some(id) if id == ROOT || self.streams.contains_key(&id) => id,
            _ => self.current,
        }
    }

    /// The request that host calls are for; `None` in the plugin context.
    pub(crate) fn stream(&mut self) -> Option<&mut Stream> {
        let id = self.context();
        self.streams.get_mut(&id).map(Box::as_mut)
    }

    /// How the current context calls other services.
    pub(crate) fn caller(&self) -> Option<Rc<dyn Caller>> {
        match self.streams.get(&self.context()) {
            Some(stream) => Some(stream.caller.clone()),
            None => self.caller.clone(),
        }
    }

    /// A token for a call that begins.
    pub(crate) fn token(&mut self) -> u32 {
        self.next_token = self.next_token.checked_add(1).unwrap_or(1);
        self.next_token
    }

    /// Its queues go to whoever registered them before it, or does so next.
    pub(crate) fn leave_queues(&mut self) {
        let host = &self.generation.host;
        for queue in std::mem::take(&mut self.queues) {
            host.shared.leave(queue, self.consumer);
            host.wake_queues();
        }
    }

    /// Those of its queues that it is to be told of an item in.
    pub(crate) fn ready_queues(&mut self) -> Vec<u32> {
        let shared = &self.generation.host.shared;
        let mut ready = self.queues.clone();
        ready.retain(|queue| shared.take_ready(*queue, self.consumer));
        ready
    }

    pub(crate) fn wake_all(&mut self) {
        for stream in self.streams.values_mut() {
            stream.wake();
        }
    }

    /// A line of the plugin's own, at one of proxy-wasm's levels.
    pub(crate) fn log(&self, level: u32, text: &str) {
        let (plugin, root) = (
            self.generation.spec.name.as_str(),
            self.generation.spec.root_id.as_str(),
        );
        match level {
            0 => tracing::trace!(target: LOG_TARGET, plugin, "wasm log {plugin} {root}: {text}"),
            1 => tracing::debug!(target: LOG_TARGET, plugin, "wasm log {plugin} {root}: {text}"),
            2 => tracing::info!(target: LOG_TARGET, plugin, "wasm log {plugin} {root}: {text}"),
            3 => tracing::warn!(target: LOG_TARGET, plugin, "wasm log {plugin} {root}: {text}"),
            _ => tracing::error!(target: LOG_TARGET, plugin, "wasm log {plugin} {root}: {text}"),
        }
    }
}
