//! TLS: who is believed, what the server sees, and what the log says when it goes wrong.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_base::{Error, Flag, Retry};
use tollgate_body::Response;
use tollgate_snapshot::cluster::{ClientCertificate, Verification};
use tollgate_snapshot::{Cluster, ClusterTls, Endpoints};

use crate::tests::support::{get, plain, record, text, upstreams, worker};
use crate::{Options, SendTimers, Shared, Upstreams};

pub(crate) fn unverified() -> ClusterTls {
    ClusterTls {
        server_name: None,
        verification: Verification::Off,
        client_certificate: None,
    }
}

/// A certificate authority of our own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn bundle(&self) -> Verification {
        Verification::Bundle(self.0.pem().into_bytes().into())
    }

    /// Chain and key for `name`, in PEM.
    pub(crate) fn issue(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// What the server saw of a handshake: SNI, ALPN, whether a client certificate came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<String>,
    client_certificate: bool,
}

pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
}

/// Answers each connection's first request with `ok`, then closes.
pub(crate) async fn serve(
    identity: (String, String),
    clients: Option<&Authority>,
    alpn: &[&str],
) -> TlsServer {
    serve_with(identity, clients, alpn, |mut stream| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        // Closed at once: the next request needs a connection, hence a handshake, of its own.
        let _ = stream.shutdown().await;
    })
    .await
}

/// Runs `script` on each connection after its handshake.
pub(crate) async fn serve_with<F, W>(
    (chain, key): (String, String),
    clients: Option<&Authority>,
    alpn: &[&str],
    script: F,
) -> TlsServer
where
    F: Fn(TlsStream<TcpStream>) -> W + 'static,
    W: Future<Output = ()> + 'static,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let certificates = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    }
    .with_single_cert(certificates, private)
    .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = mpsc::unbounded_channel();
    tollgate_base::task::spawn_local("test server", async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(tcp).await else {
                continue;
            };
            let session = stream.get_ref().1;
            let _ = sender.send(Seen {
                sni: session.server_name().map(str::to_owned),
                alpn: session
                    .alpn_protocol()
                    .map(|name| String::from_utf8(name.to_vec()).unwrap()),
                client_certificate: session.peer_certificates().is_some(),
            });
            tollgate_base::task::spawn_local("test connection", script(stream));
        }
    });
    TlsServer { address, seen }
}

pub(crate) fn secured(address: SocketAddr, name: Option<&str>, verification: Verification) -> Cluster {
    let mut cluster = plain(address);
    cluster.tls = Some(ClusterTls {
        server_name: name.map(Into::into),
        verification,
        client_certificate: None,
    });
    cluster
}

/// The answer, or the error with what the log says.
pub(crate) async fn try_send(cluster: Cluster) -> Result<Response, (Error, String)> {
    let noted = record();
    upstreams()
        .send(&cluster.into(), get("/"), &SendTimers::default(), &noted)
        .await
        .map_err(|error| (error, noted.upstream_failure.borrow().clone().unwrap()))
}

pub(crate) async fn assert_refused(cluster: Cluster, reason: &str) {
    let (error, failure) = try_send(cluster).await.err().unwrap();
    assert_eq!(error.status(), 503);
    assert_eq!(error.flag(), Some(Flag::UpstreamConnectFailure));
    assert_eq!(error.retry(), Retry::Unsent);
    assert!(failure.contains(reason), "{failure}");
    assert!(!error.message().contains("TLS"), "{}", error.message());
}

#[test]
fn a_certificate_of_a_believed_authority_for_the_name_is_accepted() {
    worker(false, async {
        let authority = Authority::new();
        let mut server = serve(authority.issue("llm.example", |_| ()), None, &["http/1.1"]).await;
        let cluster = secured(server.address, Some("llm.example"), authority.bundle());
        let response = try_send(cluster).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let expected = Seen {
            sni: Some("llm.example".to_owned()),
            alpn: Some("http/1.1".to_owned()),
            client_certificate: false,
        };
        assert_eq!(server.seen.recv().await.unwrap(), expected);
    });
}

#[test]
fn a_wrong_name_is_refused_by_name() {
    worker(false, async {
        let authority = Authority::new();
        let server = serve(authority.issue("other.example", |_| ()), None, &[]).await;
        let cluster = secured(server.address, Some("llm.example"), authority.bundle());
        assert_refused(cluster, "TLS: name mismatch: certificate is not for llm.example").await;
    });
}

#[test]
fn an_unknown_authority_is_refused() {
    worker(false, async {
        let server = serve(Authority::new().issue("llm.example", |_| ()), None, &[]).await;
        let other = Authority::named("other").bundle();
        let cluster = secured(server.address, Some("llm.example"), other);
        assert_refused(cluster, "TLS: certificate of an unknown issuer").await;
        let namesake = Authority::new().bundle();
        let cluster = secured(server.address, Some("llm.example"), namesake);
        assert_refused(cluster, "TLS: certificate not signed by the believed authority").await;
    });
}

