//! Shared data and queues.

use bytes::Bytes;

use super::header::Range;
use super::{Guest, Outcome, Status, give, parts, piece, read, slice, write_u32};
use crate::generation::Generation;
use crate::limits::Bound;
use crate::shared::Refused;

impl From<Refused> for super::Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::CasMismatch => Status::CasMismatch,
            Refused::Full => Status::InternalFailure,
            Refused::Unknown => Status::NotFound,
        }
        .into()
    }
}

fn note(generation: &Generation, refused: Refused) {
    if refused == Refused::Full {
        generation.metrics.beyond(Bound::SharedData);
    }
}

pub(super) fn get(guest: &mut Guest<'_>, key: Range, to: u32, size_to: u32, cas_to: u32) -> Outcome {
    let key = read(guest, key.0, key.1)?;
    let found = guest.data().generation.host.shared.get(&key);
    let (value, cas) = found.ok_or(Status::NotFound)?;
    write_u32(guest, cas_to, cas)?;
    give(guest, &value, to, size_to)
}

pub(super) fn set(guest: &mut Guest<'_>, key: Range, value: Range, cas: u32) -> Outcome {
    let (key, value) = (
        read(guest, key.0, key.1)?,
        Bytes::from(read(guest, value.0, value.1)?),
    );
    let generation = &guest.data().generation;
    let host = &generation.host;
    let stored = host.shared.set(&key, value, cas, host.limits.shared_data);
    Ok(stored.inspect_err(|refused| note(generation, *refused))?)
}

pub(super) fn register(guest: &mut Guest<'_>, name: Range, to: u32) -> Outcome {
    let (memory, state) = parts(guest)?;
    let name = piece(memory, name.0, name.1)?;
    let generation = &state.generation;
    let host = &generation.host;
    // An instance that only tries a configuration takes nothing over.
    let consumer = state.caller.is_some().then_some(state.consumer);
    let registered = host.shared.register(name, consumer, host.limits.shared_data);
    let (id, waits) = registered.inspect_err(|refused| note(generation, *refused))?;
    if waits {
        host.wake_queues();
    }
    if consumer.is_some() && !state.queues.contains(&id) {
        state.queues.push(id);
    }
    Ok(write_u32(guest, to, id)?)
}

/// No plugin has a `vm_id`: under another one than the empty there are no queues.
pub(super) fn resolve(guest: &mut Guest<'_>, vm: Range, name: Range, to: u32) -> Outcome {
    let is_own = slice(guest, vm.0, vm.1)?.is_empty();
    let name = read(guest, name.0, name.1)?;
    let id = guest
        .data()
        .generation
        .host
        .shared
        .resolve(&name)
        .filter(|_| is_own);
    Ok(write_u32(guest, to, id.ok_or(Status::NotFound)?)?)
}

pub(super) fn dequeue(guest: &mut Guest<'_>, id: u32, to: u32, size_to: u32) -> Outcome {
    let item = guest.data().generation.host.shared.dequeue(id)?;
    give(guest, &item.ok_or(Status::Empty)?, to, size_to)
}

pub(super) fn enqueue(guest: &mut Guest<'_>, id: u32, item: Range) -> Outcome {
    let item = Bytes::from(read(guest, item.0, item.1)?);
    let generation = &guest.data().generation;
    let host = &generation.host;
    let stored = host.shared.enqueue(id, item, host.limits.shared_data);
    stored.inspect_err(|refused| note(generation, *refused))?;
    host.wake_queues();
    Ok(())
}
