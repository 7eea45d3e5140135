//! Odd but legal answers, and uploads that do not go as planned.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::StatusCode;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tollgate_base::{Error, Fault, Flag};
use tollgate_body::Body;

use crate::tests::http1::Stream;
use crate::tests::support::{Server, cluster, get, post, send, text, upstreams, worker};
use crate::tests::timers::Channel;

/// Answers each request with `answer` and says on which connection.
async fn answering(answer: &'static str) -> Server {
    Server::start(move |mut peer, notes| async move {
        loop {
            let request = peer.request().await;
            if request.is_empty() {
                return;
            }
            notes.borrow_mut().push(format!("{} {request}", peer.number));
            peer.say(answer).await;
        }
    })
    .await
}

#[test]
fn answers_without_a_body_leave_the_connection_free() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n"),
        ("POST", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ),
    ] {
        worker(false, async {
            let server = answering(answer).await;
            let (upstreams, cluster) = (upstreams(), cluster(server.address));
            for _ in 0..2 {
                let mut request = get("/");
                *request.method_mut() = method.parse().unwrap();
                let response = send(&upstreams, &cluster, request).await.unwrap();
                assert_eq!(text(response).await.unwrap(), "");
            }
            assert_eq!(server.connections(), 1, "{method} {answer:?}");
        });
    }
}

#[test]
fn a_connection_that_the_server_wants_closed_is_not_kept() {
    for head in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        worker(false, async {
            let server = answering(head).await;
            let (upstreams, cluster) = (upstreams(), cluster(server.address));
            for _ in 0..2 {
                let response = send(&upstreams, &cluster, get("/")).await.unwrap();
                assert_eq!(text(response).await.unwrap(), "ok");
            }
            assert_eq!(server.connections(), 2, "{head}");
        });
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 200 OK\r\n\r\nall of ").await;
            peer.say("it").await;
        })
        .await;
        let response = send(&upstreams(), &cluster(server.address), get("/"))
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "all of it");
    });
}

#[test]
fn bytes_that_nobody_asked_for_spoil_the_connection() {
    worker(false, async {
        let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n").await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for _ in 0..2 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
        }
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_head_beyond_the_limits_is_a_protocol_error() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: a\r\n".repeat(101));
    for head in [long, many] {
        worker(false, async move {
            let server = Server::start(move |mut peer, _| {
                let answer = head.clone();
                async move {
                    peer.request().await;
                    // The other side stops reading before its end.
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, answer.as_bytes()).await;
                    peer.closed().await;
                }
            })
            .await;
            let error = send(&upstreams(), &cluster(server.address), get("/"))
                .await
                .err()
                .unwrap();
            assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
            assert_eq!(error.flag(), Some(Flag::UpstreamProtocolError));
        });
    }
}

#[test]
fn a_length_that_contradicts_the_body_is_put_right() {
    worker(false, async {
        let server = Server::polite().await;
        let mut request = post("hello");
        request
            .headers_mut()
            .insert("content-length", "3".parse().unwrap());
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        send(&upstreams, &cluster, request).await.unwrap();
        send(&upstreams, &cluster, get("/")).await.unwrap();
        assert!(server.notes()[0].contains("content-length: 5\r\n"));
        assert!(server.notes()[0].ends_with("\r\n\r\nhello"));
        assert!(server.notes()[1].starts_with("GET / "));
    });
}

