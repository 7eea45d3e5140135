//! Questions to the ledger: sums by any of its names, or the rows themselves, read beside the gateway that writes.
//!
//! Each stretch of time comes from the finest table that has all of it (see `retention`), in one read transaction, so
//! that sums are those of the rows.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::Offset;
use rusqlite::{Connection, OptionalExtension, Row};
use tollgate_base::{Amount, clock};
use tollgate_observe::{Spend, Spent};

use crate::failure::Failure;
use crate::retention::Whole;
use crate::schema;
use crate::store::{DAY, milliseconds_of};
use crate::sums;

/// What a column holds and how it is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// Rows only.
    Row,
    /// A name to sum by.
    Name,
    /// A stretch of time to sum by; its pattern for `strftime`.
    Time(&'static str),
    /// A number that is added up.
    Sum,
    /// A number whose mean is given; the column that counts it.
    Mean(&'static str),
    /// Money.
    Cost,
}

/// One column of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name, as in the header of an answer.
    pub name: &'static str,
    sort: Sort,
}

const fn column(name: &'static str, sort: Sort) -> Column {
    Column { name, sort }
}

/// All columns, rows' in the order in which they are printed.
const COLUMNS: [Column; 28] = [
    column("time", Sort::Row),
    column("request_id", Sort::Row),
    column("consumer", Sort::Name),
    column("route", Sort::Name),
    column("model_requested", Sort::Name),
    column("model", Sort::Name),
    column("vendor", Sort::Name),
    column("requests", Sort::Sum),
    column("input", Sort::Sum),
    column("output", Sort::Sum),
    column("cached", Sort::Sum),
    column("reasoning", Sort::Sum),
    column("source", Sort::Name),
    column("duration_ms", Sort::Mean("requests")),
    column("first_token_ms", Sort::Mean("first_tokens")),
    column("cost", Sort::Cost),
    column("status", Sort::Name),
    column("termination", Sort::Name),
    column("attempts", Sort::Name),
    column("arm", Sort::Name),
    column("conversation", Sort::Name),
    column("total", Sort::Sum),
    column("cache_written", Sort::Sum),
    column("per_token_ms", Sort::Row),
    column("currency", Sort::Name),
    column("hour", Sort::Time("%Y-%m-%dT%H:00Z")),
    column("day", Sort::Time("%Y-%m-%d")),
    column("month", Sort::Time("%Y-%m")),
];

impl Column {
    /// The column of this name that sums can be asked by.
    #[must_use]
    pub fn to_sum_by(name: &str) -> Option<Self> {
        Self::all_to_sum_by().find(|column| column.name == name)
    }

    /// All columns that sums can be asked by.
    pub fn all_to_sum_by() -> impl Iterator<Item = Self> {
        let is_key = |column: &Column| matches!(column.sort, Sort::Name | Sort::Time(_));
        COLUMNS.into_iter().filter(is_key)
    }

    fn in_row(self) -> Option<String> {
        Some(match (self.name, self.sort) {
            (_, Sort::Time(_)) => return None,
            ("time", _) => "at".to_owned(),
            // From the first token to the end, a token after the first.
            ("per_token_ms", _) => "CASE WHEN output > 1 AND duration_ms >= first_token_ms \
                                    THEN (duration_ms - first_token_ms) * 1000 / (output - 1) * 1000000 END"
                .to_owned(),
            (name, _) => name.to_owned(),
        })
    }

    fn in_sums(self) -> Option<String> {
        let Self { name, sort } = self;
        Some(match sort {
            Sort::Name if name == "currency" => {
                "CASE WHEN count(DISTINCT currency) > 1 THEN 'mixed' ELSE max(currency) END".to_owned()
            }
            Sort::Row | Sort::Name | Sort::Time(_) => return None,
            Sort::Sum => format!("ifnull(sum({name}), 0)"),
            Sort::Mean(count) => {
                format!("CAST(round(sum({name}) * 1.0 / nullif(sum({count}), 0)) AS INTEGER)")
            }
            Sort::Cost => "CASE WHEN count(DISTINCT currency) <= 1 THEN sum(cost) END".to_owned(),
        })
    }

    fn key(self) -> String {
        match self.sort {
            Sort::Time(pattern) => format!("strftime('{pattern}', at / 1000, 'unixepoch')"),
            _ => self.name.to_owned(),
        }
    }
}

/// One value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing is known.
    Null,
    /// A count.
    Integer(i64),
    /// A decimal number.
    Decimal(Amount),
    /// A name or a time.
    Text(String),
}

