//! Metrics that modules define. An id's low two bits are the kind.

use std::time::Duration;

use tollgate_observe::metrics::Kind;

use super::header::Range;
use super::{Guest, Outcome, Status, read_text, write_u32, write_u64};
use crate::limits::Bound;
use crate::metrics::{self, Series};

/// Most metrics of one instance.
const LIMIT: usize = 100_000;

pub(super) fn define(guest: &mut Guest<'_>, kind: u32, name: Range, to: u32) -> Outcome {
    let kind_bits = kind;
    let kind = match kind {
        0 => Kind::Counter,
        1 => Kind::Gauge,
        2 => Kind::Histogram,
        _ => return Err(Status::BadArgument.into()),
    };
    if usize::try_from(name.1)? > guest.data().generation.host.limits.metric_name {
        guest.data().generation.metrics.beyond(Bound::MetricName);
        return Err(Status::BadArgument.into());
    }
    let name = read_text(guest, name.0, name.1)?;
    let state = guest.data_mut();
    if state.series.len() >= LIMIT {
        return Err(Status::InternalFailure.into());
    }
    let host = &state.generation.host;
    let series = host
        .metrics
        .as_ref()
        .and_then(|metrics| metrics::define(metrics, kind, &name));
    state.series.push(series);
    let id = u32::try_from(state.series.len())? << 2 | kind_bits;
    Ok(write_u32(guest, to, id)?)
}

/// The series of an id; `Some(None)` for one that is not shown.
fn series(guest: &Guest<'_>, id: u32) -> Result<Option<Series>, Status> {
    let index = usize::try_from(id >> 2)
        .ok()
        .and_then(|index| index.checked_sub(1));
    let found = index.and_then(|index| guest.data().series.get(index));
    found.cloned().ok_or(Status::NotFound)
}

pub(super) fn increment(guest: &mut Guest<'_>, id: u32, by: i64) -> Outcome {
    let series = series(guest, id)?;
    match (id & 3, u64::try_from(by)) {
        (0, Ok(by)) if by > 0 => {
            if let Some(Series::Counter(counter)) = series {
                counter.add(by);
            }
        }
        (1, _) => {
            if let Some(Series::Gauge(gauge)) = series {
                gauge.add(by);
            }
        }
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

pub(super) fn record(guest: &mut Guest<'_>, id: u32, value: i64) -> Outcome {
    let unsigned = u64::from_ne_bytes(value.to_ne_bytes());
    match series(guest, id)? {
        Some(Series::Counter(counter)) => counter.add(unsigned),
        Some(Series::Gauge(gauge)) => gauge.set(value),
        Some(Series::Histogram(histogram)) => histogram.observe(Duration::from_millis(unsigned)),
        None => {}
    }
    Ok(())
}

pub(super) fn get(guest: &mut Guest<'_>, id: u32, to: u32) -> Outcome {
    let series = series(guest, id)?;
    let value = match (id & 3, series) {
        (2, _) => return Err(Status::BadArgument.into()),
        (_, Some(Series::Counter(counter))) => counter.get(),
        (_, Some(Series::Gauge(gauge))) => u64::from_ne_bytes(gauge.get().to_ne_bytes()),
        _ => 0,
    };
    Ok(write_u64(guest, to, value)?)
}
