//! `Vm`: one instance of one plugin on one worker. Everything that calls the guest goes through [`Vm::enter`].
//!
//! A callback is synchronous and bounded in CPU time and memory. An instance that trapped is never called again, and
//! neither is one whose plugin context was deleted.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;
use tollgate_base::task;
use tollgate_plugin::Caller;
use wasmtime::{AsContextMut, Store, StoreContextMut, StoreLimitsBuilder, UpdateDeadline};

use crate::artefact::Abi;
use crate::calls;
use crate::engine::cpu_time;
use crate::exports::{Exports, find};
use crate::generation::Generation;
use crate::head::Head;
use crate::host::{Exited, flush_lines, trailer_count};
use crate::limits::Bound;
use crate::share::Share;
use crate::state::{CallAnswer, ROOT, Stage, State};
use crate::stream::{Direction, Stream};

/// One instance.
pub(crate) struct Vm {
    pub(crate) generation: Arc<Generation>,
    store: RefCell<Store<State>>,
    exports: Exports,
    /// Nothing calls the guest any more.
    broken: Cell<bool>,
    /// Told when the guest called `proxy_done` or got broken.
    done: Notify,
    /// Contexts of requests that were made and not deleted.
    open: Cell<usize>,
    next_id: Cell<u32>,
    /// Linear memory as it was counted last.
    memory: Cell<usize>,
    /// No new requests: a newer instance has taken over.
    retired: Cell<bool>,
    /// The period that ticks are running for.
    ticking: Cell<u32>,
}

/// What a callback says about how the message goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Continue,
    /// Headers only: hold them and show the body. Body: hold it and show the next chunk.
    Hold,
    /// Headers only: keep what comes, and show nothing until the stream is continued.
    HoldAll,
    /// Headers only: as `HoldAll`, but over the limit nothing more is read, instead of a failure.
    HoldAllWatermark,
    /// Body only: as `Hold`, but over the limit nothing more is read, instead of a failure.
    Watermark,
    /// Body only: this chunk goes nowhere.
    Drop,
}

impl Vm {
    /// Makes an instance and configures it.
    ///
    /// # Errors
    /// Why the plugin cannot run, in words.
    pub(crate) fn start(
        generation: &Arc<Generation>,
        caller: Option<Rc<dyn Caller>>,
    ) -> Result<Rc<Self>, String> {
        let limits = &generation.host.limits;
        if generation.host.instances.fetch_add(1, Ordering::Relaxed) >= limits.instances {
            generation.host.instances.fetch_sub(1, Ordering::Relaxed);
            generation.metrics.beyond(Bound::Instances);
            return Err(format!("wasm_instance_limit is {} instances", limits.instances));
        }
        let made = Self::make(generation, caller).inspect_err(|_| {
            generation.host.instances.fetch_sub(1, Ordering::Relaxed);
        })?;
        generation.metrics.created.increment();
        generation.metrics.active.add(1);
        let vm = Rc::new(made);
        vm.configure().inspect_err(|_| vm.end())?;
        vm.send_orders();
        Ok(vm)
    }

    fn make(generation: &Arc<Generation>, caller: Option<Rc<dyn Caller>>) -> Result<Self, String> {
        let limits = &generation.host.limits;
        let bounds = StoreLimitsBuilder::new()
            .memory_size(limits.memory)
            .table_elements(limits.table)
            .instances(1)
            .memories(1)
            .tables(4)
            .build();
        let engine = generation.artefact.linked.module().engine();
        let mut store = Store::new(engine, State::new(generation.clone(), caller, bounds));
        store.limiter(|state| &mut state.growth);
        store.epoch_deadline_callback(deadline);
        store.data_mut().allowance = limits.start_time;
        store.set_epoch_deadline(1);
        let exports = contained(|| load(&mut store, generation)).map_err(|cause| {
            flush_lines(store.data_mut());
            format!("{cause:#}")
        })?;
        Ok(Self {
            generation: generation.clone(),
            store: RefCell::new(store),
            exports,
            broken: Cell::new(false),
            done: Notify::new(),
            open: Cell::new(0),
            next_id: Cell::new(ROOT),
            memory: Cell::new(0),
            retired: Cell::new(false),
            ticking: Cell::new(0),
        })
    }

