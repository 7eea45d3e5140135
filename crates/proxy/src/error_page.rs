//! `custom-http-errors`: in place of an upstream's error, what the default backend says (routing spec §8.10).
//!
//! Comes after the last attempt and before the answer goes back through the chain. The backend is asked once, for `/`
//! of the client's own host; when it does not answer, the upstream's error stands.

use http::header::{ACCEPT, ACCEPT_LANGUAGE, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, Method};
use tollgate_base::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_snapshot::policy::ErrorPage;
use tollgate_upstream::{SendTimers, Upstreams};

use crate::normalise::join_uri;

const ROUTE_NAME: HeaderName = HeaderName::from_static("x-envoy-route-name");
const FALLBACK_SERVICE: HeaderName = HeaderName::from_static("x-envoy-fallback-service");

/// What the backend is told of the client. Nothing else: by now the request carries a vendor's credentials, under
/// whatever name the vendor wants them.
const TOLD: [HeaderName; 6] = [
    ACCEPT,
    ACCEPT_LANGUAGE,
    USER_AGENT,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_REQUEST_ID,
];

/// The question that goes with a request, should its upstream answer with one of the statuses.
pub(crate) struct Question<'a> {
    page: &'a ErrorPage,
    request: Request,
}

impl<'a> Question<'a> {
    /// `request` is on its way upstream.
    pub(crate) fn new(page: &'a ErrorPage, record: &Record, request: &Request) -> Self {
        let mut question = Request::new(Body::empty());
        *question.method_mut() = Method::GET;
        let authority = Authority::try_from(&*record.original.authority);
        if let Ok(authority) = authority {
            let tls = request.uri().scheme_str() == Some("https");
            *question.uri_mut() = join_uri(tls, authority, PathAndQuery::from_static("/"));
        }
        let headers = question.headers_mut();
        for name in TOLD {
            if let Some(value) = request.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(ROUTE_NAME, page.route.clone());
        headers.insert(FALLBACK_SERVICE, page.service.clone());
        Self {
            page,
            request: question,
        }
    }

    /// What the client gets: `answer`, or what the backend says in its place.
    pub(crate) async fn instead_of(
        mut self,
        answer: Response,
        upstreams: &Upstreams,
        timers: &SendTimers,
        record: &Record,
    ) -> Response {
        if !self.page.statuses.contains(&answer.status()) {
            return answer;
        }
        let cluster = &self.page.cluster;
        let served_by = record.cluster.replace(Some(cluster.name.clone()));
        match upstreams
            .send_kept(cluster, &mut self.request, timers, record)
            .await
        {
            Ok(page) => page,
            Err(failure) => {
                tracing::debug!(cluster = %cluster.name, error = %failure, "no error page");
                record.cluster.replace(served_by);
                answer
            }
        }
    }
}