#[test]
fn a_body_of_unknown_length_goes_in_chunks() {
    worker(false, async {
        let server = Server::start(|mut peer, notes| async move {
            let mut seen = peer.everything().await;
            while !seen.ends_with("0\r\n\r\n") {
                let mut buffer = [0; 1024];
                let count = peer.stream.read(&mut buffer).await.unwrap();
                seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            notes.borrow_mut().push(seen);
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        })
        .await;
        let mut request = post("");
        *request.body_mut() = Body::boxed(Stream::of(&["one", "", "three"]));
        let response = send(&upstreams(), &cluster(server.address), request)
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let seen = &server.notes()[0];
        assert!(seen.contains("transfer-encoding: chunked\r\n"), "{seen}");
        assert!(
            seen.ends_with("\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"),
            "{seen}"
        );
    });
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_delivered_and_the_connection_not_kept() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig")
                .await;
            peer.closed().await;
        })
        .await;
        let (pieces, body) = tokio::sync::mpsc::channel(1);
        pieces.send("first").await.unwrap();
        let mut request = post("");
        *request.body_mut() = Body::boxed(Channel(body));
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let response = send(&upstreams, &cluster, request).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await.unwrap(), "big");
        // The rest of the upload is not wanted any more.
        pieces.closed().await;
        send(&upstreams, &cluster, get("/")).await.unwrap();
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn an_answer_and_its_upload_may_overlap() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            loop {
                let mut buffer = [0; 1024];
                let count = peer.stream.read(&mut buffer).await.unwrap();
                let text = std::str::from_utf8(&buffer[..count]).unwrap();
                peer.say(&format!("{count:x}\r\n{text}\r\n")).await;
                if text.ends_with("0\r\n\r\n") {
                    return peer.say("0\r\n\r\n").await;
                }
            }
        })
        .await;
        let (pieces, body) = tokio::sync::mpsc::channel(1);
        let mut request = post("");
        *request.body_mut() = Body::boxed(Channel(body));
        let response = send(&upstreams(), &cluster(server.address), request)
            .await
            .unwrap();
        let mut echo = response.into_body();
        for piece in ["one", "two"] {
            pieces.send(piece).await.unwrap();
            let frame = echo.frame().await.unwrap().unwrap();
            assert_eq!(frame.data_ref().unwrap(), format!("3\r\n{piece}\r\n").as_str());
        }
        drop(pieces);
        assert_eq!(echo.collect().await.unwrap().to_bytes(), "0\r\n\r\n");
    });
}

#[test]
fn a_client_that_goes_away_during_its_upload_is_the_clients_fault() {
    struct Gone(bool);
    impl http_body::Body for Gone {
        type Data = bytes::Bytes;
        type Error = Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Error>>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(Some(Err(Error::client_gone())));
            }
            Poll::Ready(Some(Ok(Frame::data("part".into()))))
        }
    }
    worker(false, async {
        let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut peer, _| {
            let sender = sender.clone();
            async move {
                peer.closed().await;
                sender.send(()).unwrap();
            }
        })
        .await;
        let mut request = post("");
        *request.body_mut() = Body::boxed(Gone(false));
        let error = send(&upstreams(), &cluster(server.address), request)
            .await
            .err()
            .unwrap();
        assert_eq!(error.fault(), Fault::Client);
        assert_eq!(error.flag(), Some(Flag::DownstreamDisconnect));
        assert_eq!(error.status().as_u16(), 499);
        closed.recv().await.unwrap();
    });
}

#[test]
fn a_large_upload_streams_through() {
    struct Large(usize);
    impl http_body::Body for Large {
        type Data = bytes::Bytes;
        type Error = Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Error>>> {
            if self.0 == 0 {
                return Poll::Ready(None);
            }
            self.0 -= 1;
            Poll::Ready(Some(Ok(Frame::data(bytes::Bytes::from_static(
                &[b'x'; 16 * 1024],
            )))))
        }
    }
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            let mut total = peer.request().await.len();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = peer.stream.read(&mut buffer).await.unwrap();
                total += count;
                if buffer[..count].ends_with(b"0\r\n\r\n") {
                    break;
                }
            }
            let size = (total / (16 * 1024)).to_string();
            peer.say(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{size}",
                size.len()
            ))
            .await;
        })
        .await;
        let mut request = post("");
        *request.body_mut() = Body::boxed(Large(1000));
        let response = send(&upstreams(), &cluster(server.address), request)
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "1000");
    });
}

