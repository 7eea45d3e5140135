//! Replays what gjson 1.18.0 and sjson 1.2.5 answered (`testdata/gen` wrote it), and what we do otherwise on purpose.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn cases(text: &'static str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Null => "Null",
        ValueKind::False => "False",
        ValueKind::Number => "Number",
        ValueKind::String => "String",
        ValueKind::True => "True",
        ValueKind::Json => "JSON",
    }
}

/// What differs between an answer of gjson and ours.
fn difference(json: &str, answer: &Value) -> Option<String> {
    let path = answer["path"].as_str().unwrap();
    let found = get(json, path);
    let expected = answer["raw"].as_str().map(str::to_owned);
    let raw = found.as_ref().map(|value| value.raw().to_owned());
    if raw != expected {
        return Some(format!("{path}: {raw:?} instead of {expected:?}"));
    }
    let value = found?;
    let text = answer["text"].as_str().unwrap_or(value.raw());
    let array: Vec<_> = value
        .array()
        .iter()
        .map(|element| element.raw().to_owned())
        .collect();
    let same = kind_name(value.kind()) == answer["kind"]
        && value.text() == text
        // gjson wraps around beyond 64 bits; we give the nearest.
        && (value.float().is_nan() || value.float().abs() >= 9.2e18 || value.int() == answer["int"].as_i64().unwrap_or(0))
        && (!value.float().is_finite() || value.float() == answer["float"].as_f64().unwrap_or(0.0))
        && value.bool() == answer["bool"].as_bool().unwrap_or(false)
        && (value.kind() != ValueKind::Json
            || Value::from(array.clone()) == *answer.get("array").unwrap_or(&Value::Array(Vec::new())));
    (!same).then(|| {
        let ours = (
            value.kind(),
            value.text(),
            value.int(),
            value.float(),
            value.bool(),
        );
        format!("{path}: {ours:?} {array:?} instead of {answer}")
    })
}

