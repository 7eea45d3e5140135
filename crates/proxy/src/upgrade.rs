//! Protocol upgrades (WebSocket): after both sides agreed, bytes are copied both ways until one ends.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tollgate_base::shutdown::Phase;
use tollgate_base::{Flag, Termination, task};
use tollgate_body::{Body, Response};
use tollgate_observe::Record;

use crate::account::{Account, Delivery};
use crate::http1::{Takeover, Tunnel};
use crate::reply;
use crate::route::Router;

/// Joins the two sides and answers 101; a response nobody asked to upgrade for becomes a 502.
pub(crate) fn splice(
    router: &Router<'_>,
    account: Account,
    mut response: Response,
) -> hyper::Response<Delivery> {
    let upstream = response.extensions_mut().remove::<OnUpgrade>();
    let client = router.upgrade.borrow_mut().take();
    let (Some(client_side), Some(upstream_side)) = (client, upstream) else {
        let failure = tollgate_base::Error::upstream(
            http::StatusCode::BAD_GATEWAY,
            "unexpected_upgrade",
            "upstream switched protocols unasked",
        );
        let refused = reply::finish(account.record(), false, Err(failure));
        return account.attach(refused);
    };
    let record = account.record().clone();
    let (tunnel_account, answer) = account.detach(response.map(|_| Body::empty()));
    let mut shutdown = router.worker.shutdown.clone();
    let tunnel = task::spawn_local("upgraded connection", async move {
        tokio::select! {
            () = join(client_side, upstream_side, record) => {}
            () = shutdown.reached(Phase::Stopped) => {}
        }
        drop(tunnel_account);
    });
    // The task ends with its connections; nobody waits for it.
    drop(tunnel);
    answer
}

/// Copies until both directions are over or one side fails.
async fn join(client_side: Takeover, upstream_side: OnUpgrade, record: Rc<Record>) {
    let (Ok(client), Ok(upstream)) = futures_util::future::join(client_side, upstream_side).await else {
        return;
    };
    let mut client = Counted {
        stream: client,
        record: record.clone(),
    };
    let mut upstream = Watched {
        stream: TokioIo::new(upstream),
        failed: Cell::new(false),
    };
    let outcome = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    if outcome.is_ok() {
        record.terminate(Termination::Completed);
    } else if upstream.failed.get() {
        record.flag(Flag::UpstreamCut);
        record.terminate(Termination::UpstreamCut);
    }
    // Else the client is gone, which is what an account says by itself.
}

/// The client's side: its bytes count as they pass, so that a tunnel that breaks has counted them too.
struct Counted {
    stream: Tunnel,
    record: Rc<Record>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = (buffer.filled().len() - before) as u64;
        let received = &self.record.bytes_received;
        received.set(received.get() + came);
        outcome
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, data);
        if let Poll::Ready(Ok(count)) = &outcome {
            let sent = &self.record.bytes_sent;
            sent.set(sent.get() + *count as u64);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The upstream's side: remembers that it was the one that failed.
struct Watched {
    stream: TokioIo<Upgraded>,
    failed: Cell<bool>,
}

impl Watched {
    fn note<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(outcome, Poll::Ready(Err(_))) {
            self.failed.set(true);
        }
        outcome
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note(outcome)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, data);
        self.note(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.note(outcome)
    }
}
