//! Consumers and their keys (plugins spec §1.1), compiled so that a request costs one look-up for each place.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

use super::place::Place;
use crate::auth_rules::{ALLOW_FIELD, Reader};
use crate::consumers::{CONSUMERS_FIELD, NAME_FIELD, Names, TWICE, holders, text};
use crate::credentials::CredentialIndex;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// Header in which another filter keeps the `Authorization` that it replaced.
const ORIGINAL_AUTH: &str = "x-hi-original-auth";
const DEFAULT_REALM: &str = "MSE Gateway";

pub(super) const READER: Reader<Keys> = Reader {
    own: &["consumers", "credentials"],
    parse: Keys::parse,
    knows: |keys, name| keys.names.contains(name),
};

/// All consumers of one config.
pub(super) struct Keys {
    index: CredentialIndex<u32>,
    /// In the order of the document, which decides when a request carries keys of several.
    holders: Vec<Holder>,
    names: Names,
    /// All places, each once.
    places: Vec<Place>,
    /// Which places count together; most configs have one such set.
    sets: Vec<Vec<usize>>,
    pub(super) realm: Box<str>,
}

/// Keys are secrets: only their number is shown.
impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keys({})", self.holders.len())
    }
}

/// Somebody with keys.
pub(super) struct Holder {
    /// `None` for keys that belong to nobody in particular.
    pub(super) name: Option<Arc<str>>,
    set: usize,
}

impl Keys {
    /// Who the request comes from. Every key of a consumer that it carries is noted, so that no vendor gets it.
    pub(super) fn find(&self, exchange: &mut Exchange, request: &Request) -> Option<&Holder> {
        let mut first: Option<u32> = None;
        for (number, place) in self.places.iter().enumerate() {
            let Some((value, found)) = place.value(request) else {
                continue;
            };
            // Also what is no key may nearly be one.
            exchange.record.hide(&place.name);
            let Some(&order) = self.index.get(&value) else {
                continue;
            };
            exchange.found_credential(found);
            let holder = self.holders.get(order as usize);
            let set = holder.and_then(|holder| self.sets.get(holder.set));
            if set.is_some_and(|set| set.contains(&number)) {
                first = Some(first.map_or(order, |earlier| earlier.min(order)));
            }
        }
        self.holders.get(first? as usize)
    }

    fn parse(fields: Strict<'_>, context: &ParseContext) -> Result<Self, ConfigError> {
        let mut keys = Self {
            index: CredentialIndex::with_capacity(fields.list("consumers")?.len()),
            holders: Vec::new(),
            names: Names::default(),
            places: Vec::new(),
            sets: Vec::new(),
            realm: DEFAULT_REALM.into(),
        };
        let mut common = None;
        if fields.has("credentials") && !fields.has("consumers") {
            keys.realm = fields.text("realm")?.unwrap_or(DEFAULT_REALM).into();
            let set = keys.set_of(fields, Some(Original::Last))?;
            keys.holders.push(Holder { name: None, set });
        } else if fields.has("keys") {
            common = Some(keys.set_of(fields, None)?);
        }
        keys.names = holders(fields, context, |name, entry| match name {
            Some(name) => keys.add_consumer(name, Strict::of(entry)?, common),
            None => keys.add_credential("", text(entry)?, 0),
        })?;
        Ok(keys)
    }

