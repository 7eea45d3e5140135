//! `Store`: the open file. Adds a batch of rows and its rollups in one transaction: all of it or nothing.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::types::ToSql;
use rusqlite::{Connection, Statement, Transaction};
use tollgate_observe::Entry;

use crate::failure::Failure;
use crate::schema::{self, KEYS, SUMS};

/// Milliseconds of an hour and a day.
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Columns of a row, in the order of [`values`].
const COLUMNS: [&str; 25] = [
    "time",
    "request_id",
    "consumer",
    "route",
    "model_requested",
    "model",
    "vendor",
    "input",
    "output",
    "total",
    "cached",
    "cache_written",
    "reasoning",
    "source",
    "duration_ms",
    "first_token_ms",
    "cost",
    "currency",
    "status",
    "termination",
    "attempts",
    "arm",
    "conversation",
    "parent",
    "tools",
];

/// The ledger's file, open for writing.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) connection: Connection,
    adding: Adding,
}

/// The statements that add rows, as SQLite reads them.
#[derive(Debug)]
struct Adding {
    requests: String,
    hours: String,
    days: String,
}

impl Adding {
    fn new() -> Self {
        let marks = vec!["?"; COLUMNS.len()].join(", ");
        Self {
            requests: format!("INSERT INTO requests ({}) VALUES ({marks})", COLUMNS.join(", ")),
            hours: Self::sums_of("hours"),
            days: Self::sums_of("days"),
        }
    }

    fn sums_of(table: &str) -> String {
        let marks = vec!["?"; 1 + KEYS.len() + SUMS.len()].join(", ");
        let adding = SUMS
            .map(|sum| format!("{sum} = {sum} + excluded.{sum}"))
            .join(", ");
        format!(
            "INSERT INTO {table} (bucket, {keys}, {}) VALUES ({marks}) ON CONFLICT (bucket, {keys}) DO UPDATE SET {adding}",
            SUMS.join(", "),
            keys = KEYS.join(", "),
        )
    }
}

impl Store {
    pub(crate) fn open(data: &Path) -> Result<Self, Failure> {
        Ok(Self {
            connection: schema::open(data)?,
            adding: Adding::new(),
        })
    }

    /// Adds these rows.
    pub(crate) fn add(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        insert(&transaction, &self.adding.requests, entries)?;
        roll_up(&transaction, &self.adding, entries)?;
        transaction.commit()?;
        Ok(())
    }
}

fn insert(transaction: &Transaction<'_>, sql: &str, entries: &[Entry]) -> Result<(), Failure> {
    let mut statement = transaction.prepare(sql)?;
    for entry in entries {
        bind(&mut statement, entry)?;
        statement.raw_execute()?;
    }
    Ok(())
}

/// Binds a row's values in the order of [`COLUMNS`].
fn bind(statement: &mut Statement<'_>, entry: &Entry) -> Result<(), rusqlite::Error> {
    let request_id = entry.request_id.to_str().unwrap_or_default();
    let (tokens, place) = (&entry.tokens, entry.place.as_ref());
    let values: [&dyn ToSql; COLUMNS.len()] = [
        &milliseconds_of(entry.time),
        &request_id,
        &entry.consumer.as_deref(),
        &entry.route.as_deref(),
        &entry.model_requested.as_deref(),
        &entry.model.as_deref(),
        &entry.vendor,
        &signed(tokens.input),
        &signed(tokens.output),
        &signed(tokens.total),
        &signed(tokens.cached),
        &signed(tokens.cache_written),
        &signed(tokens.reasoning),
        &entry.source.map(tollgate_observe::usage::Source::name),
        &milliseconds(entry.duration),
        &entry.first_token.map(milliseconds),
        &entry.cost.map(|cost| signed(cost.0)),
        &entry.currency.as_deref(),
        &entry.status,
        &entry.termination.map(tollgate_base::Termination::name),
        &entry.attempts,
        &entry.arm.as_deref(),
        &place.map(|place| &*place.conversation),
        &place.and_then(|place| place.parent.as_deref()),
        &place.and_then(|place| place.tools.as_deref()),
    ];
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

/// Names that a sum is kept for, in the order of [`KEYS`].
type Names<'e> = [&'e str; KEYS.len()];

/// What is added to a rollup: by bucket and names.
type Rollup<'e> = HashMap<(i64, Names<'e>), [i64; SUMS.len()]>;

fn roll_up(transaction: &Transaction<'_>, adding: &Adding, entries: &[Entry]) -> Result<(), Failure> {
    let hours = by_hour(entries);
    add_sums(transaction, &adding.hours, &hours)?;
    let mut days = Rollup::new();
    for ((hour, names), sums) in hours {
        add(
            days.entry((hour - hour.rem_euclid(DAY), names)).or_default(),
            sums,
        );
    }
    add_sums(transaction, &adding.days, &days)
}

/// The sums of a batch. Rows that follow each other are often of the same names: those are looked up once.
fn by_hour(entries: &[Entry]) -> Rollup<'_> {
    let mut hours = Rollup::new();
    let keyed = entries.iter().map(|entry| {
        let time = milliseconds_of(entry.time);
        ((time - time.rem_euclid(HOUR), names(entry)), amounts(entry))
    });
    let mut run: Option<((i64, Names<'_>), [i64; SUMS.len()])> = None;
    for (key, amounts) in keyed {
        match &mut run {
            Some((same, sums)) if *same == key => add(sums, amounts),
            _ => {
                if let Some((key, sums)) = run.replace((key, amounts)) {
                    add(hours.entry(key).or_default(), sums);
                }
            }
        }
    }
    if let Some((key, sums)) = run {
        add(hours.entry(key).or_default(), sums);
    }
    hours
}

fn add(sums: &mut [i64; SUMS.len()], more: [i64; SUMS.len()]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(more);
    }
}

fn add_sums(transaction: &Transaction<'_>, sql: &str, rollup: &Rollup<'_>) -> Result<(), Failure> {
    let mut statement = transaction.prepare(sql)?;
    for ((bucket, names), sums) in rollup {
        statement.raw_bind_parameter(1, bucket)?;
        for (index, name) in names.iter().enumerate() {
            statement.raw_bind_parameter(2 + index, name)?;
        }
        for (index, sum) in sums.iter().enumerate() {
            statement.raw_bind_parameter(2 + KEYS.len() + index, sum)?;
        }
        statement.raw_execute()?;
    }
    Ok(())
}

fn names(entry: &Entry) -> Names<'_> {
    [
        entry.consumer.as_deref().unwrap_or_default(),
        entry.route.as_deref().unwrap_or_default(),
        entry.model.as_deref().unwrap_or_default(),
        entry.vendor.unwrap_or_default(),
        entry.source.map_or("", tollgate_observe::usage::Source::name),
        entry.termination.map_or("", tollgate_base::Termination::name),
        entry.arm.as_deref().unwrap_or_default(),
        entry.currency.as_deref().unwrap_or_default(),
    ]
}

fn amounts(entry: &Entry) -> [i64; SUMS.len()] {
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

/// Milliseconds since 1970.
pub(crate) fn milliseconds_of(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, milliseconds)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tokens and costs beyond it are a vendor's nonsense: they must not make a sum overflow.
const MOST: i64 = 1_000_000_000_000_000;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(MOST).min(MOST)
}
