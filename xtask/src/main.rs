//! `cargo xtask NAME`: the project's own checks, those that neither rustc nor clippy can make.
//!
//! Each check is one file and one row of `CHECKS`; it gets the root of the workspace and answers with a
//! `Report`. `cargo xtask check` runs all rows. Only this file prints, and nothing here changes the tree or needs more
//! than the Rust toolchain. `differential` stands beside the checks: it compares built-ins with modules of the caller's.

mod bans;
mod cargo;
mod differential;
mod layers;
mod sizes;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a check saw and what it has against it.
#[derive(Debug, Default, PartialEq)]
struct Report {
    /// What was looked at, for the line that says all is well: `15 crates`.
    seen: String,
    /// One complaint an entry, each naming the place and the rule. Empty: the check passed.
    problems: Vec<String>,
}

struct Check {
    name: &'static str,
    about: &'static str,
    /// `Err` means that the check itself could not run.
    run: fn(&Path) -> Result<Report, String>,
}

static CHECKS: &[Check] = &[
    Check {
        name: "layers",
        about: "a crate depends only on crates above it",
        run: layers::run,
    },
    Check {
        name: "bans",
        about: "no second crypto provider, no git dependency, no patch",
        run: bans::run,
    },
    Check {
        name: "sizes",
        about: "files of at most 800 lines, each with a head comment",
        run: sizes::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("differential", rest)) = arguments.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        return differential::run(&workspace_root(), rest, say);
    }
    let chosen: Vec<&Check> = match arguments.as_slice() {
        [name] if name == "check" => CHECKS.iter().collect(),
        [name] => CHECKS.iter().filter(|check| check.name == name).collect(),
        _ => Vec::new(),
    };
    if chosen.is_empty() {
        say(&usage());
        return ExitCode::from(2);
    }
    let root = workspace_root();
    let mut all_well = true;
    for check in chosen {
        let (lines, passed) = verdict(check.name, (check.run)(&root));
        say(&lines);
        all_well &= passed;
    }
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> String {
    let mut text = String::from("usage: cargo xtask CHECK\n  check    all of these\n");
    for check in CHECKS {
        text.push_str(&format!("  {:<8} {}\n", check.name, check.about));
    }
    text.push_str(&format!("or: {}\n", differential::USAGE));
    text
}

/// The lines to show for a check's outcome, and whether it passed.
fn verdict(name: &str, outcome: Result<Report, String>) -> (String, bool) {
    match outcome {
        Ok(report) if report.problems.is_empty() => (format!("xtask {name}: ok ({})\n", report.seen), true),
        Ok(report) => {
            let mut text: String = report
                .problems
                .iter()
                .map(|problem| format!("xtask {name}: {problem}\n"))
                .collect();
            text.push_str(&format!("xtask {name}: {} problem(s)\n", report.problems.len()));
            (text, false)
        }
        Err(reason) => (format!("xtask {name}: could not run: {reason}\n"), false),
    }
}

fn say(text: &str) {
    // A reader that closed the pipe (`| head`) has seen what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_fails_the_check_and_is_shown() {
        let report = Report {
            seen: "2 crates".into(),
            problems: vec!["a -> b".into()],
        };
        let (text, passed) = verdict("layers", Ok(report));
        assert!(!passed);
        assert_eq!(text, "xtask layers: a -> b\nxtask layers: 1 problem(s)\n");
    }

    #[test]
    fn a_check_that_cannot_run_does_not_pass() {
        let (text, passed) = verdict("bans", Err("no cargo".into()));
        assert!(!passed);
        assert_eq!(text, "xtask bans: could not run: no cargo\n");
    }

    #[test]
    fn usage_names_every_check() {
        let text = usage();
        assert!(CHECKS.iter().all(|check| text.contains(check.name)));
    }
}
