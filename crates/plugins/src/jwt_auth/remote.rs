//! Keys that a service publishes (`remote_jwks`): fetched with the first token that needs them, again when they are old
//! or a token names a key that is not among them.
//!
//! While the service fails the last good keys stay in force. However many tokens name whatever keys, it is asked at most
//! once in [`PAUSE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use tollgate_base::ConfigError;
use tollgate_base::clock::{self, Instant};
use tollgate_body::{Body, Request};
use tollgate_plugin::{Exchange, Next};

use crate::callee::Callee;
use crate::jwt::Fault;
use crate::jwt::keys::KeySet;
use crate::strict::Strict;
use crate::table::ParseContext;

/// In milliseconds.
const DEFAULT_TIMEOUT: i64 = 1000;
/// In seconds.
const DEFAULT_CACHE: i64 = 300;
/// Between two questions to the service.
const PAUSE: Duration = Duration::from_secs(1);
/// Name and size of the limit on a key set.
const LIMIT_NAME: &str = "key set limit";
const LIMIT: usize = 1024 * 1024;

/// Where keys are published, and what is known of them. Shared by all workers.
#[derive(Debug)]
pub(super) struct Remote {
    callee: Callee,
    path: PathAndQuery,
    timeout: Duration,
    /// How long keys are fresh.
    cache: Duration,
    known: watch::Sender<Known>,
    /// Whether somebody is asking the service.
    is_asked: AtomicBool,
}

/// What the service said last.
#[derive(Clone, Default)]
struct Known {
    /// The last good keys, and when they came.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the service was last asked.
    asked: Option<Instant>,
}

/// Keys are shown to nobody.
impl std::fmt::Debug for Known {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Known({})", self.keys.is_some())
    }
}

impl Known {
    fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.as_ref().map(|(keys, _)| keys.clone())
    }

    fn is_asked_within(&self, pause: Duration) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() < pause)
    }
}

impl Remote {
    pub(super) fn parse(fields: Strict<'_>) -> Result<Self, ConfigError> {
        let number = |name: &str, default: i64| -> Result<u64, ConfigError> {
            let number = fields.integer(name)?.filter(|number| *number != 0);
            u64::try_from(number.unwrap_or(default))
                .map_err(|_| ConfigError::new(name, "must not be negative"))
        };
        let path = fields.required("path")?;
        let path = match PathAndQuery::try_from(path) {
            Ok(read) if path.starts_with('/') => read,
            _ => return Err(ConfigError::new("path", "is no path: it begins with /")),
        };
        Ok(Self {
            callee: Callee::parse(fields)?,
            path,
            timeout: Duration::from_millis(number("timeout", DEFAULT_TIMEOUT)?),
            cache: Duration::from_secs(number("cache_duration", DEFAULT_CACHE)?),
            known: watch::Sender::default(),
            is_asked: AtomicBool::new(false),
        })
    }

    /// Whether it is the same place, asked in the same way.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let place = |remote: &Self| (remote.path.clone(), remote.timeout, remote.cache);
        self.callee.cluster == other.callee.cluster
            && self.callee.authority == other.callee.authority
            && place(self) == place(other)
    }

    /// The keys for a token that names `key_id`, if it names one.
    pub(super) async fn keys(
        &self,
        key_id: Option<&str>,
        exchange: &Exchange,
        next: Next<'_>,
    ) -> Result<Arc<KeySet>, Fault> {
        let known = self.known.borrow().clone();
        let is_fresh = known
            .keys
            .as_ref()
            .is_some_and(|(_, came)| came.elapsed() < self.cache);
        let has_key = known
            .keys()
            .is_some_and(|keys| key_id.is_none_or(|id| keys.knows(id)));
        if (is_fresh && has_key) || known.is_asked_within(PAUSE) && !self.is_asked.load(Ordering::Acquire) {
            return known.keys().ok_or(Fault::NOT_FETCHED);
        }
        match Asking::begin(self) {
            Some(asking) => asking.ask(exchange, next).await,
            // Old keys do until somebody has fetched new ones.
            None if has_key => {}
            None => self.wait().await,
        }
        self.known.borrow().keys().ok_or(Fault::NOT_FETCHED)
    }

    /// Waits for what somebody else is fetching.
    async fn wait(&self) {
        let mut changes = self.known.subscribe();
        let over = changes.wait_for(|_| !self.is_asked.load(Ordering::Acquire));
        // In vain: what is known must do.
        drop(tokio::time::timeout(self.timeout, over).await);
    }

    async fn fetch(&self, exchange: &Exchange, next: Next<'_>) -> Result<KeySet, String> {
        let mut question = Request::new(Body::empty());
        *question.uri_mut() = self
            .callee
            .uri(self.path.clone())
            .map_err(|fault| fault.to_string())?;
        let host =
            HeaderValue::from_str(self.callee.authority.as_str()).map_err(|fault| fault.to_string())?;
        question.headers_mut().insert(HOST, host);
        let json = HeaderValue::from_static("application/json");
        question.headers_mut().insert(ACCEPT, json);
        let caller = next.caller(exchange);
        let answer = caller.call(&self.callee.cluster, question, self.timeout).await;
        let mut answer = answer.map_err(|failure| failure.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status().as_u16()));
        }
        let body = answer.body_mut().buffer(LIMIT_NAME, LIMIT).await;
        let body = body.map_err(|failure| failure.to_string())?;
        let context = ParseContext::default();
        let read = KeySet::parse(&String::from_utf8_lossy(&body), "its key set", &context);
        for warning in context.take_warnings() {
            tracing::debug!(service = &*self.callee.cluster, %warning, "a published key");
        }
        read.map_err(|fault| fault.to_string())
    }
}

/// The right to ask the service: one at a time. Who waits is told when it is over, also when its request ends before.
struct Asking<'r>(&'r Remote);

impl<'r> Asking<'r> {
    fn begin(remote: &'r Remote) -> Option<Self> {
        let was_asked = remote.is_asked.swap(true, Ordering::AcqRel);
        // Made only where it is given: its end gives the right back.
        (!was_asked).then(|| Self(remote))
    }

    async fn ask(self, exchange: &Exchange, next: Next<'_>) {
        let remote = self.0;
        let fetched = remote.fetch(exchange, next).await;
        let failure = fetched.as_ref().err();
        remote
            .callee
            .note("the service that publishes keys", failure.map(String::as_str));
        let now = clock::now();
        remote.known.send_modify(|known| {
            known.asked = Some(now);
            if let Ok(keys) = fetched {
                known.keys = Some((Arc::new(keys), now));
            }
        });
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.is_asked.store(false, Ordering::Release);
        self.0.known.send_modify(|_| {});
    }
}
