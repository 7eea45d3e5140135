//! Connections that are to speak another protocol (WebSocket): hyper drives them in a task of their own, and hands the
//! stream on once the protocols are switched.

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::failure;
use crate::http1::Http1;
use crate::outgoing::Outgoing;

/// Largest response head in bytes, to within a factor of two.
const LARGEST_BUFFER: usize = 64 * 1024;

/// Turns the connection over to a task of its own, which hands the stream on once the protocols are switched.
pub(crate) async fn open(connection: Http1) -> Result<(http1::SendRequest<Outgoing>, Driver), hyper::Error> {
    let (stream, counted) = connection.into_stream();
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LARGEST_BUFFER);
    let (sender, driven) = builder.handshake(TokioIo::new(stream)).await?;
    let task = tollgate_base::task::spawn_local("upgraded upstream connection", async move {
        if let Err(cause) = driven.with_upgrades().await {
            tracing::debug!(cause = failure::chain(&cause), "upstream connection failed");
        }
        drop(counted);
    });
    Ok((sender, Driver::of(task)))
}

/// A connection's own task; the connection closes when this is dropped.
pub(crate) struct Driver(Option<tokio::task::JoinHandle<()>>);

impl Driver {
    pub(crate) fn of(task: tokio::task::JoinHandle<()>) -> Self {
        Self(Some(task))
    }

    /// Lets it run on: the stream now belongs to an upgraded protocol.
    pub(crate) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