    fn configure(&self) -> Result<(), String> {
        let stage = |stage| self.store.borrow_mut().data_mut().stage = stage;
        stage(Stage::Starting);
        let limit = self.generation.host.limits.start_time;
        let size = u32::try_from(self.generation.spec.config.len()).unwrap_or(u32::MAX);
        let started = self.enter(ROOT, limit, |store, exports| {
            let mut store = store;
            if let Some(create) = &exports.context_create {
                create.call(store.as_context_mut(), (ROOT, 0))?;
            }
            match &exports.vm_start {
                Some(start) => start.call(store.as_context_mut(), (ROOT, 0)),
                None => Ok(1),
            }
        });
        match started {
            None => return Err("it trapped while it started".to_owned()),
            Some(0) => return Err("proxy_on_vm_start refused".to_owned()),
            Some(_) => {}
        }
        stage(Stage::Configuring);
        let configured = self.enter(ROOT, limit, |store, exports| match &exports.configure {
            Some(configure) => configure.call(store, (ROOT, size)),
            None => Ok(1),
        });
        stage(Stage::Running);
        match configured {
            None => Err("it trapped on its configuration".to_owned()),
            Some(0) => Err("it refused its configuration".to_owned()),
            Some(_) => Ok(()),
        }
    }

    /// Calls the guest in the name of a context. `None`: the instance is broken, by this call or already.
    pub(crate) fn enter<R>(
        &self,
        context: u32,
        allowance: Duration,
        call: impl FnOnce(StoreContextMut<'_, State>, &Exports) -> wasmtime::Result<R>,
    ) -> Option<R> {
        if self.broken.get() {
            return None;
        }
        // Nothing that runs inside a guest may enter it again; if it does, its call is lost, not the worker.
        let Ok(mut store) = self.store.try_borrow_mut() else {
            tracing::error!(plugin = %self.generation.spec.name, "a module was entered while it ran");
            return None;
        };
        let state = store.data_mut();
        state.current = context;
        state.effective = None;
        state.allowance = allowance;
        state.noticed = None;
        store.set_epoch_deadline(1);
        let outcome = contained(|| call(store.as_context_mut(), &self.exports));
        store.data_mut().effective = None;
        self.count_memory(&store);
        match outcome {
            Ok(value) => Some(value),
            Err(trap) => {
                self.shut(store.data_mut());
                self.generation.counts.traps.fetch_add(1, Ordering::Relaxed);
                self.generation.metrics.traps.increment();
                tracing::error!(
                    plugin = %self.generation.spec.name,
                    version = self.generation.version,
                    "a module trapped: {trap:#}"
                );
                None
            }
        }
    }

    /// Nothing calls the guest any more: whoever waits for it is told.
    fn shut(&self, state: &mut State) {
        self.broken.set(true);
        self.done.notify_one();
        flush_lines(state);
        state.orders.clear();
        state.leave_queues();
        state.wake_all();
    }

    fn end(&self) {
        self.with(|state| self.shut(state));
    }

    fn count_memory(&self, store: &Store<State>) {
        let now = store.data().memory.map_or(0, |memory| memory.data_size(store));
        let before = self.memory.replace(now);
        if now != before {
            let counts = &self.generation.counts.memory;
            counts.fetch_add(now, Ordering::Relaxed);
            counts.fetch_sub(before, Ordering::Relaxed);
            let delta = i64::try_from(now).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
            self.generation.metrics.memory.add(delta);
        }
    }

    /// Whether the instance may not be called any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether a fresh instance should take over: the guest asked, or its memory has grown large.
    pub(crate) fn wants_rebuild(&self) -> bool {
        self.memory.get() > self.generation.host.limits.rebuild_memory
            || self.store.try_borrow().is_ok_and(|store| store.data().rebuild)
    }

    /// Looks at or changes the store's data without calling the guest.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut store = self.store.try_borrow_mut().ok()?;
        Some(look(store.data_mut()))
    }

    /// The same for one request; `None` when its context is gone.
    pub(crate) fn with_stream<R>(&self, id: u32, look: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        self.with(|state| state.streams.get_mut(&id).map(|stream| look(stream)))
            .flatten()
    }

    /// Makes the context of a request; `None` when the instance is or gets broken.
    pub(crate) fn open_stream(&self, stream: Box<Stream>) -> Option<u32> {
        let id = self.fresh_id();
        self.with(|state| state.streams.insert(id, stream))?;
        let limit = self.generation.host.limits.stream_time;
        let created = self.enter(id, limit, |store, exports| match &exports.context_create {
            Some(create) => create.call(store, (id, ROOT)),
            None => Ok(()),
        });
        if created.is_none() {
            self.with(|state| state.streams.remove(&id));
            return None;
        }
        self.open.set(self.open.get() + 1);
        self.generation.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(id)
    }