#[test]
fn an_expired_certificate_is_refused() {
    worker(false, async {
        let authority = Authority::new();
        let old = authority.issue("llm.example", |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        });
        let server = serve(old, None, &[]).await;
        let cluster = secured(server.address, Some("llm.example"), authority.bundle());
        assert_refused(cluster, "TLS: certificate expired").await;
    });
}

#[test]
fn with_verification_off_anybody_will_do_and_no_name_is_sent_unasked() {
    worker(false, async {
        let mut server = serve(Authority::new().issue("other.example", |_| ()), None, &[]).await;
        let response = try_send(secured(server.address, None, Verification::Off))
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let seen = server.seen.recv().await.unwrap();
        assert_eq!((seen.sni, seen.alpn), (None, None));
    });
}

#[test]
fn a_plain_server_is_refused() {
    worker(false, async {
        let server = crate::tests::support::Server::start(|mut peer, _| async move {
            peer.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
            peer.closed().await;
        })
        .await;
        assert_refused(secured(server.address, None, Verification::Off), "TLS: ").await;
    });
}

#[test]
fn a_dns_endpoint_is_verified_by_its_host_without_sending_it() {
    worker(false, async {
        let authority = Authority::new();
        let mut server = serve(authority.issue("llm.example", |_| ()), None, &[]).await;
        let rule = format!("llm.example:443:127.0.0.1:{}", server.address.port());
        let options = Options {
            overrides: vec![rule.parse().unwrap()],
            ..Options::default()
        };
        let upstreams = Upstreams::new(Shared::new(tokio::runtime::Handle::current(), &options));
        let mut cluster = secured(server.address, None, authority.bundle());
        cluster.endpoints = Endpoints::Dns {
            names: vec![("llm.example".into(), 443)],
            refresh: std::time::Duration::from_secs(200),
        };
        let response = upstreams
            .send(&cluster.into(), get("/"), &SendTimers::default(), &record())
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        assert_eq!(server.seen.recv().await.unwrap().sni, None);
    });
}

#[test]
fn an_address_is_verified_as_an_address() {
    worker(false, async {
        let authority = Authority::new();
        let server = serve(authority.issue("127.0.0.1", |_| ()), None, &[]).await;
        let response = try_send(secured(server.address, None, authority.bundle()))
            .await
            .unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        let other = serve(authority.issue("127.0.0.2", |_| ()), None, &[]).await;
        let cluster = secured(other.address, None, authority.bundle());
        assert_refused(cluster, "TLS: name mismatch: certificate is not for 127.0.0.1").await;
    });
}

#[test]
fn a_client_certificate_is_shown_when_configured() {
    worker(false, async {
        let authority = Authority::new();
        let mut server = serve(authority.issue("llm.example", |_| ()), Some(&authority), &[]).await;
        let (chain, key) = authority.issue("client.example", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        let mut cluster = secured(server.address, Some("llm.example"), authority.bundle());
        if let Some(tls) = &mut cluster.tls {
            tls.client_certificate = Some(Arc::new(ClientCertificate {
                chain: chain.into_bytes(),
                key: key.into_bytes(),
            }));
        }
        let response = try_send(cluster).await.unwrap();
        assert_eq!(text(response).await.unwrap(), "ok");
        assert!(server.seen.recv().await.unwrap().client_certificate);

        let without = secured(server.address, Some("llm.example"), authority.bundle());
        let (error, _) = try_send(without).await.err().unwrap();
        assert_eq!(error.status(), 503);
    });
}

#[test]
fn unusable_certificates_are_named() {
    let with = |verification, client| ClusterTls {
        server_name: None,
        verification,
        client_certificate: client,
    };
    let garbage: Arc<[u8]> = Arc::from(&b"no pem"[..]);
    let message = crate::check_tls(&with(Verification::Bundle(garbage), None)).unwrap_err();
    assert_eq!(message, "TLS: certificate authorities: no PEM certificate found");

    let (chain, _) = Authority::new().issue("a.example", |_| ());
    let half = Arc::new(ClientCertificate {
        chain: chain.into_bytes(),
        key: b"no pem".to_vec(),
    });
    let message = crate::check_tls(&with(Verification::Off, Some(Arc::clone(&half)))).unwrap_err();
    assert!(message.starts_with("TLS: client key: "), "{message}");
    worker(false, async {
        let mut cluster = plain("127.0.0.1:1".parse().unwrap());
        cluster.tls = Some(with(Verification::Off, Some(half)));
        let server = crate::tests::support::Server::polite().await;
        cluster.endpoints = Endpoints::Static(vec![(server.address, 1)]);
        assert_refused(cluster, "TLS: client key: ").await;
    });

    let mut named = unverified();
    named.server_name = Some("not a name".into());
    let message = crate::check_tls(&named).unwrap_err();
    assert_eq!(message, "TLS: \"not a name\" is not a server name");
}
