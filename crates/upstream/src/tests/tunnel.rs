//! Forward proxies: what they are asked, and what becomes of each answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tollgate_base::task::spawn_local;
use tollgate_snapshot::Cluster;
use tollgate_snapshot::cluster::Tunnel;

use crate::tests::support::{plain, text, worker};
use crate::tests::tls::{Authority, assert_refused, secured, serve, try_send};

/// A forward proxy.
struct Proxy {
    address: SocketAddr,
    /// What it was asked.
    asked: mpsc::UnboundedReceiver<String>,
}

/// Gives `answer` to each question, then carries bytes to `behind`, or hangs up where there is nothing behind.
async fn proxy(answer: &'static str, behind: Option<SocketAddr>) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::unbounded_channel();
    spawn_local("test proxy", async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") && client.read_buf(&mut question).await.unwrap() > 0 {}
            let _ = sender.send(String::from_utf8(question).unwrap());
            client.write_all(answer.as_bytes()).await.unwrap();
            if let Some(behind) = behind {
                let mut origin = TcpStream::connect(behind).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut origin).await;
            }
        }
    });
    Proxy { address, asked }
}

fn through(mut cluster: Cluster) -> Cluster {
    cluster.tunnel = Some(Tunnel {
        authority: "llm.example:8443".into(),
        timeout: Duration::from_secs(5),
    });
    cluster
}

#[test]
fn tls_is_spoken_with_the_origin_behind_the_proxy() {
    worker(false, async {
        let authority = Authority::new();
        let mut origin = serve(authority.issue("llm.example", |_| ()), None, &["http/1.1"]).await;
        let answer = "HTTP/1.0 200 Connection established\r\nvia: squid\r\n\r\n";
        let mut proxy = proxy(answer, Some(origin.address)).await;
        let cluster = secured(proxy.address, Some("llm.example"), authority.bundle());
        let response = try_send(through(cluster)).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let asked = proxy.asked.recv().await.unwrap();
        assert_eq!(
            asked,
            "CONNECT llm.example:8443 HTTP/1.1\r\nhost: llm.example:8443\r\n\r\n"
        );
        let seen = origin.seen.recv().await.unwrap();
        assert_eq!(seen.sni.as_deref(), Some("llm.example"));
    });
}

#[test]
fn what_is_no_tunnel_is_a_failed_connect_that_names_the_proxy() {
    worker(false, async {
        let long: &'static str = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(20_000)).leak();
        let many: &'static str = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(100)).leak();
        for (answer, reason) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "status 407"),
            (
                "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
                "status 502",
            ),
            ("", "closed without an answer"),
            ("HTTP/1.1 200", "closed without an answer"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "its answer is no HTTP"),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "bytes that nobody asked for"),
            (long, "more than 16384 bytes"),
            (many, "its answer is no HTTP"),
        ] {
            let proxy = proxy(answer, None).await;
            let named = format!("forward proxy {}, CONNECT llm.example:8443: ", proxy.address);
            assert_refused(through(plain(proxy.address)), &named).await;
            assert_refused(through(plain(proxy.address)), reason).await;
        }
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = free.local_addr().unwrap();
        drop(free);
        assert_refused(through(plain(nobody)), &format!("connect {nobody}: ")).await;
    });
}

#[test]
fn a_silent_proxy_has_its_own_limit() {
    worker(true, async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        assert_refused(through(plain(address)), "nothing within 5000 ms").await;
    });
}