    fn fresh_id(&self) -> u32 {
        let mut id = self.next_id.get();
        loop {
            id = id.checked_add(1).unwrap_or(ROOT + 1);
            if self.with(|state| !state.streams.contains_key(&id)) != Some(false) {
                self.next_id.set(id);
                return id;
            }
        }
    }

    /// Whether the module looks at the bodies or trailers of a direction.
    pub(crate) fn sees_body(&self, direction: Direction) -> bool {
        let index = direction as usize;
        let has_body = self.exports.bodies.get(index).is_some_and(Option::is_some);
        has_body || self.exports.trailers.get(index).is_some_and(Option::is_some)
    }

    /// A header callback.
    pub(crate) fn on_head(self: &Rc<Self>, id: u32, direction: Direction, end: bool) -> Option<Action> {
        let count = self.with_stream(id, |stream| {
            stream.side(direction).head.as_ref().map_or(0, Head::count)
        })?;
        let status = self.stream_call(id, |store, exports| {
            let callback = exports.heads.get(direction as usize).and_then(Option::as_ref);
            callback.map_or(Ok(0), |callback| callback.call(store, id, count, end))
        })?;
        Some(match (status, self.generation.artefact.abi) {
            (0, _) => Action::Continue,
            // Envoy's own numbers: stop iteration, continue and end the stream.
            (1, Abi::V0_2_100) => Action::Hold,
            (2, Abi::V0_2_100) => Action::Continue,
            (3, Abi::V0_2_100) => Action::HoldAll,
            _ => Action::HoldAllWatermark,
        })
    }

    /// A body callback; `size` is everything that the module can read.
    pub(crate) fn on_body(self: &Rc<Self>, id: u32, direction: Direction, end: bool) -> Option<Action> {
        let size = self.with_stream(id, |stream| {
            let side = stream.side(direction);
            side.body_open = true;
            side.trailers_open = end;
            u32::try_from(side.body.len()).unwrap_or(u32::MAX)
        })?;
        let status = self.stream_call(id, |store, exports| {
            let callback = exports.bodies.get(direction as usize).and_then(Option::as_ref);
            callback.map_or(Ok(0), |callback| callback.call(store, (id, size, u32::from(end))))
        })?;
        Some(match status {
            0 => Action::Continue,
            1 => Action::Hold,
            2 => Action::Watermark,
            _ => Action::Drop,
        })
    }

    /// A trailers callback.
    pub(crate) fn on_trailers(self: &Rc<Self>, id: u32, direction: Direction) -> Option<Action> {
        let count = self.with_stream(id, |stream| {
            let side = stream.side(direction);
            side.trailers_open = true;
            trailer_count(side.trailers.as_ref())
        })?;
        let status = self.stream_call(id, |store, exports| {
            let callback = exports.trailers.get(direction as usize).and_then(Option::as_ref);
            callback.map_or(Ok(0), |callback| callback.call(store, (id, count)))
        })?;
        Some(if status == 0 {
            Action::Continue
        } else {
            Action::Hold
        })
    }

