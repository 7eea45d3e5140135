//! Source files stay readable: at most 800 lines that are not tests, and a `//!` head that says what the file is.
//! (Functions are clippy's: `too_many_lines`.)
//!
//! Walks the folders of `PLACES`; a trailing `#[cfg(test)] mod …` and files that are tests do not count towards
//! the size, but need their head as well.

use crate::Report;
use std::path::{Path, PathBuf};

/// Most lines outside tests, blank ones and comments included.
const MOST_LINES: usize = 800;

/// Folders whose Rust files are checked, from the workspace's root; one that does not exist yet is skipped.
const PLACES: &[&str] = &["crates", "xtask", "tests", "bench", "fuzz"];

/// Folders below them that hold no source of ours.
const NOT_SOURCE: &[&str] = &["target", "testdata", "node_modules", ".cache"];

pub(crate) fn run(root: &Path) -> Result<Report, String> {
    let mut files = Vec::new();
    for place in PLACES {
        let folder = root.join(place);
        if folder.is_dir() {
            collect(&folder, &mut files)?;
        }
    }
    files.sort();
    let mut problems = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        problems.extend(complaints(file.strip_prefix(root).unwrap_or(file), &text));
    }
    Ok(Report {
        seen: format!("{} files", files.len()),
        problems,
    })
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let in_folder = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(in_folder)? {
        let entry = entry.map_err(in_folder)?;
        let path = entry.path();
        if entry.file_type().map_err(in_folder)?.is_dir() {
            if !NOT_SOURCE.iter().any(|name| entry.file_name() == *name) {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn complaints(file: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !has_head(text) {
        found.push(format!(
            "{}: begins without a //! head that says what the file is",
            file.display()
        ));
    }
    let lines = lines_outside_tests(text);
    if lines > MOST_LINES && !is_test_file(file) {
        found.push(format!(
            "{}: {lines} lines outside tests, at most {MOST_LINES}: split it by what it is about",
            file.display()
        ));
    }
    found
}

/// Whether the first line that is neither blank nor an inner attribute is a module comment with words.
fn has_head(text: &str) -> bool {
    let first = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| {
        line.strip_prefix("//!")
            .is_some_and(|words| !words.trim().is_empty())
    })
}

fn lines_outside_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests_begin = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    tests_begin.unwrap_or(lines.len())
}

fn is_test_file(file: &Path) -> bool {
    let in_test_folder = file.components().any(|part| {
        ["tests", "benches", "examples"]
            .iter()
            .any(|name| part.as_os_str() == *name)
    });
    let name = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    in_test_folder || name == "tests" || name.ends_with("_tests") || name.ends_with("_test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(code_lines: usize, test_lines: usize) -> String {
        let code = "fn f() {}\n".repeat(code_lines - 1);
        let tests = "// test\n".repeat(test_lines);
        format!("//! Head.\n{code}#[cfg(test)]\nmod tests {{\n{tests}}}\n")
    }

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(
            complaints(Path::new("crates/a/src/lib.rs"), &source(800, 900)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn one_line_too_many_is_reported() {
        let found = complaints(Path::new("crates/a/src/lib.rs"), &source(801, 0));
        assert_eq!(
            found,
            ["crates/a/src/lib.rs: 801 lines outside tests, at most 800: split it by what it is about"]
        );
    }

    #[test]
    fn a_test_file_may_be_long_but_needs_a_head() {
        let long = "fn f() {}\n".repeat(2000);
        let found = complaints(Path::new("crates/a/src/tests.rs"), &long);
        assert_eq!(
            found,
            ["crates/a/src/tests.rs: begins without a //! head that says what the file is"]
        );
    }

    #[test]
    fn a_head_may_follow_attributes_and_needs_words() {
        assert!(has_head("#![forbid(unsafe_code)]\n\n//! Words.\n"));
        assert!(!has_head("//!\nfn f() {}\n"));
        assert!(!has_head("// comment\n//! Words.\n"));
        assert!(!has_head(""));
    }

    #[test]
    fn an_attribute_on_a_helper_does_not_end_the_count() {
        let text = format!(
            "//! Head.\n#[cfg(test)]\nfn helper() {{}}\n{}",
            "fn f() {}\n".repeat(900)
        );
        assert_eq!(lines_outside_tests(&text), 903);
    }
}
