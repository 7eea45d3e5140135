//! TLS towards vendors beyond the first document: h2 by ALPN, verification turned off, client certificates.

use std::cell::RefCell;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_mock_llm::{Authority, Handle, Options, Tls};
use tollgate_testkit::client::{Answer, send};
use tollgate_testkit::process::{Gateway, Start};

use crate::support::{CHAT, Sight, bridge, documents, flags, gateway, ingress, mock, ordered, verbose_log};

const NAME: &str = "vendor.example";

fn vendor(tls: Tls) -> Handle {
    mock(Options {
        tls: Some(tls),
        ..Options::default()
    })
}

fn start(vendor: &Handle, annotations: &[(&str, &str)], more: &[String]) -> Start {
    let mut all = vec![
        ("higress.io/proxy-ssl-name", NAME),
        ("higress.io/proxy-ssl-server-name", "on"),
    ];
    all.extend_from_slice(annotations);
    let mut parts = vec![
        bridge(&[("mock", vendor.addr())]),
        ingress("api", "/", "mock.static", &all),
        verbose_log(),
    ];
    parts.extend_from_slice(more);
    let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
    let roots = start.path("roots.pem");
    std::fs::write(&roots, vendor.authority_pem().unwrap()).unwrap();
    start.variable("SSL_CERT_FILE", roots.display())
}

async fn ask(gateway: &Gateway) -> (Answer, serde_json::Value) {
    let (request, id) = ordered("", CHAT);
    let answer = send(gateway.http, request).await.unwrap();
    (answer, gateway.line_of(&id))
}

#[tokio::test]
async fn https_is_http_1_and_grpcs_is_h2() {
    for (protocol, alpn, version) in [("HTTPS", "http/1.1", "HTTP/1.1"), ("GRPCS", "h2", "HTTP/2.0")] {
        let vendor = vendor(Tls::new(&[NAME]).unwrap());
        let gateway = start(&vendor, &[("higress.io/backend-protocol", protocol)], &[])
            .go()
            .unwrap();
        let (answer, line) = ask(&gateway).await;
        assert_eq!(answer.status, 200, "{protocol}: {line}");
        let seen = vendor.requests().pop().unwrap();
        assert_eq!(seen.connection.server_name.as_deref(), Some(NAME));
        assert_eq!(format!("{:?}", seen.version), version, "{protocol}");
        assert!(
            seen.connection.alpn.as_deref().is_none_or(|found| found == alpn),
            "{:?}",
            seen.connection
        );
    }
}

#[tokio::test]
async fn verification_can_be_turned_off_for_one_route() {
    let vendor = vendor(Tls::new(&["another.example"]).unwrap());
    let https = ("higress.io/backend-protocol", "HTTPS");
    let strict = start(&vendor, &[https], &[]).go().unwrap();
    assert_eq!(ask(&strict).await.0.status, 503);
    let lenient = start(&vendor, &[https, ("higress.io/proxy-ssl-verify", "off")], &[])
        .go()
        .unwrap();
    assert_eq!(ask(&lenient).await.0.status, 200);
}

#[tokio::test]
async fn a_vendor_that_asks_for_a_certificate_gets_the_secrets() {
    let clients = Authority::new().unwrap();
    let tls = Tls {
        client_authority: Some(clients.pem()),
        ..Tls::new(&[NAME]).unwrap()
    };
    let vendor = vendor(tls);
    let https = ("higress.io/backend-protocol", "HTTPS");
    let without = start(&vendor, &[https], &[]).go().unwrap();
    let (answer, line) = ask(&without).await;
    assert_eq!(answer.status, 503, "{line}");
    let annotations = [https, ("higress.io/proxy-ssl-secret", "higress-system/client")];
    let secret = crate::protocols::secret("client", &clients, &["gateway.example"]);
    // The secret names no authority of its own: the system's is asked whom to believe.
    let with = start(&vendor, &annotations, &[secret]).go().unwrap();
    let (answer, line) = ask(&with).await;
    assert_eq!(answer.status, 200, "{line}; {:#?}", with.errors.all());
    assert!(vendor.requests().pop().unwrap().connection.client_certificate);
}

