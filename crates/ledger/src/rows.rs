//! Rows on their way into `entries`: which columns they have, several with one statement where they are alike.

use std::sync::LazyLock;

use rusqlite::{Connection, Statement};
use tollgate_observe::Entry;
use tollgate_observe::conversation::Place;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::store::{milliseconds, signed};

/// Columns that every row has, in the order of [`Row::bind`].
const COLUMNS: [&str; 9] = [
    "names",
    "time",
    "request_id",
    "input",
    "output",
    "duration_ms",
    "first_token_ms",
    "cost",
    "opened",
];

/// Columns that few have, in the order of [`Row::bind_more`].
const MORE: [&str; 7] = [
    "conversation",
    "total",
    "cached",
    "cache_written",
    "reasoning",
    "parent",
    "tools",
];

/// Rows that one statement adds: what SQLite does to begin and to end it is done once for all of them.
const MANY: usize = 16;

static ONE: LazyLock<String> = LazyLock::new(|| adding(&[&["id"], &COLUMNS[..]].concat(), 1));
/// Without numbers, so that SQLite need not look whether they are taken: each row gets the one behind the last.
static SIXTEEN: LazyLock<String> = LazyLock::new(|| adding(&COLUMNS, MANY));
static FULL: LazyLock<String> = LazyLock::new(|| adding(&[&["id"], &COLUMNS[..], &MORE[..]].concat(), 1));

/// `OR FAIL`: SQLite need not keep what would undo half a statement; a batch is undone as a whole.
fn adding(columns: &[&str], rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns.len()].join(", "));
    format!(
        "INSERT OR FAIL INTO entries ({}) VALUES {}",
        columns.join(", "),
        vec![row; rows].join(", ")
    )
}

/// A row with its number and that of its names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'e> {
    pub(crate) id: i64,
    pub(crate) names: i64,
    /// Arrival, in milliseconds since 1970.
    pub(crate) time: i64,
    pub(crate) entry: &'e Entry,
}

/// Adds rows in their order; their numbers follow each other.
pub(crate) fn insert(connection: &Connection, rows: &[Row<'_>]) -> Result<(), rusqlite::Error> {
    let Some((first, others)) = rows.split_first() else {
        return Ok(());
    };
    // It says its number: the last row in the table need not be the last that there was.
    first.insert(connection)?;
    for alike in others.chunk_by(|row, next| row.has_more() == next.has_more()) {
        let is_usual = alike.first().is_some_and(|row| !row.has_more());
        let (many, rest) = if is_usual {
            alike.as_chunks::<MANY>()
        } else {
            (&[][..], alike)
        };
        if !many.is_empty() {
            let mut statement = connection.prepare_cached(&SIXTEEN)?;
            for rows in many {
                for (index, row) in rows.iter().enumerate() {
                    row.bind(&mut statement, 1 + index * COLUMNS.len())?;
                }
                statement.raw_execute()?;
                debug_assert_eq!(
                    Some(connection.last_insert_rowid()),
                    rows.last().map(|row| row.id)
                );
            }
        }
        for row in rest {
            row.insert(connection)?;
        }
    }
    Ok(())
}

impl Row<'_> {
    /// Whether it has what most have not.
    fn has_more(&self) -> bool {
        let tokens = &self.entry.tokens;
        let joins = |place: &Place| !place.opens || place.parent.is_some() || place.tools.is_some();
        tokens.cached | tokens.cache_written | tokens.reasoning != 0
            || signed(tokens.total) != signed(tokens.input) + signed(tokens.output)
            || self.entry.place.as_ref().is_some_and(joins)
    }

    /// Adds this row alone.
    fn insert(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let has_more = self.has_more();
        let mut statement = connection.prepare_cached(if has_more { &FULL } else { &ONE })?;
        statement.raw_bind_parameter(1, self.id)?;
        self.bind(&mut statement, 2)?;
        if has_more {
            self.bind_more(&mut statement, 2 + COLUMNS.len())?;
        }
        statement.raw_execute()?;
        Ok(())
    }

    /// Binds the values of [`COLUMNS`] from this place on.
    fn bind(&self, statement: &mut Statement<'_>, at: usize) -> Result<(), rusqlite::Error> {
        let entry = self.entry;
        statement.raw_bind_parameter(at, self.names)?;
        statement.raw_bind_parameter(at + 1, self.time)?;
        let request_id = entry.request_id.to_str().unwrap_or_default();
        match uuid(request_id) {
            Some(uuid) => statement.raw_bind_parameter(at + 2, uuid.as_bytes().as_slice())?,
            None => statement.raw_bind_parameter(at + 2, request_id)?,
        }
        statement.raw_bind_parameter(at + 3, signed(entry.tokens.input))?;
        statement.raw_bind_parameter(at + 4, signed(entry.tokens.output))?;
        statement.raw_bind_parameter(at + 5, milliseconds(entry.duration))?;
        statement.raw_bind_parameter(at + 6, entry.first_token.map(milliseconds))?;
        statement.raw_bind_parameter(at + 7, entry.cost.map(|cost| signed(cost.0)))?;
        let opens = entry.place.as_ref().filter(|place| place.opens);
        statement.raw_bind_parameter(at + 8, opens.map(|place| &*place.conversation))
    }

    /// Binds the values of [`MORE`].
    fn bind_more(&self, statement: &mut Statement<'_>, at: usize) -> Result<(), rusqlite::Error> {
        let (tokens, place) = (&self.entry.tokens, self.entry.place.as_ref());
        let joins = place.filter(|place| !place.opens);
        statement.raw_bind_parameter(at, joins.map(|place| &*place.conversation))?;
        statement.raw_bind_parameter(at + 1, signed(tokens.total))?;
        statement.raw_bind_parameter(at + 2, signed(tokens.cached))?;
        statement.raw_bind_parameter(at + 3, signed(tokens.cache_written))?;
        statement.raw_bind_parameter(at + 4, signed(tokens.reasoning))?;
        statement.raw_bind_parameter(at + 5, place.and_then(|place| place.parent.as_deref()))?;
        statement.raw_bind_parameter(at + 6, place.and_then(|place| place.tools.as_deref()))
    }
}

/// A request id that is a UUID as we write them: 16 bytes say the same.
fn uuid(request_id: &str) -> Option<Uuid> {
    if request_id.len() != Hyphenated::LENGTH {
        return None;
    }
    // A loop over all bytes compiles to vector instructions, one that stops at the first does not.
    let upper = request_id
        .bytes()
        .fold(0, |any, byte| any | u8::from(byte.is_ascii_uppercase()));
    Uuid::try_parse(request_id).ok().filter(|_| upper == 0)
}
