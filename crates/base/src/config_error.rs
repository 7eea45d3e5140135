//! What is wrong with a piece of configuration, and where in it.
//!
//! Parsers below `compile` (vendors, plugins) return this; `compile` adds object, file and line.

/// One fault of a config. `Display` prints `field: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Path of the field inside the config (`provider.failover.healthCheckModel`); empty for the config as a whole.
    pub field: String,
    /// What is wrong, without the field's name where Higress's own text names it already.
    pub message: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.field, self.message)
        }
    }
}

impl ConfigError {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// The same fault seen from one level further out: `outer.field`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        if outer.is_empty() {
            return self;
        }
        self.field = match self.field.as_str() {
            "" => outer.to_owned(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_grows_outwards() {
        let fault = ConfigError::new("id", "missing")
            .within("[2]")
            .within("providers");
        assert_eq!(fault.to_string(), "providers[2].id: missing");
        assert_eq!(
            ConfigError::new("", "bad").within("provider").to_string(),
            "provider: bad"
        );
    }
}
