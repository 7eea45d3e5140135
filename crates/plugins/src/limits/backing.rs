//! Which store counts, and what becomes of a request when it cannot be asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tollgate_base::{ConfigError, Secret};
use tollgate_body::Response;
use tollgate_llm::lenient::Fields;
use tollgate_plugin::Exchange;
use tollgate_store::{Address, Failure, Settings, Store};

use crate::local_reply;
use crate::table::{Field, ParseContext, field};

/// A store and the rule for its absence.
#[derive(Clone)]
pub(crate) struct Backing {
    pub(crate) store: Arc<dyn Store>,
    /// Requests are let in while the store cannot be asked.
    allows: bool,
}

impl fmt::Debug for Backing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Backing({:?})", self.store)
    }
}

impl Backing {
    /// The config's own Redis, else the process's default store. `allows`: what the plugin does by itself.
    pub(crate) fn parse(config: &Value, allows: bool, context: &ParseContext) -> Result<Self, ConfigError> {
        let allows = match config.get("on_store_failure").map(Value::as_str) {
            None => allows,
            Some(Some("allow")) => true,
            Some(Some("deny")) => false,
            Some(_) => return Err(ConfigError::new("on_store_failure", "must be allow or deny")),
        };
        let store = match config.get("redis").filter(|redis| !redis.is_null()) {
            None => context.stores().default_store(),
            Some(redis) => {
                let settings = settings(redis).map_err(|fault| fault.within("redis"))?;
                context.stores().redis(settings)
            }
        };
        Ok(Self { store, allows })
    }

    /// The answer to a request whose limit cannot be told; `None`: it is let in.
    pub(crate) fn refuse(
        &self,
        exchange: &Exchange,
        details: &'static str,
        failure: &Failure,
    ) -> Option<Response> {
        // The store itself is logged where it changes; a line a request would be a flood.
        tracing::debug!(%failure, allows = self.allows, "a limit cannot be told");
        (!self.allows).then(|| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            local_reply::answer(exchange, status, details, "The limit cannot be checked now")
        })
    }
}

fn settings(redis: &Value) -> Result<Settings, ConfigError> {
    if !redis.is_object() {
        return Err(ConfigError::new("", "must be an object"));
    }
    let fields = Fields::of(redis);
    let service = fields.text("service_name");
    if service.is_empty() {
        return Err(ConfigError::new(
            "service_name",
            "redis service name must not be empty",
        ));
    }
    let port = match fields.count("service_port") {
        0 if service.ends_with(".static") => 80,
        0 => 6379,
        port => u16::try_from(port).map_err(|_| ConfigError::new("service_port", "is no port"))?,
    };
    let timeout = match fields.count("timeout") {
        0 => 1000,
        milliseconds => milliseconds,
    };
    let database = i64::try_from(fields.count("database"))
        .map_err(|_| ConfigError::new("database", "is no number of a database"))?;
    Ok(Settings {
        address: Address::Service(service, port),
        username: fields.text("username"),
        password: Secret::new(fields.text("password")),
        database,
        timeout: Duration::from_millis(timeout),
    })
}

/// The fields that this reads, for the plugins' tables.
pub(crate) const FIELDS: [Field; 8] = [
    field(
        "redis",
        "object",
        "The Redis that counts. Without it --redis, else this process's memory.",
    ),
    field(
        "redis.service_name",
        "string",
        "Its service, such as redis.static or redis.default.svc.cluster.local.",
    ),
    field(
        "redis.service_port",
        "integer",
        "Its port. Default 6379, for a .static service 80.",
    ),
    field("redis.username", "string", "User of an ACL."),
    field("redis.password", "string", "Password."),
    field(
        "redis.timeout",
        "integer",
        "Longest wait for one command, in milliseconds. Default 1000.",
    ),
    field("redis.database", "integer", "Number of the database. Default 0."),
    field(
        "on_store_failure",
        "string",
        "allow or deny: requests whose limit cannot be told.",
    ),
];
