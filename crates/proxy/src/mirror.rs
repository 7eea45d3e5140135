//! `mirror-target-*`: a copy of a request for another service, whose answer nobody waits for (routing spec §8.11).
//!
//! Comes before the first attempt, on the request as it goes upstream. A copy is sent by a task of its own once all of
//! the body is known, and never delays, fails or outweighs the request: what is too long, or too much at once, is not
//! copied.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;
use http::header::TRANSFER_ENCODING;
use http::uri::Authority;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::{Error, task};
use tollgate_body::{Body, Request, Response};
use tollgate_snapshot::Cluster;
use tollgate_snapshot::policy::Mirror;
use tollgate_upstream::Upstreams;

/// Longest body, in bytes, that is copied.
const LONGEST: usize = 1024 * 1024;
/// Copies under way, per worker; while there are as many, no more are made.
const MOST: u32 = 256;
/// How long a copy and its answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Copies of one worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirrors(Rc<Cell<u32>>);

/// One of [`MOST`].
struct Place(Rc<Cell<u32>>);

impl Mirrors {
    fn place(&self) -> Option<Place> {
        let taken = self.0.get();
        (taken < MOST).then(|| {
            self.0.set(taken + 1);
            Place(Rc::clone(&self.0))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Sends a copy of `request` where the share and the bounds allow it: at once, or when its body has passed.
pub(crate) fn copy(mirror: &Mirror, request: &mut Request, mirrors: &Mirrors, upstreams: &Upstreams) {
    if fastrand::u32(0..100) >= mirror.percent || request.body().size_hint().lower() > LONGEST as u64 {
        return;
    }
    let Some(place) = mirrors.place() else { return };
    let mut head = Request::new(Body::empty());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = shadow_of(request.uri());
    *head.headers_mut() = request.headers().clone();
    let copy = Copy {
        head,
        cluster: Arc::clone(&mirror.cluster),
        upstreams: upstreams.clone(),
        place,
    };
    if let Some(whole) = request.body().known_bytes() {
        copy.send(whole);
        return;
    }
    let body = request.body_mut().take();
    *request.body_mut() = Body::boxed(Copied {
        body,
        so_far: BytesMut::new(),
        copy: Some(copy),
    });
}

/// The same place under the name that tells a copy: `-shadow` behind the host. An address in brackets has no such name.
fn shadow_of(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    if let Some(authority) = parts
        .authority
        .as_ref()
        .filter(|name| !name.host().starts_with('['))
    {
        let host = authority.host();
        let port = authority
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        if let Ok(shadow) = Authority::try_from(format!("{host}-shadow{port}")) {
            parts.authority = Some(shadow);
        }
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// A copy that waits for its body.
struct Copy {
    head: Request,
    cluster: Arc<Cluster>,
    upstreams: Upstreams,
    place: Place,
}

impl Copy {
    fn send(mut self, body: Bytes) {
        // What comes in chunks goes out whole.
        self.head.headers_mut().remove(TRANSFER_ENCODING);
        *self.head.body_mut() = Body::bytes(body);
        let work = async move {
            match self.upstreams.call(&self.cluster, self.head, LIMIT).await {
                Ok(answer) => forget(answer).await,
                Err(failure) => {
                    tracing::debug!(cluster = %self.cluster.name, error = %failure, "a copy was not answered");
                }
            }
            drop(self.place);
        };
        drop(task::spawn_local("mirrored request", work));
    }
}

/// Reads the answer to its end, so that its connection can be used again.
async fn forget(answer: Response) {
    let mut body = answer.into_body();
    while let Some(Ok(_)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
}

/// A body on its way upstream that leaves a copy behind when it has ended as it should.
struct Copied {
    body: Body,
    so_far: BytesMut,
    /// `None` once it is sent or given up.
    copy: Option<Copy>,
}

impl Copied {
    fn add(&mut self, data: &Bytes) {
        if self.so_far.len() + data.len() > LONGEST {
            self.copy = None;
            self.so_far = BytesMut::new();
        }
        if self.copy.is_some() {
            self.so_far.extend_from_slice(data);
        }
    }

    fn ended(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.send(std::mem::take(&mut self.so_far).freeze());
        }
    }
}

impl HttpBody for Copied {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(context);
        match &outcome {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.add(data);
                }
                // Nobody asks again for a body that has told it is over.
                if self.body.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(None) => self.ended(),
            // Half a request is no copy.
            Poll::Ready(Some(Err(_))) => self.copy = None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_by_its_host() {
        for (uri, shadow) in [
            (
                "https://api.example.com/a?b",
                "https://api.example.com-shadow/a?b",
            ),
            (
                "http://api.example.com:8080/",
                "http://api.example.com-shadow:8080/",
            ),
            ("http://127.0.0.1:80/", "http://127.0.0.1-shadow:80/"),
            ("http://[::1]:80/", "http://[::1]:80/"),
            ("/a", "/a"),
        ] {
            assert_eq!(shadow_of(&Uri::try_from(uri).unwrap()), *shadow, "{uri}");
        }
    }

    #[test]
    fn only_so_many_are_under_way() {
        let mirrors = Mirrors::default();
        let mut places: Vec<_> = (0..MOST).map(|_| mirrors.place().unwrap()).collect();
        assert!(mirrors.place().is_none());
        places.pop();
        assert!(mirrors.place().is_some());
    }
}