/// A question.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Columns to sum by; none: one sum of all.
    pub by: Vec<Column>,
    /// The rows themselves instead of sums.
    pub rows: bool,
    /// Requests from this time on.
    pub since: Option<SystemTime>,
    /// Requests before this time.
    pub until: Option<SystemTime>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No request has been entered yet.
    #[error("no usage ledger in {0}: nothing has been served with this --data yet")]
    Absent(PathBuf),
    /// The file cannot be read.
    #[error("the usage ledger in {0} cannot be read: {1}")]
    Unreadable(PathBuf, String),
}

impl ReadError {
    /// Whether there simply is none yet.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

/// The ledger, open for reading.
#[derive(Debug)]
pub struct Reader {
    pub(crate) connection: Connection,
    data: PathBuf,
}

impl Reader {
    /// Opens the ledger of a data directory.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(data: &Path) -> Result<Self, ReadError> {
        if !schema::path(data).exists() {
            return Err(ReadError::Absent(data.to_owned()));
        }
        let connection = schema::open_to_read(data).map_err(|failure| unreadable(data, failure))?;
        Ok(Self {
            connection,
            data: data.to_owned(),
        })
    }

    /// Answers, giving `take` the columns' names first and then each line; it stops when `take` says false.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ask(
        &self,
        question: &Question,
        head: impl FnOnce(&[&'static str]),
        take: impl FnMut(Vec<Value>) -> bool,
    ) -> Result<(), ReadError> {
        self.answer(question, head, take)
            .map_err(|failure| unreadable(&self.data, failure))
    }

    pub(crate) fn unreadable(&self, failure: Failure) -> ReadError {
        unreadable(&self.data, failure)
    }

    fn answer(
        &self,
        question: &Question,
        head: impl FnOnce(&[&'static str]),
        mut take: impl FnMut(Vec<Value>) -> bool,
    ) -> Result<(), Failure> {
        let transaction = self.connection.unchecked_transaction()?;
        let bound = |time: Option<SystemTime>, open| time.map_or(open, milliseconds_of);
        let (since, until) = (bound(question.since, 0), bound(question.until, i64::MAX));
        let whole = Whole::read(&transaction)?;
        let rows = rows(&transaction, since.max(whole.rows), until)?;
        let source = source(&rows, whole, since, until, question.rows);
        let (names, columns, tail) = shape(question);
        head(&names);
        let mut statement = transaction.prepare(&format!("SELECT {columns} FROM ({source}) {tail}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if !take(values(row, &names)?) {
                break;
            }
        }
        Ok(())
    }

    /// Puts what consumers have used of the current day and month into `spend`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn restore(&self, spend: &Spend) -> Result<(), ReadError> {
        self.put_back(spend)
            .map_err(|failure| unreadable(&self.data, failure))
    }

    fn put_back(&self, spend: &Spend) -> Result<(), Failure> {
        let wall = clock::wall();
        let now = milliseconds_of(wall);
        let today = now - now.rem_euclid(DAY);
        let days = Timestamp::try_from(wall).map_or(0, |stamp| Offset::UTC.to_datetime(stamp).day() - 1);
        let transaction = self.connection.unchecked_transaction()?;
        // Rows of the last minute may not be in the sums yet. Version 1 had them there at once.
        let summed = sums::summed(&transaction).optional()?.unwrap_or(i64::MAX);
        let mut statement = transaction.prepare(&format!(
            "SELECT consumer, bucket, sum(requests), sum(total), sum(cost) FROM (
               SELECT consumer, bucket, requests, total, cost FROM days
               UNION ALL SELECT consumer, time - time % {DAY}, 1, total, ifnull(cost, 0) FROM requests WHERE id > ?3
             ) WHERE bucket BETWEEN ?1 AND ?2 AND consumer <> '' GROUP BY consumer, bucket",
        ))?;
        let mut rows = statement.query((today - i64::from(days) * DAY, today, summed))?;
        while let Some(row) = rows.next()? {
            let count = |index: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(index)?.unsigned_abs());
            let used = Spent {
                requests: count(2)?,
                tokens: count(3)?,
                cost: Amount(count(4)?),
            };
            let day = if row.get::<_, i64>(1)? == today {
                used
            } else {
                Spent::default()
            };
            spend.restore(&row.get::<_, String>(0)?, wall, day, used);
        }
        Ok(())
    }
}

