//! Expressions that must match a text from end to end, as Higress's C++ plugins want them; many of them in one automaton.

use regex::bytes::{Regex, RegexSet, RegexSetBuilder};
use tollgate_base::ConfigError;

/// The expressions of the list `field`; `None` where there are none. Classes are ASCII's and `.` is any byte, as in RE2
/// over bytes, unless an expression needs characters beyond.
pub(crate) fn whole_matches(
    expressions: &[&str],
    is_case_sensitive: bool,
    field: &str,
) -> Result<Option<RegexSet>, ConfigError> {
    if expressions.is_empty() {
        return Ok(None);
    }
    let mut whole = Vec::with_capacity(expressions.len());
    for (index, expression) in expressions.iter().enumerate() {
        // By itself, so that no parenthesis of it reaches outside.
        let ascii = format!("(?s-u){expression}");
        match Regex::new(&ascii) {
            Ok(_) => whole.push(format!("^(?s-u:{expression})$")),
            Err(_) => {
                Regex::new(expression)
                    .map_err(|cause| ConfigError::new(format!("{field}[{index}]"), cause.to_string()))?;
                whole.push(format!("^(?s:{expression})$"));
            }
        }
    }
    RegexSetBuilder::new(whole)
        .case_insensitive(!is_case_sensitive)
        .build()
        .map(Some)
        .map_err(|cause| ConfigError::new(field, cause.to_string()))
}
