//! What must hold for any input, however broken.

use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate_kinds::envsubst::envsubst;
use tollgate_kinds::{ReadOptions, Reading, read, yaml};

const EXAMPLE: &str = include_str!("../testdata/documents/01-ai-proxy.yaml");

fn read_bytes(bytes: &[u8]) -> Reading {
    let lookup = |name: &str| (name != "API_TOKEN").then(|| format!("value of {name}"));
    let options = ReadOptions {
        default_namespace: "higress-system",
        substitute: Some(&lookup),
    };
    read(bytes, &Arc::from("a.yaml"), &options)
}

/// Every diagnostic points into the file and fits on a line.
fn check_diagnostics(reading: &Reading, text: &[u8]) {
    let lines = text
        .iter()
        .filter(|byte| **byte == b'\n' || **byte == b'\r')
        .count()
        + 2;
    for diagnostic in &reading.diagnostics {
        let line = usize::try_from(diagnostic.line).unwrap_or(usize::MAX);
        assert!((1..=lines).contains(&line), "{diagnostic} of {lines} lines");
        assert!(!diagnostic.to_string().contains('\n'));
    }
}

/// Pieces that YAML gives a meaning to, glued together at random.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("---\n"),
        Just("...\n"),
        Just("%YAML 1.2\n"),
        Just("- "),
        Just(": "),
        Just("? "),
        Just("\n"),
        Just("\n  "),
        Just("\n    "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("&a "),
        Just("*a"),
        Just("!!int "),
        Just("!x "),
        Just("|\n"),
        Just(">-\n"),
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("#"),
        Just("<<"),
        Just("kind"),
        Just("apiVersion"),
        Just("v1"),
        Just("Secret"),
        Just("metadata"),
        Just("name"),
        Just("data"),
        Just("items"),
        Just("List"),
        Just("0x1"),
        Just("1e999"),
        Just(".inf"),
        Just("\t"),
        Just("\r"),
        Just("\u{feff}"),
        Just("${LLM}"),
        Just("${API_TOKEN}"),
        Just("通"),
        Just("\u{85}"),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e15..1e15_f64).prop_map(|number| json!(number + 0.5)),
        "[ -~\\t\\n通义é😀]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map("[a-z./_$\\[\\] \"-]{1,10}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn integral(number: f64) -> bool {
    number.fract() == 0.0
}

/// Go writes a float without a fraction as an integer, and so do we.
fn as_go(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(as_go).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, as_go(value)))
            .collect(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            #[expect(clippy::cast_possible_truncation, reason = "the strategy stays below 1e15")]
            Some(float) if integral(float) => Value::from(float as i64),
            _ => Value::Number(number),
        },
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        check_diagnostics(&read_bytes(&bytes), &bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,300}") {
        check_diagnostics(&read_bytes(text.as_bytes()), text.as_bytes());
    }

    #[test]
    fn whatever_looks_like_yaml_never_panics(text in yaml_like()) {
        check_diagnostics(&read_bytes(text.as_bytes()), text.as_bytes());
    }

    #[test]
    fn a_damaged_example_never_panics(at in 0..EXAMPLE.len(), length in 0..40_usize, put in yaml_like()) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        check_diagnostics(&read_bytes(&bytes), &bytes);
    }

    #[test]
    fn no_value_of_the_environment_is_told(at in 0..EXAMPLE.len(), put in yaml_like()) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes.splice(at..at, put.bytes());
        let lookup = |name: &str| Some(if name == "API_TOKEN" { "sk-top-secret" } else { "x" }.to_owned());
        let options = ReadOptions { default_namespace: "higress-system", substitute: Some(&lookup) };
        for diagnostic in read(&bytes, &Arc::from("a.yaml"), &options).diagnostics {
            // Kind, name and field are what the user calls things; only the message is ours.
            prop_assert!(!diagnostic.message.contains("sk-top-secret"), "{}", diagnostic);
        }
    }

    #[test]
    fn json_is_read_as_json_and_as_yaml(value in any_json()) {
        let object = json!({"v": value});
        let source = Arc::from("a.json");
        for text in [object.to_string(), serde_json::to_string_pretty(&object).unwrap_or_default()] {
            let documents = yaml::documents(&text, &source);
            prop_assert_eq!(documents.len(), 1);
            let parsed = documents.into_iter().next().and_then(Result::ok);
            prop_assert_eq!(parsed.map(|parsed| parsed.value), Some(object.clone()));
        }
        // A key in front makes it YAML with a flow mapping inside.
        let text = format!("outer:\n  {}\n", serde_json::to_string(&object).unwrap_or_default());
        let parsed = yaml::documents(&text, &source).into_iter().next().and_then(Result::ok);
        prop_assert_eq!(parsed.map(|parsed| parsed.value), Some(json!({"outer": as_go(object)})));
    }

    #[test]
    fn text_without_references_is_untouched(text in "[^{]{0,200}") {
        let result = envsubst(&text, &|_| Some("x".to_owned()));
        prop_assert_eq!(result.text, text);
        prop_assert!(result.unset.is_empty());
    }

    #[test]
    fn the_position_of_every_field_is_the_line_of_its_key(names in btree_map("[a-z]{1,8}", 0..5_usize, 1..20)) {
        let mut text = "# head\nroot:\n".to_owned();
        let mut line = 2;
        let mut expected = Vec::new();
        for (name, blank_lines) in &names {
            line += 1;
            text.push_str(&format!("  {name}: 1\n{}", "\n".repeat(*blank_lines)));
            expected.push((format!("root.{name}"), line));
            line += u32::try_from(*blank_lines).unwrap_or(0);
        }
        let parsed = yaml::documents(&text, &Arc::from("a.yaml")).into_iter().next().and_then(Result::ok);
        for (path, line) in expected {
            prop_assert_eq!(parsed.as_ref().map(|parsed| parsed.positions.find(&path).line), Some(line));
        }
    }
}
