//! The end of the chain: redirect, or send upstream with the route's timers and retries.
//!
//! Nothing is retried once a byte of an answer could have gone out: only attempts without a response head are, and
//! statuses that the route lists.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tollgate_base::headers::{X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS, X_ENVOY_UPSTREAM_SERVICE_TIME};
use tollgate_base::{Error, Flag, Timer, error};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_observe::trace::{Kind, OpenSpan};
use tollgate_plugin::{Caller, Exchange, Host, Link, Money};
use tollgate_snapshot::policy::{Redirect, Retry};
use tollgate_snapshot::route::{Action, Destination};
use tollgate_snapshot::{Cluster, Policy, Settings};
use tollgate_upstream::{Chosen, SendTimers};

use crate::account;
use crate::callout::Callouts;
use crate::error_page::Question;
use crate::hold;
use crate::mirror;
use crate::models;
use crate::normalise::remove_hop_by_hop;
use crate::rewrite;
use crate::route::Router;
use crate::spans;
use crate::sticky;

/// Largest body, in bytes, that is read before it is sent, so that it can be sent again; Envoy keeps as much.
const RETRY_BUFFER: usize = 32 * 1024;

#[async_trait(?Send)]
impl Host for Router<'_> {
    async fn forward(&self, exchange: &mut Exchange, mut request: Request) -> Result<Response, Error> {
        let Some(route) = self.route() else {
            return Err(no_route());
        };
        match &route.action {
            Action::Redirect(redirect) => return redirected(redirect, &request, self.tls),
            Action::RedirectPlain(redirect, _) if !self.tls => {
                return redirected(redirect, &request, self.tls);
            }
            Action::RedirectPlain(..) | Action::Forward(_) => {}
        }
        let Some(destination) = self.destination() else {
            return Err(no_destination());
        };
        let timers = timers(
            &route.policy,
            &mut request,
            &exchange.record,
            &self.snapshot.settings,
        );
        let page = route.policy.error_page.as_deref();
        let question = page.map(|page| Question::new(page, &exchange.record, &request));
        rewrite::apply(&route.policy, &mut request)?;
        rewrite::edit(request.headers_mut(), &destination.headers.request);
        exchange.record.trace.announce(request.headers_mut());
        let cluster = destination.cluster.as_ref().ok();
        let cookie = cluster.and_then(|cluster| sticky::note(cluster, &mut request, &exchange.record));
        if let Some(mirror) = route.policy.mirror.as_deref() {
            mirror::copy(mirror, &mut request, &self.worker.mirrors, &self.worker.upstreams);
        }
        account::capture(&self.snapshot.settings.access_log, &exchange.record, &request);

        if let Some(address) = exchange.upstream_address {
            request.extensions_mut().insert(Chosen(address));
        }
        let mut response = self
            .attempt(destination, &route.policy, &mut request, &timers, exchange)
            .await?;
        if let Some(question) = question {
            let (upstreams, record) = (&self.worker.upstreams, &exchange.record);
            let asking = question.instead_of(response, upstreams, &timers, record);
            response = Box::pin(asking).await;
        }
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        remove_hop_by_hop(response.headers_mut(), upgraded);
        rewrite::edit(response.headers_mut(), &route.policy.headers.response);
        rewrite::edit(response.headers_mut(), &destination.headers.response);
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        if self.snapshot.settings.envoy_headers {
            add_service_time(&exchange.record, &mut response);
        }
        Ok(response)
    }

    fn reroute(&self, exchange: &mut Exchange, request: &Request) -> &[Link] {
        self.choose(exchange, request)
    }

    fn caller(&self, exchange: &Exchange) -> Rc<dyn Caller> {
        Rc::new(Callouts {
            upstreams: self.worker.upstreams.clone(),
            snapshot: self.snapshot.clone(),
            trace: exchange.record.trace.share(),
        })
    }

    fn models(&self, exchange: &Exchange, consumer: Option<&str>) -> Vec<String> {
        models::of_host(self.snapshot, &exchange.host, consumer)
    }

    fn money(&self) -> Money {
        Money {
            spend: self.worker.observer.books().spend.clone(),
            prices: self.snapshot.settings.prices.clone(),
        }
    }
}

