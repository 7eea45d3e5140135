//! Consumers, and what their signatures must cover (plugins spec §15).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::HeaderName;
use serde_json::Value;
use tollgate_base::ConfigError;

use crate::auth_rules::Reader;
use crate::consumers::Names;
use crate::credentials::consumer_name;
use crate::signing::Secret;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

pub(super) const READER: Reader<Config> = Reader {
    own: &["consumers"],
    parse: Config::parse,
    knows: |config, name| config.names.contains(name),
};

const CLOCK_SKEW_SECONDS: i64 = 300;

/// A way to sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Algorithm {
    pub(super) name: &'static str,
    pub(super) algorithm: hmac::Algorithm,
}

static ALGORITHMS: [Algorithm; 3] = [
    Algorithm {
        name: "hmac-sha1",
        algorithm: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    },
    Algorithm {
        name: "hmac-sha256",
        algorithm: hmac::HMAC_SHA256,
    },
    Algorithm {
        name: "hmac-sha512",
        algorithm: hmac::HMAC_SHA512,
    },
];

/// One config.
#[derive(Debug)]
pub(super) struct Config {
    holders: HashMap<Box<str>, Holder>,
    names: Names,
    pub(super) algorithms: Vec<Algorithm>,
    /// How far `Date` may be from now; `None`: it is not looked at.
    pub(super) clock_skew: Option<Duration>,
    /// Headers that must be signed, as they were written.
    pub(super) signed_headers: Vec<Box<str>>,
    pub(super) validate_body: bool,
    pub(super) hide_credentials: bool,
    /// Who comes in without credentials.
    pub(super) anonymous: Option<Arc<str>>,
}

/// A consumer.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) name: Arc<str>,
    pub(super) secret: Secret,
}

impl Config {
    /// Whose access key this is; it is no secret.
    pub(super) fn find(&self, key: &str) -> Option<&Holder> {
        self.holders.get(key)
    }

    fn parse(fields: Strict<'_>, context: &ParseContext) -> Result<Self, ConfigError> {
        let mut config = Self {
            holders: HashMap::new(),
            names: Names::default(),
            algorithms: algorithms(fields)?,
            clock_skew: match fields.integer("clock_skew")?.unwrap_or(CLOCK_SKEW_SECONDS) {
                seconds @ 1.. => Some(Duration::from_secs(seconds.unsigned_abs())),
                _ => None,
            },
            signed_headers: signed_headers(fields)?,
            validate_body: fields.flag("validate_request_body")?.unwrap_or(false),
            hide_credentials: fields.flag("hide_credentials")?.unwrap_or(false),
            anonymous: match fields.text("anonymous_consumer")? {
                None | Some("") => None,
                Some(name) => Some(consumer_name(name).map_err(|fault| ConfigError {
                    field: "anonymous_consumer".into(),
                    ..fault
                })?),
            },
        };
        for (number, entry) in fields.list("consumers")?.iter().enumerate() {
            config
                .add(number, entry, context)
                .map_err(|fault| fault.within(&format!("consumers[{number}]")))?;
        }
        match config.holders.is_empty() {
            true => Err(ConfigError::new("consumers", "at least one is required")),
            false => Ok(config),
        }
    }

    fn add(&mut self, number: usize, entry: &Value, context: &ParseContext) -> Result<(), ConfigError> {
        let fields = Strict::of(entry)?;
        let key = fields.required("access_key")?;
        let name = match fields.text("name")? {
            None | Some("") => consumer_name(key)?,
            Some(name) => consumer_name(name)?,
        };
        self.names.add(&name, number, context);
        let holder = Holder {
            name,
            secret: Secret::new(fields.required("secret_key")?),
        };
        match self.holders.insert(key.into(), holder) {
            None => Ok(()),
            Some(_) => {
                let text = format!("the key {key:?} stands here twice");
                Err(ConfigError::new("access_key", text))
            }
        }
    }
}

fn algorithms(fields: Strict<'_>) -> Result<Vec<Algorithm>, ConfigError> {
    let names = fields.texts("allowed_algorithms")?;
    if names.is_empty() {
        return Ok(ALGORITHMS.to_vec());
    }
    let known = |(index, name): (usize, &&str)| {
        let found = ALGORITHMS.iter().find(|known| known.name == *name).copied();
        found.ok_or_else(|| {
            let field = format!("allowed_algorithms[{index}]");
            ConfigError::new(field, "must be hmac-sha1, hmac-sha256 or hmac-sha512")
        })
    };
    names.iter().enumerate().map(known).collect()
}

fn signed_headers(fields: Strict<'_>) -> Result<Vec<Box<str>>, ConfigError> {
    let name = |(index, name): (usize, &&str)| {
        let bare = name.trim_start_matches(':');
        match *name == "@request-target" || HeaderName::try_from(bare).is_ok() {
            true => Ok((*name).into()),
            false => Err(ConfigError::new(
                format!("signed_headers[{index}]"),
                "is no name of a header",
            )),
        }
    };
    fields
        .texts("signed_headers")?
        .iter()
        .enumerate()
        .map(name)
        .collect()
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field("consumers", "list of object", "Who may come. Required."),
    field(
        "consumers[].access_key",
        "string",
        "What its requests say in keyId. Required.",
    ),
    field(
        "consumers[].secret_key",
        "string",
        "What its requests are signed with. Required.",
    ),
    field(
        "consumers[].name",
        "string",
        "Name of the consumer, in X-Mse-Consumer; the access key unless set.",
    ),
    field(
        "allowed_algorithms",
        "list of string",
        "hmac-sha1, hmac-sha256, hmac-sha512; all of them unless set.",
    ),
    field(
        "clock_skew",
        "integer",
        "How many seconds Date may be from now; 300 unless set, 0: it is not looked at.",
    ),
    field(
        "signed_headers",
        "list of string",
        "Headers that every signature must cover; @request-target is method, path and query.",
    ),
    field(
        "validate_request_body",
        "boolean",
        "Whether Digest must be the body's; false unless set.",
    ),
    field(
        "hide_credentials",
        "boolean",
        "Whether Authorization stays here; false unless set.",
    ),
    field(
        "anonymous_consumer",
        "string",
        "Who comes in without credentials that are known; nobody unless set.",
    ),
    field(
        "global_auth",
        "boolean",
        "true: requests outside all rules need a signature too; false: they pass; absent: they pass as soon as there is a rule.",
    ),
    field(
        "allow",
        "list of string",
        "In a rule: the consumers of the global config that may come; empty or absent: all of them.",
    ),
];
