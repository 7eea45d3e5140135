//! Asking cargo: runs one of its commands in the workspace and gives back what it printed.
//! The checks parse the answer themselves, so that their tests need no cargo.

use std::path::Path;
use std::process::Command;

/// Standard output of `cargo ARGUMENTS` in `root`, or cargo's own words on why there is none.
pub(crate) fn output(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let finished = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo {}: {error}", arguments.join(" ")))?;
    if !finished.status.success() {
        let words = String::from_utf8_lossy(&finished.stderr);
        return Err(format!("cargo {}: {}", arguments.join(" "), words.trim()));
    }
    String::from_utf8(finished.stdout)
        .map_err(|_| format!("cargo {} did not print UTF-8", arguments.join(" ")))
}
