//! The part of WASI preview 1 that plugins' toolchains use: a clock, random bytes, the environment, and standard output
//! as log lines. There are no files, no sockets and no waiting.

use super::{Guest, slice, write, write_u32, write_u64};
use crate::limits::Bound;
use crate::state::State;
use tollgate_base::clock;

/// Numbers of WASI's errors.
const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;

/// Most random bytes of one call.
const RANDOM_LIMIT: u32 = 65_536;
/// Longest line that is kept until its end.
const LINE_LIMIT: usize = 16 * 1024;

type Written = Result<(), super::Status>;

fn errno(written: Written) -> u32 {
    match written {
        Ok(()) => SUCCESS,
        Err(_) => FAULT,
    }
}

/// `args_sizes_get`: there are none.
pub(super) fn args_sizes(guest: &mut Guest<'_>, count_to: u32, size_to: u32) -> u32 {
    errno(write_u32(guest, count_to, 0).and_then(|()| write_u32(guest, size_to, 0)))
}

pub(super) fn environ_sizes(guest: &mut Guest<'_>, count_to: u32, size_to: u32) -> u32 {
    let env = &guest.data().generation.spec.env;
    let size: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let (count, size) = (u32::try_from(env.len()), u32::try_from(size));
    let (Ok(count), Ok(size)) = (count, size) else {
        return INVAL;
    };
    errno(write_u32(guest, count_to, count).and_then(|()| write_u32(guest, size_to, size)))
}

pub(super) fn environ(guest: &mut Guest<'_>, places_to: u32, texts_to: u32) -> u32 {
    let generation = guest.data().generation.clone();
    let (mut place, mut text) = (places_to, texts_to);
    for (name, value) in &generation.spec.env {
        let entry = format!("{name}={value}\0");
        let written = write_u32(guest, place, text).and_then(|()| write(guest, text, entry.as_bytes()));
        if written.is_err() {
            return FAULT;
        }
        place = place.wrapping_add(4);
        text = text.wrapping_add(u32::try_from(entry.len()).unwrap_or(u32::MAX));
    }
    SUCCESS
}

pub(super) fn clock_time(guest: &mut Guest<'_>, id: u32, to: u32) -> u32 {
    let nanoseconds = match id {
        0 => super::log::wall_nanoseconds(),
        1 => {
            let since = clock::now().saturating_duration_since(guest.data().generation.host.started);
            // Go takes a zero for a clock that does not work.
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
        }
        _ => return NOTSUP,
    };
    errno(write_u64(guest, to, nanoseconds))
}

pub(super) fn clock_resolution(guest: &mut Guest<'_>, id: u32, to: u32) -> u32 {
    match id {
        0 | 1 => errno(write_u64(guest, to, 1)),
        _ => NOTSUP,
    }
}

pub(super) fn random(guest: &mut Guest<'_>, to: u32, length: u32) -> u32 {
    if length > RANDOM_LIMIT {
        return INVAL;
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return NOSYS;
    }
    errno(write(guest, to, &bytes))
}

/// `fd_write` to standard output or error. A line is logged when it ends: Go writes a panic in many pieces. One call takes
/// so much and says how much it took: nothing interrupts it, and whoever has more calls again.
pub(super) fn write_file(guest: &mut Guest<'_>, file: u32, vectors: u32, count: u32, size_to: u32) -> u32 {
    if file != 1 && file != 2 {
        return BADF;
    }
    let Ok((bytes, is_all)) = gather(guest, vectors, count) else {
        return FAULT;
    };
    if !is_all {
        guest.data().generation.metrics.beyond(Bound::Write);
    }
    let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    print(guest.data_mut(), file, &bytes);
    errno(write_u32(guest, size_to, taken))
}

/// What one call takes of the pieces in a list of addresses and lengths, and whether that is all of them.
fn gather(guest: &Guest<'_>, vectors: u32, count: u32) -> Result<(Vec<u8>, bool), super::Status> {
    let size = count.checked_mul(8).ok_or(super::Status::InvalidMemoryAccess)?;
    slice(guest, vectors, size)?;
    let limits = &guest.data().generation.host.limits;
    let pieces = u32::try_from(limits.write_pieces).unwrap_or(u32::MAX);
    let list = slice(guest, vectors, size.min(pieces.saturating_mul(8)))?;
    let (mut bytes, mut is_all) = (Vec::new(), count <= pieces);
    for vector in list.chunks_exact(8) {
        let number = |at: usize| {
            let bytes = vector.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        let text = slice(guest, number(0), number(4))?;
        let room = limits.write - bytes.len();
        is_all &= text.len() <= room;
        bytes.extend_from_slice(text.get(..room).unwrap_or(text));
    }
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    if let Some((last, _)) = ends.nth(limits.write_lines.saturating_sub(1)) {
        is_all &= last + 1 == bytes.len();
        bytes.truncate(last + 1);
    }
    Ok((bytes, is_all))
}

fn print(state: &mut State, file: u32, bytes: &[u8]) {
    let (index, level) = if file == 1 { (0, 2) } else { (1, 4) };
    let mut line = state.lines.get_mut(index).map(std::mem::take).unwrap_or_default();
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        line.extend_from_slice(text);
        if text.ends_with(b"\n") || line.len() > LINE_LIMIT {
            let text = String::from_utf8_lossy(&line);
            state.log(level, text.trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    if let Some(kept) = state.lines.get_mut(index) {
        *kept = line;
    }
}

/// What stands in unfinished lines, before the instance is thrown away.
pub(crate) fn flush(state: &mut State) {
    for (index, level) in [(0, 2), (1, 4)] {
        let line = state.lines.get_mut(index).map(std::mem::take).unwrap_or_default();
        if !line.is_empty() {
            state.log(level, &String::from_utf8_lossy(&line));
        }
    }
}

/// `fd_fdstat_get`: the two standard files can be written, nothing else exists.
pub(super) fn file_status(guest: &mut Guest<'_>, file: u32, to: u32) -> u32 {
    if file != 1 && file != 2 {
        return BADF;
    }
    let mut status = [0; 24];
    status[8] = 64;
    errno(write(guest, to, &status))
}

/// `poll_oneoff`: nothing has happened, and nobody waits.
pub(super) fn poll(guest: &mut Guest<'_>, count_to: u32) -> u32 {
    errno(write_u32(guest, count_to, 0))
}

/// Files that are only claimed to be open.
pub(super) fn standard_only(_: &mut Guest<'_>, file: u32) -> u32 {
    match file {
        1 | 2 => SUCCESS,
        _ => BADF,
    }
}
