//! Heads that are no request: answered, counted and logged like one all the same.

use std::rc::Rc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tollgate_base::headers::X_REQUEST_ID;
use tollgate_base::{Error, Flag, clock, id};
use tollgate_observe::Record;
use tollgate_observe::record::Original;

use super::head::Refusal;
use crate::account::{Account, Delivery};
use crate::connection::Client;
use crate::reply;
use crate::worker::Worker;

/// What stands for a part of the request that nobody knows.
const UNKNOWN: &str = "-";

/// The answer, with the account of it.
pub(super) fn answer(worker: &Rc<Worker>, client: &Rc<Client>, refusal: Refusal) -> Response<Delivery> {
    let snapshot = worker.live.load();
    let failure = failure(&refusal);
    let (method, shown) = match refusal.known {
        Some(known) => (known.method, known.target),
        None => (
            Method::from_bytes(UNKNOWN.as_bytes()).unwrap_or_default(),
            UNKNOWN.into(),
        ),
    };
    let original = Original {
        method,
        authority: UNKNOWN.into(),
        // What is no path is shown in the log only.
        path: PathAndQuery::try_from(&*shown).unwrap_or_else(|_| PathAndQuery::from_static("/")),
        version: Version::HTTP_11,
    };
    let connection = client.connection.clone();
    let record = Rc::new(Record::new(connection, original, id::request_id(), clock::now()));
    let account = Account::open(worker, client, &snapshot, record.clone());
    let id = HeaderMap::from_iter([(X_REQUEST_ID, record.request_id.clone())]);
    let format = &snapshot.settings.access_log;
    format.capture_request(&record, &record.original.method, UNKNOWN, &shown, &id);
    account.attach(reply::finish(&record, false, Err(failure)))
}

fn failure(refusal: &Refusal) -> Error {
    let error = Error::client(refusal.status, refusal.details, refusal.message);
    match refusal.status {
        // It broke no rule: it did not come.
        StatusCode::REQUEST_TIMEOUT => error,
        _ => error.with_flag(Flag::DownstreamProtocolError),
    }
}
