//! The entries of `consumers` or `credentials`, as the authentication plugins of Higress's C++ generation have them
//! (plugins spec §0.4): somebody with a name, or credentials that belong to nobody in particular.
//!
//! What a credential looks like is each plugin's own business.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tollgate_base::ConfigError;

use crate::credentials::consumer_name;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// `consumers`, where `credentials` may stand instead.
pub(crate) const CONSUMERS_FIELD: Field = field(
    "consumers",
    "list of object",
    "Who may come; instead of credentials.",
);
/// `consumers[].name`.
pub(crate) const NAME_FIELD: Field = field(
    "consumers[].name",
    "string",
    "Name of the consumer, in X-Mse-Consumer. Required.",
);

/// What a diagnostic says of a credential that is there already; never which.
pub(crate) const TWICE: &str = "the same credential stands here twice";

/// Names of consumers.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Adds the name of the consumer with this number; warns where another has it too.
    pub(crate) fn add(&mut self, name: &Arc<str>, number: usize, context: &ParseContext) {
        if !self.0.insert(name.clone()) {
            let text = format!("another consumer is called {name:?} too: its keys are the same consumer's");
            context.warn(ConfigError::new("name", text).within(&format!("consumers[{number}]")));
        }
    }
}

/// Calls `add` with each entry: of `consumers` with the name, of `credentials` without one. A fault that `add` tells is
/// placed under its entry.
pub(crate) fn holders<'a>(
    fields: Strict<'a>,
    context: &ParseContext,
    mut add: impl FnMut(Option<Arc<str>>, &'a Value) -> Result<(), ConfigError>,
) -> Result<Names, ConfigError> {
    let (consumers, anonymous) = (fields.list("consumers")?, fields.list("credentials")?);
    let mut names = Names::default();
    match (fields.has("consumers"), fields.has("credentials")) {
        (true, true) => return Err(ConfigError::new("credentials", "cannot stand next to consumers")),
        (false, false) => {
            let text = "consumers or credentials are required";
            return Err(ConfigError::new("consumers", text));
        }
        _ => {}
    }
    for (number, entry) in consumers.iter().enumerate() {
        let named = Strict::of(entry).and_then(|fields| consumer_name(fields.required("name")?));
        let added = named.and_then(|name| {
            names.add(&name, number, context);
            add(Some(name), entry)
        });
        added.map_err(|fault| fault.within(&format!("consumers[{number}]")))?;
    }
    for (number, entry) in anonymous.iter().enumerate() {
        add(None, entry).map_err(|fault| fault.within(&format!("credentials[{number}]")))?;
    }
    Ok(names)
}

/// An entry that is a text.
pub(crate) fn text(entry: &Value) -> Result<&str, ConfigError> {
    entry
        .as_str()
        .ok_or_else(|| ConfigError::new("", "must be a text: quote it"))
}
