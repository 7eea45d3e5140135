//! Paths into JSON as users write them in plugin configs: gjson's language for reading, sjson's for writing.
//!
//! The text is read leniently where it lies, as gjson does: nothing is parsed that the path does not go through, and
//! broken JSON gives an answer as far as it can be read. `get` finds a place in this order:
//!
//! `multi` (`{a,b}`, `[a,b]`, `!literal`, `@modifier`) → `walk` (keys, indexes, `#`, `#(query)`, `..`) → `value`.
//!
//! A `Path` is read once and walked by `compiled`, as far as it needs no more of the language than keys and indexes.
//!
//! Measured against gjson 1.18.0 and sjson 1.2.5; what is meant to differ is said where it does.

mod compiled;
mod escape;
mod lex;
mod members;
mod modifier;
mod multi;
mod pattern;
mod pretty;
mod query;
mod set;
mod step;
#[cfg(test)]
mod tests;
mod value;
mod walk;

pub use compiled::Path;
pub use members::{Ahead, Elements, Member, Members, members};
pub use set::{remove, set_raw, set_str};
pub use value::{Entries, PathValue, ValueKind};

/// How deep a path may nest, and how deep a modifier follows a text.
const DEPTH_LIMIT: usize = 128;

/// What `path` leads to in `json`; `None` when it leads nowhere. A `null` that is there is found.
///
/// Beyond gjson, `-1` is the last element of an array, `-2` the one before it.
pub fn get<'json>(json: &'json (impl AsRef<[u8]> + ?Sized), path: &str) -> Option<PathValue<'json>> {
    walk::find(json.as_ref(), path, 0).value
}

/// The value that a text is.
pub(crate) fn get_whole(json: &str) -> Option<PathValue<'_>> {
    PathValue::parse(json.into())
}

/// Writes a name so that a path takes it as one key: `a.b` → `a\.b`.
#[must_use]
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        let plain = character.is_ascii_alphanumeric() || character <= ' ' || character > '~';
        if !plain && !matches!(character, '_' | '-' | ':') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