    fn stream_call<R>(
        self: &Rc<Self>,
        id: u32,
        call: impl FnOnce(StoreContextMut<'_, State>, &Exports) -> wasmtime::Result<R>,
    ) -> Option<R> {
        let outcome = self.enter(id, self.generation.host.limits.stream_time, call);
        self.send_orders();
        outcome
    }

    /// The end of a request: log, done, delete, each once.
    pub(crate) fn finish_stream(self: &Rc<Self>, id: u32) {
        self.with_stream(id, |stream| {
            stream.logging = true;
            for side in &mut stream.sides {
                // What is still here can be read, and no longer written.
                if let Some(head) = side.head.take() {
                    side.gone = Some(head);
                }
                side.body_open = false;
            }
        });
        self.stream_call(id, |store, exports| {
            let mut store = store;
            if let Some(log) = &exports.log {
                log.call(store.as_context_mut(), id)?;
            }
            if let Some(done) = &exports.done {
                done.call(store.as_context_mut(), id)?;
            }
            match &exports.delete {
                Some(delete) => delete.call(store.as_context_mut(), id),
                None => Ok(()),
            }
        });
        // Dropped outside of the store's borrow.
        drop(self.with(|state| state.streams.remove(&id)));
        self.open.set(self.open.get().saturating_sub(1));
        self.generation.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shut_down_when_idle();
    }

    pub(crate) fn on_tick(self: &Rc<Self>) {
        self.event(|store, exports| match &exports.tick {
            Some(tick) => tick.call(store, ROOT),
            None => Ok(()),
        });
    }

    pub(crate) fn on_queue_ready(self: &Rc<Self>, queue: u32) {
        self.event(|store, exports| match &exports.queue_ready {
            Some(ready) => ready.call(store, (ROOT, queue)),
            None => Ok(()),
        });
    }

    /// The answer of an HTTP call; without a head it failed.
    pub(crate) fn on_http_answer(self: &Rc<Self>, token: u32, share: Share, answer: CallAnswer) {
        let count = answer.head.as_ref().map_or(0, Head::count);
        let size = u32::try_from(answer.body.len()).unwrap_or(u32::MAX);
        let trailers = trailer_count(answer.trailers.as_ref());
        self.answered(answer, share, |store, exports| match &exports.http_answer {
            Some(callback) => callback.call(store, (ROOT, token, count, size, trailers)),
            None => Ok(()),
        });
    }

    /// The answer of a Redis call; `None`: it failed.
    pub(crate) fn on_redis_answer(self: &Rc<Self>, token: u32, share: Share, reply: Option<Bytes>) {
        let status = u32::from(reply.is_none());
        let size = u32::try_from(reply.as_ref().map_or(0, Bytes::len)).unwrap_or(u32::MAX);
        let answer = CallAnswer {
            redis: Some(reply.unwrap_or_default()),
            ..CallAnswer::default()
        };
        self.answered(answer, share, |store, exports| match &exports.redis_answer {
            Some(callback) => callback.call(store, (ROOT, token, status, size)),
            None => Ok(()),
        });
    }

    fn answered(
        self: &Rc<Self>,
        answer: CallAnswer,
        share: Share,
        call: impl FnOnce(StoreContextMut<'_, State>, &Exports) -> wasmtime::Result<()>,
    ) {
        // What the guest asks for on this answer has its room again.
        drop(share);
        self.with(|state| {
            state.calls = state.calls.saturating_sub(1);
            state.answer = Some(answer);
        });
        self.event(call);
        self.with(|state| state.answer = None);
    }

    fn event(
        self: &Rc<Self>,
        call: impl FnOnce(StoreContextMut<'_, State>, &Exports) -> wasmtime::Result<()>,
    ) {
        self.enter(ROOT, self.generation.host.limits.event_time, call);
        self.send_orders();
        if self.with(|state| state.done_called) == Some(true) {
            self.done.notify_one();
        }
    }

    /// Sends the calls that the guest asked for while it ran.
    fn send_orders(self: &Rc<Self>) {
        let orders = self
            .with(|state| std::mem::take(&mut state.orders))
            .unwrap_or_default();
        for order in orders {
            calls::send(self, order);
        }
        self.keep_ticking();
    }

    /// A changed period begins anew; the next tick comes after the last one has returned.
    fn keep_ticking(self: &Rc<Self>) {
        let wanted = self.with(|state| (state.tick, state.tick_version, state.caller.is_some()));
        let Some((period, version, on_worker)) = wanted else {
            return;
        };
        if self.ticking.replace(version) == version || period == 0 || !on_worker {
            return;
        }
        let weak = Rc::downgrade(self);
        drop(task::spawn_local("wasm ticks", async move {
            loop {
                tokio::time::sleep(Duration::from_millis(u64::from(period))).await;
                let Some(vm) = weak.upgrade() else { return };
                if vm.ticking.get() != version || vm.is_broken() {
                    return;
                }
                vm.on_tick();
            }
        }));
    }

    /// No new requests come; what is open ends here.
    pub(crate) fn retire(self: &Rc<Self>) {
        self.retired.set(true);
        self.with(State::leave_queues);
        self.shut_down_when_idle();
    }

    /// The plugin context's own end, once the last request is gone.
    fn shut_down_when_idle(self: &Rc<Self>) {
        if !self.retired.get() || self.open.get() > 0 || self.broken.get() {
            return;
        }
        let waits = self.with(|state| std::mem::replace(&mut state.done_awaited, true));
        if waits != Some(false) {
            return;
        }
        let mut is_done = true;
        self.event(|store, exports| {
            if let Some(done) = &exports.done {
                is_done = done.call(store, ROOT)? != 0;
            }
            Ok(())
        });
        // One that only tries a configuration waits for nothing: nobody ticks there.
        match is_done || self.with(|state| state.caller.is_some()) != Some(true) {
            true => self.delete(),
            false => self.await_done(),
        }
    }

    /// Keeps a plugin that said "not yet" until it says `proxy_done`, breaks, or time is up.
    fn await_done(self: &Rc<Self>) {
        let vm = self.clone();
        drop(task::spawn_local("wasm end", async move {
            tokio::select! {
                () = vm.done.notified() => {}
                () = tokio::time::sleep(vm.generation.host.limits.done_time) => {
                    vm.generation.metrics.beyond(Bound::DoneTime);
                }
            }
            vm.delete();
        }));
    }

    /// Deletes the plugin context. Calls under way get no answers.
    fn delete(&self) {
        self.enter(
            ROOT,
            self.generation.host.limits.event_time,
            |store, exports| match &exports.delete {
                Some(delete) => delete.call(store, ROOT),
                None => Ok(()),
            },
        );
        self.end();
    }
}

/// Gives back what was counted; the memory goes with the store.
impl Drop for Vm {
    fn drop(&mut self) {
        let generation = &self.generation;
        generation.host.instances.fetch_sub(1, Ordering::Relaxed);
        generation.metrics.active.add(-1);
        generation
            .metrics
            .memory
            .add(-i64::try_from(self.memory.get()).unwrap_or(0));
        generation
            .counts
            .memory
            .fetch_sub(self.memory.get(), Ordering::Relaxed);
    }
}

/// A bug of ours below a host call costs the guest, as a trap: what it left half done is not looked at again.
fn contained<R>(call: impl FnOnce() -> wasmtime::Result<R>) -> wasmtime::Result<R> {
    let outcome = catch_unwind(AssertUnwindSafe(call));
    outcome.unwrap_or_else(|_| Err(wasmtime::Error::msg("the gateway panicked in a host call")))
}

/// Runs every few milliseconds while a guest runs: it may go on until its CPU time is used up.
fn deadline(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let mut store = store;
    let state = store.data_mut();
    let now = cpu_time();
    let since = *state.noticed.get_or_insert(now);
    if now.saturating_sub(since) >= state.allowance {
        let limit = state.allowance;
        state.generation.metrics.beyond(time_bound(state));
        return Err(wasmtime::Error::msg(format!(
            "interrupted: more than {limit:?} of CPU time in one callback"
        )));
    }
    Ok(UpdateDeadline::Continue(1))
}

fn time_bound(state: &State) -> Bound {
    match (state.stage, state.current) {
        (Stage::Running, ROOT) => Bound::EventTime,
        (Stage::Running, _) => Bound::StreamTime,
        _ => Bound::StartTime,
    }
}

fn load(store: &mut Store<State>, generation: &Generation) -> wasmtime::Result<Exports> {
    let artefact = &generation.artefact;
    let instance = artefact.linked.instantiate(&mut *store)?;
    let memory = instance.get_memory(&mut *store, "memory");
    store.data_mut().memory = memory;
    let allocate = match find(store, &instance, "proxy_on_memory_allocate")? {
        Some(found) => Some(found),
        None => find(store, &instance, "malloc")?,
    };
    store.data_mut().allocate = allocate.map(Rc::new);
    let exports = Exports::find(store, &instance, artefact.abi)?;
    if let Some(initialize) = find::<(), ()>(store, &instance, "_initialize")? {
        through_exit(initialize.call(&mut *store, ()))?;
        if let Some(main) = find::<(u32, u32), u32>(store, &instance, "main")? {
            main.call(&mut *store, (0, 0))?;
        }
    } else if let Some(start) = find::<(), ()>(store, &instance, "_start")? {
        through_exit(start.call(&mut *store, ()))?;
    }
    Ok(exports)
}

/// A command may end its `_start` by leaving with code 0; it is called again all the same.
fn through_exit(outcome: wasmtime::Result<()>) -> wasmtime::Result<()> {
    match outcome {
        Err(cause) if cause.downcast_ref() == Some(&Exited(0)) => Ok(()),
        other => other,
    }
}

/// An answer as the guest reads it.
pub(crate) fn http_answer(
    parts: http::response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
) -> CallAnswer {
    CallAnswer {
        head: Some(Head::Response(parts)),
        body,
        trailers,
        redis: None,
    }
}
