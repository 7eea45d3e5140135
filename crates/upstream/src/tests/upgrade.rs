//! Upgrades: the stream belongs to the client afterwards; a refusal is an ordinary answer.

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_body::{Body, Request};

use crate::tests::support::{Server, cluster, get, send, text, upstreams, worker};

fn websocket() -> Request {
    http::Request::get("http://llm.example/socket")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .body(Body::empty())
        .unwrap()
}

#[test]
fn bytes_flow_both_ways_after_the_switch() {
    worker(false, async {
        let server = Server::start(|mut peer, notes| async move {
            let request = peer.request().await;
            notes.borrow_mut().push(request);
            // The first bytes of the new protocol come along with the head.
            peer.say(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi",
            )
            .await;
            let mut buffer = [0; 4];
            peer.stream.read_exact(&mut buffer).await.unwrap();
            peer.stream.write_all(&buffer).await.unwrap();
        })
        .await;
        let response = send(&upstreams(), &cluster(server.address), websocket())
            .await
            .unwrap();
        assert_eq!(response.status(), 101);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        let mut everything = String::new();
        stream.read_to_string(&mut everything).await.unwrap();
        assert_eq!(everything, "hiping");
        let seen = &server.notes()[0];
        assert!(seen.contains("upgrade: websocket\r\n"), "{seen}");
    });
}

#[test]
fn a_refused_upgrade_is_an_answer() {
    worker(false, async {
        let server = Server::polite().await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let response = send(&upstreams, &cluster, websocket()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await.unwrap(), "ok 0");
        // The connection was the upgrade's own.
        let next = send(&upstreams, &cluster, get("/")).await.unwrap();
        assert_eq!(text(next).await.unwrap(), "ok 1");
    });
}

#[test]
fn an_upgrade_header_without_its_connection_option_is_no_upgrade() {
    worker(false, async {
        let server = Server::polite().await;
        let (upstreams, cluster) = (upstreams(), cluster(server.address));
        let mut request = websocket();
        request.headers_mut().remove("connection");
        for expected in ["ok 0", "ok 0"] {
            let mut again = get("/");
            *again.headers_mut() = request.headers().clone();
            let response = send(&upstreams, &cluster, again).await.unwrap();
            assert_eq!(text(response).await.unwrap(), expected);
        }
    });
}
