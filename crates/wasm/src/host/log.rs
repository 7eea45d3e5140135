//! Log lines, clock, ticks and the plugin's own life.

use std::time::{Duration, SystemTime};

use tollgate_base::clock;
use tracing::{Level, enabled};

use super::{Guest, Outcome, Status, read_text, slice, write_u32, write_u64};
use crate::limits::Bound;
use crate::state::{LOG_TARGET, ROOT};

pub(super) fn log(guest: &mut Guest<'_>, level: u32, text: u32, size: u32) -> Outcome {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    slice(guest, text, size)?;
    // Nothing interrupts a call; a longer line is cut.
    let generation = &guest.data().generation;
    let most = u32::try_from(generation.host.limits.write).unwrap_or(u32::MAX);
    if size > most {
        generation.metrics.beyond(Bound::Write);
    }
    let text = read_text(guest, text, size.min(most))?;
    guest.data().log(level, &text);
    Ok(())
}

/// The least serious level of which a module's lines are shown, in proxy-wasm's numbers; 6: of none.
pub(super) fn level() -> u32 {
    let shown = [
        enabled!(target: LOG_TARGET, Level::TRACE),
        enabled!(target: LOG_TARGET, Level::DEBUG),
        enabled!(target: LOG_TARGET, Level::INFO),
        enabled!(target: LOG_TARGET, Level::WARN),
        enabled!(target: LOG_TARGET, Level::ERROR),
    ];
    let least = (0..).zip(shown).find(|(_, is_shown)| *is_shown);
    least.map_or(6, |(level, _)| level)
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

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::*;

    #[test]
    fn the_level_is_that_of_modules_and_not_of_others() {
        for (filter, expected) in [
            ("debug,wasm=warn", 3),
            ("error,wasm=trace", 0),
            ("wasm=debug", 1),
            ("info", 2),
            ("error", 4),
            ("trace,wasm=off", 6),
        ] {
            let filtered = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(filter))
                .finish();
            let told = tracing::subscriber::with_default(filtered, level);
            assert_eq!(told, expected, "{filter}");
        }
    }
}
