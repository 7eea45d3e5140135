//! The path of a request, to be read aloud.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tollgate_base::{Error, Termination, clock};
use tollgate_body::{Request, Response};
use tollgate_observe::Record;
use tollgate_plugin::{Exchange, Link, Next, Running};
use tollgate_snapshot::Snapshot;

use crate::account::{self, Account, Delivery};
use crate::connection::Client;
use crate::ending::shutting_down;
use crate::http1::Takeover;
use crate::metered::Arriving;
use crate::normalise::{Normalised, normalise};
use crate::route::Router;
use crate::worker::Worker;
use crate::{cors, gate, grpc, panic, reply, tls, truncation, upgrade};

/// Serves one request: exactly one answer, exactly one settlement. `takeover` is the client's side of a protocol
/// upgrade that it asked for.
///
/// Not an async function, nor are the next steps: each would carry the request about once more.
pub(crate) fn handle(
    worker: Rc<Worker>,
    client: &Rc<Client>,
    incoming: http::Request<Arriving>,
    takeover: Option<Takeover>,
) -> impl Future<Output = http::Response<Delivery>> + use<> {
    let started = clock::now();
    let snapshot = worker.live.load();
    let mut normal = normalise(client, &snapshot.settings, started, incoming, takeover.is_some());
    if client.connection.tls && normal.refusal.is_none() {
        normal.refusal = tls::misdirected(&snapshot.certificates, client.vouched.as_ref(), &normal.host);
    }
    if let Some(tracing) = &snapshot.settings.tracing {
        let tracer = worker.tracer.of(tracing);
        normal
            .record
            .trace
            .begin(&tracer, &normal.record, normal.request.headers_mut());
    }
    let account = Account::open(&worker, client, &snapshot, normal.record.clone());
    account::capture(&snapshot.settings.access_log, &normal.record, &normal.request);
    serve(worker, snapshot, normal, account, takeover)
}

/// From the open account to the answer that settles it.
async fn serve(
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    normal: Normalised,
    account: Account,
    takeover: Option<Takeover>,
) -> http::Response<Delivery> {
    let mut exchange = Exchange::new(normal.record, normal.host, snapshot.settings.buffer_limit);
    let router = Router::new(&worker, &snapshot, account.is_tls(), takeover);
    let is_grpc = grpc::is_call(normal.request.headers());
    let mut cors = cors::Pending::default();
    let admitted = match normal.refusal {
        Some(refusal) => ControlFlow::Break(Err(refusal)),
        None => admit(&router, &mut exchange, &normal.request, &mut cors),
    };
    let outcome = match admitted {
        ControlFlow::Continue(links) => {
            let chain = Next::start(links, &router).run(&mut exchange, normal.request);
            run(&router, account.record(), chain).await
        }
        ControlFlow::Break(outcome) => outcome,
    };

    if outcome.is_ok() {
        exchange.failure_headers.clear();
    }
    let mut response = reply::finish(&exchange.record, is_grpc, outcome);
    response.headers_mut().extend(exchange.failure_headers);
    cors.finish(&mut response);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return upgrade::splice(&router, account, response);
    }
    truncation::guard(&worker.ending, &exchange.record, &mut response);
    account.attach(response)
}

/// Route and local policies: the plugins to run, or the answer without them.
fn admit<'a>(
    router: &Router<'a>,
    exchange: &mut Exchange,
    request: &Request,
    cors: &mut cors::Pending<'a>,
) -> ControlFlow<Result<Response, Error>, &'a [Link]> {
    let links = router.choose(exchange, request);
    match cors::begin(router, request) {
        cors::Begin::Answer(preflight) => return ControlFlow::Break(Ok(preflight)),
        cors::Begin::Continue(pending) => *cors = pending,
    }
    match gate::check(router, exchange) {
        Some(refusal) => ControlFlow::Break(Err(refusal)),
        None => ControlFlow::Continue(links),
    }
}

/// Plugins and upstream, until the drain is over.
async fn run(router: &Router<'_>, record: &Record, chain: Running<'_>) -> Result<Response, Error> {
    match router.worker.ending.outrun(panic::caught(chain)).await {
        Some(outcome) => outcome,
        None => {
            record.terminate(Termination::Shutdown);
            Err(shutting_down())
        }
    }
}
