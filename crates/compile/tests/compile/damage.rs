//! Damaged documents: whatever a file holds, the compiler returns, and says something when it left something out.

use std::path::Path;

use tollgate_compile::explain;

use crate::support::{compile_text, fake_options, with_head};

/// What a scalar may be replaced by; each has broken some reader of such files.
const ODD: &[&str] = &[
    "",
    "null",
    "[]",
    "{}",
    "-1",
    "18446744073709551616",
    "9223372036854775807",
    "\"\"",
    "\" \"",
    "\"*\"",
    "\"${secret.\"",
    "\"\\\\$9\"",
    "\"(((((\"",
    "é",
];

fn compiles(text: &str) {
    let (snapshot, _) = compile_text(text.as_bytes(), "damaged.yaml", &fake_options());
    for request in ["GET http://foo.com/x?q=1", "POST https://two.com/svc/é"] {
        let request = request.replace('é', "%C3%A9");
        let text = with_head(&request, |head| explain(&snapshot, head).to_string());
        assert!(text.starts_with(request.split(' ').next().unwrap()));
    }
}

#[test]
fn no_damage_stops_the_compiler() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".yaml") || name.ends_with(".expect.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            // Every other line is taken out, those between get one odd value after the other.
            let mut damaged = lines.clone();
            let odd = ODD[seen % ODD.len()];
            let replaced = line.split_once(": ").map(|(key, _)| format!("{key}: {odd}"));
            match &replaced {
                Some(replaced) if index % 2 == 0 => damaged[index] = replaced,
                _ => drop(damaged.remove(index)),
            }
            compiles(&damaged.join("\n"));
            seen += 1;
        }
    }
    assert!(seen > 300, "{seen} lines");
}
