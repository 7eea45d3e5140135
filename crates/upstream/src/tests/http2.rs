//! HTTP/2: streams share connections up to what the server allows, and each kind of end is told apart.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tollgate_base::{Flag, Retry, task};
use tollgate_body::Body;
use tollgate_snapshot::{Cluster, UpstreamProtocol};

use crate::tests::support::{Server, get, plain, post, send, text, upstreams, worker};
use crate::tests::tls::{Authority, serve_with};

type Stream = (http::Request<RecvStream>, SendResponse<Bytes>);

fn http2(address: SocketAddr) -> Arc<Cluster> {
    let mut cluster = plain(address);
    cluster.protocol = UpstreamProtocol::Http2;
    Arc::new(cluster)
}

/// A server of prior knowledge that allows `streams` at once and runs `script` for each stream.
struct Http2Server {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
}

impl Http2Server {
    async fn start<F, W>(streams: u32, script: F) -> Self
    where
        F: Fn(Stream) -> W + Clone + 'static,
        W: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let counted = Rc::clone(&connections);
        task::spawn_local("test server", async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.set(counted.get() + 1);
                let each = script.clone();
                task::spawn_local("test connection", async move {
                    let mut connection = accept(tcp, streams).await;
                    while let Some(Ok(stream)) = connection.accept().await {
                        task::spawn_local("test stream", each(stream));
                    }
                });
            }
        });
        Self { address, connections }
    }
}

async fn accept(tcp: TcpStream, streams: u32) -> Connection<TcpStream, Bytes> {
    h2::server::Builder::new()
        .max_concurrent_streams(streams)
        .handshake(tcp)
        .await
        .unwrap()
}

fn answer(respond: &mut SendResponse<Bytes>, body: &str) {
    let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
    stream.send_data(Bytes::from(body.to_owned()), true).unwrap();
}

#[test]
fn requests_at_the_same_time_share_one_dial_and_one_connection() {
    worker(false, async {
        let server =
            Http2Server::start(100, |(_, mut respond)| async move { answer(&mut respond, "ok") }).await;
        let (upstreams, cluster) = (upstreams(), http2(server.address));
        let answers = join_all((0..20).map(|_| send(&upstreams, &cluster, get("/")))).await;
        for response in answers {
            assert_eq!(text(response.unwrap()).await.unwrap(), "ok");
        }
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn a_full_connection_gets_a_neighbour() {
    worker(false, async {
        let open = Rc::new(Notify::new());
        let gate = Rc::clone(&open);
        let server = Http2Server::start(2, move |(_, mut respond)| {
            let gate = Rc::clone(&gate);
            async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                gate.notified().await;
                stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), http2(server.address));
        // The first answer brings the server's settings along.
        let first = send(&upstreams, &cluster, get("/")).await.unwrap();
        let others = join_all((0..4).map(|_| send(&upstreams, &cluster, get("/")))).await;
        assert_eq!(server.connections.get(), 3);
        for _ in 0..5 {
            open.notify_one();
        }
        for response in others.into_iter().map(Result::unwrap).chain([first]) {
            assert_eq!(text(response).await.unwrap(), "ok");
        }
        // There is room again: nobody dials.
        open.notify_one();
        let again = send(&upstreams, &cluster, get("/")).await.unwrap();
        assert_eq!(text(again).await.unwrap(), "ok");
        assert_eq!(server.connections.get(), 3);
    });
}

#[test]
fn a_grpc_call_keeps_te_and_trailers_and_has_an_absolute_target() {
    worker(false, async {
        let seen = Rc::new(RefCell::new(None));
        let noted = Rc::clone(&seen);
        let server = Http2Server::start(100, move |(request, mut respond)| {
            let noted = Rc::clone(&noted);
            async move {
                let (head, mut body) = request.into_parts();
                let data = body.data().await.unwrap().unwrap();
                noted.replace(Some((head, data)));
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"answer"), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
        })
        .await;
        let request = http::Request::post("http://llm.example:81/pkg.Service/Call")
            .header("host", "client.example")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(Body::bytes("question"))
            .unwrap();
        let response = send(&upstreams(), &http2(server.address), request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "answer");
        let (head, data) = seen.borrow_mut().take().unwrap();
        assert_eq!(head.uri, "http://llm.example:81/pkg.Service/Call");
        assert_eq!(head.headers["te"], "trailers");
        assert!(!head.headers.contains_key("host"));
        assert_eq!(data, "question");
    });
}

#[test]
fn dropping_a_body_resets_its_stream_and_no_other() {
    worker(false, async {
        let (sender, mut resets) = mpsc::unbounded_channel();
        let server = Http2Server::start(100, move |(request, mut respond)| {
            let sender = sender.clone();
            async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"one"), false).unwrap();
                let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
                sender
                    .send((request.uri().path().to_owned(), reason.unwrap()))
                    .unwrap();
            }
        })
        .await;
        let (upstreams, cluster) = (upstreams(), http2(server.address));
        let kept = send(&upstreams, &cluster, get("/kept")).await.unwrap();
        let mut dropped = send(&upstreams, &cluster, get("/dropped"))
            .await
            .unwrap()
            .into_body();
        dropped.frame().await.unwrap().unwrap();
        drop(dropped);
        assert_eq!(
            resets.recv().await.unwrap(),
            ("/dropped".to_owned(), Reason::CANCEL)
        );
        let frame = kept.into_body().frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), "one");
        assert_eq!(server.connections.get(), 1);
    });
}

