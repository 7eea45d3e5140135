//! The reader against Go's, and against text that is meant to hurt.

use super::*;

fn source() -> Arc<str> {
    "a.yaml".into()
}

#[test]
fn many_small_aliases_do_not_become_a_large_document() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let documents = documents(&text, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "more than 500000 values in one document");
    assert!(diagnostic.line > 3);
}

#[test]
fn an_alias_to_a_long_text_is_paid_each_time() {
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1_000_000),
        vec!["*a"; 100].join(", ")
    );
    let documents = documents(&text, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "more than 67108864 bytes in one document");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for text in [
        format!("a: {}{}", "[".repeat(200), "]".repeat(200)),
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
    ] {
        let documents = documents(&text, &source());
        assert!(matches!(documents.as_slice(), [Err(_)]), "one error expected");
    }
    let json = format!("{}1{}", "{\"a\":".repeat(110), "}".repeat(110));
    let documents = documents(&json, &source());
    let [Err(diagnostic)] = documents.as_slice() else {
        panic!("one error expected")
    };
    assert_eq!(&*diagnostic.message, "nested deeper than 100 levels");
}

/// One line of `testdata/yaml.json`: what Go's `sigs.k8s.io/yaml` v1.6.0 makes of a text, and what we do where that
/// is not wanted.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    yaml: String,
    value: Option<Value>,
    error: Option<String>,
    /// Our value, where it differs from Go's; `null` where we refuse.
    #[serde(default, deserialize_with = "present")]
    here: Option<Value>,
    /// Why it differs.
    because: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Some)
}

#[test]
fn yaml_means_what_it_means_to_go() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../testdata/yaml.json")).unwrap();
    assert!(cases.len() > 60);
    let mut wrong = Vec::new();
    for case in cases {
        let expected = match (case.here, case.value, case.error) {
            (Some(here), _, _) => {
                assert!(
                    case.because.is_some(),
                    "{}: a difference needs a reason",
                    case.name
                );
                Some(here).filter(|here| !here.is_null())
            }
            (None, value, None) => value.or(Some(Value::Null)),
            (None, _, Some(_)) => None,
        };
        let ours = documents(&case.yaml, &source())
            .into_iter()
            .next()
            .map_or(Ok(Value::Null), |document| {
                document
                    .map(|parsed| parsed.value)
                    .map_err(|diagnostic| diagnostic.to_string())
            });
        if ours.clone().ok() != expected {
            wrong.push(format!("{}: {ours:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
