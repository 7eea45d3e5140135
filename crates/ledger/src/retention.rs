//! Pruning: rows go after their time, then hours, then days; in small steps, so that the ledger's thread always has time
//! for new rows.
//!
//! What is gone is replaced by the coarser sums: `meta` holds from when on rows and hours are whole, and a question takes
//! each stretch of time from the finest of the three that has all of it.

use rusqlite::Connection;
use tollgate_snapshot::settings::Retention;

use crate::failure::Failure;
use crate::store::{DAY, HOUR, Store};

/// Rows deleted in one transaction.
const STEP: i64 = 1_000;
/// Pages given back to the file system after a step.
const PAGES: u32 = 256;

/// From when on a table is whole, in milliseconds since 1970; 0: from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Whole {
    pub(crate) rows: i64,
    pub(crate) hours: i64,
}

impl Whole {
    pub(crate) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let read = |key: &str| {
            let found =
                connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
            match found {
                Err(rusqlite::Error::QueryReturnedNoRows) => Ok(0),
                other => other,
            }
        };
        Ok(Self {
            rows: read("rows_from")?,
            hours: read("hours_from")?,
        })
    }
}

/// What one step does: a table, until when, and which boundary that moves.
struct Step {
    table: &'static str,
    column: &'static str,
    before: i64,
    boundary: Option<&'static str>,
}

impl Store {
    /// One step; true when there is more to do.
    pub(crate) fn prune(&mut self, retention: &Retention, now: i64) -> Result<bool, Failure> {
        let kept = |length: std::time::Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        let before = |length, unit: i64| {
            let time = now.saturating_sub(kept(length)).max(0);
            time - time.rem_euclid(unit)
        };
        let steps = [
            Step {
                table: "requests",
                column: "time",
                before: before(retention.rows, HOUR),
                boundary: Some("rows_from"),
            },
            Step {
                table: "hours",
                column: "bucket",
                before: before(retention.hours, DAY),
                boundary: Some("hours_from"),
            },
            Step {
                table: "days",
                column: "bucket",
                before: before(retention.days, DAY),
                boundary: None,
            },
        ];
        for step in steps {
            if self.delete(&step)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True when something was deleted: there may be more.
    fn delete(&mut self, step: &Step) -> Result<bool, Failure> {
        let Step { table, column, .. } = step;
        let oldest: Option<i64> =
            self.connection
                .query_row(&format!("SELECT min({column}) FROM {table}"), [], |row| {
                    row.get(0)
                })?;
        if oldest.is_none_or(|oldest| oldest >= step.before) {
            return Ok(false);
        }
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let Some(boundary) = step.boundary {
            transaction.execute(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
                (boundary, step.before),
            )?;
        }
        match *table {
            "requests" => transaction.execute(
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE time < ?1 ORDER BY time LIMIT ?2)",
                (step.before, STEP),
            )?,
            // A bucket holds few rows; all of the oldest go.
            table => transaction.execute(
                &format!("DELETE FROM {table} WHERE bucket = (SELECT min(bucket) FROM {table}) AND bucket < ?1"),
                [step.before],
            )?,
        };
        transaction.commit()?;
        self.connection
            .execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        Ok(true)
    }
}
