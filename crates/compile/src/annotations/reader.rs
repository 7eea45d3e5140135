//! Reads one Ingress's annotations by Higress's rules and notes what could not be used.
//!
//! "both" means `nginx.ingress.kubernetes.io/<key>`, and where that is absent or unusable `higress.io/<key>`; "higress"
//! means the second only. Texts have each line trimmed, and an empty one counts as not set. Booleans are Go's.
//! A bad value never stops anything: it is noted, and the feature behaves as if the annotation were not there.

use std::collections::BTreeMap;
use std::time::Duration;

/// Prefix of annotations that come from the nginx controller.
pub(crate) const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Higress's own prefix.
pub(crate) const HIGRESS: &str = "higress.io/";
/// Prefix of our extensions.
pub(crate) const TOLLGATE: &str = "tollgate.dev/";

/// What is worth telling about one annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Full key.
    pub(crate) key: String,
    /// One lower-case sentence without a full stop.
    pub(crate) message: String,
}

/// The annotations of one object.
pub(crate) struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            notes: Vec::new(),
        }
    }

    /// Everything that was noted.
    pub(crate) fn into_notes(self) -> Vec<Note> {
        self.notes
    }

    /// Notes something about the annotation `key` (with its prefix).
    pub(crate) fn note(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note {
            key: key.into(),
            message: message.into(),
        });
    }

    /// Notes something about a "both" or "higress" key: names the prefix that is really there.
    pub(crate) fn note_key(&mut self, key: &str, message: impl Into<String>) {
        let nginx = format!("{NGINX}{key}");
        let full = match self.annotations.contains_key(&nginx) {
            true => nginx,
            false => format!("{HIGRESS}{key}"),
        };
        self.note(full, message);
    }

    /// Every annotation as written.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether a "both" key is there at all, usable or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.raw(NGINX, key).is_some() || self.raw(HIGRESS, key).is_some()
    }

    /// Whether a "higress" key is there at all, usable or not.
    pub(crate) fn has_higress(&self, key: &str) -> bool {
        self.raw(HIGRESS, key).is_some()
    }

    /// A text under either prefix.
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.text_under(NGINX, key)
            .or_else(|| self.text_under(HIGRESS, key))
    }

    /// A text under Higress's prefix.
    pub(crate) fn higress_text(&mut self, key: &str) -> Option<String> {
        self.text_under(HIGRESS, key)
    }

    /// A boolean under either prefix.
    pub(crate) fn flag(&mut self, key: &str) -> Option<bool> {
        self.flag_under(NGINX, key)
            .or_else(|| self.flag_under(HIGRESS, key))
    }

    /// A boolean under Higress's prefix.
    pub(crate) fn higress_flag(&mut self, key: &str) -> Option<bool> {
        self.flag_under(HIGRESS, key)
    }

    /// A whole number under either prefix.
    pub(crate) fn number(&mut self, key: &str) -> Option<i64> {
        self.number_under(NGINX, key)
            .or_else(|| self.number_under(HIGRESS, key))
    }

    /// A whole number under Higress's prefix.
    pub(crate) fn higress_number(&mut self, key: &str) -> Option<i64> {
        self.number_under(HIGRESS, key)
    }

    /// `on` or `off` under either prefix.
    pub(crate) fn switch(&mut self, key: &str) -> Option<bool> {
        match self.text(key)?.as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => {
                self.note_key(key, "expected `on` or `off`: ignored");
                None
            }
        }
    }

    /// A duration such as `500ms`, `30s` or `2m` under our own prefix; `0s` is "off", told apart from "not set".
    pub(crate) fn tollgate_duration(&mut self, key: &str) -> Option<Duration> {
        let text = self.raw(TOLLGATE, key)?.trim();
        let duration = parse_duration(text);
        if duration.is_none() {
            self.note(
                format!("{TOLLGATE}{key}"),
                "expected a duration such as `500ms`, `30s` or `2m`: ignored",
            );
        }
        duration
    }

    fn raw(&self, prefix: &str, key: &str) -> Option<&'a str> {
        self.annotations
            .get(&format!("{prefix}{key}"))
            .map(String::as_str)
    }

    fn text_under(&mut self, prefix: &str, key: &str) -> Option<String> {
        let lines: Vec<&str> = self.raw(prefix, key)?.split('\n').map(str::trim).collect();
        let text = lines.join("\n");
        (!text.is_empty()).then_some(text)
    }

    fn flag_under(&mut self, prefix: &str, key: &str) -> Option<bool> {
        match self.raw(prefix, key)? {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => {
                self.note(format!("{prefix}{key}"), "expected `true` or `false`: ignored");
                None
            }
        }
    }

    fn number_under(&mut self, prefix: &str, key: &str) -> Option<i64> {
        let number = self.raw(prefix, key)?.parse().ok();
        if number.is_none() {
            self.note(format!("{prefix}{key}"), "expected a whole number: ignored");
        }
        number
    }
}

/// `500ms`, `30s`, `2m`, `1h`, and a bare `0`. No fractions, no sums.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits_end = text.find(|character: char| !character.is_ascii_digit());
    let (digits, unit) = text.split_at(digits_end.unwrap_or(text.len()));
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(amount)),
        "s" => Some(Duration::from_secs(amount)),
        "m" => amount.checked_mul(60).map(Duration::from_secs),
        "h" => amount.checked_mul(3600).map(Duration::from_secs),
        "" if amount == 0 => Some(Duration::ZERO),
        _ => None,
    }
}

/// Splits at `separator`, trims, leaves out what is empty.
pub(crate) fn list(text: &str, separator: char) -> Vec<&str> {
    text.split(separator)
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn nginx_first_then_higress_when_absent_or_unusable() {
        let annotations = map(&[
            ("nginx.ingress.kubernetes.io/a", "1"),
            ("higress.io/a", "2"),
            ("nginx.ingress.kubernetes.io/b", "many"),
            ("higress.io/b", "3"),
            ("higress.io/c", " x \n  y "),
            ("nginx.ingress.kubernetes.io/d", " \n "),
            ("higress.io/d", "z"),
            ("nginx.ingress.kubernetes.io/e", "yes"),
        ]);
        let mut reader = Reader::new(&annotations);
        assert_eq!(reader.number("a"), Some(1));
        assert_eq!(reader.number("b"), Some(3));
        assert_eq!(reader.text("c").as_deref(), Some("x\ny"));
        assert_eq!(reader.higress_text("a").as_deref(), Some("2"));
        // "\n" alone remains of a blank text of two lines, as in Higress; one blank line is empty.
        assert_eq!(reader.text("d").as_deref(), Some("\n"));
        assert_eq!(reader.flag("e"), None);
        let keys: Vec<_> = reader.into_notes().into_iter().map(|note| note.key).collect();
        assert_eq!(
            keys,
            ["nginx.ingress.kubernetes.io/b", "nginx.ingress.kubernetes.io/e"]
        );
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("0"), Some(Duration::ZERO));
        for bad in ["", "30", "s", "1.5s", "-1s", "99999999999999999999s", "5 s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
