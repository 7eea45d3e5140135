//! `mirror-target-*`: a copy of a request for another service, whose answer nobody waits for (routing spec §8.11).
//!
//! Comes before the first attempt, on the request as it goes upstream. A copy is sent by a task of its own once all of
//! the body is known, and never delays, fails or outweighs the request: what is too long, or too much at once, is not
//! copied.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;
use http::header::TRANSFER_ENCODING;
use http::uri::Authority;
use http_body::Body as _;
use tollgate_base::task;
use tollgate_body::{Body, Look, Request, Response};
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
    *request.body_mut() = body.observe(Keeping {
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

/// Keeps what passes on its way upstream, and leaves a copy behind when it has ended as it should.
struct Keeping {
    so_far: BytesMut,
    /// `None` once it is sent or given up.
    copy: Option<Copy>,
}

impl Look for Keeping {
    fn data(&mut self, data: &Bytes) {
        if self.so_far.len() + data.len() > LONGEST {
            self.broken();
        }
        if self.copy.is_some() {
            self.so_far.extend_from_slice(data);
        }
    }

    fn end(&mut self) {
        if let Some(copy) = self.copy.take() {
            copy.send(std::mem::take(&mut self.so_far).freeze());
        }
    }

    fn broken(&mut self) {
        self.copy = None;
        self.so_far = BytesMut::new();
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
