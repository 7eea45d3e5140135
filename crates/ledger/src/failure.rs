//! Why rows cannot be written, in one word for the metric and in whether trying again can help.

use rusqlite::ErrorCode;

/// A sort of failure; the label `reason` of `tollgate_ledger_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// More rows came than were written.
    Overflow,
    /// No space left.
    DiskFull,
    /// The file or its directory may not be written.
    ReadOnly,
    /// The file is no ledger, or broken; it is moved aside.
    Corrupt,
    /// The file was written by a newer version.
    Schema,
    /// Another process holds the file.
    Busy,
    /// Anything else of disk or directory.
    Io,
    /// The process ends before the row is written.
    Shutdown,
}

impl Reason {
    pub(crate) const ALL: [Reason; 8] = [
        Reason::Overflow,
        Reason::DiskFull,
        Reason::ReadOnly,
        Reason::Corrupt,
        Reason::Schema,
        Reason::Busy,
        Reason::Io,
        Reason::Shutdown,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Reason::Overflow => "overflow",
            Reason::DiskFull => "disk_full",
            Reason::ReadOnly => "read_only",
            Reason::Corrupt => "corrupt",
            Reason::Schema => "schema",
            Reason::Busy => "busy",
            Reason::Io => "io",
            Reason::Shutdown => "shutdown",
        }
    }
}

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{0}")]
    Directory(#[from] std::io::Error),
    #[error("it was written by a newer version of tollgate (schema {0})")]
    Newer(i64),
    #[error("it is the file of another program")]
    Foreign,
}

impl Failure {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Failure::Newer(_) => Reason::Schema,
            Failure::Foreign => Reason::Corrupt,
            Failure::Directory(error) => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::DiskFull,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    Reason::ReadOnly
                }
                _ => Reason::Io,
            },
            Failure::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Reason::DiskFull,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Reason::ReadOnly,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Reason::Corrupt,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Reason::Busy,
                _ => Reason::Io,
            },
        }
    }
}
