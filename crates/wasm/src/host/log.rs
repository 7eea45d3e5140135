//! Log lines, clock, ticks and the plugin's own life.

use std::time::{Duration, SystemTime};

use tollgate_base::clock;

use super::{Guest, Outcome, Status, read_text, write_u32, write_u64};
use crate::state::ROOT;

pub(super) fn log(guest: &mut Guest<'_>, level: u32, text: u32, size: u32) -> Outcome {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    let text = read_text(guest, text, size)?;
    guest.data().log(level, &text);
    Ok(())
}

/// The least serious level that is shown, in proxy-wasm's numbers.
pub(super) fn level() -> u32 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current().into_level() {
        None => 6,
        Some(level) => match level {
            tracing::Level::TRACE => 0,
            tracing::Level::DEBUG => 1,
            tracing::Level::INFO => 2,
            tracing::Level::WARN => 3,
            tracing::Level::ERROR => 4,
        },
    }
}

pub(super) fn get_log_level(guest: &mut Guest<'_>, to: u32) -> Outcome {
    Ok(write_u32(guest, to, level())?)
}

/// Nanoseconds since 1970.
pub(super) fn wall_nanoseconds() -> u64 {
    let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn current_time(guest: &mut Guest<'_>, to: u32) -> Outcome {
    Ok(write_u64(guest, to, wall_nanoseconds())?)
}

pub(super) fn set_tick_period(guest: &mut Guest<'_>, milliseconds: u32) -> Outcome {
    let state = guest.data_mut();
    state.tick = milliseconds;
    state.tick_version = state.tick_version.wrapping_add(1);
    Ok(())
}

pub(super) fn set_effective_context(guest: &mut Guest<'_>, id: u32) -> Outcome {
    let state = guest.data_mut();
    if id != ROOT && !state.streams.contains_key(&id) {
        return Err(Status::BadArgument.into());
    }
    state.effective = Some(id);
    Ok(())
}

pub(super) fn done(guest: &mut Guest<'_>) -> Outcome {
    let state = guest.data_mut();
    if !state.done_awaited {
        return Err(Status::NotFound.into());
    }
    state.done_called = true;
    Ok(())
}