impl Router<'_> {
    /// Sends, and sends again while the policy and the request allow it.
    async fn attempt(
        &self,
        destination: &Destination,
        policy: &Policy,
        request: &mut Request,
        timers: &SendTimers,
        exchange: &mut Exchange,
    ) -> Result<Response, Error> {
        let mut clusters = destination.cluster.iter().chain(&destination.fallbacks);
        let Some(mut cluster) = clusters.next() else {
            return Err(no_cluster());
        };
        let record = &exchange.record;
        let note_cluster = |used: &Cluster| record.cluster.replace(Some(used.name.clone()));
        if destination.cluster.is_err() {
            note_cluster(cluster);
        }
        let mut left = policy.retry.attempts;
        let may_repeat = policy.retry.attempts > 0 || !destination.fallbacks.is_empty();
        if may_repeat && is_small(request) {
            request.body_mut().buffer("retry buffer", RETRY_BUFFER).await?;
        }
        loop {
            let is_whole = may_repeat && is_at_hand(request);
            let span = spans::open(&record.trace, Kind::Attempt, &cluster.name, request);
            let method = request.method().clone();
            let upstreams = &self.worker.upstreams;
            let mut outcome = upstreams.send_kept(cluster, request, timers, record).await;
            if timers.first_event.is_some()
                && let Ok(response) = outcome
            {
                outcome = Box::pin(hold::until_begun(response)).await;
            }
            outcome = spans::close(note_peer(span, record), outcome);
            if !is_whole {
                return outcome;
            }
            if outcome
                .as_ref()
                .is_err_and(|failure| failure.flag() == Some(Flag::NoHealthyUpstream))
                && let Some(fallback) = clusters.next()
            {
                cluster = fallback;
                note_cluster(cluster);
                continue;
            }
            if !should_retry(&policy.retry, &method, &outcome) {
                return outcome;
            }
            if left == 0 {
                if policy.retry.attempts > 0 {
                    record.flag(Flag::RetriesExhausted);
                }
                return outcome;
            }
            left -= 1;
        }
    }
}

/// The span knows by now where its request went.
fn note_peer(mut span: Option<OpenSpan>, record: &Record) -> Option<OpenSpan> {
    if let (Some(span), Some(peer)) = (&mut span, record.upstream_peer.get())
        && span.is_recorded()
    {
        span.set("upstream_address", peer.to_string());
        span.set("network.peer.address", peer.ip().to_string());
        span.set("network.peer.port", peer.port());
    }
    span
}

/// Whether the body announces that it fits what is kept for another attempt.
fn is_small(request: &Request) -> bool {
    let length = request.body().size_hint().exact();
    !is_at_hand(request) && length.is_some_and(|length| length <= RETRY_BUFFER as u64)
}

/// Whether the whole body is here already, so that the request is the same after an attempt.
fn is_at_hand(request: &Request) -> bool {
    let body = request.body();
    body.is_end_stream() || body.as_bytes().is_some() || body.as_json().is_some()
}

fn should_retry(retry: &Retry, method: &Method, outcome: &Result<Response, Error>) -> bool {
    let may_repeat = retry.non_idempotent || method.is_idempotent();
    match outcome {
        Ok(response) => {
            let status = response.status();
            may_repeat && (retry.statuses.contains(&status) || (retry.on_5xx && status.is_server_error()))
        }
        Err(failure) => match failure.retry() {
            error::Retry::Unsent => true,
            error::Retry::Idempotent => may_repeat,
            // An attempt that has used up its own time, not the request's.
            error::Retry::No => {
                let is_per_try = retry.per_try.is_some() && failure.timer() == Some(Timer::ResponseHead);
                may_repeat && retry.on_5xx && is_per_try
            }
        },
    }
}

