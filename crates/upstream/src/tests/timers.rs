//! Each timer on its own, by its exact name; time is paused, so a second costs nothing.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Flag, Retry, Timer};
use tollgate_body::Body;

use crate::SendTimers;
use crate::tests::support::{Server, cluster, get, post, record, text, upstreams, worker};

const LIMIT: Duration = Duration::from_secs(3);

fn none() -> SendTimers {
    SendTimers {
        connect: None,
        ..SendTimers::default()
    }
}

fn assert_timeout(error: &Error, timer: Timer, started: Instant, limit: Duration) {
    assert_eq!(error.timer(), Some(timer));
    assert_eq!(error.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        error.message(),
        format!("upstream request timeout: {}", timer.name())
    );
    let took = clock::now() - started;
    assert!(
        took >= limit && took < limit + Duration::from_millis(50),
        "{took:?}"
    );
}

/// Sends `pieces` as chunks with `pause` before each, and the end after another `pause` if `ends`.
async fn slow(pieces: &'static [&'static str], pause: Duration, ends: bool) -> Server {
    Server::start(move |mut peer, _| async move {
        peer.request().await;
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        for piece in pieces {
            tokio::time::sleep(pause).await;
            peer.say(&format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        }
        if ends {
            tokio::time::sleep(pause).await;
            peer.say("0\r\n\r\n").await;
        }
        peer.closed().await;
    })
    .await
}

#[test]
fn connect() {
    worker(true, async {
        // A name that is never answered: look-up, TCP and TLS are one timer.
        let upstreams = crate::tests::dns::upstreams_with(crate::tests::dns::silent());
        let started = clock::now();
        let timers = SendTimers {
            connect: Some(LIMIT),
            ..none()
        };
        let noted = record();
        let cluster = crate::tests::dns::named("a.example", 80);
        let error = upstreams
            .send(&cluster, get("/"), &timers, &noted)
            .await
            .err()
            .unwrap();
        assert_timeout(&error, Timer::Connect, started, LIMIT);
        assert_eq!(error.flag(), Some(Flag::UpstreamConnectFailure));
        assert_eq!(error.retry(), Retry::Unsent);
        assert_eq!(
            noted.upstream_failure.borrow().as_deref(),
            Some("connect timeout")
        );
    });
}

#[test]
fn connect_covers_the_tls_handshake() {
    worker(true, async {
        let server = Server::start(|mut peer, _| async move { peer.closed().await }).await;
        let mut secured = crate::tests::support::plain(server.address);
        secured.tls = Some(crate::tests::tls::unverified());
        let started = clock::now();
        let timers = SendTimers {
            connect: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let error = sending
            .send(&secured.into(), get("/"), &timers, &record())
            .await
            .err()
            .unwrap();
        assert_timeout(&error, Timer::Connect, started, LIMIT);
    });
}

#[test]
fn response_head() {
    worker(true, async {
        let server = Server::start(|mut peer, _| async move { peer.closed().await }).await;
        let started = clock::now();
        let timers = SendTimers {
            response_head: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let error = sending
            .send(&cluster(server.address), post("a"), &timers, &record())
            .await
            .err()
            .unwrap();
        assert_timeout(&error, Timer::ResponseHead, started, LIMIT);
        assert_eq!(error.flag(), Some(Flag::UpstreamTimeout));
    });
}

#[test]
fn response_head_does_not_run_while_the_client_owes_its_body() {
    worker(true, async {
        let server = Server::start(|mut peer, _| async move { peer.closed().await }).await;
        let started = clock::now();
        let timers = SendTimers {
            response_head: Some(LIMIT),
            ..none()
        };
        let (pieces, body) = tokio::sync::mpsc::channel(1);
        tollgate_base::task::spawn_local("slow client", async move {
            for _ in 0..4 {
                tokio::time::sleep(LIMIT * 2).await;
                pieces.send("piece").await.unwrap();
            }
        });
        let mut request = post("");
        *request.body_mut() = Body::boxed(Channel(body));
        let sending = upstreams();
        let noted = record();
        let error = sending
            .send(&cluster(server.address), request, &timers, &noted)
            .await
            .err()
            .unwrap();
        assert_timeout(&error, Timer::ResponseHead, started, LIMIT * 9);
    });
}

#[test]
fn first_event() {
    worker(true, async {
        let server = slow(&[], Duration::ZERO, false).await;
        let timers = SendTimers {
            first_event: Some(LIMIT),
            silence: Some(LIMIT / 2),
            ..none()
        };
        let sending = upstreams();
        let response = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .unwrap();
        let started = clock::now();
        let error = text(response).await.unwrap_err();
        assert_timeout(&error, Timer::FirstEvent, started, LIMIT);
    });
}

#[test]
fn silence() {
    worker(true, async {
        let server = slow(&["one", "two", "three"], LIMIT / 2, false).await;
        let timers = SendTimers {
            silence: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let started = clock::now();
        let response = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .unwrap();
        let mut body = response.into_body();
        for expected in ["one", "two", "three"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.data_ref().unwrap(), expected);
        }
        let error = body.frame().await.unwrap().err().unwrap();
        assert_timeout(&error, Timer::Silence, started, LIMIT / 2 * 3 + LIMIT);
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn silence_ends_the_upstreams_work_at_once() {
    worker(true, async {
        let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let closed = closed.clone();
            async move {
                peer.request().await;
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                    .await;
                peer.closed().await;
                closed.send(()).unwrap();
            }
        })
        .await;
        let timers = SendTimers {
            silence: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let response = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        assert!(body.frame().await.unwrap().is_err());
        // The body is still held: it was the timer that closed the connection.
        was_closed.recv().await.unwrap();
        drop(body);
    });
}

#[test]
fn a_client_that_does_not_read_stops_no_silence_timer() {
    worker(true, async {
        let server = slow(&["one", "two"], Duration::from_millis(1), true).await;
        let timers = SendTimers {
            silence: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let response = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(LIMIT * 10).await;
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, "two");
    });
}

#[test]
fn total_counts_the_body_in() {
    worker(true, async {
        let server = slow(&["one"; 20], LIMIT / 4, true).await;
        let started = clock::now();
        let timers = SendTimers {
            total_deadline: Some(started + LIMIT),
            silence: Some(LIMIT),
            ..none()
        };
        let sending = upstreams();
        let response = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .unwrap();
        let error = text(response).await.unwrap_err();
        assert_timeout(&error, Timer::Total, started, LIMIT);
        assert_eq!(error.flag(), Some(Flag::UpstreamTimeout));
    });
}

#[test]
fn total_covers_the_wait_for_the_head_and_for_a_connection() {
    worker(true, async {
        let server = Server::start(|mut peer, _| async move { peer.closed().await }).await;
        let sending = upstreams();
        let started = clock::now();
        let timers = SendTimers {
            response_head: Some(LIMIT * 2),
            total_deadline: Some(started + LIMIT),
            ..none()
        };
        let error = sending
            .send(&cluster(server.address), get("/"), &timers, &record())
            .await
            .err()
            .unwrap();
        assert_timeout(&error, Timer::Total, started, LIMIT);

        let unanswered = crate::tests::dns::upstreams_with(crate::tests::dns::silent());
        let named = crate::tests::dns::named("a.example", 80);
        let begun = clock::now();
        let hurried = SendTimers {
            connect: Some(LIMIT * 2),
            total_deadline: Some(begun + LIMIT),
            ..none()
        };
        let late = unanswered
            .send(&named, get("/"), &hurried, &record())
            .await
            .err()
            .unwrap();
        assert_timeout(&late, Timer::Total, begun, LIMIT);
    });
}

#[test]
fn a_limit_beyond_the_clock_is_none() {
    worker(true, async {
        let server = slow(&["one"], LIMIT, true).await;
        let most = Some(Duration::MAX);
        let timers = SendTimers {
            connect: most,
            response_head: most,
            first_event: most,
            silence: most,
            total_deadline: None,
        };
        let sending = upstreams();
        let cluster = cluster(server.address);
        let response = sending
            .send(&cluster, get("/"), &timers, &record())
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "one");
        let called = upstreams().call(&cluster, get("/"), Duration::MAX).await.unwrap();
        assert_eq!(text(called).await.unwrap(), "one");
    });
}

#[test]
fn a_call_has_one_limit_for_everything() {
    worker(true, async {
        let server = slow(&["one"; 20], LIMIT / 4, true).await;
        let sending = upstreams();
        let started = clock::now();
        let response = sending
            .call(&cluster(server.address), get("/"), LIMIT)
            .await
            .unwrap();
        let error = text(response).await.unwrap_err();
        assert_timeout(&error, Timer::Total, started, LIMIT);
    });
}

/// A body of unknown length that comes through a channel.
pub(crate) struct Channel(pub(crate) tokio::sync::mpsc::Receiver<&'static str>);

impl http_body::Body for Channel {
    type Data = bytes::Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|data| Ok(http_body::Frame::data(data.into()))))
    }
}