#[test]
fn a_refused_stream_was_not_processed_and_a_reset_one_may_have_been() {
    for (reason, retry) in [
        (Reason::REFUSED_STREAM, Retry::Unsent),
        (Reason::INTERNAL_ERROR, Retry::Idempotent),
        (Reason::CANCEL, Retry::Idempotent),
    ] {
        worker(false, async {
            let server =
                Http2Server::start(
                    100,
                    move |(_, mut respond)| async move { respond.send_reset(reason) },
                )
                .await;
            let error = send(&upstreams(), &http2(server.address), post("a"))
                .await
                .err()
                .unwrap();
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE, "{reason:?}");
            assert_eq!(error.flag(), Some(Flag::UpstreamReset), "{reason:?}");
            assert_eq!(error.retry(), retry, "{reason:?}");
        });
    }
}

#[test]
fn a_stream_that_breaks_in_its_body_is_cut() {
    worker(false, async {
        let read = Rc::new(Notify::new());
        let gate = Rc::clone(&read);
        let server = Http2Server::start(100, move |(_, mut respond)| {
            let gate = Rc::clone(&gate);
            async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"one"), false).unwrap();
                gate.notified().await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
        })
        .await;
        let response = send(&upstreams(), &http2(server.address), get("/"))
            .await
            .unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        read.notify_one();
        let error = body.frame().await.unwrap().err().unwrap();
        assert_eq!(
            (error.reason(), error.flag()),
            ("upstream_cut", Some(Flag::UpstreamCut))
        );
    });
}

#[test]
fn a_connection_that_goes_away_while_idle_is_replaced() {
    worker(false, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut connections) = mpsc::unbounded_channel();
        task::spawn_local("test server", async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut connection = accept(tcp, 100).await;
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                answer(&mut respond, "ok");
                connection.graceful_shutdown();
                assert!(connection.accept().await.is_none());
                sender.send(()).unwrap();
            }
        });
        let (upstreams, cluster) = (upstreams(), http2(address));
        for _ in 0..3 {
            let response = send(&upstreams, &cluster, post("a")).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
            connections.recv().await.unwrap();
        }
    });
}

#[test]
fn a_server_that_speaks_http1_only_is_a_protocol_error() {
    worker(false, async {
        let server = Server::start(|mut peer, _| async move {
            peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                .await;
            peer.closed().await;
        })
        .await;
        let error = send(&upstreams(), &http2(server.address), get("/"))
            .await
            .err()
            .unwrap();
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(error.flag(), Some(Flag::UpstreamProtocolError));
    });
}

#[test]
fn a_refused_dial_is_everybodys_failure() {
    worker(false, async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = http2(listener.local_addr().unwrap());
        drop(listener);
        let upstreams = upstreams();
        for outcome in join_all((0..3).map(|_| send(&upstreams, &cluster, get("/")))).await {
            assert_eq!(outcome.err().unwrap().flag(), Some(Flag::UpstreamConnectFailure));
        }
    });
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    worker(true, async {
        let (sender, mut closed) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = http2(listener.local_addr().unwrap());
        task::spawn_local("test server", async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = accept(tcp, 100).await;
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            answer(&mut respond, "ok");
            while connection.accept().await.is_some() {}
            sender.send(tollgate_base::clock::now()).unwrap();
        });
        let upstreams = upstreams();
        let response = send(&upstreams, &cluster, get("/")).await.unwrap();
        text(response).await.unwrap();
        let begun = tollgate_base::clock::now();
        let idle = closed.recv().await.unwrap() - begun;
        let timeout = cluster.idle_timeout;
        assert!(
            idle >= timeout && idle <= timeout + std::time::Duration::from_secs(2),
            "{idle:?}"
        );
    });
}

#[test]
fn alpn_chooses_the_protocol() {
    worker(false, async {
        let authority = Authority::new();
        let mut cluster = plain("127.0.0.1:1".parse().unwrap());
        cluster.protocol = UpstreamProtocol::Http2;
        cluster.tls = Some(crate::tests::tls::unverified());
        let upstreams = upstreams();

        let modern = serve_with(
            authority.issue("llm.example", |_| ()),
            None,
            &["h2"],
            |stream| async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                assert_eq!(request.uri().scheme_str(), Some("https"));
                answer(&mut respond, "two");
                while connection.accept().await.is_some() {}
            },
        )
        .await;
        cluster.endpoints = tollgate_snapshot::Endpoints::Static(vec![(modern.address, 1)]);
        let response = send(&upstreams, &cluster.clone().into(), get("/")).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(text(response).await.unwrap(), "two");

        let mut old =
            crate::tests::tls::serve(authority.issue("llm.example", |_| ()), None, &["http/1.1"]).await;
        cluster.endpoints = tollgate_snapshot::Endpoints::Static(vec![(old.address, 1)]);
        let cluster = cluster.into();
        for _ in 0..2 {
            let response = send(&upstreams, &cluster, get("/")).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_11);
            assert_eq!(text(response).await.unwrap(), "ok");
            let seen = old.seen.recv().await.unwrap();
            assert_eq!(seen.alpn.as_deref(), Some("http/1.1"));
        }
    });
}
