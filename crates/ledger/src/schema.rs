//! The ledger's file: where it lies, its tables, and how it is opened for writing and for reading.
//!
//! Times are milliseconds since 1970 (UTC), costs billionths of a unit of currency. In rollups an absent name is `''`,
//! since a key of SQLite's takes each NULL for a value of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::failure::Failure;

/// Name of the file in `--data`.
const FILE: &str = "usage.db";
/// "Toll", so that `file` and we know it.
const APPLICATION: i64 = 0x546f_6c6c;
/// Version of the tables.
const VERSION: i64 = 1;
/// How long the ledger's thread waits for another process.
const BUSY: Duration = Duration::from_secs(2);

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

const REQUESTS: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  time INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  consumer TEXT, route TEXT, model_requested TEXT, model TEXT, vendor TEXT,
  input INTEGER NOT NULL, output INTEGER NOT NULL, total INTEGER NOT NULL,
  cached INTEGER NOT NULL, cache_written INTEGER NOT NULL, reasoning INTEGER NOT NULL,
  source TEXT,
  duration_ms INTEGER NOT NULL, first_token_ms INTEGER,
  cost INTEGER, currency TEXT,
  status INTEGER NOT NULL, termination TEXT, attempts INTEGER NOT NULL,
  arm TEXT, conversation TEXT, parent TEXT, tools TEXT
);
CREATE INDEX requests_time ON requests (time);
CREATE INDEX requests_conversation ON requests (conversation) WHERE conversation IS NOT NULL;
";

/// The ledger's file in a data directory.
pub(crate) fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Opens the file for writing; makes directory, file and tables where they are missing.
pub(crate) fn open(data: &Path) -> Result<Connection, Failure> {
    std::fs::create_dir_all(data)?;
    let connection = Connection::open_with_flags(
        path(data),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    // Rows are appended: a small cache is as good as a large one, and memory is dear.
    connection.execute_batch(
        "PRAGMA cache_size = -256; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304; PRAGMA trusted_schema = OFF;",
    )?;
    let version = version(&connection)?;
    if version == 0 {
        create(&connection)?;
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
        (VERSION, _, APPLICATION) => Ok(version),
        _ => Err(Failure::Foreign),
    }
}

fn create(connection: &Connection) -> Result<(), Failure> {
    let keys = KEYS.map(|key| format!("{key} TEXT NOT NULL")).join(", ");
    let sums = SUMS.map(|sum| format!("{sum} INTEGER NOT NULL")).join(", ");
    let rollup = |name: &str| {
        format!(
            "CREATE TABLE {name} (bucket INTEGER NOT NULL, {keys}, {sums}, PRIMARY KEY (bucket, {})) WITHOUT ROWID;",
            KEYS.join(", ")
        )
    };
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {REQUESTS} {} {} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;",
        rollup("hours"),
        rollup("days"),
    ))?;
    Ok(())
}