    fn add_consumer(
        &mut self,
        name: Arc<str>,
        fields: Strict<'_>,
        common: Option<usize>,
    ) -> Result<(), ConfigError> {
        let set = match (fields.has("keys"), common) {
            (true, _) => self.set_of(fields, Some(Original::First))?,
            (false, Some(common)) => common,
            (false, None) => {
                return Err(ConfigError::new(
                    "keys",
                    "neither the consumer nor the config has keys",
                ));
            }
        };
        let order = u32::try_from(self.holders.len())
            .map_err(|_| ConfigError::new("", "there are too many consumers"))?;
        self.holders.push(Holder {
            name: Some(name),
            set,
        });
        match (fields.has("credential"), fields.has("credentials")) {
            (true, true) => Err(ConfigError::new("credentials", "cannot stand next to credential")),
            (true, false) => self.add_credential("credential", fields.required("credential")?, order),
            (false, _) => {
                let credentials = fields.texts("credentials")?;
                if credentials.is_empty() {
                    return Err(ConfigError::new("credential", "is required"));
                }
                credentials
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, credential)| {
                        self.add_credential(&format!("credentials[{index}]"), credential, order)
                    })
            }
        }
    }

    fn add_credential(&mut self, field: &str, credential: &str, order: u32) -> Result<(), ConfigError> {
        if credential.is_empty() {
            return Err(ConfigError::new(field, "must not be empty"));
        }
        match self.index.insert(credential.as_bytes(), order) {
            true => Ok(()),
            false => Err(ConfigError::new(field, TWICE)),
        }
    }

    /// The set of places that these fields name.
    fn set_of(&mut self, fields: Strict<'_>, original: Option<Original>) -> Result<usize, ConfigError> {
        let in_header = fields.flag("in_header")?.unwrap_or(true);
        let in_query = fields.flag("in_query")?.unwrap_or(true);
        if !in_header && !in_query {
            return Err(ConfigError::new(
                "in_header",
                "in_header and in_query cannot both be false",
            ));
        }
        let names = fields.texts("keys")?;
        if names.is_empty() {
            return Err(ConfigError::new("keys", "is required"));
        }
        let mut set = Vec::with_capacity(names.len() + 1);
        for (index, name) in names.iter().enumerate() {
            let header = HeaderName::try_from(*name).ok().filter(|_| in_header);
            if name.is_empty() || (header.is_none() && !in_query) {
                return Err(ConfigError::new(
                    format!("keys[{index}]"),
                    "is no name of a header",
                ));
            }
            set.push(self.place(Place {
                name: (*name).into(),
                header,
                in_query,
            }));
        }
        if let Some(original) = original {
            let place = self.place(Place {
                name: ORIGINAL_AUTH.into(),
                header: Some(HeaderName::from_static(ORIGINAL_AUTH)).filter(|_| in_header),
                in_query: false,
            });
            match original {
                Original::First => set.insert(0, place),
                Original::Last => set.push(place),
            }
        }
        Ok(position(&mut self.sets, set))
    }

    fn place(&mut self, place: Place) -> usize {
        position(&mut self.places, place)
    }
}

/// Where the header of another filter stands among the places.
#[derive(Clone, Copy)]
enum Original {
    First,
    Last,
}

/// The place of `wanted` in the list, to which it is added where it is missing. The last ones come first: neighbours
/// in a document are alike.
fn position<T: PartialEq>(list: &mut Vec<T>, wanted: T) -> usize {
    if let Some(found) = list.iter().rposition(|known| *known == wanted) {
        return found;
    }
    list.push(wanted);
    list.len() - 1
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    CONSUMERS_FIELD,
    NAME_FIELD,
    field(
        "consumers[].credential",
        "string",
        "Its key, compared exactly; in this or in credentials.",
    ),
    field("consumers[].credentials", "list of string", "Its keys."),
    field(
        "consumers[].keys",
        "list of string",
        "Where this consumer's key stands; absent: where the config's keys say.",
    ),
    field(
        "consumers[].in_header",
        "boolean",
        "Whether headers count, next to the consumer's own keys; true unless set.",
    ),
    field(
        "consumers[].in_query",
        "boolean",
        "Whether parameters count, next to the consumer's own keys; true unless set.",
    ),
    field(
        "credentials",
        "list of string",
        "Keys that belong to nobody in particular; instead of consumers.",
    ),
    field(
        "keys",
        "list of string",
        "Names of the headers and parameters in which a key may stand. Required unless every consumer has its own.",
    ),
    field("in_header", "boolean", "Whether headers count; true unless set."),
    field(
        "in_query",
        "boolean",
        "Whether parameters count; true unless set.",
    ),
    field(
        "realm",
        "string",
        "Realm of the challenge next to credentials; MSE Gateway unless set.",
    ),
    field(
        "global_auth",
        "boolean",
        "true: requests outside all rules need a key too; false: they pass; absent: they pass as soon as there is a rule.",
    ),
    ALLOW_FIELD,
];
