//! How a request goes on: local replies, continuing, closing, and bytes for behind the plugin.
//!
//! These only leave word in the stream's state; its own code acts on it once the guest has returned.

use bytes::Bytes;

use super::header::Range;
use super::{Guest, Outcome, Status, read, read_text, slice};
use crate::pairs;
use crate::state::State;
use crate::stream::{Direction, LocalReply};

/// Parts of a local reply in guest memory.
pub(super) struct Reply {
    pub(super) details: Range,
    pub(super) body: Range,
    pub(super) headers: Range,
    /// `u32::MAX`: follows from the status.
    pub(super) grpc_status: u32,
}

pub(super) fn send_local_response(guest: &mut Guest<'_>, status: u32, parts: &Reply) -> Outcome {
    let details = read_text(guest, parts.details.0, parts.details.1)?;
    let body = Bytes::from(read(guest, parts.body.0, parts.body.1)?);
    let headers = pairs::decode(slice(guest, parts.headers.0, parts.headers.1)?);
    let stream = guest.data_mut().stream().ok_or(Status::BadArgument)?;
    if stream.replied || stream.logging {
        return Err(Status::BadArgument.into());
    }
    stream.replied = true;
    stream.reply = Some(LocalReply {
        status: u16::try_from(status).unwrap_or(500),
        details: details.split_whitespace().collect::<Vec<_>>().join("_"),
        body,
        headers,
        grpc_status: (parts.grpc_status != u32::MAX).then_some(parts.grpc_status),
    });
    stream.wake();
    Ok(())
}

/// Numbers of the streams that can be continued or closed.
fn direction(kind: u32) -> Result<Option<Direction>, Status> {
    match kind {
        0 => Ok(Some(Direction::Request)),
        1 => Ok(Some(Direction::Response)),
        // Downstream data: there is none to hold.
        2 => Ok(None),
        3 => Err(Status::Unimplemented),
        _ => Err(Status::BadArgument),
    }
}

pub(super) fn continue_stream(guest: &mut Guest<'_>, kind: u32) -> Outcome {
    let Some(direction) = direction(kind)? else {
        return Ok(());
    };
    resume(guest.data_mut(), direction);
    Ok(())
}

fn resume(state: &mut State, direction: Direction) {
    if let Some(stream) = state.stream() {
        let side = stream.side(direction);
        side.resumed = true;
        side.wake();
    }
}

pub(super) fn close_stream(guest: &mut Guest<'_>, kind: u32) -> Outcome {
    direction(kind)?;
    if let Some(stream) = guest.data_mut().stream() {
        stream.closed = true;
        stream.wake();
    }
    Ok(())
}

/// Of ABI 0.1.0: the next plugins are asked by the newest headers anyway.
pub(super) fn clear_route_cache(guest: &mut Guest<'_>) -> Outcome {
    if let Some(stream) = guest.data_mut().stream() {
        stream.side(Direction::Request).head_changed = true;
    }
    Ok(())
}

pub(super) fn inject(guest: &mut Guest<'_>, at: u32, length: u32, end: bool) -> Outcome {
    let bytes = Bytes::from(read(guest, at, length)?);
    inject_bytes(guest.data_mut(), bytes, end)
}

/// For the filters behind this one; with `end` the answer ends there.
pub(super) fn inject_bytes(state: &mut State, bytes: Bytes, end: bool) -> Outcome {
    let side = state
        .stream()
        .ok_or(Status::BadArgument)?
        .side(Direction::Response);
    if side.injected_end {
        return Err(Status::BadArgument.into());
    }
    let waiting: usize = side.injected.iter().map(Bytes::len).sum();
    if waiting + bytes.len() > side.limit {
        return Err(Status::InternalFailure.into());
    }
    if !bytes.is_empty() {
        side.injected.push_back(bytes);
    }
    side.injected_end = end;
    side.wake();
    Ok(())
}
