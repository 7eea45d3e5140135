//! `Store`: the open file. Adds a batch of rows, and now and then the rollups, in one transaction: all of it or nothing.
//!
//! After a failure the store is dropped: what it remembers of the file may not be true any more.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, TransactionBehavior};
use tollgate_observe::Entry;

use crate::failure::Failure;
use crate::names::{Dictionary, Names};
use crate::rows::{self, Row};
use crate::schema;
use crate::sums::{self, Sums};

/// Milliseconds of an hour and a day.
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Rows of a span.
const SPAN: i64 = 65_536;

const SPANS: &str = "INSERT INTO spans VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (first) DO UPDATE \
    SET last = excluded.last, earliest = excluded.earliest, latest = excluded.latest";

/// The ledger's file, open for writing.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) connection: Connection,
    /// Number of the last row.
    last: i64,
    written: Written,
}

/// What is remembered of what this process has written.
#[derive(Debug, Default)]
struct Written {
    names: Dictionary,
    /// The day of its names, when it ends.
    day_ends: i64,
    span: Option<Span>,
    sums: Sums,
}

/// Rows that follow each other, and the times that they are of.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    earliest: i64,
    latest: i64,
    /// Rows of a later hour begin another one, so that rows can go hour by hour.
    ends: i64,
    /// The row from which on names are its rows'.
    names_from: i64,
}

impl Store {
    pub(crate) fn open(data: &Path) -> Result<Self, Failure> {
        let mut connection = schema::open(data)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT max(ifnull((SELECT max(id) FROM entries), 0), ifnull((SELECT max(last) FROM spans), 0), ?1)";
        let summed = sums::summed(&transaction)?;
        let last = transaction.query_row(sql, [summed], |row| row.get(0))?;
        sums::catch_up(&transaction, last)?;
        transaction.commit()?;
        Ok(Self {
            connection,
            last,
            written: Written::default(),
        })
    }

    /// Adds these rows.
    pub(crate) fn add(&mut self, entries: &[Entry]) -> Result<(), Failure> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last = self.written.write(&transaction, entries, self.last)?;
        if self.written.sums.are_due() {
            self.written.sums.write(&transaction, last)?;
        }
        transaction.commit()?;
        self.last = last;
        Ok(())
    }

    /// Writes the sums that are still in memory.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        if self.written.sums.is_empty() {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.written.sums.write(&transaction, self.last)?;
        transaction.commit()?;
        Ok(())
    }

    /// Rows are gone, perhaps some of the span that is written: the next ones begin another.
    pub(crate) fn rows_are_gone(&mut self) {
        self.written.span = None;
    }

    /// Names from this row on may be given to rows that are still to be written.
    pub(crate) fn names_in_use(&self) -> i64 {
        self.written.names.from()
    }
}

impl Written {
    /// Writes rows behind `last`; gives the number of the last of them.
    fn write(
        &mut self,
        connection: &Connection,
        entries: &[Entry],
        last: i64,
    ) -> Result<i64, rusqlite::Error> {
        let mut rows = Vec::with_capacity(entries.len());
        let mut id = last;
        let mut before: Option<(Names<'_>, i64)> = None;
        for entry in entries {
            id += 1;
            let time = milliseconds_of(entry.time);
            if time >= self.day_ends || self.names.is_full() {
                self.day_ends = time - time.rem_euclid(DAY) + DAY;
                self.names.begin(id);
                before = None;
            }
            self.place(connection, id, time)?;
            let names = Names::of(entry);
            // Rows that follow each other are often of the same names: those are looked up once.
            let number = match before {
                Some((same, number)) if same == names => number,
                _ => self.names.number(connection, &names, id)?,
            };
            before = Some((names, number));
            self.sums.add(time, number, entry);
            rows.push(Row {
                id,
                names: number,
                time,
                entry,
            });
        }
        rows::insert(connection, &rows)?;
        self.write_span(connection, id)?;
        Ok(id)
    }

    /// Finds a row its span: the one that is written, or another.
    fn place(&mut self, connection: &Connection, row: i64, time: i64) -> Result<(), rusqlite::Error> {
        match &mut self.span {
            Some(span) if time < span.ends && row < span.first + SPAN => {
                span.earliest = span.earliest.min(time);
                span.latest = span.latest.max(time);
                return Ok(());
            }
            _ => self.write_span(connection, row - 1)?,
        }
        self.span = Some(Span {
            first: row,
            earliest: time,
            latest: time,
            ends: time - time.rem_euclid(HOUR) + HOUR,
            names_from: self.names.from(),
        });
        Ok(())
    }

    fn write_span(&self, connection: &Connection, last: i64) -> Result<(), rusqlite::Error> {
        let Some(span) = &self.span else { return Ok(()) };
        let values = (span.first, last, span.earliest, span.latest, span.names_from);
        connection.prepare_cached(SPANS)?.execute(values)?;
        Ok(())
    }
}

/// Milliseconds since 1970.
pub(crate) fn milliseconds_of(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, milliseconds)
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tokens and costs beyond it are a vendor's nonsense: they must not make a sum overflow.
const MOST: i64 = 1_000_000_000_000_000;

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(MOST).min(MOST)
}
