//! Consumers, their keys and what is asked of their tokens (plugins spec §5).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_plugin::{Exchange, Next};

use super::candidates::Candidates;
use super::place::Place;
use super::remote::Remote;
use crate::auth_rules::{ALLOW_FIELD, Reader};
use crate::credentials::consumer_name;
use crate::framing::is_framing;
use crate::jwt::keys::KeySet;
use crate::jwt::{Fault, Token};
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// Difference of clocks that is forgiven unless a consumer says otherwise, in seconds.
const DEFAULT_SKEW: u64 = 60;
/// Parameter that is looked at where a consumer names no place.
const DEFAULT_PARAMETER: &str = "access_token";

pub(super) const READER: Reader<Consumers> = Reader {
    own: &["consumers"],
    parse: Consumers::parse,
    knows: |consumers, name| consumers.names.contains(name),
};

/// All consumers of one config, in the order of the document.
pub(super) struct Consumers {
    pub(super) all: Vec<Consumer>,
    pub(super) candidates: Candidates,
    names: HashSet<Arc<str>>,
    /// All places, each once.
    pub(super) places: Vec<Place>,
    /// Services that publish keys, each once.
    remotes: Vec<Arc<Remote>>,
    /// Only requests with one of these headers are asked; empty: all.
    enabling: Vec<HeaderName>,
}

/// Keys may be secrets: only their number is shown.
impl fmt::Debug for Consumers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Consumers({})", self.all.len())
    }
}

/// Somebody with keys.
pub(super) struct Consumer {
    pub(super) name: Arc<str>,
    keys: Keys,
    /// Claims that must be there, as texts.
    claims: Vec<(String, String)>,
    /// Where tokens may stand, by their numbers.
    places: Vec<usize>,
    headers: Vec<ClaimHeader>,
    /// In seconds.
    skew: u64,
    pub(super) keep_token: bool,
}

/// Where the keys are.
enum Keys {
    Written(KeySet),
    Published(Arc<Remote>),
}

/// A claim that services behind are told.
struct ClaimHeader {
    claim: String,
    header: HeaderName,
    replaces: bool,
}

impl Consumers {
    /// Whether this request needs a token.
    pub(super) fn asks(&self, request: &Request) -> bool {
        let headers = request.headers();
        self.enabling.is_empty() || self.enabling.iter().any(|name| headers.contains_key(name))
    }

    /// Takes this consumer's tokens out of the request.
    pub(super) fn take_tokens(&self, consumer: &Consumer, request: &mut Request) {
        for place in consumer
            .places
            .iter()
            .filter_map(|number| self.places.get(*number))
        {
            if place.token(request).is_some() {
                place.credential().take_out(request);
            }
        }
    }

    fn parse(fields: Strict<'_>, context: &ParseContext) -> Result<Self, ConfigError> {
        let written = fields.list("consumers")?;
        let mut consumers = Self {
            all: Vec::with_capacity(written.len()),
            candidates: Candidates::default(),
            names: HashSet::with_capacity(written.len()),
            places: Vec::new(),
            remotes: Vec::new(),
            enabling: header_names(fields, "enable_headers")?,
        };
        if written.is_empty() {
            return Err(ConfigError::new("consumers", "at least one is required"));
        }
        for (index, consumer) in written.iter().enumerate() {
            let warned = ParseContext::default();
            let added = consumers.add(consumer, &warned);
            let within = format!("consumers[{index}]");
            for warning in warned.take_warnings() {
                context.warn(warning.within(&within));
            }
            added.map_err(|fault| fault.within(&within))?;
        }
        Ok(consumers)
    }

    fn add(&mut self, written: &Value, context: &ParseContext) -> Result<(), ConfigError> {
        let fields = Strict::of(written)?;
        let name = consumer_name(fields.required("name")?)?;
        if !self.names.insert(name.clone()) {
            let text = format!("another consumer is called {name:?} too");
            return Err(ConfigError::new("name", text));
        }
        let keys = self.keys_of(fields, context)?;
        let mut claims = claims_of(fields)?;
        if let Some(issuer) = fields.text("issuer")? {
            claims.push(("iss".to_owned(), issuer.trim().to_owned()));
        }
        let skew = match fields.integer("clock_skew_seconds")? {
            None => DEFAULT_SKEW,
            Some(seconds) => u64::try_from(seconds)
                .map_err(|_| ConfigError::new("clock_skew_seconds", "must not be negative"))?,
        };
        let places = self.places_of(fields)?;
        let issuer = claims.iter().find(|(name, _)| name == "iss");
        self.candidates
            .add(self.all.len(), issuer.map(|(_, value)| value.as_str()));
        self.all.push(Consumer {
            name,
            keys,
            claims,
            places,
            headers: headers_of(fields)?,
            skew,
            keep_token: fields.flag("keep_token")?.unwrap_or(true),
        });
        Ok(())
    }

