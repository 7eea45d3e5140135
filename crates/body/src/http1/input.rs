//! Reading from a connection without a buffer of its own: one per worker serves all of them, since what a read brings
//! is taken out of it at once.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is allocated for reads when less than `LEAST` is left.
const SIZE: usize = 32 * 1024;
/// The least room for a read.
const LEAST: usize = 8 * 1024;

thread_local! {
    /// Taken out while in use, so that nothing can come upon it half way.
    static BUFFER: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Reads once and shows what came; `None` at the end of the stream. `take` keeps what it needs: the rest is forgotten.
///
/// # Errors
/// The stream's own.
pub fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&mut BytesMut) -> T,
) -> Poll<io::Result<Option<T>>> {
    let mut buffer = BUFFER.take().unwrap_or_default();
    // What an earlier reader left is nobody's business.
    buffer.clear();
    if buffer.capacity() < LEAST {
        buffer.reserve(SIZE);
    }
    let polled = pin!(stream.read_buf(&mut buffer)).poll(context);
    let taken = match polled {
        Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(Some(take(&mut buffer)))),
        Poll::Ready(Err(cause)) => Poll::Ready(Err(cause)),
        Poll::Pending => Poll::Pending,
    };
    BUFFER.set(Some(buffer));
    Poll::Ready(ready!(taken))
}