/// The route's timers for one request; `ai-proxy` may ask for a shorter wait for the first byte.
fn timers(policy: &Policy, request: &mut Request, record: &Record, settings: &Settings) -> SendTimers {
    let configured = &policy.timers;
    let asked = request
        .headers_mut()
        .remove(X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS);
    let asked_first_byte = asked
        .and_then(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()))
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis);
    let response_head = [configured.response_head, policy.retry.per_try, asked_first_byte]
        .into_iter()
        .flatten()
        .min()
        // Nobody waits for ever: what has no limit of its own has the one of idle streams.
        .or(Some(settings.downstream_idle).filter(|limit| !limit.is_zero()));
    SendTimers {
        connect: Some(configured.connect.unwrap_or(settings.connect_timeout)),
        response_head,
        first_event: asked_first_byte.or(configured.first_event),
        silence: configured.silence,
        // A limit beyond what the clock can count is none.
        total_deadline: configured
            .total
            .and_then(|limit| record.started.checked_add(limit)),
    }
}

fn add_service_time(record: &Record, response: &mut Response) {
    let (Some(sent), Some(head)) = (
        record.timings.upstream_started.get(),
        record.timings.response_head.get(),
    ) else {
        return;
    };
    let milliseconds = u64::try_from(head.saturating_duration_since(sent).as_millis()).unwrap_or(u64::MAX);
    response
        .headers_mut()
        .insert(X_ENVOY_UPSTREAM_SERVICE_TIME, HeaderValue::from(milliseconds));
}

fn redirected(redirect: &Redirect, request: &Request, tls: bool) -> Result<Response, Error> {
    let uri = request.uri();
    let own_authority = uri.authority().map_or("", |authority| authority.as_str());
    let scheme = redirect
        .scheme
        .as_deref()
        .unwrap_or(if tls { "https" } else { "http" });
    let authority = match (&redirect.authority, &redirect.scheme) {
        (Some(authority), _) => authority,
        // The port belongs to the scheme that is left behind.
        (None, Some(_)) => uri.host().unwrap_or_default(),
        (None, None) => own_authority,
    };
    let path = redirect.path.as_deref().unwrap_or(uri.path());
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("{scheme}://{authority}{path}{query}")).map_err(|_| {
        Error::client(
            StatusCode::BAD_REQUEST,
            "invalid_redirect",
            "the redirect gives no valid location",
        )
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn no_route() -> Error {
    Error::client(StatusCode::NOT_FOUND, "route_not_found", "").with_flag(Flag::NoRoute)
}

fn no_destination() -> Error {
    Error::upstream(
        StatusCode::SERVICE_UNAVAILABLE,
        "no_healthy_upstream",
        "no healthy upstream",
    )
    .with_flag(Flag::NoHealthyUpstream)
}

fn no_cluster() -> Error {
    Error::gateway(StatusCode::SERVICE_UNAVAILABLE, "cluster_not_found", "").with_flag(Flag::NoCluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: Error) -> Result<Response, Error> {
        Err(error)
    }

    fn answered(status: u16) -> Result<Response, Error> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }

    #[test]
    fn what_is_tried_again() {
        let reset = || Error::upstream(StatusCode::SERVICE_UNAVAILABLE, "reset", "");
        let (post, get) = (Method::POST, Method::GET);
        let default = Retry::default();
        let told = Retry {
            per_try: Some(Duration::from_secs(1)),
            on_5xx: true,
            ..Retry::default()
        };
        let any = Retry {
            non_idempotent: true,
            ..told.clone()
        };
        let late = || Error::timeout(Timer::ResponseHead);
        for (retry, method, outcome, expected) in [
            (
                &default,
                &post,
                failed(reset().with_retry(error::Retry::Unsent)),
                true,
            ),
            (
                &default,
                &post,
                failed(reset().with_retry(error::Retry::Idempotent)),
                false,
            ),
            (
                &default,
                &get,
                failed(reset().with_retry(error::Retry::Idempotent)),
                true,
            ),
            (&default, &get, failed(reset()), false),
            (&default, &get, failed(late()), false),
            (&default, &get, answered(503), true),
            (&default, &post, answered(503), false),
            (&default, &get, answered(500), false),
            (&told, &get, answered(500), true),
            (&told, &get, failed(late()), true),
            (&told, &post, failed(late()), false),
            (&told, &get, failed(Error::timeout(Timer::Total)), false),
            (&any, &post, failed(late()), true),
            (&any, &post, answered(200), false),
        ] {
            assert_eq!(
                should_retry(retry, method, &outcome),
                expected,
                "{method} {outcome:?} under {retry:?}"
            );
        }
    }
}
