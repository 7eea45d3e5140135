//! The path of a request, to be read aloud.

use std::convert::Infallible;
use std::rc::Rc;

use http::StatusCode;
use hyper::body::Incoming;
use tollgate_base::{Error, Termination, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next};

use crate::account::{Account, Delivery};
use crate::connection::Client;
use crate::ending::shutting_down;
use crate::normalise::normalise;
use crate::route::Router;
use crate::worker::Worker;
use crate::{cors, gate, grpc, panic, reply, truncation, upgrade};

/// Serves one request: exactly one answer, exactly one settlement.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    incoming: hyper::Request<Incoming>,
) -> Result<hyper::Response<Delivery>, Infallible> {
    let started = clock::now();
    let snapshot = worker.live.load();
    let mut normal = normalise(&client, &snapshot.settings, started, incoming);
    if let Some(tracing) = &snapshot.settings.tracing {
        let tracer = worker.tracer.of(tracing);
        normal
            .record
            .trace
            .begin(&tracer, &normal.record, normal.request.headers_mut());
    }
    let account = Account::open(
        &worker,
        &client,
        &snapshot,
        normal.record.clone(),
        &normal.request,
    );

    let mut exchange = Exchange::new(normal.record, normal.host, snapshot.settings.buffer_limit);
    let router = Router::new(&worker, &snapshot, client.connection.tls, normal.upgrade);
    let is_grpc = grpc::is_call(normal.request.headers());
    let mut cors = cors::Pending::default();
    let outcome = match normal.refusal {
        Some(refusal) => Err(refusal),
        None => run(&router, &mut exchange, normal.request, &mut cors).await,
    };

    let mut response = reply::finish(&exchange.record, is_grpc, outcome);
    cors.finish(&mut response);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(upgrade::splice(&router, account, response));
    }
    truncation::guard(&worker.ending, &exchange.record, &mut response);
    Ok(account.attach(response))
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
