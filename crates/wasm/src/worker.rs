//! A worker's instances: one for each version that is in force, made when it comes, given back when it goes.
//!
//! Everything here belongs to one thread. A version that traps is started again with growing pauses; until then its
//! requests are refused or pass without it, as its object says.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tollgate_base::clock::{self, Instant};
use tollgate_base::task;
use tollgate_plugin::Caller;

use crate::generation::Generation;
use crate::modules::Modules;
use crate::state::{ById, State};
use crate::vm::Vm;

/// Pause before a broken instance is replaced; doubled by each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An instance that ran so long has no history.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Shortest time between two replacements for their memory.
const REBUILD_EVERY: Duration = Duration::from_secs(1);
/// How often versions that a late request brought back are looked for.
const SWEEP: Duration = Duration::from_secs(5);

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

#[derive(Default)]
struct Worker {
    caller: Option<Rc<dyn Caller>>,
    slots: ById<u64, Slot>,
}

struct Slot {
    generation: Arc<Generation>,
    vm: Option<Rc<Vm>>,
    started: Instant,
    failures: u32,
    /// No new instance before this.
    not_before: Option<Instant>,
}

/// Looks after this worker's instances. `caller` sends the calls of plugins outside of requests.
pub fn start(modules: &Modules, caller: Rc<dyn Caller>) {
    use_caller(caller);
    let (mut live, mut queued) = (modules.live(), modules.queued());
    live.mark_changed();
    let mut queues_wait = false;
    drop(task::spawn_local("wasm instances", async move {
        loop {
            let is_idle = WORKER.with_borrow(|worker| worker.slots.is_empty());
            tokio::select! {
                changed = live.changed() => match changed {
                    Ok(()) => follow(&live.borrow_and_update().clone()),
                    Err(_) => return,
                },
                _ = queued.changed() => queues_wait = wake_queues(),
                () = tokio::task::yield_now(), if queues_wait => queues_wait = wake_queues(),
                () = tokio::time::sleep(SWEEP), if !is_idle => sweep(&live.borrow().clone()),
            }
        }
    }));
}

pub(crate) fn use_caller(caller: Rc<dyn Caller>) {
    WORKER.with_borrow_mut(|worker| worker.caller = Some(caller));
}

/// Lets go of all instances of this thread; at its end.
pub fn stop() {
    // Outside of the borrow: what ends with an instance may look here.
    drop(WORKER.with_borrow_mut(std::mem::take));
}

/// Ends all instances of this thread as if no configuration named them any more.
#[cfg(test)]
pub(crate) fn stop_all() {
    sweep(&[]);
}

fn follow(live: &[Arc<Generation>]) {
    sweep(live);
    for generation in live {
        // The result is not needed here: it runs for ticks and for the first request's sake.
        drop(instance(generation));
    }
}

pub(crate) fn sweep(live: &[Arc<Generation>]) {
    let is_live = |id: u64| live.iter().any(|generation| generation.id == id);
    let gone: Vec<Slot> = WORKER.with_borrow_mut(|worker| {
        let known = worker.slots.keys().copied();
        let ids: Vec<u64> = known.filter(|id| !is_live(*id)).collect();
        ids.iter().filter_map(|id| worker.slots.remove(id)).collect()
    });
    // Outside of the borrow: the guest runs once more.
    for slot in gone {
        if let Some(vm) = slot.vm {
            slot.generation.counts.ready.fetch_sub(1, Ordering::Relaxed);
            vm.retire();
        }
    }
}

/// Tells this thread's instances of one item in each of their queues. False: there was none.
pub(crate) fn wake_queues() -> bool {
    let vms: Vec<Rc<Vm>> =
        WORKER.with_borrow(|worker| worker.slots.values().filter_map(|slot| slot.vm.clone()).collect());
    let mut found = false;
    for vm in vms {
        for queue in vm.with(State::ready_queues).unwrap_or_default() {
            vm.on_queue_ready(queue);
            found = true;
        }
    }
    found
}

/// This worker's instance of a version. `None`: it cannot run at the moment.
pub(crate) fn instance(generation: &Arc<Generation>) -> Option<Rc<Vm>> {
    let (known, caller) = WORKER.with_borrow_mut(|worker| (worker.look(generation), worker.caller.clone()));
    let old = match known {
        Found::Runs(vm) => return Some(vm),
        Found::Waits => return None,
        Found::Start(old) => old,
    };
    // Outside of the borrow: starting runs the guest.
    let started = match (Vm::start(generation, caller), &old) {
        (Ok(fresh), Some(old)) => {
            old.retire();
            generation.metrics.rebuilds.increment();
            Ok(fresh)
        }
        // Better one that has grown large than none.
        (Err(_), Some(old)) => Ok(old.clone()),
        (started, None) => started,
    };
    WORKER.with_borrow_mut(|worker| worker.note(generation, started))
}

enum Found {
    Runs(Rc<Vm>),
    Waits,
    /// With the instance that a fresh one takes over from.
    Start(Option<Rc<Vm>>),
}

impl Worker {
    fn look(&mut self, generation: &Arc<Generation>) -> Found {
        let Some(slot) = self.slots.get_mut(&generation.id) else {
            return Found::Start(None);
        };
        if let Some(vm) = &slot.vm {
            if !vm.is_broken() {
                let may_rebuild = vm.wants_rebuild() && slot.started.elapsed() >= REBUILD_EVERY;
                return match may_rebuild {
                    true => {
                        generation.counts.ready.fetch_sub(1, Ordering::Relaxed);
                        Found::Start(slot.vm.take())
                    }
                    false => Found::Runs(vm.clone()),
                };
            }
            generation.counts.ready.fetch_sub(1, Ordering::Relaxed);
            slot.vm = None;
            slot.fail();
        }
        match slot.not_before {
            Some(time) if clock::now() < time => Found::Waits,
            _ => Found::Start(None),
        }
    }

    fn note(&mut self, generation: &Arc<Generation>, started: Result<Rc<Vm>, String>) -> Option<Rc<Vm>> {
        let slot = self.slots.entry(generation.id).or_insert_with(|| Slot {
            generation: generation.clone(),
            vm: None,
            started: clock::now(),
            failures: 0,
            not_before: None,
        });
        slot.started = clock::now();
        match started {
            Ok(vm) => {
                generation.counts.ready.fetch_add(1, Ordering::Relaxed);
                slot.vm = Some(vm.clone());
                Some(vm)
            }
            Err(cause) => {
                tracing::error!(plugin = %generation.spec.name, "a module cannot start: {cause}");
                slot.fail();
                None
            }
        }
    }
}

impl Slot {
    fn fail(&mut self) {
        if self.started.elapsed() >= FORGIVEN_AFTER {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(5))
            .min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(clock::now() + pause);
    }
}
