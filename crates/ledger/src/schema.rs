//! The ledger's file: where it lies, its tables, and how it is opened for writing and for reading.
//!
//! Times are milliseconds since 1970 (UTC), costs billionths of a unit of currency. A row holds what is its own; what
//! requests have in common stands once in `names`. The view `requests` puts the two together: it is what is read. In
//! rollups an absent name is `''`, since a key of SQLite's takes each NULL for a value of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::failure::Failure;

/// Name of the file in `--data`.
const FILE: &str = "usage.db";
/// "Toll", so that `file` and we know it.
const APPLICATION: i64 = 0x546f_6c6c;
/// Version of the tables.
const VERSION: i64 = 2;
/// The one before: a row held all its names, and times had an index.
const FIRST: i64 = 1;
/// How long the ledger's thread waits for another process.
const BUSY: Duration = Duration::from_secs(2);

/// Rows of a file that was version 1; they stay as they are until their time is over.
pub(crate) const OLD_ROWS: &str = "requests_1";

/// Columns of a rollup's key besides the bucket, in the order of the table.
pub(crate) const KEYS: [&str; 8] = [
    "consumer",
    "route",
    "model",
    "vendor",
    "source",
    "termination",
    "arm",
    "currency",
];

/// Sums of a rollup.
pub(crate) const SUMS: [&str; 11] = [
    "requests",
    "input",
    "output",
    "total",
    "cached",
    "cache_written",
    "reasoning",
    "cost",
    "duration_ms",
    "first_token_ms",
    "first_tokens",
];

const META: &str = "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;";

/// Columns of `entries` are without a type, so that nothing is converted on the way in. `spans` tells which times the
/// rows `first` to `last` are of, and from where on names are theirs: rows are in the order in which they were written,
/// which is nearly that of time and costs no index. Of conversations, only requests that join one have an index: the id
/// of one that a request opened (`opened`) tells when that was.
const ROWS: &str = "
CREATE TABLE names (
  id INTEGER PRIMARY KEY,
  consumer TEXT, route TEXT, model_requested TEXT, model TEXT, vendor TEXT, source TEXT, termination TEXT, arm TEXT,
  currency TEXT, status INTEGER NOT NULL, attempts INTEGER NOT NULL
);
CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  names, time, request_id, input, output, duration_ms, first_token_ms, cost, opened, conversation,
  total, cached, cache_written, reasoning, parent, tools
);
CREATE INDEX entries_conversation ON entries (conversation) WHERE conversation IS NOT NULL;
CREATE TABLE spans (
  first INTEGER PRIMARY KEY, last INTEGER NOT NULL, earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
  names_from INTEGER NOT NULL
);
";

/// A row as it is read; what most rows have not is left out of them.
const VIEW: &str = "
CREATE VIEW requests AS SELECT entries.id AS id, time,
  CASE typeof(request_id) WHEN 'blob' THEN lower(
    substr(hex(request_id), 1, 8) || '-' || substr(hex(request_id), 9, 4) || '-' || substr(hex(request_id), 13, 4) || '-' ||
    substr(hex(request_id), 17, 4) || '-' || substr(hex(request_id), 21)) ELSE request_id END AS request_id,
  consumer, route, model_requested, model, vendor, input, output, ifnull(total, input + output) AS total,
  ifnull(cached, 0) AS cached, ifnull(cache_written, 0) AS cache_written, ifnull(reasoning, 0) AS reasoning,
  source, duration_ms, first_token_ms, cost, currency, status, termination, attempts, arm,
  ifnull(conversation, opened) AS conversation, parent, tools
FROM entries LEFT JOIN names ON names.id = entries.names";

/// The ledger's file in a data directory.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Opens the file for writing; makes directory, file and tables where they are missing, and the tables of this version
/// beside those of the one before.
pub(crate) fn open(data: &Path) -> Result<Connection, Failure> {
    std::fs::create_dir_all(data)?;
    let mut connection = Connection::open_with_flags(
        path(data),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    // Rows are appended: a small cache is as good as a large one, and memory is dear.
    connection.execute_batch(
        "PRAGMA cache_size = -256; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304; PRAGMA trusted_schema = OFF;",
    )?;
    match version(&connection)? {
        0 => create(&mut connection)?,
        FIRST => upgrade(&mut connection)?,
        _ => {}
    }
    Ok(connection)
}

/// Opens the file for reading, while others write it.
pub(crate) fn open_to_read(data: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path(data), flags)?;
    opened.busy_timeout(BUSY)?;
    let found = version(&opened);
    let connection = match found {
        // A file that is at rest in a directory that may not be written: SQLite wants to write its index there.
        Err(Failure::Sql(_)) if !path(data).with_extension("db-wal").exists() => {
            let uri = format!("file:{}?immutable=1", escaped(&path(data)));
            let connection = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?;
            version(&connection)?;
            connection
        }
        Err(failure) => return Err(failure),
        Ok(_) => opened,
    };
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(connection)
}

fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Version of the file's tables; 0 for an empty file.
fn version(connection: &Connection) -> Result<i64, Failure> {
    let read = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let version = read("PRAGMA user_version")?;
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    let application = read("PRAGMA application_id")?;
    match (version, tables, application) {
        (0, 0, _) => Ok(0),
        (_, _, APPLICATION) if version > VERSION => Err(Failure::Newer(version)),
        (FIRST..=VERSION, _, APPLICATION) => Ok(version),
        _ => Err(Failure::Foreign),
    }
}

/// Whether there is a table of this name.
pub(crate) fn has_table(connection: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(sql, [name], |row| row.get(0))
}

fn create(connection: &mut Connection) -> Result<(), Failure> {
    let keys = KEYS.map(|key| format!("{key} TEXT NOT NULL")).join(", ");
    let sums = SUMS.map(|sum| format!("{sum} INTEGER NOT NULL")).join(", ");
    let rollup = |name: &str| {
        format!(
            "CREATE TABLE {name} (bucket INTEGER NOT NULL, {keys}, {sums}, PRIMARY KEY (bucket, {})) WITHOUT ROWID;",
            KEYS.join(", ")
        )
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "{META} {ROWS} {VIEW}; {} {} INSERT INTO meta VALUES ('summed', 0);
         PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};",
        rollup("hours"),
        rollup("days"),
    ))?;
    transaction.commit()?;
    Ok(())
}

/// A file of version 1: its rows keep their table, which is one span, and are read with the new ones.
fn upgrade(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "ALTER TABLE requests RENAME TO {OLD_ROWS}; {ROWS} {VIEW}
         UNION ALL SELECT id, time, request_id, consumer, route, model_requested, model, vendor, input, output, total, cached,
           cache_written, reasoning, source, duration_ms, first_token_ms, cost, currency, status, termination, attempts, arm,
           conversation, parent, tools FROM {OLD_ROWS};
         INSERT INTO spans SELECT min(id), max(id), min(time), max(time), 0 FROM {OLD_ROWS} HAVING count(*) > 0;
         INSERT INTO meta SELECT 'summed', ifnull(max(id), 0) FROM {OLD_ROWS};
         PRAGMA user_version = {VERSION};"
    ))?;
    transaction.commit()?;
    Ok(())
}

/// The rows of version 1 are gone: so is their table.
pub(crate) fn forget_old_rows(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!("DROP VIEW requests; DROP TABLE {OLD_ROWS}; {VIEW};"))
}
