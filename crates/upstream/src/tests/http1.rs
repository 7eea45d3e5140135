//! HTTP/1.1: what goes over the wire, when a connection is used again, and how an answer may fail.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use crate::SendTimers;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tollgate_base::{Flag, Retry};
use tollgate_body::{Body, Source};

use crate::tests::support::{Server, cluster, get, plain, post, record, send, text, upstreams, worker};

#[test]
fn the_target_is_in_origin_form_and_host_comes_from_the_authority() {
    worker(false, async {
        let server = Server::polite().await;
        let request = http::Request::post("https://llm.example:8443/v1/chat?a=b")
            .header("host", "client.example")
            .header("X-Case", "kept")
            .body(Body::bytes("hello"))
            .unwrap();
        let noted = record();
        let upstreams = upstreams();
        let cluster = cluster(server.address);
        let response = upstreams
            .send(&cluster, request, &SendTimers::default(), &noted)
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok 0");
        let seen = &server.notes()[0];
        assert!(seen.starts_with("POST /v1/chat?a=b HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains("\r\nhost: llm.example:8443\r\n"), "{seen}");
        assert!(!seen.contains("client.example"), "{seen}");
        assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
        assert_eq!(noted.upstream_peer.get(), Some(server.address));
        assert!(noted.upstream_local.get().is_some());
        assert_eq!(noted.attempts.get(), 1);
        assert!(noted.timings.upstream_started.get().is_some());
        assert!(noted.timings.request_sent.get().is_some());
        assert!(noted.timings.response_head.get().is_some());
    });
}

#[test]
fn a_connection_is_used_again_after_its_answer_was_read() {
    worker(false, async {
        let server = Server::polite().await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for _ in 0..3 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok 0");
        }
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn an_answer_that_is_being_read_keeps_its_connection() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            while !peer.request().await.is_empty() {
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                    .await;
                if peer.request().await.is_empty() {
                    return;
                }
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let first = send(&upstreams, &cluster, get("/")).await.unwrap();
        let second = send(&upstreams, &cluster, get("/")).await.unwrap();
        assert_eq!(server.connections(), 2);
        drop((first, second));
    });
}

#[test]
fn a_body_that_was_read_dry_says_so_and_wakes_its_reader() {
    worker(false, async {
        let more = Arc::new(Notify::new());
        let told = more.clone();
        let server = Server::start(move |mut peer, _| {
            let told = told.clone();
            async move {
                peer.request().await;
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                    .await;
                told.notified().await;
                peer.say("3\r\ntwo\r\n0\r\n\r\n").await;
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let mut body = send(&upstreams, &cluster, get("/")).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "one");
        assert!(poll_fn(|context| Poll::Ready(body.is_dry(context))).await);
        more.notify_one();
        poll_fn(|context| match body.is_dry(context) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
    });
}

#[test]
fn dropping_a_body_in_the_middle_closes_the_connection() {
    worker(false, async {
        let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let closed = closed.clone();
            async move {
                peer.request().await;
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                    .await;
                peer.closed().await;
                closed.send(peer.number).unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let response = send(&upstreams, &cluster, get("/")).await.unwrap();
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), "one");
        drop(body);
        assert_eq!(was_closed.recv().await, Some(0));
    });
}

#[test]
fn dropping_the_wait_for_the_head_closes_the_connection() {
    worker(false, async {
        let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let told = told.clone();
            async move {
                peer.request().await;
                told.send("asked").unwrap();
                peer.closed().await;
                told.send("closed").unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let mut waiting = Box::pin(send(&upstreams, &cluster, get("/")));
        tokio::select! {
            _ = &mut waiting => panic!("nobody answers"),
            event = events.recv() => assert_eq!(event, Some("asked")),
        }
        drop(waiting);
        assert_eq!(events.recv().await, Some("closed"));
    });
}

#[test]
fn a_reader_that_stops_at_the_last_event_still_returns_the_connection() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            while !peer.request().await.is_empty() {
                peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n")
                    .await;
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for _ in 0..2 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            let mut body = response.into_body();
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(server.connections(), 1);
    });
}

/// A server that closes its first connection once it sees a second request on it.
async fn forgetful() -> Server {
    Server::start(|mut peer, notes| async move {
        loop {
            let request = peer.request().await;
            if request.is_empty() {
                return;
            }
            notes.borrow_mut().push(format!("{} {request}", peer.number));
            if peer.number == 0 && notes.borrow().len() == 2 {
                return;
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok {}", peer.number);
            peer.say(&answer).await;
        }
    })
    .await
}

#[test]
fn a_stale_connection_is_replaced_without_a_word() {
    worker(false, async {
        let server = forgetful().await;
        let (upstreams, cluster, noted) = (upstreams(), cluster(server.address), record());
        let first = send(&upstreams, &cluster, post("one")).await.unwrap();
        assert_eq!(text(first).await.unwrap(), "ok 0");
        let second = upstreams
            .send(&cluster, post("two"), &SendTimers::default(), &noted)
            .await
            .unwrap();
        assert_eq!(text(second).await.unwrap(), "ok 1");
        let seen = server.notes();
        assert_eq!(seen.len(), 3);
        assert!(seen[1].starts_with("0 ") && seen[1].ends_with("two"), "{seen:?}");
        assert!(seen[2].starts_with("1 ") && seen[2].ends_with("two"), "{seen:?}");
        assert_eq!(noted.attempts.get(), 1);
    });
}

#[test]
fn a_request_that_is_kept_serves_for_the_replacement() {
    worker(false, async {
        let server = forgetful().await;
        let (upstreams, cluster, noted) = (upstreams(), cluster(server.address), record());
        let timers = SendTimers::default();
        for body in ["one", "two"] {
            let mut request = post(body);
            let response = upstreams
                .send_kept(&cluster, &mut request, &timers, &noted)
                .await
                .unwrap();
            assert_eq!(request.body().known_bytes().unwrap(), body);
            assert!(text(response).await.unwrap().starts_with("ok "));
        }
        let seen = server.notes();
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1][1..], seen[2][1..]);
        assert!(
            seen[2].contains("host: llm.example\r\n") && seen[2].ends_with("two"),
            "{seen:?}"
        );
    });
}

#[test]
fn a_body_that_cannot_be_had_twice_is_not_sent_twice() {
    worker(false, async {
        let server = forgetful().await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let first = send(&upstreams, &cluster, post("one")).await.unwrap();
        assert_eq!(text(first).await.unwrap(), "ok 0");
        let mut request = post("");
        *request.body_mut() = Body::boxed(Stream::of(&["t", "wo"]));
        request
            .headers_mut()
            .insert("content-length", "3".parse().unwrap());
        let error = send(&upstreams, &cluster, request).await.err().unwrap();
        assert_eq!(error.flag(), Some(Flag::UpstreamCut));
        assert_eq!(server.notes().len(), 2);
    });
}

#[test]
fn a_fresh_connection_that_is_reset_is_not_tried_again() {
    worker(false, async {
        let server = Server::start(|mut peer, notes| async move {
            let request = peer.request().await;
            notes.borrow_mut().push(request);
        })
        .await;
        let (upstreams, cluster, noted) = (upstreams(), cluster(server.address), record());
        let error = upstreams
            .send(&cluster, post("one"), &SendTimers::default(), &noted)
            .await
            .err()
            .unwrap();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.flag(), Some(Flag::UpstreamCut));
        assert_eq!(error.retry(), Retry::Idempotent);
        assert_eq!(server.notes().len(), 1);
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_used() {
    worker(false, async {
        let (closing, mut closed) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, notes| {
            let closing = closing.clone();
            async move {
                let request = peer.request().await;
                notes.borrow_mut().push(request);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok {}", peer.number);
                peer.say(&answer).await;
                drop(peer);
                closing.send(()).unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for expected in ["ok 0", "ok 1"] {
            let mut request = post("");
            *request.body_mut() = Body::boxed(Stream::of(&["once"]));
            let response = send(&upstreams, &cluster, request).await.unwrap();
            assert_eq!(text(response).await.unwrap(), expected);
            closed.recv().await.unwrap();
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_refused_connection_is_503_with_the_reason_in_the_log_only() {
    worker(false, async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let noted = record();
        let error = upstreams()
            .send(&cluster(address), get("/"), &SendTimers::default(), &noted)
            .await
            .err()
            .unwrap();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.flag(), Some(Flag::UpstreamConnectFailure));
        assert_eq!(error.retry(), Retry::Unsent);
        assert_eq!(
            error.message(),
            "upstream connect error or disconnect/reset before headers. reset reason: connection failure"
        );
        let failure = noted.upstream_failure.borrow().clone().unwrap();
        assert!(
            failure.contains(&address.to_string()) && failure.contains("refused"),
            "{failure}"
        );
    });
}

#[test]
fn a_cluster_without_endpoints_is_503_uh() {
    worker(false, async {
        let mut empty = plain("127.0.0.1:1".parse().unwrap());
        empty.endpoints = tollgate_snapshot::Endpoints::Static(Vec::new());
        let error = send(&upstreams(), &empty.into(), get("/")).await.err().unwrap();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.flag(), Some(Flag::NoHealthyUpstream));
        assert_eq!(error.message(), "no healthy upstream");
    });
}

#[test]
fn garbage_is_502_upe() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        worker(false, async {
            let server = Server::start(move |mut peer, _| async move {
                peer.request().await;
                peer.say(garbage).await;
                peer.closed().await;
            })
            .await;
            let error = send(&upstreams(), &cluster(server.address), get("/"))
                .await
                .err()
                .unwrap();
            assert_eq!(error.status(), StatusCode::BAD_GATEWAY, "{garbage:?}");
            assert_eq!(error.flag(), Some(Flag::UpstreamProtocolError), "{garbage:?}");
            assert_eq!(error.retry(), Retry::No);
        });
    }
}

#[test]
fn a_body_that_ends_early_is_an_error_and_never_an_end() {
    for (head, sent) in [
        ("content-length: 10", "short"),
        ("transfer-encoding: chunked", "5\r\nshort\r\n"),
        ("transfer-encoding: chunked", "5\r\nsho"),
        ("transfer-encoding: chunked", "zz\r\nshort\r\n"),
    ] {
        worker(false, async {
            let server = Server::start(move |mut peer, _| async move {
                peer.request().await;
                peer.say(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{sent}"))
                    .await;
            })
            .await;
            let response = send(&upstreams(), &cluster(server.address), get("/"))
                .await
                .unwrap();
            let error = text(response).await.err().unwrap();
            assert_eq!(error.reason(), "upstream_cut", "{head} {sent}");
            assert_eq!(error.flag(), Some(Flag::UpstreamCut));
            assert_eq!(error.fault(), tollgate_base::Fault::Upstream);
        });
    }
}

#[test]
fn the_circuit_thresholds_hold() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
                .await;
            peer.closed().await;
        })
        .await;
        let mut limited = plain(server.address);
        limited.max_requests = 1;
        let (upstreams, limited) = (upstreams(), limited.into());
        let first = send(&upstreams, &limited, get("/")).await.unwrap();
        let error = send(&upstreams, &limited, get("/")).await.err().unwrap();
        assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.flag(), Some(Flag::UpstreamOverflow));
        drop(first);
        send(&upstreams, &limited, get("/")).await.unwrap();

        let mut narrow = plain(server.address);
        narrow.max_connections = 1;
        narrow.name = "narrow".into();
        let narrow = narrow.into();
        let first = send(&upstreams, &narrow, get("/")).await.unwrap();
        let error = send(&upstreams, &narrow, get("/")).await.err().unwrap();
        assert_eq!(error.flag(), Some(Flag::UpstreamOverflow));
        drop(first);
    });
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    worker(true, async {
        let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let closed = closed.clone();
            async move {
                peer.request().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                peer.closed().await;
                closed.send(tollgate_base::clock::now()).unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let start = tollgate_base::clock::now();
        send(&upstreams, &cluster, get("/")).await.unwrap();
        let idle = was_closed.recv().await.unwrap() - start;
        assert!(idle >= cluster.idle_timeout, "{idle:?}");
        assert!(
            idle <= cluster.idle_timeout + std::time::Duration::from_secs(2),
            "{idle:?}"
        );
    });
}

#[test]
fn a_reload_keeps_unchanged_pools_and_closes_the_others() {
    worker(false, async {
        let server = Server::polite().await;
        let upstreams = upstreams();
        let before = cluster(server.address);
        send(&upstreams, &before, get("/")).await.unwrap();
        let after = cluster(server.address);
        upstreams.retain([&after].into_iter());
        let response = send(&upstreams, &after, get("/")).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok 0");
        upstreams.retain(std::iter::empty());
        let response = send(&upstreams, &after, get("/")).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok 1");
    });
}

/// A body that comes piece by piece, of unknown length.
pub(crate) struct Stream(std::slice::Iter<'static, &'static str>);

impl Stream {
    pub(crate) fn of(pieces: &'static [&'static str]) -> Self {
        Self(pieces.iter())
    }
}

impl http_body::Body for Stream {
    type Data = bytes::Bytes;
    type Error = tollgate_base::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(
            self.0
                .next()
                .map(|piece| Ok(http_body::Frame::data((*piece).into()))),
        )
    }
}
