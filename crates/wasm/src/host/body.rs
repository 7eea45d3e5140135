//! Buffers: the bodies that are held, answers of calls, and configurations.

use bytes::{Bytes, BytesMut};

use super::{Guest, Outcome, Status, give, read, write_u32};
use crate::limits::Bound;
use crate::state::{Stage, State};
use crate::stream::{Direction, Side};

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const CALL_BODY: u32 = 4;
const VM_CONFIG: u32 = 6;
const PLUGIN_CONFIG: u32 = 7;
const REDIS_ANSWER: u32 = 9;
const LAST: u32 = 9;

/// Shows a buffer to `look`; `None` when there is none now.
fn readable<R>(state: &mut State, buffer: u32, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
    match buffer {
        REQUEST_BODY | RESPONSE_BODY => {
            let side = body(state, buffer)?;
            Some(look(&side.body))
        }
        CALL_BODY => {
            let answer = state.answer.as_ref().filter(|answer| answer.redis.is_none());
            answer.map(|answer| look(&answer.body))
        }
        REDIS_ANSWER => state.answer.as_ref()?.redis.as_ref().map(|reply| look(reply)),
        VM_CONFIG if state.stage == Stage::Starting => Some(look(&[])),
        PLUGIN_CONFIG if state.stage == Stage::Configuring => Some(look(&state.generation.spec.config)),
        _ => None,
    }
}

fn body(state: &mut State, buffer: u32) -> Option<&mut Side> {
    let direction = match buffer {
        REQUEST_BODY => Direction::Request,
        _ => Direction::Response,
    };
    let side = state.stream()?.side(direction);
    side.body_open.then_some(side)
}

pub(super) fn get(
    guest: &mut Guest<'_>,
    buffer: u32,
    start: u32,
    most: u32,
    to: u32,
    size_to: u32,
) -> Outcome {
    if buffer > LAST {
        return Err(Status::BadArgument.into());
    }
    let (start, most) = (usize::try_from(start)?, usize::try_from(most)?);
    let piece = readable(guest.data_mut(), buffer, |bytes| {
        let rest = bytes.get(start..).unwrap_or_default();
        Bytes::copy_from_slice(rest.get(..most).unwrap_or(rest))
    });
    give(guest, &piece.ok_or(Status::NotFound)?, to, size_to)
}

pub(super) fn status(guest: &mut Guest<'_>, buffer: u32, size_to: u32, flags_to: u32) -> Outcome {
    if buffer > LAST {
        return Err(Status::BadArgument.into());
    }
    let size = readable(guest.data_mut(), buffer, <[u8]>::len).ok_or(Status::NotFound)?;
    write_u32(guest, size_to, u32::try_from(size).unwrap_or(u32::MAX))?;
    Ok(write_u32(guest, flags_to, 0)?)
}

/// From the start: takes `length` bytes away and puts the data there. From the end on: appends. Between: a splice.
pub(super) fn set(
    guest: &mut Guest<'_>,
    buffer: u32,
    start: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Outcome {
    if buffer > RESPONSE_BODY {
        return Err(Status::BadArgument.into());
    }
    let data = read(guest, data, size)?;
    let (start, length) = (usize::try_from(start)?, usize::try_from(length)?);
    let most = guest.data().generation.host.limits.body;
    let side = body(guest.data_mut(), buffer).ok_or(Status::NotFound)?;
    // What takes the place of the rest may be longer than it, up to the limit.
    let taken = side.body.len().saturating_sub(start).min(length);
    if data.len() > taken && side.body.len() - taken + data.len() > side.limit.max(most) {
        guest.data().generation.metrics.beyond(Bound::Body);
        return Err(Status::InternalFailure.into());
    }
    splice(&mut side.body, start, length, &data);
    side.body_changed = true;
    Ok(())
}

fn splice(body: &mut BytesMut, start: usize, length: usize, data: &[u8]) {
    let start = start.min(body.len());
    if start == 0 && length >= body.len() {
        body.clear();
        body.extend_from_slice(data);
        return;
    }
    let tail = body.split_off(start);
    body.extend_from_slice(data);
    body.extend_from_slice(tail.get(length..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_replaced_prepended_appended_and_spliced() {
        let spliced = |start, length| {
            let mut body = BytesMut::from(&b"body"[..]);
            splice(&mut body, start, length, b"NEW");
            String::from_utf8(body.to_vec()).unwrap()
        };
        let most = usize::try_from(i32::MAX).unwrap();
        assert_eq!(spliced(0, most), "NEW");
        assert_eq!(spliced(0, 0), "NEWbody");
        assert_eq!(spliced(0, 2), "NEWdy");
        assert_eq!(spliced(most, 0), "bodyNEW");
        assert_eq!(spliced(1, 2), "bNEWy");
    }
}