    fn keys_of(&mut self, fields: Strict<'_>, context: &ParseContext) -> Result<Keys, ConfigError> {
        let Some(remote) = fields.get("remote_jwks") else {
            let written = fields.required("jwks")?;
            return KeySet::parse(written, "jwks", context).map(Keys::Written);
        };
        if fields.has("jwks") {
            return Err(ConfigError::new("remote_jwks", "cannot stand next to jwks"));
        }
        let remote = Strict::of(remote).and_then(Remote::parse);
        let remote = remote.map_err(|fault| fault.within("remote_jwks"))?;
        let known = self.remotes.iter().find(|known| known.is_like(&remote)).cloned();
        Ok(Keys::Published(known.unwrap_or_else(|| {
            let remote = Arc::new(remote);
            self.remotes.push(remote.clone());
            remote
        })))
    }

    fn places_of(&mut self, fields: Strict<'_>) -> Result<Vec<usize>, ConfigError> {
        let mut places = Vec::new();
        for (index, written) in fields.list("from_headers")?.iter().enumerate() {
            let within = |fault: ConfigError| fault.within(&format!("from_headers[{index}]"));
            let fields = Strict::of(written).map_err(within)?;
            let name = fields.required("name").map_err(within)?;
            places.push(Place::Header {
                name: header_name("name", name).map_err(within)?,
                prefix: fields
                    .text("value_prefix")
                    .map_err(within)?
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        places.extend(names_of(fields, "from_params")?.map(Place::Parameter));
        places.extend(names_of(fields, "from_cookies")?.map(Place::Cookie));
        if places.is_empty() {
            places = vec![
                Place::Header {
                    name: AUTHORIZATION,
                    prefix: "Bearer ".to_owned(),
                },
                Place::Parameter(DEFAULT_PARAMETER.into()),
            ];
        }
        Ok(places
            .into_iter()
            .map(|place| position(&mut self.places, place))
            .collect())
    }
}

impl Consumer {
    /// Whether every token that stands in the consumer's places is the consumer's, and there is one; then the values
    /// of the headers, for each token.
    pub(super) async fn verify(
        &self,
        tokens: &[Option<Result<Token<'_>, Fault>>],
        now: u64,
        exchange: &Exchange,
        next: Next<'_>,
    ) -> Result<Vec<Vec<Option<HeaderValue>>>, Fault> {
        let mut values = Vec::new();
        for token in self
            .places
            .iter()
            .filter_map(|number| tokens.get(*number)?.as_ref())
        {
            let token = token.as_ref().map_err(|fault| *fault)?;
            let holds = |(name, value): &(String, String)| {
                token.claim(name).and_then(Value::as_str) == Some(value.as_str())
            };
            if !self.claims.iter().all(holds) {
                return Err(Fault::FAILS);
            }
            token.is_current(now, self.skew)?;
            match &self.keys {
                Keys::Written(keys) => keys.verify(token)?,
                Keys::Published(remote) => {
                    let keys = remote.keys(token.key_id.as_deref(), exchange, next).await?;
                    keys.verify(token)?;
                }
            }
            values.push(self.headers.iter().map(|header| header.value(token)).collect());
        }
        match values.is_empty() {
            true => Err(Fault::MISSING),
            false => Ok(values),
        }
    }

    /// Writes the claims' headers. What a client wrote into one that is replaced does not get through, also when the
    /// token says nothing.
    pub(super) fn tell(&self, request: &mut Request, values: &[Vec<Option<HeaderValue>>]) {
        let headers = request.headers_mut();
        for header in self.headers.iter().filter(|header| header.replaces) {
            headers.remove(&header.header);
        }
        for (header, value) in values.iter().flat_map(|token| self.headers.iter().zip(token)) {
            let Some(value) = value.clone() else { continue };
            match header.replaces {
                true => drop(headers.insert(header.header.clone(), value)),
                false => drop(headers.append(header.header.clone(), value)),
            }
        }
    }
}

impl ClaimHeader {
    /// The claim as a header says it: texts and whole numbers that are not negative.
    fn value(&self, token: &Token<'_>) -> Option<HeaderValue> {
        match token.claim(&self.claim)? {
            Value::String(text) => HeaderValue::from_bytes(text.as_bytes()).ok(),
            other => Some(other.as_u64()?.into()),
        }
    }
}

fn claims_of(fields: Strict<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let Some(written) = fields.get("claims") else {
        return Ok(Vec::new());
    };
    let wrong = |field: &str, message: &str| ConfigError::new(field, message);
    let members = written
        .as_object()
        .ok_or_else(|| wrong("claims", "must be an object"))?;
    let claim = |(name, value): (&String, &Value)| {
        let text = value.as_str();
        let text = text.ok_or_else(|| wrong(&format!("claims.{name}"), "must be a text: quote it"))?;
        Ok((name.clone(), text.trim().to_owned()))
    };
    members.iter().map(claim).collect()
}

fn headers_of(fields: Strict<'_>) -> Result<Vec<ClaimHeader>, ConfigError> {
    let mut headers: Vec<ClaimHeader> = Vec::new();
    for (index, written) in fields.list("claims_to_headers")?.iter().enumerate() {
        let header = claim_header(written).and_then(|header| {
            match headers.iter().any(|known| known.claim == header.claim) {
                true => Err(ConfigError::new("claim", "the same claim stands here twice")),
                false => Ok(header),
            }
        });
        headers.push(header.map_err(|fault| fault.within(&format!("claims_to_headers[{index}]")))?);
    }
    Ok(headers)
}

fn claim_header(written: &Value) -> Result<ClaimHeader, ConfigError> {
    let fields = Strict::of(written)?;
    let header = header_name("header", fields.required("header")?)?;
    if is_framing(&header) {
        return Err(ConfigError::new("header", "cannot be written by a claim"));
    }
    Ok(ClaimHeader {
        claim: fields.required("claim")?.to_owned(),
        header,
        replaces: fields.flag("override")?.unwrap_or(true),
    })
}

fn header_name(field: &str, name: &str) -> Result<HeaderName, ConfigError> {
    HeaderName::try_from(name).map_err(|_| ConfigError::new(field, "is no name of a header"))
}

fn header_names(fields: Strict<'_>, field: &str) -> Result<Vec<HeaderName>, ConfigError> {
    let names = fields.texts(field)?;
    let name = |(index, name): (usize, &&str)| header_name(&format!("{field}[{index}]"), name);
    names.iter().enumerate().map(name).collect()
}

fn names_of<'a>(
    fields: Strict<'a>,
    field: &str,
) -> Result<impl Iterator<Item = Arc<str>> + use<'a>, ConfigError> {
    let names = fields.texts(field)?;
    if let Some(index) = names.iter().position(|name| name.is_empty()) {
        return Err(ConfigError::new(format!("{field}[{index}]"), "must not be empty"));
    }
    Ok(names.into_iter().map(Arc::from))
}

/// The place of `wanted` in the list, to which it is added where it is missing.
fn position(places: &mut Vec<Place>, wanted: Place) -> usize {
    if let Some(found) = places.iter().position(|known| *known == wanted) {
        return found;
    }
    places.push(wanted);
    places.len() - 1
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field("consumers", "list of object", "Who may come. At least one."),
    field(
        "consumers[].name",
        "string",
        "Name of the consumer, in X-Mse-Consumer. Required; each once.",
    ),
    field(
        "consumers[].jwks",
        "string",
        "The keys that its tokens are verified with: a JSON Web Key Set as text. In this or in remote_jwks.",
    ),
    field(
        "consumers[].remote_jwks",
        "object",
        "The service that publishes its keys, in place of jwks.",
    ),
    field(
        "consumers[].remote_jwks.service_name",
        "string",
        "The service, such as idp.dns. Required.",
    ),
    field(
        "consumers[].remote_jwks.service_port",
        "integer",
        "Its port. Default 80.",
    ),
    field(
        "consumers[].remote_jwks.service_host",
        "string",
        "The Host that it is asked for. Default: the service's name.",
    ),
    field(
        "consumers[].remote_jwks.path",
        "string",
        "The path of the key set. Required.",
    ),
    field(
        "consumers[].remote_jwks.timeout",
        "integer",
        "Longest wait for it, in milliseconds. Default 1000.",
    ),
    field(
        "consumers[].remote_jwks.cache_duration",
        "integer",
        "How long keys are fresh, in seconds. Default 300.",
    ),
    field(
        "consumers[].issuer",
        "string",
        "What the claim iss must say; absent: anything.",
    ),
    field(
        "consumers[].claims",
        "map of string",
        "Claims that must be in the token as these texts.",
    ),
    field(
        "consumers[].from_headers",
        "list of object",
        "Headers in which a token may stand. Where no place is named: Authorization behind Bearer, and the parameter access_token.",
    ),
    field(
        "consumers[].from_headers[].name",
        "string",
        "Name of the header. Required.",
    ),
    field(
        "consumers[].from_headers[].value_prefix",
        "string",
        "What stands in front of the token. Default: nothing.",
    ),
    field(
        "consumers[].from_params",
        "list of string",
        "Parameters in which a token may stand.",
    ),
    field(
        "consumers[].from_cookies",
        "list of string",
        "Cookies in which a token may stand.",
    ),
    field(
        "consumers[].claims_to_headers",
        "list of object",
        "Claims that are told in headers: texts and whole numbers.",
    ),
    field(
        "consumers[].claims_to_headers[].claim",
        "string",
        "Name of the claim; dots lead into objects. Required.",
    ),
    field(
        "consumers[].claims_to_headers[].header",
        "string",
        "Name of the header. Required.",
    ),
    field(
        "consumers[].claims_to_headers[].override",
        "boolean",
        "Whether the client's own value goes; false: the claim's is added. Default true.",
    ),
    field(
        "consumers[].clock_skew_seconds",
        "integer",
        "Difference of clocks that is forgiven at exp, nbf and iat. Default 60.",
    ),
    field(
        "consumers[].keep_token",
        "boolean",
        "Whether the token goes on to services behind. Default true.",
    ),
    field(
        "enable_headers",
        "list of string",
        "Only requests with one of these headers are asked for a token. Default: all are.",
    ),
    field(
        "global_auth",
        "boolean",
        "true: requests outside all rules need a token too; false: they pass; absent: they pass as soon as there is a rule.",
    ),
    ALLOW_FIELD,
];
