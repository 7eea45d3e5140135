//! What requests have in common: who, where, which model, how it ended. Each combination stands once in the table
//! `names`, a row of the ledger holds its number.
//!
//! Which ones are there is remembered for a generation: a day, or as many as are worth remembering. The next one enters
//! them anew, so that names go with the last row of theirs, without a count of who uses them.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use rusqlite::Connection;
use tollgate_observe::Entry;

/// Combinations that are remembered, some 400 bytes each.
const MOST: usize = 4_096;

const INSERT: &str = "INSERT INTO names VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// Names and numbers that many requests share, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Names<'e> {
    texts: [Option<&'e str>; 9],
    status: u16,
    attempts: u32,
}

impl<'e> Names<'e> {
    pub(crate) fn of(entry: &'e Entry) -> Self {
        Self {
            texts: [
                entry.consumer.as_deref(),
                entry.route.as_deref(),
                entry.model_requested.as_deref(),
                entry.model.as_deref(),
                entry.vendor,
                entry.source.map(tollgate_observe::usage::Source::name),
                entry.termination.map(tollgate_base::Termination::name),
                entry.arm.as_deref(),
                entry.currency.as_deref(),
            ],
            status: entry.status,
            attempts: entry.attempts,
        }
    }

    fn write(&self, connection: &Connection, id: i64) -> Result<(), rusqlite::Error> {
        let mut statement = connection.prepare_cached(INSERT)?;
        statement.raw_bind_parameter(1, id)?;
        for (index, text) in self.texts.iter().enumerate() {
            statement.raw_bind_parameter(2 + index, text)?;
        }
        statement.raw_bind_parameter(11, self.status)?;
        statement.raw_bind_parameter(12, self.attempts)?;
        statement.raw_execute()?;
        Ok(())
    }
}

/// Names that are entered.
#[derive(Debug)]
struct Known {
    texts: [Option<Box<str>>; 9],
    status: u16,
    attempts: u32,
    number: i64,
}

impl Known {
    fn names(&self) -> Names<'_> {
        Names {
            texts: self.texts.each_ref().map(Option::as_deref),
            status: self.status,
            attempts: self.attempts,
        }
    }
}

/// The names that this generation has entered, by their hash: of two with the same, one is entered again and again.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    known: HashMap<u64, Known, RandomState>,
    /// The first row that has names of this generation, once it has begun.
    from: Option<i64>,
}

impl Dictionary {
    /// The row from which on names are this generation's; what is before it, no row to come will have.
    pub(crate) fn from(&self) -> i64 {
        self.from.unwrap_or(i64::MAX)
    }

    /// Begins a generation with this row.
    pub(crate) fn begin(&mut self, row: i64) {
        self.known.clear();
        self.from = Some(row);
    }

    /// Whether a new generation is due.
    pub(crate) fn is_full(&self) -> bool {
        self.known.len() >= MOST
    }

    /// The number of these names; where they are new it is that of `row`, the first that has them.
    pub(crate) fn number(
        &mut self,
        connection: &Connection,
        names: &Names<'_>,
        row: i64,
    ) -> Result<i64, rusqlite::Error> {
        let hash = self.known.hasher().hash_one(names);
        if let Some(known) = self.known.get(&hash).filter(|known| known.names() == *names) {
            return Ok(known.number);
        }
        names.write(connection, row)?;
        let known = Known {
            texts: names.texts.map(|text| text.map(Into::into)),
            status: names.status,
            attempts: names.attempts,
            number: row,
        };
        self.known.insert(hash, known);
        Ok(row)
    }
}
