//! A service of the configuration that a plugin asks: where it is, and one line in the log where it begins to fail and
//! one where it answers again.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use tollgate_base::ConfigError;
use tollgate_plugin::cluster_name;

use crate::strict::Strict;

const DEFAULT_PORT: u16 = 80;

/// Where a service is.
#[derive(Debug)]
pub(crate) struct Callee {
    /// Name of its cluster.
    pub(crate) cluster: String,
    /// The host that it is asked for.
    pub(crate) authority: Authority,
    /// Whether it failed when it was last asked.
    fails: AtomicBool,
}

impl Callee {
    /// Reads `service_name`, `service_port` (80 unless set) and `service_host` (the service's name unless set).
    pub(crate) fn parse(fields: Strict<'_>) -> Result<Self, ConfigError> {
        let service = fields.required("service_name")?;
        let port = match fields.integer("service_port")?.unwrap_or(0) {
            0 => DEFAULT_PORT,
            port => u16::try_from(port).map_err(|_| ConfigError::new("service_port", "is no port"))?,
        };
        let host = fields.text("service_host")?.filter(|host| !host.is_empty());
        let field = match host {
            Some(_) => "service_host",
            None => "service_name",
        };
        let authority = Authority::try_from(host.unwrap_or(service));
        Ok(Self {
            cluster: cluster_name(service, port),
            authority: authority.map_err(|_| ConfigError::new(field, "is no name of a host"))?,
            fails: AtomicBool::new(false),
        })
    }

    pub(crate) fn uri(&self, target: PathAndQuery) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }

    /// Tells how it went; `what` is what the service is for. Requests are not told one by one.
    pub(crate) fn note(&self, what: &str, failure: Option<&str>) {
        let failed = self.fails.swap(failure.is_some(), Ordering::Relaxed);
        let service = &*self.cluster;
        match failure {
            Some(reason) if !failed => tracing::warn!(service, reason, "{what} fails"),
            None if failed => tracing::info!(service, "{what} is back"),
            _ => {}
        }
    }
}