/// Answers what it is asked on each connection; one that is a tunnel then leads to `behind`.
async fn forward_proxy(listener: &TcpListener, answer: &str, behind: SocketAddr, asked: &RefCell<String>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") && client.read_buf(&mut question).await.unwrap() > 0 {}
        asked.replace(String::from_utf8(question).unwrap());
        client.write_all(answer.as_bytes()).await.unwrap();
        if answer.contains(" 200 ") {
            let mut origin = TcpStream::connect(behind).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut origin).await.ok();
        }
    }
}

#[tokio::test]
async fn a_vendor_is_reached_through_the_proxy_that_its_registry_names() {
    let vendor = vendor(Tls::new(&[NAME]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Nobody resolves the vendor's name here: that is the proxy's business.
    let parts = [
        format!(
            "apiVersion: networking.higress.io/v1\nkind: McpBridge\nmetadata: {{name: default, namespace: higress-system}}\nspec:\n  \
             proxies: [{{type: HTTP, name: squid, serverAddress: 127.0.0.1, serverPort: {port}}}]\n  \
             registries: [{{type: dns, name: vendor, domain: {NAME}, port: 443, protocol: https, proxyName: squid}}]\n"
        ),
        ingress("api", "/", "vendor.dns", &[]),
        verbose_log(),
    ];
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 200),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", 503),
    ] {
        let start = gateway().file("scene.yaml", &documents(&parts)).unwrap();
        let roots = start.path("roots.pem");
        std::fs::write(&roots, vendor.authority_pem().unwrap()).unwrap();
        let gateway = start.variable("SSL_CERT_FILE", roots.display()).go().unwrap();
        let (request, id) = ordered("", CHAT);
        let asked = RefCell::default();
        let found = tokio::select! {
            answer = send(gateway.http, request) => answer.unwrap(),
            () = forward_proxy(&listener, answer, vendor.addr(), &asked) => unreachable!(),
        };
        let line = gateway.line_of(&id);
        assert_eq!(found.status, status, "{line}");
        let expected = format!("CONNECT {NAME}:443 HTTP/1.1\r\nhost: {NAME}:443\r\n\r\n");
        assert_eq!(*asked.borrow(), expected);
        if status == 503 {
            assert!(flags(&line["flags"]).contains(&"UF"), "{line}");
            let failure = line["failure"].as_str().unwrap();
            assert!(
                failure.contains("forward_proxy") && failure.contains("403"),
                "{line}"
            );
            assert!(!found.text().contains("403"), "{}", found.text());
        }
    }
}

#[tokio::test]
async fn a_vendor_that_speaks_no_tls_is_503_uf() {
    let vendor = mock(Options::default());
    let parts = [
        bridge(&[("mock", vendor.addr())]),
        ingress(
            "api",
            "/",
            "mock.static",
            &[
                ("higress.io/backend-protocol", "HTTPS"),
                ("higress.io/proxy-ssl-name", NAME),
            ],
        ),
        verbose_log(),
    ];
    let gateway = gateway()
        .file("scene.yaml", &documents(&parts))
        .unwrap()
        .go()
        .unwrap();
    let (answer, line) = ask(&gateway).await;
    assert_eq!(answer.status, 503);
    assert!(flags(&line["flags"]).contains(&"UF"), "{line}");
    assert!(
        line["failure"].as_str().is_some_and(|failure| failure.len() > 3),
        "{line}"
    );
}

#[tokio::test]
async fn a_vendor_that_speaks_tls_where_plain_is_expected() {
    let vendor = vendor(Tls::new(&[NAME]).unwrap());
    let gateway = crate::support::towards(vendor.addr(), &[]);
    let (answer, line) = ask(&gateway).await;
    assert!([502, 503].contains(&answer.status.as_u16()), "{line}");
    assert_eq!(line["termination"], "upstream_error", "{line}");
    gateway.terminated("upstream_error", 1.0).await;
}
