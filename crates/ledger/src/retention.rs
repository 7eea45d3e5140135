//! Pruning: rows go after their time, then hours, then days; in small steps, so that the ledger's thread always has time
//! for new rows.
//!
//! What is gone is replaced by the coarser sums: `meta` holds from when on rows and hours are whole, and a question takes
//! each stretch of time from the finest of the three that has all of it. Rows go span by span (see `schema`), so that no
//! index of time is needed to find them.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tollgate_snapshot::settings::Retention;

use crate::failure::Failure;
use crate::schema::{self, OLD_ROWS};
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
            let sql = "SELECT value FROM meta WHERE key = ?1";
            let found = connection.query_row(sql, [key], |row| row.get(0)).optional();
            found.map(Option::unwrap_or_default)
        };
        Ok(Self {
            rows: read("rows_from")?,
            hours: read("hours_from")?,
        })
    }
}

/// What one step does to a rollup: until when, and which boundary that moves.
struct Step {
    table: &'static str,
    before: i64,
    boundary: Option<&'static str>,
}

impl Store {
    /// One step; true when there is more to do.
    pub(crate) fn prune(&mut self, retention: &Retention, now: i64) -> Result<bool, Failure> {
        // What replaces the rows.
        self.settle()?;
        let kept = |length: std::time::Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
        let before = |length, unit: i64| {
            let time = now.saturating_sub(kept(length)).max(0);
            time - time.rem_euclid(unit)
        };
        let rows_before = before(retention.rows, HOUR);
        if self.delete_rows(rows_before)? || self.delete_old_rows(rows_before)? {
            return Ok(true);
        }
        let steps = [
            Step {
                table: "hours",
                before: before(retention.hours, DAY),
                boundary: Some("hours_from"),
            },
            Step {
                table: "days",
                before: before(retention.days, DAY),
                boundary: None,
            },
        ];
        for step in steps {
            if self.delete_sums(&step)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes rows of the oldest span whose time is over, and the names that no row has any more.
    fn delete_rows(&mut self, before: i64) -> Result<bool, Failure> {
        let oldest =
            "SELECT first, last FROM spans WHERE latest < ?1 AND names_from > 0 ORDER BY first LIMIT 1";
        let oldest = self.connection.query_row(oldest, [before], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        });
        let Some((first, last)) = oldest.optional()? else {
            return Ok(false);
        };
        let end = last.min(first + STEP - 1);
        let in_use = self.names_in_use();
        self.in_one(|transaction| {
            move_boundary(transaction, "rows_from", before)?;
            transaction.execute("DELETE FROM entries WHERE id BETWEEN ?1 AND ?2", (first, end))?;
            match end == last {
                true => transaction.execute("DELETE FROM spans WHERE first = ?1", [first])?,
                false => {
                    transaction.execute("UPDATE spans SET first = ?2 WHERE first = ?1", (first, end + 1))?
                }
            };
            let needed = "SELECT names_from FROM spans WHERE names_from > 0 ORDER BY first LIMIT 1";
            transaction.execute(
                &format!("DELETE FROM names WHERE id < min(?1, ifnull(({needed}), ?1))"),
                [in_use],
            )
        })?;
        self.rows_are_gone();
        Ok(true)
    }

    /// The same for rows that version 1 wrote, by their index of time; then their table goes.
    fn delete_old_rows(&mut self, before: i64) -> Result<bool, Failure> {
        if !schema::has_table(&self.connection, OLD_ROWS)? {
            return Ok(false);
        }
        let sql = format!("SELECT min(time) FROM {OLD_ROWS}");
        match self
            .connection
            .query_row(&sql, [], |row| row.get::<_, Option<i64>>(0))?
        {
            None => self.in_one(schema::forget_old_rows)?,
            Some(oldest) if oldest >= before => return Ok(false),
            Some(_) => self.in_one(|transaction| {
                move_boundary(transaction, "rows_from", before)?;
                let oldest = format!("SELECT id FROM {OLD_ROWS} WHERE time < ?1 ORDER BY time LIMIT ?2");
                let sql = format!("DELETE FROM {OLD_ROWS} WHERE id IN ({oldest})");
                transaction.execute(&sql, (before, STEP))
            })?,
        }
        Ok(true)
    }

    /// True when something was deleted: there may be more.
    fn delete_sums(&mut self, step: &Step) -> Result<bool, Failure> {
        let Step { table, before, .. } = step;
        let sql = format!("SELECT min(bucket) FROM {table}");
        let oldest: Option<i64> = self.connection.query_row(&sql, [], |row| row.get(0))?;
        if oldest.is_none_or(|oldest| oldest >= *before) {
            return Ok(false);
        }
        self.in_one(|transaction| {
            if let Some(boundary) = step.boundary {
                move_boundary(transaction, boundary, *before)?;
            }
            // A bucket holds few rows; all of the oldest go.
            transaction.execute(&format!("DELETE FROM {table} WHERE bucket = ?1"), [oldest])
        })?;
        Ok(true)
    }

    /// Does something in one transaction, and gives pages back to the file system.
    fn in_one<T>(
        &mut self,
        delete: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<(), Failure> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        delete(&transaction)?;
        transaction.commit()?;
        self.connection
            .execute_batch(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        Ok(())
    }
}

/// From now on what is older is found in coarser sums.
fn move_boundary(connection: &Connection, boundary: &str, to: i64) -> Result<(), rusqlite::Error> {
    let sql =
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)";
    connection.execute(sql, (boundary, to))?;
    Ok(())
}
