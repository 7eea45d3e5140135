//! Every `testdata/NAME.yaml` is compiled, and its sibling `NAME.expect.yaml` says which route and destination each
//! request gets, what some clusters look like, and every diagnostic, word for word.

use std::path::Path;

use crate::support::Scenario;

#[test]
fn scenarios() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut names: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && !name.ends_with(".expect.yaml"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let mut failures = Vec::new();
    for name in &names {
        failures.extend(Scenario::load(&directory, name).check());
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
