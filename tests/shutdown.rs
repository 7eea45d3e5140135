//! Starting and stopping: readiness, drain, ports in use.

use tollgate_testkit::client::{get, open, send};
use tollgate_testkit::process::Start;

use crate::support::{
    BINARY, CHAT, CHAT_STREAM, PATIENCE, Scene, Sight, bridge, documents, gateway, ingress, mock, ordered,
    verbose_log,
};

#[tokio::test]
async fn sigterm_finishes_what_is_open_and_exits_0() {
    let scene = Scene::openai(&[]);
    let wanted = send(scene.mock.addr(), ordered("tokens;n=40", CHAT_STREAM).0)
        .await
        .unwrap()
        .text();
    let (request, id) = ordered("tokens;n=40,pace;ms=60", CHAT_STREAM);
    let mut stream = open(scene.gateway.http, request).await.unwrap();
    let seen = stream.read_until("data:").await.unwrap();
    assert_eq!(scene.gateway.admin("/healthz/ready").await.status, 200);
    scene.gateway.signal("TERM").unwrap();
    scene
        .gateway
        .errors
        .wait_for(|line| line.contains("draining"))
        .unwrap();
    let ready = scene.gateway.admin("/healthz/ready").await;
    assert_eq!((ready.status.as_u16(), ready.text().trim()), (503, "draining"));
    assert_eq!(scene.gateway.admin("/healthz/live").await.status, 200);
    // The workers hear of it one after the other.
    let refused = async { while send(scene.gateway.http, get("/status/200")).await.is_ok() {} };
    assert!(
        tokio::time::timeout(PATIENCE, refused).await.is_ok(),
        "new connections are still served"
    );
    let answer = stream.finish().await;
    assert_eq!(answer.cut, None);
    assert_eq!(seen + &answer.text(), wanted);
    assert_eq!(scene.gateway.line_of(&id)["termination"], "completed");
    let Scene { gateway, mock } = scene;
    assert_eq!(gateway.wait().unwrap().code(), Some(0));
    drop(mock);
}

#[tokio::test]
async fn an_h2_client_is_told_to_go_and_keeps_its_open_stream() {
    let scene = Scene::openai(&[]);
    let stream = tokio::net::TcpStream::connect(scene.gateway.http).await.unwrap();
    let (executor, io) = (
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tollgate_base::task::spawn("connection", async move { drop(connection.await) });
    let (mut request, id) = ordered("tokens;n=40,pace;ms=60", CHAT_STREAM);
    *request.uri_mut() = format!("http://{}/v1/chat/completions", scene.gateway.http)
        .parse()
        .unwrap();
    let answer = sender
        .send_request(request.map(http_body_util::Full::new))
        .await
        .unwrap();
    scene.gateway.signal("TERM").unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"), "{body:?}");
    let again = http::Request::get(format!("http://{}/echo", scene.gateway.http))
        .body(http_body_util::Full::default());
    assert!(
        sender.send_request(again.unwrap()).await.is_err(),
        "a request after GOAWAY"
    );
    assert_eq!(scene.gateway.line_of(&id)["termination"], "completed");
    drop(connection);
    assert_eq!(scene.gateway.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let scene = Scene::plain(&[]);
        assert_eq!(scene.chat("", CHAT).await.0.status, 200);
        // An idle connection of a client is no reason to wait.
        let _idle = tokio::net::TcpStream::connect(scene.gateway.http).await.unwrap();
        let started = tollgate_base::clock::now();
        scene.gateway.signal(signal).unwrap();
        assert_eq!(scene.gateway.wait().unwrap().code(), Some(0), "{signal}");
        assert!(
            started.elapsed() < std::time::Duration::from_secs(15),
            "{signal}: {:?}",
            started.elapsed()
        );
    }
}

async fn hanging(drain: &str) -> (Scene, tollgate_testkit::client::Opening, String) {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        verbose_log(),
    ]);
    let gateway = gateway()
        .file("scene.yaml", &text)
        .unwrap()
        .option("--drain", drain)
        .go()
        .unwrap();
    let scene = Scene { gateway, mock };
    let (mut stream, id) = scene.open_chat("stall-between", CHAT_STREAM).await;
    stream.read_until("data:").await.unwrap();
    scene.gateway.signal("TERM").unwrap();
    scene
        .gateway
        .errors
        .wait_for(|line| line.contains("draining"))
        .unwrap();
    (scene, stream, id)
}

#[tokio::test]
async fn the_end_of_the_drain_ends_what_hangs() {
    let (scene, stream, id) = hanging("1").await;
    let answer = stream.finish().await;
    assert!(
        answer.cut.is_some() || answer.text().contains("\"error\""),
        "{answer:?}"
    );
    assert!(!answer.text().contains("[DONE]"), "{answer:?}");
    assert_eq!(scene.gateway.line_of(&id)["termination"], "shutdown");
    assert_eq!(scene.gateway.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_what_hangs() {
    let (scene, stream, id) = hanging("3600").await;
    scene.gateway.signal("TERM").unwrap();
    let answer = stream.finish().await;
    assert!(!answer.text().contains("[DONE]"), "{answer:?}");
    assert_eq!(scene.gateway.line_of(&id)["termination"], "shutdown");
    assert_eq!(scene.gateway.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_one_line_and_exit_1() {
    let running = gateway().go().unwrap();
    for (flag, address) in [("--http", running.http), ("--admin", running.admin)] {
        let mut start = Start::new(BINARY)
            .unwrap()
            .command("run")
            .option("--config", "config")
            .option("--console", "off");
        for other in ["--http", "--https", "--admin"]
            .iter()
            .filter(|other| **other != flag)
        {
            start = start.option(other, "127.0.0.1:0");
        }
        let output = start.option(flag, address).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{flag}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.lines().count(), 1, "{flag}: {said}");
        assert!(said.contains(&address.to_string()), "{flag}: {said}");
        assert!(!said.contains("tollgate ready"), "{said}");
    }
    assert_eq!(
        send(running.http, get("/")).await.unwrap().status,
        404,
        "the first one still serves"
    );
}

#[tokio::test]
async fn the_ready_line_names_real_ports() {
    let running = gateway().option("--console", "off").go().unwrap();
    let line = running
        .errors
        .wait_for(|line| line.starts_with("tollgate ready "))
        .unwrap();
    let names: Vec<&str> = line
        .split(' ')
        .skip(2)
        .filter_map(|word| word.split('=').next())
        .collect();
    assert_eq!(names, ["http", "https", "admin", "console"], "{line}");
    assert_eq!(
        running.errors.all().iter().position(|said| *said == line),
        Some(0),
        "it is the first line"
    );
    assert!(running.http.port() != 0 && running.admin.port() != 0, "{line}");
}

#[tokio::test]
async fn flags_are_variables_too_and_a_flag_wins() {
    let mock = mock(tollgate_mock_llm::Options::default());
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let log = start.path("from-variable.log");
    let running = start
        .variable("TOLLGATE_ACCESS_LOG", log.display())
        .variable("TOLLGATE_HTTP", "127.0.0.1:1")
        .go()
        .unwrap();
    assert_ne!(running.http.port(), 1, "--http was given as a flag");
    send(running.http, get("/echo")).await.unwrap();
    assert!(log.exists() && running.log.all().is_empty());
}
