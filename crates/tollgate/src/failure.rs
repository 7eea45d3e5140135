//! Why a command ends without having done its work: one line for standard error, and the exit code.

use std::process::ExitCode;

use crate::diagnostics::say;

/// Refused or failed.
pub(crate) const FAILED: u8 = 1;
/// The command line asks for something that cannot be.
const USAGE: u8 = 2;

/// A line and a code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A mistake of the command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: USAGE,
        }
    }

    /// What the parser of the command line says: help as it is, a mistake in one line.
    pub(crate) fn told(error: &clap::Error) -> ExitCode {
        use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
        if let DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand = error.kind() {
            // A closed terminal is nobody's concern.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
        let text = error.render().to_string();
        let lines = text.lines().map(str::trim);
        let parts: Vec<&str> = lines
            .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
            .filter(|line| !line.is_empty())
            .collect();
        let line = parts.join(" ");
        Self::usage(line.strip_prefix("error: ").unwrap_or(&line)).tell()
    }

    /// Says it.
    pub(crate) fn tell(&self) -> ExitCode {
        say(&format!("tollgate: {}", self.message));
        ExitCode::from(self.code)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self {
            message,
            code: FAILED,
        }
    }
}
