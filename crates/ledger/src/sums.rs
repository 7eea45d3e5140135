//! Rollups by hour and day. They are kept in memory and written once a minute, with the number of the last row that is in
//! them: what a crash takes is added up again from the rows after it.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;
use rusqlite::{Connection, Statement};
use tollgate_base::clock::{self, Instant};
use tollgate_observe::Entry;

use crate::schema::{KEYS, SUMS};
use crate::store::{DAY, HOUR, milliseconds, signed};

/// How long sums wait, and how many.
const EVERY: Duration = Duration::from_mins(1);
const MOST: usize = 2_048;

type Amounts = [i64; SUMS.len()];

/// Sums by bucket and number of names.
type Rollup = HashMap<(i64, i64), Amounts, RandomState>;

/// The sums that are not written yet.
#[derive(Debug)]
pub(crate) struct Sums {
    hours: Rollup,
    /// Since when.
    since: Instant,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            hours: Rollup::default(),
            since: clock::now(),
        }
    }
}

impl Sums {
    /// Adds a request that arrived at `time`.
    pub(crate) fn add(&mut self, time: i64, names: i64, entry: &Entry) {
        if self.hours.is_empty() {
            self.since = clock::now();
        }
        let sums = self.hours.entry((time - time.rem_euclid(HOUR), names));
        add(sums.or_default(), amounts(entry));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }

    /// Whether it is time to write them.
    pub(crate) fn are_due(&self) -> bool {
        self.hours.len() >= MOST
            || (!self.is_empty() && clock::now().saturating_duration_since(self.since) >= EVERY)
    }

    /// Writes them; `last` is the last row that is in them.
    pub(crate) fn write(&mut self, connection: &Connection, last: i64) -> Result<(), rusqlite::Error> {
        let mut days = Rollup::default();
        for ((hour, names), sums) in &self.hours {
            add(
                days.entry((hour - hour.rem_euclid(DAY), *names)).or_default(),
                *sums,
            );
        }
        write(&mut connection.prepare(&adding("hours"))?, &self.hours)?;
        write(&mut connection.prepare(&adding("days"))?, &days)?;
        self.hours.clear();
        mark(connection, last)
    }
}

/// Adds up what rows after the last that is in the rollups hold; `last` is the last of all.
pub(crate) fn catch_up(connection: &Connection, last: i64) -> Result<(), rusqlite::Error> {
    let summed = summed(connection)?;
    if summed >= last {
        return Ok(());
    }
    let keys = KEYS.map(|key| format!("ifnull({key}, '')")).join(", ");
    let sums = SUMS.map(|sum| match sum {
        "requests" => "count(*)".to_owned(),
        "first_tokens" => "count(first_token_ms)".to_owned(),
        sum => format!("ifnull(sum({sum}), 0)"),
    });
    for (table, unit) in [("hours", HOUR), ("days", DAY)] {
        let sql = format!(
            "{} SELECT time - time % {unit}, {keys}, {} FROM requests WHERE id > ?1 GROUP BY {} {}",
            into(table),
            sums.join(", "),
            (1..=1 + KEYS.len())
                .map(|place| place.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            conflict(),
        );
        connection.execute(&sql, [summed])?;
    }
    mark(connection, last)
}

/// The last row that is in the rollups.
pub(crate) fn summed(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("SELECT value FROM meta WHERE key = 'summed'", [], |row| {
        row.get(0)
    })
}

fn mark(connection: &Connection, last: i64) -> Result<(), rusqlite::Error> {
    connection.execute("UPDATE meta SET value = ?1 WHERE key = 'summed'", [last])?;
    Ok(())
}

fn into(table: &str) -> String {
    format!(
        "INSERT INTO {table} (bucket, {}, {})",
        KEYS.join(", "),
        SUMS.join(", ")
    )
}

fn conflict() -> String {
    let adding = SUMS.map(|sum| format!("{sum} = {sum} + excluded.{sum}"));
    format!(
        "ON CONFLICT (bucket, {}) DO UPDATE SET {}",
        KEYS.join(", "),
        adding.join(", ")
    )
}

/// Adds sums under names that the file knows by number.
fn adding(table: &str) -> String {
    format!(
        "{} SELECT ?1, {}, {} FROM names WHERE id = ?2 {}",
        into(table),
        KEYS.map(|key| format!("ifnull({key}, '')")).join(", "),
        (3..3 + SUMS.len())
            .map(|place| format!("?{place}"))
            .collect::<Vec<_>>()
            .join(", "),
        conflict(),
    )
}

fn write(statement: &mut Statement<'_>, rollup: &Rollup) -> Result<(), rusqlite::Error> {
    for ((bucket, names), sums) in rollup {
        statement.raw_bind_parameter(1, bucket)?;
        statement.raw_bind_parameter(2, names)?;
        for (index, sum) in sums.iter().enumerate() {
            statement.raw_bind_parameter(3 + index, sum)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}

fn add(sums: &mut Amounts, more: Amounts) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(more);
    }
}

fn amounts(entry: &Entry) -> Amounts {
    let tokens = &entry.tokens;
    [
        1,
        signed(tokens.input),
        signed(tokens.output),
        signed(tokens.total),
        signed(tokens.cached),
        signed(tokens.cache_written),
        signed(tokens.reasoning),
        entry.cost.map_or(0, |cost| signed(cost.0)),
        milliseconds(entry.duration),
        entry.first_token.map_or(0, milliseconds),
        i64::from(entry.first_token.is_some()),
    ]
}
