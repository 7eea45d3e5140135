//! JSON that is read in place: a path into any bytes, and edits that leave a document a document.
//!
//! An input is a path, a line end, and the document.

use bytes::Bytes;
use serde_json::Value;
use tollgate_body::{JsonDocument, path};

fn split(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let path = std::str::from_utf8(&input[..end]).ok()?;
    Some((path, &input[end + 1..]))
}

/// gjson and sjson paths.
pub(crate) fn path(input: &[u8]) {
    let Some((wanted, json)) = split(input) else {
        return;
    };
    if let Some(found) = path::get(json, wanted) {
        let _ = (found.text(), found.int(), found.float(), found.array());
        let _ = found.to_value();
    }
    let Ok(text) = std::str::from_utf8(json) else {
        return;
    };
    for edited in [
        path::set_raw(text, wanted, r#"{"new":1}"#),
        path::set_str(text, wanted, "new\n\"value"),
        path::remove(text, wanted),
    ] {
        if let (Ok(edited), true) = (edited, is_json(text)) {
            assert!(is_json(&edited), "{wanted:?} makes {text:?} {edited:?}");
        }
    }
}

/// A body's document, read once and spliced.
pub(crate) fn document(input: &[u8]) {
    /// Steps of a path; what is nested deeper than 128 the judge of what is JSON does not read.
    const DEEPEST: usize = 64;
    let Some((wanted, json)) = split(input) else {
        return;
    };
    if wanted.split('.').count() > DEEPEST {
        return;
    }
    let Ok(mut document) = JsonDocument::parse(Bytes::copy_from_slice(json)) else {
        return;
    };
    assert_eq!(
        document.to_bytes(),
        json,
        "an untouched document is written as it came"
    );
    // A number beyond every float is none to the judge, and is to stay as it came.
    let was_json = std::str::from_utf8(json).is_ok_and(is_json);
    for key in document.keys() {
        let _ = document.raw(&key);
    }
    if document.set_str(wanted, "new\n\"value").is_ok() {
        let bytes = document.to_bytes();
        let is_text = std::str::from_utf8(&bytes).is_ok_and(is_json);
        assert!(is_text || !was_json, "{wanted:?} makes {json:?} {bytes:?}");
        // As with sjson and gjson: colons and empty keys mean something for writing only, and brackets for reading only.
        let is_key = |key: &str| {
            !key.is_empty()
                && key
                    .chars()
                    .all(|sign| sign.is_alphanumeric() || "-_ \0".contains(sign))
        };
        if wanted.split('.').all(is_key) {
            let read = document.get(wanted).map(|value| value.text().into_owned());
            assert_eq!(read.as_deref(), Some("new\n\"value"), "{wanted:?} in {bytes:?}");
        }
    }
    if document.remove(wanted).is_ok() {
        let bytes = document.to_bytes();
        let is_text = std::str::from_utf8(&bytes).is_ok_and(is_json);
        assert!(is_text || !was_json, "without {wanted:?} {json:?} is {bytes:?}");
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}