#[test]
fn reading_answers_as_gjson_does() {
    let mut count = 0;
    let mut differences = Vec::new();
    for group in cases(include_str!("../../testdata/gjson.json")) {
        let json = group["json"].as_str().unwrap();
        for answer in group["answers"].as_array().unwrap() {
            count += 1;
            differences.extend(difference(json, answer).map(|what| format!("{json}\n    {what}")));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {count}:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(count > 300);
}

/// What is removed takes its own white space along, sjson's neighbour's; and sjson escapes more in strings.
fn is_same_but_for_white_space(written: &str, expected: &str) -> bool {
    let compact = |json| get(json, "@ugly").map(|value| value.into_raw().replace(r"\u2028", "\u{2028}"));
    written == expected || compact(written) == compact(expected)
}

#[test]
fn writing_does_what_sjson_does() {
    let mut differences = Vec::new();
    for case in cases(include_str!("../../testdata/sjson.json")) {
        let [json, path, operation, value, expected] =
            ["json", "path", "op", "value", "out"].map(|name| case[name].as_str().unwrap_or(""));
        let outcome = match operation {
            "raw" => set_raw(json, path, value),
            "string" => set_str(json, path, value),
            _ => remove(json, path),
        };
        let is_error = case["error"] == true;
        let same = match &outcome {
            Ok(written) => !is_error && is_same_but_for_white_space(written, expected),
            Err(_) => is_error,
        };
        if !same {
            differences.push(format!(
                "{operation} {path} in {json}: {outcome:?} instead of {expected:?} (error: {is_error})"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn negative_indexes_count_from_the_end() {
    let json = r#"{"messages":[{"content":"a"},{"content":"b"}],"-1":"key"}"#;
    for (path, expected) in [
        ("messages.-1.content", Some(r#""b""#)),
        ("messages.-2.content", Some(r#""a""#)),
        ("messages.-1.@keys.0", Some(r#""content""#)),
        ("messages|-1|content", Some(r#""b""#)),
        ("messages.-3", None),
        ("messages.-0", None),
        ("messages.-", None),
        ("messages.-1x", None),
        ("-1", Some(r#""key""#)),
        ("..-1.-1", Some(r#""key""#)),
    ] {
        assert_eq!(get(json, path).as_ref().map(PathValue::raw), expected, "{path}");
    }
}

#[test]
fn what_is_found_is_borrowed() {
    let json = String::from(r#"{"a":{"b":[1,{"c":"text"}]}}"#);
    for path in ["a.b.1.c", "a.b.#(c==text).c", "a.b|1|c", "@this.a.b.-1.c"] {
        let raw = get(&json, path).unwrap().into_raw();
        assert!(matches!(raw, std::borrow::Cow::Borrowed("\"text\"")), "{path}");
    }
}

#[test]
fn bytes_that_are_not_text_are_read_around() {
    let json = b"{\"a\":\"\xff\",\"b\":1}";
    assert_eq!(get(json, "b").unwrap().int(), 1);
    assert_eq!(get(json, "a").unwrap().text(), "\u{fffd}");
    assert_eq!(get(json, "@this.b").unwrap().int(), 1);
}

#[test]
fn depth_has_an_end() {
    let deep = "[".repeat(20_000);
    let long = ["0"; 20_000].join(".");
    for path in [
        long.as_str(),
        "@pretty",
        "@ugly",
        "@dig:x",
        "@flatten:{\"deep\":true}",
        "@tostr",
        "#.#",
        &"[".repeat(20_000),
        &("{".repeat(20_000) + &"}".repeat(20_000)),
        &"@this|".repeat(20_000),
        &"#(".repeat(20_000),
        &"#.".repeat(20_000),
    ] {
        let _ = get(&deep, path);
    }
}

#[test]
fn an_escaped_name_is_one_key() {
    for name in [
        "a.b",
        "*",
        "a|b#c",
        "@this",
        "é",
        "\\",
        "!x",
        "plain-key_1:2",
        "{a}",
        "\"q",
    ] {
        let json = serde_json::json!({ name: 1 }).to_string();
        assert_eq!(
            get(&json, &escape(name)).map(|value| value.int()),
            Some(1),
            "{name}"
        );
    }
}

#[test]
fn what_sjson_would_break_is_refused_or_kept() {
    assert!(set_raw("{\"a\":", "a", "1").is_err());
    assert!(set_raw("{}", "a", "{").is_err());
    assert!(set_raw("{\"a\":[1]}", "a.#(>0)#", "{").is_err());
    assert!(remove("{\"a\":[1]}", "a.#").is_err());
    // Elements that lie nowhere in the text are not written to; sjson writes over the text's beginning.
    let nested = r#"{"a":[{"b":[{"c":1}]}]}"#;
    assert_eq!(set_raw(nested, "a.#.b.#.c", "9").unwrap(), nested);
    let below_a_query = r#"{"a":[{"k":1,"b":[{"c":1},{"c":2}]}]}"#;
    assert_eq!(
        set_raw(below_a_query, "a.#(k==1).b.#.c", "9").unwrap(),
        r#"{"a":[{"k":1,"b":[{"c":9},{"c":9}]}]}"#
    );
    assert!(set_raw(r#"{"a":[{"b":[1"#, "a.#.b", "9").is_err());
    assert_eq!(set_raw(r#"{"k":1,"k":2}"#, "k", "3").unwrap(), r#"{"k":3}"#);
}

fn json_like() -> impl Strategy<Value = String> {
    let parts = vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\":",
        "\"\\u00e9\"",
        "\"",
        "\\",
        "1",
        "-2.5e1",
        "true",
        "null",
        " ",
        "é",
        "n",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..24).prop_map(|chosen| chosen.concat())
}

fn path_like() -> impl Strategy<Value = String> {
    let parts = vec![
        "a", "b", ".", "|", "#", "#(", ")", "#(a==", "\"", "\\", "*", "?", "@this", "@dig:", "@pretty:",
        "@join", "@group", "{", "}", "[", "]", ",", ":", "!", "..", "0", "-1", "é", "~true", "%", "@flatten",
        "@reverse", "@fromstr", "@tostr", "@keys",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..12).prop_map(|chosen| chosen.concat())
}

#[test]
fn a_plain_string_is_a_part_of_its_text() {
    let text =
        Bytes::from(r#"{"plain":"你好","empty":"","escaped":"a\nb","number":5,"list":["é"]}"#.to_owned());
    let part = |path: &str| Path::new(path).get(&text)?.part_of(&text);
    let plain = part("plain").unwrap();
    assert_eq!(plain, "你好".as_bytes());
    assert!(text.as_ptr_range().contains(&plain.as_ptr()), "it is a copy");
    assert_eq!(part("list.0").unwrap(), "é".as_bytes());
    assert_eq!(part("empty").unwrap(), "".as_bytes());
    for path in ["escaped", "number", "list", "absent", "[plain].0"] {
        assert_eq!(part(path), None, "{path}");
    }
    let elsewhere = Bytes::copy_from_slice(&text);
    assert_eq!(Path::new("plain").get(&text).unwrap().part_of(&elsewhere), None);
    let broken = Bytes::from_static(b"{\"a\":\"\xff\"}");
    assert_eq!(Path::new("a").get(&broken).unwrap().part_of(&broken), None);
}

proptest! {
    #[test]
    fn no_text_and_no_path_make_it_panic(json in json_like(), path in path_like()) {
        if let Some(value) = get(&json, &path) {
            let _ = (value.text(), value.int(), value.float(), value.bool(), value.array(), value.get(&path), value.to_value());
        }
        let _ = (set_raw(&json, &path, "1"), remove(&json, &path));
    }

    #[test]
    fn no_bytes_make_it_panic(json in prop::collection::vec(any::<u8>(), 0..100), path in any::<String>()) {
        if let Some(value) = get(&json, &path) {
            let _ = (value.text(), value.array(), value.to_value());
        }
    }
}
