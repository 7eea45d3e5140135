//! Consumers, their names and passwords (plugins spec §6).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tollgate_base::ConfigError;

use super::password::PasswordHash;
use super::users::{LENIENT, Users};
use crate::auth_rules::Reader;
use crate::consumers::{CONSUMERS_FIELD, NAME_FIELD, Names, TWICE, holders, text};
use crate::credentials::CredentialIndex;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

pub(super) const READER: Reader<Credentials> = Reader {
    own: &["consumers", "credentials"],
    parse: Credentials::parse,
    knows: |credentials, name| credentials.names.contains(name),
};

const DEFAULT_REALM: &str = "MSE Gateway";

/// All credentials of one config.
pub(super) struct Credentials {
    kind: Kind,
    names: Names,
    pub(super) realm: Box<str>,
}

/// Whose credentials they are; `None`: nobody's in particular.
pub(super) type Name = Option<Arc<str>>;

enum Kind {
    /// By the base64 of `user:password`, as clients send it.
    Plain(CredentialIndex<Name>),
    Hashed(Users),
}

impl Credentials {
    /// Whose credentials these are, as they stand behind `Basic `.
    pub(super) async fn find(&self, presented: &[u8]) -> Option<&Name> {
        match &self.kind {
            Kind::Plain(index) => index.get(presented),
            Kind::Hashed(users) => users.find(presented).await,
        }
    }

    fn parse(fields: Strict<'_>, context: &ParseContext) -> Result<Self, ConfigError> {
        let count = fields.list("consumers")?.len() + fields.list("credentials")?.len();
        let mut kind = match fields.flag("encrypted")?.unwrap_or(false) {
            true => Kind::Hashed(Users::default()),
            false => Kind::Plain(CredentialIndex::with_capacity(count)),
        };
        let realm = fields.text("realm")?.unwrap_or(DEFAULT_REALM);
        if !realm.is_ascii() || HeaderValue::from_str(realm).is_err() {
            return Err(ConfigError::new("realm", "cannot be sent in a header"));
        }
        let names = holders(fields, context, |name, entry| match name {
            Some(_) => {
                let credential = Strict::of(entry)?.required("credential")?;
                kind.add(name, credential)
                    .map_err(|fault| fault.within("credential"))
            }
            None => kind.add(None, text(entry)?),
        })?;
        match count {
            0 => Err(ConfigError::new("consumers", "at least one is required")),
            _ => Ok(Self {
                kind,
                names,
                realm: realm.into(),
            }),
        }
    }
}

impl Kind {
    fn add(&mut self, name: Name, credential: &str) -> Result<(), ConfigError> {
        let wrong = |text: &str| Err(ConfigError::new("", text));
        match (self, credential.split_once(':')) {
            (Self::Plain(index), Some(_)) => match index.insert(STANDARD.encode(credential).as_bytes(), name)
            {
                true => Ok(()),
                false => wrong(TWICE),
            },
            (Self::Plain(index), None) => match LENIENT.decode(credential) {
                Ok(decoded) if !decoded.is_empty() => match index.insert(credential.as_bytes(), name) {
                    true => Ok(()),
                    false => wrong(TWICE),
                },
                _ => wrong("must be user:password, or the base64 of that"),
            },
            (Self::Hashed(users), Some((user, hash))) if !hash.contains(':') => {
                let hash = PasswordHash::parse(hash).map_err(|text| ConfigError::new("", text))?;
                match users.add(user, name, hash) {
                    true => Ok(()),
                    false => wrong("the same user stands here twice"),
                }
            }
            (Self::Hashed(_), _) => wrong("must be user:hash, with one colon"),
        }
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    CONSUMERS_FIELD,
    NAME_FIELD,
    field(
        "consumers[].credential",
        "string",
        "user:password, or the base64 of that; user:hash next to encrypted. Required.",
    ),
    field(
        "credentials",
        "list of string",
        "The same for credentials that belong to nobody in particular; instead of consumers.",
    ),
    field(
        "encrypted",
        "boolean",
        "Whether the config has hashes of the passwords; false unless set.",
    ),
    field(
        "realm",
        "string",
        "Realm of the challenge; MSE Gateway unless set.",
    ),
    field(
        "global_auth",
        "boolean",
        "true: requests outside all rules need credentials too; false: they pass; absent: they pass as soon as there is a rule.",
    ),
    field(
        "allow",
        "list of string",
        "In a rule: the consumers of the global config that may come; empty: all of them.",
    ),
];
