//! Consumers, their keys and secrets (plugins spec §14).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tollgate_base::ConfigError;

use super::SIGNATURE;
use crate::auth_rules::{ALLOW_FIELD, Reader};
use crate::consumers::{CONSUMERS_FIELD, NAME_FIELD, Names, holders};
use crate::signing::Secret;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

pub(super) const READER: Reader<Keys> = Reader {
    own: &["consumers", "credentials"],
    parse: Keys::parse,
    knows: |keys, name| keys.names.contains(name),
};

/// All consumers of one config.
#[derive(Debug)]
pub(super) struct Keys {
    holders: HashMap<Box<str>, Holder>,
    names: Names,
    /// How far a request's date may be from now; `None`: it is not looked at.
    pub(super) offset: Option<Duration>,
    /// Header that no log shows.
    pub(super) hidden: Arc<str>,
}

/// Somebody with a key.
#[derive(Debug)]
pub(super) struct Holder {
    /// `None` for keys that belong to nobody in particular.
    pub(super) name: Option<Arc<str>>,
    pub(super) secret: Secret,
}

impl Keys {
    /// Whose key this is; it is no secret.
    pub(super) fn find(&self, key: &str) -> Option<&Holder> {
        self.holders.get(key)
    }

    fn parse(fields: Strict<'_>, context: &ParseContext) -> Result<Self, ConfigError> {
        let mut known = HashMap::new();
        let names = holders(fields, context, |name, entry| add(&mut known, name, entry))?;
        if known.is_empty() {
            return Err(ConfigError::new("consumers", "at least one is required"));
        }
        let offset = fields.integer("date_offset")?.map(u64::try_from);
        Ok(Self {
            holders: known,
            names,
            offset: match offset {
                Some(Ok(seconds @ 1..)) => Some(Duration::from_secs(seconds)),
                _ => None,
            },
            hidden: SIGNATURE.as_str().into(),
        })
    }
}

fn add(
    known: &mut HashMap<Box<str>, Holder>,
    name: Option<Arc<str>>,
    entry: &Value,
) -> Result<(), ConfigError> {
    let fields = Strict::of(entry)?;
    let (key, secret) = (fields.required("key")?, fields.required("secret")?);
    let holder = Holder {
        name,
        secret: Secret::new(secret),
    };
    match known.insert(key.into(), holder) {
        None => Ok(()),
        Some(_) => Err(ConfigError::new(
            "key",
            format!("the key {key:?} stands here twice"),
        )),
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    CONSUMERS_FIELD,
    NAME_FIELD,
    field(
        "consumers[].key",
        "string",
        "What its requests say in X-Ca-Key. Required.",
    ),
    field(
        "consumers[].secret",
        "string",
        "What its requests are signed with. Required.",
    ),
    field(
        "credentials",
        "list of object",
        "Keys and secrets that belong to nobody in particular; instead of consumers.",
    ),
    field(
        "credentials[].key",
        "string",
        "What requests say in X-Ca-Key. Required.",
    ),
    field(
        "credentials[].secret",
        "string",
        "What requests are signed with. Required.",
    ),
    field(
        "date_offset",
        "integer",
        "How many seconds a request's date may be from now; absent, 0 or -1: it is not looked at.",
    ),
    field(
        "global_auth",
        "boolean",
        "true: requests outside all rules need a signature too; false: they pass; absent: they pass as soon as there is a rule.",
    ),
    ALLOW_FIELD,
];
