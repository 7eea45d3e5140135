//! Limits that have a name: connections, idle clients, streams of one h2 connection.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{get, open, send};

use crate::support::{
    CHAT, CHAT_STREAM, PATIENCE, Sight, bridge, documents, gateway, higress_config, ingress, mock, ordered,
};

/// Reads until the other side closes; panics when it does not.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A reset is a close too.
    drop(reading.expect("the connection stayed open"));
    rest
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let gateway = start
        .option("--workers", 1)
        .option("--max-connections", 3)
        .go()
        .unwrap();
    let mut open_streams = Vec::new();
    for _ in 0..3 {
        let mut stream = open(gateway.http, ordered("stall-between", CHAT_STREAM).0)
            .await
            .unwrap();
        stream.read_until("data:").await.unwrap();
        open_streams.push(stream);
    }
    let mut fourth = TcpStream::connect(gateway.http).await.unwrap();
    assert!(closed(&mut fourth).await.is_empty());
    let page = gateway.admin("/stats/prometheus").await.text();
    let refused = page
        .lines()
        .any(|line| line.starts_with("envoy_http_downstream_cx_overload_reject") && line.ends_with(" 1"));
    assert!(refused, "{page}");
    drop(open_streams);
    // The place is free as soon as the gateway has seen them go.
    let served = async { while send(gateway.http, get("/echo")).await.is_err() {} };
    assert!(
        tokio::time::timeout(PATIENCE, served).await.is_ok(),
        "no place became free"
    );
}

#[tokio::test]
async fn what_is_idle_or_silent_is_closed_and_what_moves_is_not() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        higress_config("    downstream:\n      idleTimeout: 2\n"),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let mut busy = open(gateway.http, ordered("tokens;n=20,pace;ms=250", CHAT_STREAM).0)
        .await
        .unwrap();
    busy.read_until("data:").await.unwrap();
    let mut silent = open(gateway.http, ordered("stall-between;ms=60000", CHAT_STREAM).0)
        .await
        .unwrap();
    silent.read_until("data:").await.unwrap();
    let mut idle = TcpStream::connect(gateway.http).await.unwrap();
    assert!(closed(&mut idle).await.is_empty());
    assert!(silent.finish().await.cut.is_some(), "it must not look whole");
    let answer = busy.finish().await;
    assert_eq!(answer.cut, None);
    assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
}

#[tokio::test]
async fn a_client_that_knows_the_limit_of_streams_is_served_in_turns() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        higress_config("    downstream:\n      http2:\n        maxConcurrentStreams: 5\n"),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let stream = TcpStream::connect(gateway.http).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    // Nothing is assumed of the limit before the gateway has told it.
    let mut builder = hyper::client::conn::http2::Builder::new(executor);
    let (sender, connection) = builder.initial_max_send_streams(1).handshake(io).await.unwrap();
    let connection = tollgate_base::task::spawn("connection", async move { drop(connection.await) });
    let asks = (0..20).map(|_| {
        let mut sender = sender.clone();
        let (mut request, _) = ordered("pace;ms=5", CHAT);
        *request.uri_mut() = format!("http://{}/v1/chat/completions", gateway.http)
            .parse()
            .unwrap();
        async move {
            sender
                .send_request(request.map(http_body_util::Full::new))
                .await
                .map(|answer| answer.status())
        }
    });
    // The client is told the limit and keeps to it: all are served, five at a time.
    for status in futures_util::future::join_all(asks).await {
        assert_eq!(status.unwrap(), 200);
    }
    drop((sender, connection));
}

#[tokio::test]
async fn a_thousand_open_streams_are_served_and_forgotten() {
    let mock = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let opening = (0..50).map(|_| open(gateway.http, ordered("stall-between", CHAT_STREAM).0));
        for opened in futures_util::future::join_all(opening).await {
            streams.push(opened.unwrap());
        }
    }
    assert_eq!(
        gateway
            .metric("envoy_cluster_upstream_rq_active{cluster_name=\"outbound|80||mock.static\"}")
            .await,
        1000.0
    );
    drop(streams);
    let forgotten = async {
        while gateway
            .metric("tollgate_requests_total{termination=\"client_gone\"}")
            .await
            < 1000.0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, forgotten).await.is_ok(),
        "streams were not forgotten"
    );
    assert_eq!(
        gateway
            .metric("envoy_cluster_upstream_rq_active{cluster_name=\"outbound|80||mock.static\"}")
            .await,
        0.0
    );
    gateway
        .log
        .wait_until(|lines| (lines.len() == 1000).then_some(()))
        .expect("one line a request");
}
