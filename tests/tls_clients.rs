//! What a host asks of its clients over TLS: certificates that its authority signed, suites, versions.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use tollgate_mock_llm::{Authority, Handle, Options, Pair, Validity};
use tollgate_testkit::client::{Opening, Protocol, Secure, agreed_tls, get, open_tls, send};
use tollgate_testkit::process::Gateway;

use crate::protocols::secret;
use crate::support::{bridge, documents, gateway, ingress_for, mock};

/// `guarded.example` with these annotations and `open.example` without, each with a certificate of `server`.
fn scene(server: &Authority, clients: &str, annotations: &[(&str, &str)]) -> (Gateway, Handle) {
    let mock = mock(Options::default());
    let host = |name: &'static str, annotations: &[(&str, &str)]| {
        let (host, short) = (format!("{name}.example"), name);
        ingress_for(&host, short, "/", "mock.static", annotations)
            + &format!("  tls:\n  - hosts: [{host}]\n    secretName: {short}\n")
    };
    let authorities = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: clients, namespace: higress-system }}\nstringData:\n  ca.crt: {clients:?}\n"
    );
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        secret("guarded", server, &["guarded.example"]),
        secret("open", server, &["open.example"]),
        authorities,
        host("guarded", annotations),
        host("open", &[]),
    ]);
    (gateway().file("scene.yaml", &text).unwrap().go().unwrap(), mock)
}

struct Caller<'a> {
    address: SocketAddr,
    server: &'a str,
    client: Option<&'a Pair>,
}

impl Caller<'_> {
    /// Asks `host` on a connection that was opened for `name`.
    async fn ask(&self, name: &str, host: &str, protocol: Protocol) -> Result<Opening, String> {
        let secure = Secure {
            authority: self.server,
            name,
            protocol,
            identity: self.client.map(|pair| (&*pair.certificate, &*pair.key)),
        };
        let request = Request::get(format!("https://{host}/echo"))
            .body(Bytes::new())
            .unwrap();
        open_tls(self.address, &secure, request).await
    }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_authority_does_not_get_in() {
    let (server, clients, stranger) = (
        Authority::new().unwrap(),
        Authority::new().unwrap(),
        Authority::new().unwrap(),
    );
    let (gateway, mock) = scene(
        &server,
        &clients.pem(),
        &[("higress.io/auth-tls-secret", "clients")],
    );
    let (https, authority) = (gateway.https.unwrap(), server.pem());
    let known = clients.issue(&["client.example"], Validity::Valid).unwrap();
    let late = clients.issue(&["client.example"], Validity::Expired).unwrap();
    let unknown = stranger.issue(&["client.example"], Validity::Valid).unwrap();
    let caller = |client| Caller {
        address: https,
        server: &authority,
        client,
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let answer = caller(Some(&known))
            .ask("guarded.example", "guarded.example", protocol)
            .await;
        assert_eq!(answer.unwrap().finish().await.status, 200, "{protocol:?}");
        for client in [None, Some(&late), Some(&unknown)] {
            let refused = caller(client)
                .ask("guarded.example", "guarded.example", protocol)
                .await;
            assert!(refused.is_err(), "{protocol:?}");
            // A host beside it asks nothing.
            let answer = caller(client).ask("open.example", "open.example", protocol).await;
            assert_eq!(answer.unwrap().finish().await.status, 200, "{protocol:?}");
        }
        // Nor can anybody come in by the door of that host.
        let answer = caller(None)
            .ask("open.example", "guarded.example", protocol)
            .await;
        let answer = answer.unwrap().finish().await;
        assert_eq!(answer.status, 421, "{protocol:?}");
        assert!(
            answer.text().contains("opened for another host"),
            "{}",
            answer.text()
        );
        // Who was let in may speak to the open one as well.
        let answer = caller(Some(&known))
            .ask("guarded.example", "open.example", protocol)
            .await;
        assert_eq!(answer.unwrap().finish().await.status, 200, "{protocol:?}");
    }
    assert_eq!(mock.requests().len(), 2 * (1 + 3 + 1));
    let told = "over plain HTTP nobody is asked for a certificate";
    gateway
        .errors
        .wait_for(|line| line.contains("warning") && line.contains(told))
        .unwrap();
}

#[tokio::test]
async fn what_cannot_be_asked_closes_the_host() {
    let server = Authority::new().unwrap();
    for (annotation, clients, told) in [
        (
            "gone",
            String::new(),
            "the Secret higress-system/gone does not exist",
        ),
        (
            "clients",
            "hello".to_owned(),
            "the Secret holds no authority's certificate",
        ),
        (
            "other/clients",
            server.pem(),
            "must be in the namespace higress-system of the Ingress",
        ),
        ("open", server.pem(), "has no `ca.crt` or `cacert`"),
    ] {
        let (gateway, mock) = scene(&server, &clients, &[("higress.io/auth-tls-secret", annotation)]);
        let line = gateway.errors.wait_for(|line| line.contains(told)).unwrap();
        assert!(
            line.contains("scene.yaml:") && line.contains("not served over TLS"),
            "{line}"
        );
        let caller = Caller {
            address: gateway.https.unwrap(),
            server: &server.pem(),
            client: None,
        };
        let refused = caller
            .ask("guarded.example", "guarded.example", Protocol::Http1)
            .await;
        assert!(refused.is_err(), "{annotation}");
        let answer = caller
            .ask("open.example", "guarded.example", Protocol::Http1)
            .await;
        assert_eq!(answer.unwrap().finish().await.status, 421, "{annotation}");
        let answer = caller.ask("open.example", "open.example", Protocol::Http1).await;
        assert_eq!(answer.unwrap().finish().await.status, 200, "{annotation}");
        assert_eq!(mock.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_host_that_asks_for_certificates_keeps_plain_http_out_where_told() {
    let (server, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let annotations = [
        ("higress.io/auth-tls-secret", "clients"),
        ("higress.io/ssl-redirect", "true"),
    ];
    let (gateway, mock) = scene(&server, &clients.pem(), &annotations);
    let answer = send(gateway.http, get("http://guarded.example/echo"))
        .await
        .unwrap();
    assert_eq!(answer.header("location"), "https://guarded.example/echo");
    assert!(mock.requests().is_empty());
    assert!(
        gateway
            .errors
            .all()
            .iter()
            .all(|line| !line.contains("nobody is asked"))
    );
}

#[tokio::test]
async fn versions_and_suites_are_those_of_the_host() {
    let server = Authority::new().unwrap();
    for (annotations, guarded) in [
        (
            &[("higress.io/tls-max-protocol-version", "TLSv1.2")][..],
            "TLSv1_2",
        ),
        (
            &[("higress.io/tls-min-protocol-version", "TLSv1.3")][..],
            "TLSv1_3",
        ),
        (
            &[
                ("higress.io/ssl-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"),
                ("higress.io/tls-max-protocol-version", "TLSv1.2"),
            ][..],
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
    ] {
        let (gateway, _mock) = scene(&server, "", annotations);
        let agreed = async |name: &str| {
            let secure = Secure {
                authority: &server.pem(),
                name,
                protocol: Protocol::Http2,
                identity: None,
            };
            agreed_tls(gateway.https.unwrap(), &secure).await.unwrap()
        };
        let found = agreed("guarded.example").await;
        assert!(found.contains(guarded), "{annotations:?}: {found}");
        assert!(agreed("open.example").await.contains("TLSv1_3"));
    }
}
