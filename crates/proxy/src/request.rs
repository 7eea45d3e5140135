//! The path of a request, to be read aloud.

use std::rc::Rc;

use http::StatusCode;
use tollgate_base::{Error, Termination, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next};

use crate::account::{self, Account, Delivery};
use crate::connection::Client;
use crate::ending::shutting_down;
use crate::http1::Takeover;
use crate::metered::Arriving;
use crate::normalise::normalise;
use crate::route::Router;
use crate::worker::Worker;
use crate::{cors, gate, grpc, panic, reply, truncation, upgrade};

/// Serves one request: exactly one answer, exactly one settlement. `takeover` is the client's side of a protocol
/// upgrade that it asked for.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    incoming: http::Request<Arriving>,
    takeover: Option<Takeover>,
) -> http::Response<Delivery> {
    let started = clock::now();
    let snapshot = worker.live.load();
    let mut normal = normalise(&client, &snapshot.settings, started, incoming, takeover.is_some());
    if let Some(tracing) = &snapshot.settings.tracing {
        let tracer = worker.tracer.of(tracing);
        normal
            .record
            .trace
            .begin(&tracer, &normal.record, normal.request.headers_mut());
    }
    let account = Account::open(&worker, &client, &snapshot, normal.record.clone());
    account::capture(&snapshot.settings.access_log, &normal.record, &normal.request);

    let mut exchange = Exchange::new(normal.record, normal.host, snapshot.settings.buffer_limit);
    let router = Router::new(&worker, &snapshot, client.connection.tls, takeover);
    let is_grpc = grpc::is_call(normal.request.headers());
    let mut cors = cors::Pending::default();
    let outcome = match normal.refusal {
        Some(refusal) => Err(refusal),
        None => run(&router, &mut exchange, normal.request, &mut cors).await,
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

/// Route, local policies, plugins, upstream.
async fn run<'a>(
    router: &Router<'a>,
    exchange: &mut Exchange,
    request: Request,
    cors: &mut cors::Pending<'a>,
) -> Result<Response, Error> {
    let links = router.choose(exchange, &request);
    match cors::begin(router, &request) {
        cors::Begin::Answer(preflight) => return Ok(preflight),
        cors::Begin::Continue(pending) => *cors = pending,
    }
    if let Some(refusal) = gate::check(router, exchange) {
        return Err(refusal);
    }
    let chain = Next::start(links, router).run(exchange, request);
    match router.worker.ending.outrun(panic::caught(chain)).await {
        Some(outcome) => outcome,
        None => {
            exchange.record.terminate(Termination::Shutdown);
            Err(shutting_down())
        }
    }
}
