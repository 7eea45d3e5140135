//! Configuration read to the letter, as Higress's C++ plugins read it: a field of another type is an error.
//!
//! For plugins that decide who gets in: there a value that was meant otherwise must not be bent into something.

use http::StatusCode;
use serde_json::{Map, Value};
use tollgate_base::ConfigError;

/// The members of one object; `null` counts as absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strict<'a>(&'a Map<String, Value>);

impl<'a> Strict<'a> {
    /// The members of `value`.
    pub(crate) fn of(value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(ConfigError::new("", "must be an object")),
        }
    }

    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn flag(self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(name, "a text: quote it", Value::as_str)
    }

    /// A text that must be there and not be empty.
    pub(crate) fn required(self, name: &str) -> Result<&'a str, ConfigError> {
        match self.text(name)? {
            None | Some("") => Err(ConfigError::new(name, "is required")),
            Some(text) => Ok(text),
        }
    }

    /// A whole number; one in quotes is accepted.
    pub(crate) fn integer(self, name: &str) -> Result<Option<i64>, ConfigError> {
        self.typed(name, "a whole number", |value| match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        })
    }

    /// The status of an answer; `default` where it is absent.
    pub(crate) fn status(self, name: &str, default: StatusCode) -> Result<StatusCode, ConfigError> {
        let Some(written) = self.integer(name)? else {
            return Ok(default);
        };
        let code = u16::try_from(written)
            .ok()
            .filter(|code| (200..600).contains(code));
        code.and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| ConfigError::new(name, "must be a status from 200 to 599"))
    }

    /// The entries of a list; empty where it is absent.
    pub(crate) fn list(self, name: &str) -> Result<&'a [Value], ConfigError> {
        let list = self.typed(name, "a list", Value::as_array)?;
        Ok(list.map_or(&[], Vec::as_slice))
    }

    /// The texts of a list; empty where it is absent.
    pub(crate) fn texts(self, name: &str) -> Result<Vec<&'a str>, ConfigError> {
        let entry = |(index, value): (usize, &'a Value)| {
            let wrong = || ConfigError::new(format!("{name}[{index}]"), "must be a text: quote it");
            value.as_str().ok_or_else(wrong)
        };
        self.list(name)?.iter().enumerate().map(entry).collect()
    }

    fn typed<T>(
        self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let read = read(value).ok_or_else(|| ConfigError::new(name, format!("must be {wanted}")))?;
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_bent() {
        let config = json!({"a": 7, "b": "true", "c": ["x", 1], "d": null, "e": "12", "f": {}});
        let fields = Strict::of(&config).unwrap();
        assert_eq!(
            fields.text("a").unwrap_err().to_string(),
            "a: must be a text: quote it"
        );
        assert_eq!(fields.flag("b").unwrap_err().message, "must be true or false");
        assert_eq!(fields.texts("c").unwrap_err().field, "c[1]");
        assert_eq!(fields.list("f").unwrap_err().message, "must be a list");
        assert_eq!(fields.text("d").unwrap(), None);
        assert_eq!(fields.integer("e").unwrap(), Some(12));
        assert_eq!(fields.required("d").unwrap_err().message, "is required");
        assert!(Strict::of(&json!([])).is_err());
    }
}
