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
    let Some((wanted, json)) = split(input) else {
        return;
    };
    let Ok(mut document) = JsonDocument::parse(Bytes::copy_from_slice(json)) else {
        return;
    };
    assert_eq!(
        document.to_bytes(),
        json,
        "an untouched document is written as it came"
    );
    for key in document.keys() {
        let _ = document.raw(&key);
    }
    if document.set_str(wanted, "new\n\"value").is_ok() {
        let bytes = document.to_bytes();
        let is_text = std::str::from_utf8(&bytes).is_ok_and(is_json);
        assert!(is_text, "{wanted:?} makes {json:?} {bytes:?}");
        // A colon in front of a key is for writing only: it keeps a number from being a place in an array.
        if !wanted.contains(':') {
            let read = document.get(wanted).map(|value| value.text().into_owned());
            assert_eq!(read.as_deref(), Some("new\n\"value"), "{wanted:?} in {bytes:?}");
        }
    }
    if document.remove(wanted).is_ok() {
        let bytes = document.to_bytes();
        let is_text = std::str::from_utf8(&bytes).is_ok_and(is_json);
        assert!(is_text, "without {wanted:?} {json:?} is {bytes:?}");
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}