fn unreadable(data: &Path, failure: impl Into<Failure>) -> ReadError {
    ReadError::Unreadable(data.to_owned(), failure.into().to_string())
}

/// What rows of this stretch of time fulfil.
fn rows(connection: &Connection, since: i64, until: i64) -> Result<String, rusqlite::Error> {
    let times = format!("time >= {since} AND time < {until}");
    if !schema::has_table(connection, "spans")? {
        // Version 1: times have an index.
        return Ok(times);
    }
    let sql =
        "SELECT ifnull(min(first), 1), ifnull(max(last), 0) FROM spans WHERE latest >= ?1 AND earliest < ?2";
    let (first, last): (i64, i64) =
        connection.query_row(sql, [since, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(format!("id BETWEEN {first} AND {last} AND {times}"))
}

/// The rows and rollups that together are this stretch of time, each request once.
fn source(these: &str, whole: Whole, since: i64, until: i64, rows: bool) -> String {
    let requests = format!(
        "SELECT id, time AS at, request_id, consumer, route, model_requested, model, vendor, source, status, termination, \
         attempts, arm, conversation, currency, 1 AS requests, input, output, total, cached, cache_written, reasoning, cost, \
         duration_ms, first_token_ms, first_token_ms IS NOT NULL AS first_tokens \
         FROM requests WHERE {these}"
    );
    if rows {
        return requests;
    }
    let rollup = |table: &str, from: i64, to: i64| {
        format!(
            " UNION ALL SELECT NULL, bucket, NULL, nullif(consumer, ''), nullif(route, ''), NULL, nullif(model, ''), \
             nullif(vendor, ''), nullif(source, ''), NULL, nullif(termination, ''), NULL, nullif(arm, ''), NULL, \
             nullif(currency, ''), requests, input, output, total, cached, cache_written, reasoning, \
             CASE WHEN currency <> '' THEN cost END, duration_ms, first_token_ms, first_tokens \
             FROM {table} WHERE bucket >= {from} AND bucket < {to}"
        )
    };
    let hours = rollup("hours", since.max(whole.hours), until.min(whole.rows));
    let days = rollup("days", since, until.min(whole.hours));
    requests + &hours + &days
}

/// Names of the answer's columns, their SQL, and what follows the source.
fn shape(question: &Question) -> (Vec<&'static str>, String, String) {
    if question.rows {
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter_map(|column| Some((column.name, column.in_row()?)))
            .collect();
        let (names, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        return (names, columns.join(", "), "ORDER BY at, id".to_owned());
    }
    let keys: Vec<_> = question.by.iter().map(|column| column.key()).collect();
    let asked = |column: &&Column| !question.by.iter().any(|key| key.name == column.name);
    let sums = COLUMNS.iter().filter(asked);
    let sums: Vec<_> = sums
        .filter_map(|column| Some((column.name, column.in_sums()?)))
        .collect();
    let names = question.by.iter().map(|column| column.name);
    let names = names.chain(sums.iter().map(|sum| sum.0)).collect();
    let columns: Vec<_> = keys
        .iter()
        .cloned()
        .chain(sums.into_iter().map(|sum| sum.1))
        .collect();
    let tail = match keys.is_empty() {
        true => String::new(),
        false => {
            let places: Vec<_> = (1..=keys.len()).map(|place| place.to_string()).collect();
            format!("GROUP BY {0} ORDER BY {0}", places.join(", "))
        }
    };
    (names, columns.join(", "), tail)
}

fn values(row: &Row<'_>, names: &[&str]) -> Result<Vec<Value>, rusqlite::Error> {
    use rusqlite::types::ValueRef;
    let value = |(index, name): (usize, &&str)| {
        Ok(match (row.get_ref(index)?, *name) {
            (ValueRef::Integer(time), "time") => Value::Text(moment(time)),
            (ValueRef::Integer(parts), "cost" | "per_token_ms") => {
                Value::Decimal(Amount(parts.unsigned_abs()))
            }
            (ValueRef::Integer(number), _) => Value::Integer(number),
            (ValueRef::Text(text), _) => Value::Text(String::from_utf8_lossy(text).into_owned()),
            _ => Value::Null,
        })
    };
    names.iter().enumerate().map(value).collect()
}

/// A time as RFC 3339 has it, in UTC with milliseconds.
pub(crate) fn moment(time: i64) -> String {
    let stamp = Timestamp::from_millisecond(time).unwrap_or_default();
    format!("{stamp:.3}")
}
