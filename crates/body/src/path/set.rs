//! Writing and removing at a path: sjson.
//!
//! Simple paths splice, see [`crate::JsonDocument::set_raw`]; all others (`#(…)`, `*`, `#.key`) change what is there
//! at the places found, and make nothing. Unlike sjson this refuses a text that is not JSON, keeps the white space
//! of an array that grows, and leaves one of a key that stands twice.

use super::walk;
use crate::PathError;
use crate::json::{is_valid, parse_setter_path, remove_in_text, set_in_text};

/// The text with `value`, which is JSON, written at `path`; what is missing on the way is made.
///
/// # Errors
/// The text or the value is not JSON, the path is empty, or it goes through an array with a key.
pub fn set_raw(json: &str, path: &str, value: &str) -> Result<String, PathError> {
    if let Some(steps) = parse_setter_path(path)? {
        return set_in_text(json, &steps, value);
    }
    // In a broken text a value found may end elsewhere than where it was read.
    if !is_valid(json) || !is_valid(value) {
        return Err(PathError::new("not JSON"));
    }
    let found = walk::find(json.as_bytes(), path, 0);
    let Some(target) = found.value else {
        return Ok(json.to_owned());
    };
    let mut places = Vec::new();
    if let Some(at) = found.at {
        places.push((at, target.raw().len()));
    } else if let Some(collected) = found.collected {
        let elements = target.array();
        for (place, element) in collected.into_iter().zip(&elements) {
            // An element that was made on the way lies nowhere in the text.
            places.extend(place.map(|at| (at, element.raw().len())));
        }
    }
    places.sort_unstable();
    let mut out = json.to_owned();
    for (at, length) in places.into_iter().rev() {
        out.replace_range(at..at + length, value);
    }
    Ok(out)
}

/// The text with a string written at `path`.
///
/// # Errors
/// As [`set_raw`].
pub fn set_str(json: &str, path: &str, value: &str) -> Result<String, PathError> {
    set_raw(json, path, &serde_json::Value::from(value).to_string())
}

/// The text without what `path`, a simple one, leads to.
///
/// # Errors
/// The text is not JSON, or the path is empty or not simple.
pub fn remove(json: &str, path: &str) -> Result<String, PathError> {
    let Some(steps) = parse_setter_path(path)? else {
        return Err(PathError::new("cannot delete value from a complex path"));
    };
    Ok(remove_in_text(json, &steps)?.unwrap_or_else(|| json.to_owned()))
}