/// Bytes of an answer one at a time, each in a packet of its own.
#[test]
fn an_answer_byte_by_byte_is_the_same_answer() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n\
                          5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nx-t: 2\r\n\r\n";
            while !peer.request().await.is_empty() {
                for at in 0..answer.len() {
                    peer.say(&answer[at..=at]).await;
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for _ in 0..2 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            assert_eq!(response.headers()["x"], "1");
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-t"], "2");
            assert_eq!(whole.to_bytes(), "hello!");
        }
        assert_eq!(server.connections(), 1);
    });
}

/// Wherever an answer is cut, it is an error of the right kind and never an end.
#[test]
fn an_answer_cut_anywhere_is_never_whole() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = format!("{head}3\r\nabc\r\n0\r\n\r\n");
    for length in 0..answer.len() {
        let part = answer[..length].to_owned();
        worker(false, async move {
            let server = Server::start(move |mut peer, _| {
                let said = part.clone();
                async move {
                    peer.request().await;
                    peer.say(&said).await;
                }
            })
            .await;
            let outcome = send(&upstreams(), &cluster(server.address), post("x")).await;
            let error = match outcome {
                Err(error) => {
                    assert!(length < head.len(), "{length}");
                    error
                }
                Ok(response) => text(response).await.err().unwrap(),
            };
            assert_eq!(error.flag(), Some(Flag::UpstreamCut), "{length}");
            assert_eq!(error.fault(), Fault::Upstream, "{length}");
        });
    }
}

/// A server that has begun to answer has looked at the request: it is not sent once more.
#[test]
fn half_a_head_on_a_used_connection_is_not_tried_again() {
    worker(false, async {
        let server = Server::start(|mut peer, notes| async move {
            loop {
                let request = peer.request().await;
                if request.is_empty() {
                    return;
                }
                notes.borrow_mut().push(request);
                if notes.borrow().len() == 2 {
                    return peer.say("HTTP/1.1 200").await;
                }
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        send(&upstreams, &cluster, post("one")).await.unwrap();
        let error = send(&upstreams, &cluster, post("two")).await.err().unwrap();
        assert_eq!(error.flag(), Some(Flag::UpstreamCut));
        assert_eq!(server.notes().len(), 2);
    });
}

/// The answer of a server that refuses the upload and closes is delivered all the same.
#[test]
fn a_refusal_reaches_the_client_though_the_upload_broke() {
    struct Endless;
    impl http_body::Body for Endless {
        type Data = bytes::Bytes;
        type Error = Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Error>>> {
            Poll::Ready(Some(Ok(Frame::data(bytes::Bytes::from_static(
                &[b'x'; 16 * 1024],
            )))))
        }
    }
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.request().await;
            peer.say("HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig")
                .await;
            // Reads on, as a server must that wants its answer to arrive.
            peer.closed().await;
        })
        .await;
        let mut request = post("");
        *request.body_mut() = Body::boxed(Endless);
        let response = send(&upstreams(), &cluster(server.address), request)
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(text(response).await.unwrap(), "big");
    });
}

/// An upload that is not what it promised leaves nothing behind that could be taken for the next request.
#[test]
fn an_upload_of_another_length_than_promised_fails() {
    for (promised, sent) in [("5", &["on", "e"][..]), ("2", &["one"][..])] {
        worker(false, async move {
            let (sender, mut closed) = tokio::sync::mpsc::unbounded_channel();
            let server = Server::start(move |mut peer, _| {
                let sender = sender.clone();
                async move {
                    peer.closed().await;
                    sender.send(()).unwrap();
                }
            })
            .await;
            let mut request = post("");
            *request.body_mut() = Body::boxed(Stream::of(sent));
            let value = promised.parse().unwrap();
            request.headers_mut().insert("content-length", value);
            let error = send(&upstreams(), &cluster(server.address), request).await.err();
            assert_eq!(error.unwrap().retry(), tollgate_base::Retry::No);
            closed.recv().await.unwrap();
        });
    }
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_has_no_stream() {
    worker(false, async {
        let server = answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n").await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        for _ in 0..2 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            assert_eq!(response.status(), 101);
            assert_eq!(text(response).await.unwrap(), "");
        }
        assert_eq!(server.connections(), 2);
    });
}
