//! Accounting: every exchange is settled exactly once, however its body ends.
//!
//! The account is opened before anything can fail and travels with the answer's body; dropping it settles it.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::shutdown::Phase;
use tollgate_base::{Error, Flag, Termination, clock};
use tollgate_body::{Body, Request, Response, Source};
use tollgate_observe::{Format, Prices, Record};
use tollgate_snapshot::Snapshot;

use crate::connection::Client;
use crate::panic::poll_caught;
use crate::truncation;
use crate::turn;
use crate::worker::Worker;

/// One exchange's open account.
pub(crate) struct Account {
    worker: Rc<Worker>,
    client: Rc<Client>,
    record: Rc<Record>,
    format: Arc<Format>,
    prices: Arc<Prices>,
}

impl Account {
    /// Opens the account of a request that has just arrived; what its log line shows of it is captured apart.
    pub(crate) fn open(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        snapshot: &Snapshot,
        record: Rc<Record>,
    ) -> Self {
        client.request_begins(&record);
        record.untagged.set(!record.trace.is_recorded());
        record.unplaced.set(!snapshot.settings.ledger.enable);
        let format = snapshot.settings.access_log.clone();
        if let Some(vocabularies) = &snapshot.settings.vocabularies {
            // A fresh record has none yet.
            drop(record.vocabularies.set(vocabularies.clone()));
        }
        worker.observer.request_began(client.connection.tls);
        Self {
            worker: worker.clone(),
            client: client.clone(),
            record,
            format,
            prices: snapshot.settings.prices.clone(),
        }
    }

    /// The record it settles.
    pub(crate) fn record(&self) -> &Rc<Record> {
        &self.record
    }

    /// Whether the client speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.client.connection.tls
    }

    /// Hands the account to the answer's body.
    pub(crate) fn attach(self, response: Response) -> hyper::Response<Delivery> {
        self.note_head(&response);
        if response.body().as_bytes().is_none() {
            self.record.settle_down();
        }
        let promised = promised_bytes(&self.record, &response);
        response.map(|body| Delivery {
            body,
            promised,
            is_over: false,
            account: Some(self),
        })
    }

    /// Gives the answer out without the account: what settles it is not the body (an upgraded connection).
    pub(crate) fn detach(self, response: Response) -> (Self, hyper::Response<Delivery>) {
        self.note_head(&response);
        let answer = response.map(|body| Delivery {
            body,
            promised: None,
            is_over: false,
            account: None,
        });
        (self, answer)
    }

    fn note_head(&self, response: &Response) {
        self.record.status.set(response.status().as_u16());
        self.format.capture_response(&self.record, response.headers());
    }

    /// Notes that the client went away, unless it was sent away.
    fn client_left(&self) {
        if self.record.termination.get().is_some() {
            return;
        }
        self.record.flag(Flag::DownstreamDisconnect);
        self.record.details.replace("downstream_remote_disconnect".into());
        self.record.terminate(Termination::ClientGone);
    }

    /// Notes a failure of the answer's body.
    fn failed(&self, failure: &Error) {
        truncation::note(&self.record, failure);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let record = &self.record;
        if record.termination.get().is_none() {
            if self.worker.shutdown.phase() == Phase::Stopped {
                record.terminate(Termination::Shutdown);
            } else {
                self.client_left();
            }
        }
        self.worker.observer.settle(record, &self.format, &self.prices);
        self.client.request_ends(&self.record);
    }
}

/// Keeps what the log line shows of a request head; called on arrival and again when it goes upstream.
pub(crate) fn capture(format: &Format, record: &Record, request: &Request) {
    let uri = request.uri();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format.capture_request(record, request.method(), authority, path, request.headers());
}

/// How long the body will be, where the head says so; the server does not ask for more.
fn promised_bytes(record: &Record, response: &Response) -> Option<u64> {
    let has_none = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if has_none || record.original.method == Method::HEAD {
        return Some(0);
    }
    let said = response.headers().get(CONTENT_LENGTH);
    let written = said.and_then(|value| value.to_str().ok()?.parse().ok());
    written.or_else(|| response.body().size_hint().exact())
}

/// An answer's body on its way to the client, with the account that it settles.
pub(crate) struct Delivery {
    body: Body,
    promised: Option<u64>,
    /// The body has told that nothing more comes.
    is_over: bool,
    account: Option<Account>,
}

impl Delivery {
    /// One that nobody accounts for.
    #[cfg(test)]
    pub(crate) fn of(body: Body) -> Self {
        Self {
            body,
            promised: None,
            is_over: false,
            account: None,
        }
    }

    fn count(&self, data: &Bytes) {
        let Some(Account { record, .. }) = &self.account else {
            return;
        };
        if record.timings.first_event.get().is_none() {
            record.timings.first_event.set(Some(clock::now()));
            turn::served();
        }
        record.bytes_sent.set(record.bytes_sent.get() + data.len() as u64);
    }

    /// The client did not take all of what it was given.
    pub(crate) fn abandon(&mut self) {
        self.body = Body::empty();
        if let Some(account) = self.account.take() {
            account.client_left();
        }
    }

    /// The answer cannot go on, whatever its body says.
    pub(crate) fn fail(&mut self, failure: &Error) {
        self.body = Body::empty();
        if let Some(account) = self.account.take() {
            account.failed(failure);
        }
    }
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let outcome = poll_caught(&mut self.body, context);
        match &outcome {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.count(data);
                }
                if let (Some(trailers), Some(account)) = (frame.trailers_ref(), &self.account) {
                    account.format.capture_trailers(&account.record, trailers);
                }
            }
            Poll::Ready(Some(Err(failure))) => {
                if let Some(account) = &self.account {
                    account.failed(failure);
                }
            }
            Poll::Ready(None) => self.is_over = true,
            Poll::Pending => {}
        }
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Source for Delivery {
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.body.is_dry(context)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(account) = &self.account else { return };
        // The server does not ask again for a body that has told it is over, or that has kept its promise.
        let is_promise_kept = self.promised == Some(account.record.bytes_sent.get());
        if self.is_over || self.body.is_end_stream() || is_promise_kept {
            account.record.terminate(Termination::Completed);
        }
    }
}
