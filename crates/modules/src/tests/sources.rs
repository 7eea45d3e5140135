//! Files and web servers, failures that pass and failures that stay.

use std::time::Duration;

use super::server::{Answer, Server, fetcher};
use crate::unpack::tests::{MODULE, archive, gzip};
use crate::{Options, Wanted, sha256_hex};

fn wanted(url: impl Into<String>) -> Wanted {
    Wanted {
        url: url.into(),
        ..Wanted::default()
    }
}

#[tokio::test]
async fn a_file_is_checked_before_it_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.wasm");
    std::fs::write(&path, MODULE).unwrap();
    let url = format!("file://{}", path.display());
    let checked = Wanted {
        sha256: sha256_hex(MODULE).to_uppercase(),
        ..wanted(&url)
    };
    assert_eq!(
        fetcher(Options::default()).fetch(&checked).await.unwrap().bytes,
        MODULE
    );
    let other = Wanted {
        sha256: "0".repeat(64),
        ..wanted(&url)
    };
    let fault = fetcher(Options::default()).fetch(&other).await.unwrap_err();
    let expected = format!(
        "module downloaded from {url} has checksum {}, which does not match: 000",
        sha256_hex(MODULE)
    );
    assert!(fault.starts_with(&expected), "{fault}");
    let small = fetcher(Options {
        limit: 7,
        ..Options::default()
    });
    assert!(small.fetch(&wanted(&url)).await.unwrap_err().contains("7 bytes"));
    std::fs::write(&path, "<html>").unwrap();
    let fault = fetcher(Options::default())
        .fetch(&wanted(&url))
        .await
        .unwrap_err();
    assert_eq!(fault, "this is no Wasm module");
    let fault = fetcher(Options::default())
        .fetch(&wanted("file:///nowhere/x.wasm"))
        .await
        .unwrap_err();
    assert!(fault.starts_with("cannot read /nowhere/x.wasm"), "{fault}");
}

#[tokio::test]
async fn a_web_server_may_wrap_and_redirect() {
    let server = Server::start().await;
    let at = |path: &str| wanted(format!("http://{}{path}", server.address));
    server.put("/plain", Answer::ok(MODULE));
    server.put(
        "/wrapped.tar.gz",
        Answer::ok(gzip(&archive(&[("a.wasm", MODULE)]))),
    );
    server.put("/moved", Answer::status(301).header("location", "/plain"));
    server.put("/page", Answer::ok("<html>"));
    server.put(
        "/inward",
        Answer::status(302).header("location", "http://169.254.169.254/latest"),
    );
    for path in ["/plain", "/wrapped.tar.gz", "/moved"] {
        assert_eq!(
            fetcher(Options::default()).fetch(&at(path)).await.unwrap().bytes,
            MODULE,
            "{path}"
        );
    }
    for (path, expected) in [
        ("/page", "this is no Wasm module"),
        ("/nothing", "404"),
        ("/inward", "not public"),
    ] {
        let fault = fetcher(Options::default()).fetch(&at(path)).await.unwrap_err();
        assert!(fault.contains(expected), "{path}: {fault}");
    }
}

/// Time passes only while everybody waits, so that the waits between tries cost nothing.
#[tokio::test(start_paused = true)]
async fn a_failing_server_is_asked_five_times_and_a_failure_is_believed_for_a_while() {
    let server = Server::start().await;
    let at = |path: &str| wanted(format!("http://{}{path}", server.address));
    server.put("/ill", Answer::status(503));
    let fetcher = fetcher(Options::default());
    let fault = fetcher.fetch(&at("/ill")).await.unwrap_err();
    assert!(fault.contains("503"), "{fault}");
    assert_eq!(server.seen().len(), 5);
    server.put("/ill", Answer::ok(MODULE));
    assert_eq!(fetcher.fetch(&at("/ill")).await.unwrap_err(), fault);
    assert!(server.seen().is_empty(), "asked again at once");
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(fetcher.fetch(&at("/ill")).await.unwrap().bytes, MODULE);
    for status in [404, 501] {
        server.put("/final", Answer::status(status));
        server.seen();
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(fetcher.fetch(&at("/final")).await.is_err());
        assert_eq!(server.seen().len(), 1, "{status} was asked again");
    }
}

#[tokio::test]
async fn who_wants_the_same_shares_one_fetch() {
    let server = Server::start().await;
    server.put("/plain", Answer::ok(MODULE));
    let fetcher = fetcher(Options::default());
    let at = wanted(format!("http://{}/plain", server.address));
    let (one, two, three) = tokio::join!(fetcher.fetch(&at), fetcher.fetch(&at), fetcher.fetch(&at));
    assert!(one.is_ok() && one == two && two == three);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_costs_the_whole_limit_at_most() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let began = tollgate_base::clock::now();
    let fault = fetcher(Options::default())
        .fetch(&wanted(&url))
        .await
        .unwrap_err();
    assert!(fault.contains("no answer within 15 s"), "{fault}");
    assert!(tollgate_base::clock::now().duration_since(began) <= Duration::from_secs(30));
}
