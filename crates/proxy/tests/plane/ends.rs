//! How answers end: cut ones never look whole, and the gateway's own end is told to whoever is still listening.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_base::shutdown::Phase;
use tollgate_mock_llm::Options as MockOptions;
use tollgate_snapshot::{Policy, Settings, Snapshot};
use tollgate_testkit::client::{self, post_json};

use crate::common::{fixed, snapshot, start};

const STREAMED: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

/// A log format that tells how an exchange ended.
fn told(snapshot: Snapshot) -> Snapshot {
    let format =
        tollgate_observe::Format::parse("%RESPONSE_CODE% %RESPONSE_FLAGS% %TOLLGATE(termination)%").unwrap();
    Snapshot {
        settings: Settings {
            access_log: format.into(),
            ..Settings::default()
        },
        ..snapshot
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_with_its_connection_and_no_marker_is_a_cut() {
    let upstream = fixed(format!("{EVENTS}\r\ndata: {{\"choices\":[]}}\n\n"));
    let plane = start(told(snapshot(upstream, Policy::default())));
    let answer = client::send(plane.http, post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        answer.events().last().unwrap().contains("upstream_cut"),
        "{answer:?}"
    );
    assert_eq!(plane.stop().await, "200 UC upstream_cut\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_shorter_than_the_error_event_does_not_cut_it() {
    let upstream = fixed(format!("{EVENTS}content-length: 20\r\n\r\ndata: {{\"a\":1}}\n\n"));
    let plane = start(told(snapshot(upstream, Policy::default())));
    let answer = client::send(plane.http, post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    assert!(answer.text().ends_with("}}\n\n"), "{answer:?}");
    assert!(
        answer.events().last().unwrap().contains("upstream_cut"),
        "{answer:?}"
    );
    assert_eq!(answer.cut, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_of_http_1_0_is_answered_in_1_1() {
    let upstream = fixed("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}");
    let plane = start(told(snapshot(upstream, Policy::default())));
    let request = "GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = client::raw(plane.http, request.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert_eq!(plane.stop().await, "200 - completed\n");
}

fn slow_mock() -> tollgate_mock_llm::Handle {
    tollgate_mock_llm::start(MockOptions {
        pace: Duration::from_secs(60),
        ..MockOptions::default()
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_the_drain_a_stream_is_told_so() {
    let mock = slow_mock();
    let plane = start(told(snapshot(mock.addr(), Policy::default())));
    let mut stream = client::open(plane.http, post_json("/v1/chat/completions", STREAMED))
        .await
        .unwrap();
    stream.read_until("data:").await.unwrap();
    plane.trigger.advance(Phase::Draining);
    let log = plane.end_at(Phase::Stopped).await;
    let rest = stream.finish().await;
    assert!(
        rest.events().last().unwrap().contains(r#""code":"shutdown""#),
        "{rest:?}"
    );
    assert_eq!(rest.cut, None);
    assert_eq!(log, "200 - shutdown\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_over_h2() {
    let mock = slow_mock();
    let plane = start(told(snapshot(mock.addr(), Policy::default())));
    let uri = format!("http://{}/v1/chat/completions", plane.http);
    let request = Request::post(uri)
        .body(http_body_util::Full::<bytes::Bytes>::from(STREAMED))
        .unwrap();
    let socket = tokio::net::TcpStream::connect(plane.http).await.unwrap();
    let (executor, io) = (
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(socket),
    );
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    drop(tollgate_base::task::spawn("client", connection));
    let mut body = sender.send_request(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    let log = plane.end_at(Phase::Stopped).await;
    let rest = body.collect().await.unwrap().to_bytes();
    assert!(
        String::from_utf8_lossy(&rest).contains(r#""code":"shutdown""#),
        "{rest:?}"
    );
    assert_eq!(log, "200 - shutdown\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_one_that_waits_for_an_answer() {
    let silent = tollgate_mock_llm::SilentPort::new().unwrap();
    let plane = start(told(snapshot(silent.addr(), Policy::default())));
    let asking = client::send(plane.http, post_json("/v1/chat/completions", STREAMED));
    let ending = async {
        // The connection counts from its acceptance on.
        while plane.active_requests() == 0 {
            tokio::task::yield_now().await;
        }
        plane.end_at(Phase::Stopped).await
    };
    let (answer, log) = futures_util::future::join(asking, ending).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains(r#""code":"shutdown""#), "{answer:?}");
    assert_eq!(log, "503 - shutdown\n");
}

/// Whatever the client does, each request leaves one line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_is_settled_once_however_it_is_left() {
    const CLIENTS: usize = 90;
    let mock = tollgate_mock_llm::start(MockOptions {
        pace: Duration::from_millis(1),
        ..MockOptions::default()
    })
    .unwrap();
    let plane = start(told(snapshot(mock.addr(), Policy::default())));
    let clients = (0..CLIENTS).map(|number| async move {
        let mut socket = tokio::net::TcpStream::connect(plane.http).await.unwrap();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{STREAMED}",
            STREAMED.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // The last ones read it all, the others leave in the middle of something, some with a reset.
        let mut answer = vec![0; 1 + number * 50];
        drop(socket.read_exact(&mut answer).await);
        if number + 10 >= CLIENTS {
            socket.read_to_end(&mut answer).await.unwrap();
        } else if number % 2 == 0 {
            socket.set_zero_linger().unwrap();
        }
    });
    futures_util::future::join_all(clients).await;
    while plane.active_requests() > 0 {
        tokio::task::yield_now().await;
    }
    let log = plane.stop().await;
    let ends: Vec<&str> = log.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(ends.len(), CLIENTS, "{log}");
    let completed = ends.iter().filter(|end| **end == "completed").count();
    let gone = ends.iter().filter(|end| **end == "client_gone").count();
    assert_eq!(completed + gone, CLIENTS, "{log}");
    assert!(completed >= 10 && gone > 0, "{completed} completed, {gone} gone");
}

const UPGRADE: &str = "GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

/// An upstream that agrees to every upgrade and then says what it hears.
async fn echoing() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            let agreed =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            stream.write_all(agreed.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    };
    drop(tollgate_base::task::spawn("echoing upstream", serving));
    address
}

async fn echo(stream: &mut tokio::net::TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text.as_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_lives_through_the_drain_and_its_bytes_count() {
    let plane = start(told(snapshot(echoing().await, Policy::default())));
    let mut stream = tokio::net::TcpStream::connect(plane.http).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    echo(&mut stream, "one").await;
    plane.trigger.advance(Phase::Draining);
    // The listener closes with the drain: once it has, the tunnel has lived through its beginning.
    while tokio::net::TcpStream::connect(plane.http).await.is_ok() {
        tokio::task::yield_now().await;
    }
    echo(&mut stream, "two").await;
    drop(stream);
    assert_eq!(plane.stop().await, "101 - completed\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_sending_its_body_is_told_and_closed() {
    let mock = slow_mock();
    let mut snapshot = told(snapshot(mock.addr(), Policy::default()));
    snapshot.settings.downstream_idle = Duration::from_millis(50);
    let plane = start(snapshot);
    let request = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc";
    let answer = client::raw(plane.http, request.as_bytes()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_body_timeout"), "{answer}");
    assert_eq!(plane.stop().await, "408 SI refused\n");
}

/// An upstream that answers with these bytes and then says nothing more.
async fn silent_after(answer: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(stream.read(&mut head).await);
        }
    };
    drop(tollgate_base::task::spawn("silent upstream", serving));
    address
}

/// What a client gets of a gateway whose idle streams are soon given up, and what is logged.
async fn given_up(upstream: std::net::SocketAddr, request: &str) -> (String, String) {
    let mut snapshot = told(snapshot(upstream, Policy::default()));
    snapshot.settings.downstream_idle = Duration::from_millis(50);
    let plane = start(snapshot);
    let mut stream = tokio::net::TcpStream::connect(plane.http).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    // A reset is an end as well.
    while let Ok(count) = stream.read(&mut buffer).await
        && count > 0
    {
        got.extend_from_slice(&buffer[..count]);
    }
    (String::from_utf8(got).unwrap(), plane.stop().await)
}

const ASKED: &str = "GET /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_never_answers_is_not_waited_for_for_ever() {
    let (answer, log) = given_up(silent_after("").await, ASKED).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("upstream_response_head_timeout"), "{answer}");
    assert_eq!(log, "504 UT timeout_response_head\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_goes_silent_is_given_up_and_does_not_look_whole() {
    let upstream = silent_after(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
    )
    .await;
    let (answer, log) = given_up(upstream, ASKED).await;
    assert!(answer.contains("data: 1\n\n"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(log, "200 SI timeout_silence\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_goes_silent_is_closed() {
    let (answer, log) = given_up(echoing().await, UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(log, "101 SI timeout_silence\n");
}
