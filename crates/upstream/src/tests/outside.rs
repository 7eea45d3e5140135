//! Requests to servers outside the configuration: whole answers, limits, and who may be reached.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::support::worker;
use crate::{Options, OutsideError, Reach, Shared};

const LIMIT: usize = 64;

/// Answers one connection with these bytes and closes it; gives the request that came.
async fn serve(bytes: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tollgate_base::task::spawn("test server", async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = vec![0; 4096];
        let read = stream.read(&mut seen).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        seen.truncate(read);
        String::from_utf8(seen).unwrap()
    });
    (port, task)
}

async fn ask(url: &str, reach: Reach, overrides: &[String]) -> Result<(u16, String), OutsideError> {
    let options = Options {
        overrides: overrides.iter().map(|text| text.parse().unwrap()).collect(),
        ..Options::default()
    };
    let shared = Shared::new(Handle::current(), &options);
    let request = Request::get(url)
        .header("accept", "x/y")
        .body(Bytes::new())
        .unwrap();
    let response = shared
        .ask_outside(request, reach, LIMIT, Duration::from_secs(10))
        .await?;
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    Ok((response.status().as_u16(), text))
}

#[test]
fn an_answer_comes_whole_and_a_status_is_no_error() {
    worker(false, async {
        let (port, server) = serve("HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno").await;
        let answer = ask(&format!("http://127.0.0.1:{port}/v2/?a=b"), Reach::Anywhere, &[]).await;
        assert_eq!(answer.unwrap(), (404, "no".to_owned()));
        let seen = server.await.unwrap();
        assert!(seen.starts_with("GET /v2/?a=b HTTP/1.1\r\n"), "{seen}");
        assert!(
            seen.contains(&format!("host: 127.0.0.1:{port}\r\n")) && seen.contains("accept: x/y"),
            "{seen}"
        );
        let (port, _server) = serve("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
        let named = format!("registry.example:80:127.0.0.1:{port}");
        let answer = ask("http://registry.example/", Reach::Anywhere, &[named]).await;
        assert_eq!(answer.unwrap(), (200, "until the end".to_owned()));
    });
}

#[test]
fn what_is_too_large_or_cut_or_garbage_is_an_error() {
    worker(false, async {
        let large =
            "HTTP/1.1 200 OK\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123456789";
        let (port, _server) = serve(large).await;
        let answer = ask(&format!("http://127.0.0.1:{port}/"), Reach::Anywhere, &[]).await;
        assert_eq!(answer.unwrap_err(), OutsideError::TooLarge(LIMIT));
        for broken in [
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
            "",
            "<html>what?</html>\r\n\r\n",
        ] {
            let (port, _server) = serve(broken).await;
            let answer = ask(&format!("http://127.0.0.1:{port}/"), Reach::Anywhere, &[]).await;
            assert!(
                matches!(answer, Err(OutsideError::Protocol(_))),
                "{broken:?}: {answer:?}"
            );
        }
    });
}

#[test]
fn somebody_elses_name_leads_to_public_addresses_only() {
    worker(false, async {
        let inward = "inward.example:443:127.0.0.1:9".to_owned();
        for url in [
            "https://inward.example/x",
            "http://127.0.0.1:9/",
            "http://[::1]:9/",
            "http://169.254.169.254/",
        ] {
            let answer = ask(url, Reach::Public, std::slice::from_ref(&inward)).await;
            assert!(
                matches!(answer, Err(OutsideError::Forbidden(_))),
                "{url}: {answer:?}"
            );
        }
        for url in ["ftp://a/", "/only/a/path", "http://user@127.0.0.1/"] {
            let answer = ask(url, Reach::Anywhere, &[]).await;
            assert!(matches!(answer, Err(OutsideError::Url(_))), "{url}: {answer:?}");
        }
    });
}

#[test]
fn a_server_that_says_nothing_costs_its_time_only() {
    worker(true, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = ask(&format!("http://127.0.0.1:{port}/"), Reach::Anywhere, &[]).await;
        assert_eq!(
            answer.unwrap_err(),
            OutsideError::Timeout(Duration::from_secs(10))
        );
    });
}
