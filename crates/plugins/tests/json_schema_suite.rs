//! The public JSON Schema test suite against the schemas of `ai-json-resp`, as far as they go.
//!
//! `make setup` fetches it. What is left out is listed here with its reason, and nothing else may fail.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Drafts: folder of the suite, and the `$schema` that chooses it.
const DRAFTS: [(&str, &str); 5] = [
    ("draft4", "http://json-schema.org/draft-04/schema#"),
    ("draft6", "http://json-schema.org/draft-06/schema#"),
    ("draft7", "http://json-schema.org/draft-07/schema#"),
    ("draft2019-09", "https://json-schema.org/draft/2019-09/schema"),
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
];

/// Files that are about what `ai-json-resp` does not do.
const LEFT_OUT: &[(&str, &str)] = &[
    ("refRemote.json", "nothing is fetched"),
    ("vocabulary.json", "needs a meta-schema from elsewhere"),
    (
        "format.json",
        "wants formats to be ignored; here they are asserted, as in Higress",
    ),
];

/// Parts of cases' descriptions whose outcome differs on purpose.
const DIFFERENT: &[(&str, &str)] = &[(
    "a float with zero fractional part is an integer",
    "an integer is written as one, as in Higress",
)];

fn suite() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/json-schema-suite/tests");
    assert!(
        place.is_dir(),
        "the JSON Schema test suite is missing: run `make setup` ({})",
        place.display()
    );
    place
}

/// Whether a schema leads to a document that only the suite's server has.
fn is_remote(schema: &Value) -> bool {
    schema.to_string().contains("http://localhost:1234")
}

#[test]
fn the_public_suite() {
    let suite = suite();
    let (mut passed, mut left_out, mut failures) = (0, 0, Vec::new());
    for (draft, uri) in DRAFTS {
        let mut files: Vec<PathBuf> = fs::read_dir(suite.join(draft))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let groups: Vec<Value> = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            for group in &groups {
                let tests = group["tests"].as_array().unwrap();
                if LEFT_OUT.iter().any(|(file, _)| *file == name) || is_remote(&group["schema"]) {
                    left_out += tests.len();
                    continue;
                }
                let mut schema = group["schema"].clone();
                if let Some(members) = schema.as_object_mut() {
                    members.entry("$schema").or_insert_with(|| uri.into());
                }
                for test in tests {
                    let place = format!(
                        "{draft}/{name}: {}: {}",
                        group["description"], test["description"]
                    );
                    if DIFFERENT.iter().any(|(part, _)| place.contains(part)) {
                        left_out += 1;
                        continue;
                    }
                    let outcome = tollgate_plugins::schema_fault(&schema, &test["data"]);
                    let is_valid = outcome.is_ok();
                    if Some(is_valid) == test["valid"].as_bool() {
                        passed += 1;
                    } else {
                        failures.push(format!("{place}: {outcome:?}"));
                    }
                }
            }
        }
    }
    println!("{passed} passed, {left_out} left out, {} failed", failures.len());
    assert!(
        failures.is_empty(),
        "{} of {passed}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(passed > 4000, "{passed}");
}
