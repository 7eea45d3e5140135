//! Which addresses may come, and where a client's address is read (plugins spec §9).

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use serde_json::{Value, json};
use tollgate_base::ConfigError;
use tollgate_base::headers::X_FORWARDED_FOR;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

use crate::network::{Network, NetworkSet, address};
use crate::strict::Strict;
use crate::table::{Field, field};

const MESSAGE: &str = "Your IP address is blocked.";

/// One config.
pub(super) struct Restriction {
    source: Source,
    list: List,
    pub(super) status: StatusCode,
    /// What the refused get, as JSON.
    pub(super) body: Bytes,
}

enum Source {
    /// The connection's other end.
    Peer,
    /// The first entry of a header.
    Header(HeaderName),
}

enum List {
    Allow(NetworkSet),
    Deny(NetworkSet),
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// There is no address.
    Unknown,
    NotAllowed,
    Denied,
}

impl Restriction {
    pub(super) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let fields = Strict::of(config)?;
        let list = match (networks(fields, "allow")?, networks(fields, "deny")?) {
            (Some(allow), None) => List::Allow(allow),
            (None, Some(deny)) => List::Deny(deny),
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("deny", "cannot stand next to allow"));
            }
            (None, None) => {
                return Err(ConfigError::new(
                    "",
                    "one of allow and deny is required, with entries",
                ));
            }
        };
        let text = |name| Ok(fields.text(name)?.filter(|text| !text.is_empty()));
        let message = text("message")?.unwrap_or(MESSAGE);
        Ok(Self {
            source: source(text("ip_source_type")?, text("ip_header_name")?)?,
            list,
            status: match fields.integer("status")? {
                Some(2..) => fields.status("status", StatusCode::FORBIDDEN)?,
                _ => StatusCode::FORBIDDEN,
            },
            body: json!({ "message": message }).to_string().into(),
        })
    }

    pub(super) fn judge(&self, exchange: &Exchange, request: &Request) -> Verdict {
        let Some(ip) = self.source.address(exchange, request) else {
            return Verdict::Unknown;
        };
        match &self.list {
            List::Allow(allow) if !allow.contains(ip) => Verdict::NotAllowed,
            List::Deny(deny) if deny.contains(ip) => Verdict::Denied,
            List::Allow(_) | List::Deny(_) => Verdict::Pass,
        }
    }
}

impl Source {
    fn address(&self, exchange: &Exchange, request: &Request) -> Option<IpAddr> {
        match self {
            Self::Peer => Some(exchange.record.connection.peer.ip()),
            Self::Header(name) => {
                let value = request.headers().get(name)?.to_str().ok()?;
                address(value.split(',').next()?.trim())
            }
        }
    }
}

fn source(kind: Option<&str>, header: Option<&str>) -> Result<Source, ConfigError> {
    let named = match header {
        None => X_FORWARDED_FOR,
        Some(name) => name
            .parse()
            .map_err(|_| ConfigError::new("ip_header_name", "is no name of a header"))?,
    };
    match kind {
        None | Some("origin-source") => Ok(Source::Peer),
        Some("header") => Ok(Source::Header(named)),
        Some(_) => {
            let text = "must be origin-source or header";
            Err(ConfigError::new("ip_source_type", text))
        }
    }
}

/// The networks of a list; `None` where it is absent or empty.
fn networks(fields: Strict<'_>, name: &str) -> Result<Option<NetworkSet>, ConfigError> {
    let texts = fields.texts(name)?;
    let entry = |(index, text): (usize, &&str)| {
        let wrong = || {
            let what = format!("{text:?} is neither an address nor a network");
            ConfigError::new(format!("{name}[{index}]"), what)
        };
        Network::parse(text.trim()).ok_or_else(wrong)
    };
    let set: NetworkSet = texts.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
    Ok((!texts.is_empty()).then_some(set))
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "ip_source_type",
        "string",
        "origin-source (default): the connection's other end; header: the first entry of a header.",
    ),
    field(
        "ip_header_name",
        "string",
        "Next to header: which one; X-Forwarded-For unless set.",
    ),
    field(
        "allow",
        "list of string",
        "Addresses and networks that may come, nobody else; in this or in deny.",
    ),
    field(
        "deny",
        "list of string",
        "Addresses and networks that may not come.",
    ),
    field("status", "integer", "Status of the refusal; 403 unless set."),
    field(
        "message",
        "string",
        "Text in its JSON; Your IP address is blocked. unless set.",
    ),
];
