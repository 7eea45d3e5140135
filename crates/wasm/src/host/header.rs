//! Header maps: those of the request and the answer while they are held, and those of an answer to a call.

use http::HeaderMap;

use super::{Fault, Guest, Outcome, Status, give, parts, piece, slice, write_u32};
use crate::head::Head;
use crate::limits::{Bound, Room};
use crate::pairs;
use crate::state::State;
use crate::stream::Direction;

/// Numbers of the maps.
const REQUEST: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE: u32 = 2;
const RESPONSE_TRAILERS: u32 = 3;
const CALL_HEADERS: u32 = 6;
const CALL_TRAILERS: u32 = 7;

/// Longest value that the room for values is kept for.
const SCRATCH_LIMIT: usize = 16 * 1024;

/// Shows a map to `look`; `None` when it cannot be read now.
fn readable<R>(state: &mut State, map: u32, look: impl FnOnce(&Head) -> R) -> Option<R> {
    let trailers = |fields: &HeaderMap| Head::Plain(fields.clone());
    match map {
        REQUEST | RESPONSE => {
            let side = state.stream()?.side(direction(map));
            side.head.as_ref().or(side.gone.as_ref()).map(look)
        }
        REQUEST_TRAILERS | RESPONSE_TRAILERS => {
            let side = state.stream()?.side(direction(map));
            let open = side.trailers_open.then_some(side.trailers.as_ref())?;
            open.map(|fields| look(&trailers(fields)))
        }
        CALL_HEADERS => state.answer.as_ref()?.head.as_ref().map(look),
        CALL_TRAILERS => state
            .answer
            .as_ref()?
            .trailers
            .as_ref()
            .map(|fields| look(&trailers(fields))),
        _ => None,
    }
}

/// Lets `change` write a map; it says whether the map had room.
fn writable(state: &mut State, map: u32, change: impl FnOnce(&mut Head, Room) -> bool) -> Outcome {
    let room = state.generation.host.limits.head;
    let had_room = changed(state, map, |head| change(head, room))?;
    if had_room {
        return Ok(());
    }
    state.generation.metrics.beyond(Bound::Headers);
    if !std::mem::replace(&mut state.told_full, true) {
        let plugin = &state.generation.spec.name;
        tracing::warn!(%plugin, "a module adds more headers than a message may have: ignored");
    }
    Ok(())
}

fn changed(state: &mut State, map: u32, change: impl FnOnce(&mut Head) -> bool) -> Result<bool, Status> {
    let stream = state.stream().ok_or(Status::BadArgument)?;
    match map {
        REQUEST | RESPONSE => {
            let side = stream.side(direction(map));
            let head = side.head.as_mut().ok_or(Status::BadArgument)?;
            side.head_changed = true;
            Ok(change(head))
        }
        REQUEST_TRAILERS | RESPONSE_TRAILERS => {
            let side = stream.side(direction(map));
            if !side.trailers_open {
                return Err(Status::BadArgument);
            }
            let mut head = Head::Plain(side.trailers.take().unwrap_or_default());
            let had_room = change(&mut head);
            side.trailers = Some(std::mem::take(head.fields_mut()));
            Ok(had_room)
        }
        _ => Err(Status::BadArgument),
    }
}

fn direction(map: u32) -> Direction {
    match map {
        REQUEST | REQUEST_TRAILERS => Direction::Request,
        _ => Direction::Response,
    }
}

pub(super) fn get(
    guest: &mut Guest<'_>,
    map: u32,
    key: u32,
    key_size: u32,
    to: u32,
    size_to: u32,
) -> Outcome {
    let mut value = std::mem::take(&mut guest.data_mut().scratch);
    value.clear();
    let outcome = look_up(guest, map, (key, key_size), &mut value)
        .map_err(Fault::from)
        .and_then(|()| give(guest, &value, to, size_to));
    if value.capacity() <= SCRATCH_LIMIT {
        guest.data_mut().scratch = value;
    }
    outcome
}

/// Puts the first value of a key into `value`.
fn look_up(guest: &mut Guest<'_>, map: u32, key: Range, value: &mut Vec<u8>) -> Result<(), Status> {
    let (memory, state) = parts(guest)?;
    let key = piece(memory, key.0, key.1)?;
    let found = readable(state, map, |head| {
        head.get(key).map(|found| value.extend_from_slice(&found))
    });
    match found {
        Some(Some(())) => Ok(()),
        // ABI 0.1.0 cannot tell a missing value from an empty one.
        Some(None) if state.generation.artefact.abi.is_first() => Ok(()),
        Some(None) => Err(Status::NotFound),
        None => Err(match state.stream().is_some_and(|stream| stream.logging) {
            true => Status::NotFound,
            false => Status::BadArgument,
        }),
    }
}

pub(super) fn pairs(guest: &mut Guest<'_>, map: u32, to: u32, size_to: u32) -> Outcome {
    let encoded = readable(guest.data_mut(), map, |head| {
        let all = head.pairs();
        pairs::encode(all.iter().map(|(name, value)| (*name, value.as_ref())))
    });
    give(guest, &encoded.unwrap_or_default(), to, size_to)
}

pub(super) fn size(guest: &mut Guest<'_>, map: u32, to: u32) -> Outcome {
    let bytes = readable(guest.data_mut(), map, |head| {
        let sizes = head
            .pairs()
            .into_iter()
            .map(|(name, value)| name.len() + value.len());
        sizes.sum::<usize>()
    });
    let bytes = bytes.ok_or(Status::BadArgument)?;
    Ok(write_u32(guest, to, u32::try_from(bytes).unwrap_or(u32::MAX))?)
}

pub(super) fn set_pairs(guest: &mut Guest<'_>, map: u32, at: u32, length: u32) -> Outcome {
    let all = pairs::decode(slice(guest, at, length)?);
    writable(guest.data_mut(), map, |head, room| {
        head.set_all(room, all.iter().map(|(name, value)| (&name[..], &value[..])))
    })
}

/// What is done with one header.
#[derive(Debug, Clone, Copy)]
pub(super) enum Edit {
    Add,
    Replace,
}

/// A key or value in guest memory.
pub(super) type Range = (u32, u32);

pub(super) fn edit(guest: &mut Guest<'_>, edit: Edit, map: u32, key: Range, value: Range) -> Outcome {
    let (memory, state) = parts(guest)?;
    let (key, value) = (piece(memory, key.0, key.1)?, piece(memory, value.0, value.1)?);
    writable(state, map, |head, room| match edit {
        Edit::Add => head.add(room, key, value),
        Edit::Replace => head.replace(room, key, value),
    })
}

pub(super) fn remove(guest: &mut Guest<'_>, map: u32, key: u32, key_size: u32) -> Outcome {
    let (memory, state) = parts(guest)?;
    let key = piece(memory, key, key_size)?;
    writable(state, map, |head, _| {
        head.remove(key);
        true
    })
}

/// The same faults for every map: made here so that the table of functions stays short.
impl From<std::num::TryFromIntError> for Fault {
    fn from(_: std::num::TryFromIntError) -> Self {
        Status::BadArgument.into()
    }
}
