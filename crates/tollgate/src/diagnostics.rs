//! The one place that writes to the terminal.

use std::io::{self, Write};

/// A line on standard error; a closed one is nobody's concern.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// A line on standard output.
pub(crate) fn print(line: &str) {
    drop(writeln!(io::stdout().lock(), "{line}"));
}
