//! h2 and TLS: the same answers, and the faults that only these have.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::client::PATIENCE;
use crate::{Authority, Handle, Options, Tls, Validity, start};

type Sender = http2::SendRequest<Full<Bytes>>;

async fn h2<S>(stream: S) -> Sender
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tollgate_base::task::spawn("h2 client", connection);
    sender
}

async fn cleartext(addr: SocketAddr) -> Sender {
    h2(TcpStream::connect(addr).await.unwrap()).await
}

fn stream_request(fault: &str) -> Request<Full<Bytes>> {
    let body = json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    Request::post("http://mock.test/v1/chat/completions")
        .header("x-mock-fault", fault)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

async fn json_of(response: Response<Incoming>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// The body's text until its end or error, the trailers, and the reason of the stream's reset.
async fn read(response: Response<Incoming>) -> (String, Option<http::HeaderMap>, Option<hyper::Error>) {
    let mut body = response.into_body();
    let (mut text, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => text.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Err(error) => return (String::from_utf8(text).unwrap(), trailers, Some(error)),
        }
    }
    (String::from_utf8(text).unwrap(), trailers, None)
}

#[tokio::test]
async fn cleartext_h2_streams() {
    let mock = start(Options::default()).unwrap();
    let mut sender = cleartext(mock.addr()).await;
    let (text, trailers, error) = read(sender.send_request(stream_request("trailers")).await.unwrap()).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(error.is_none());
    assert_eq!(trailers.unwrap()["x-mock-trailer"], "the end");
    let request = &mock.requests()[0];
    assert_eq!(
        (request.version, request.host()),
        (Version::HTTP_2, Some("mock.test"))
    );
}

#[tokio::test]
async fn a_stream_can_be_reset_alone() {
    let mock = start(Options::default()).unwrap();
    let mut sender = cleartext(mock.addr()).await;
    let (text, _, error) = read(
        sender
            .send_request(stream_request("rst-stream;after=3"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        text.matches("\"content\":").count(),
        4,
        "the role and three tokens: {text}"
    );
    assert!(error.is_some());
    // The connection lives on.
    let (text, _, error) = read(sender.send_request(stream_request("")).await.unwrap()).await;
    assert!(text.ends_with("[DONE]\n\n") && error.is_none());
    assert_eq!(mock.requests()[0].connection, mock.requests()[1].connection);
}

#[tokio::test]
async fn goaway_lets_the_stream_finish_or_not() {
    let mock = start(Options::default()).unwrap();
    let mut sender = cleartext(mock.addr()).await;
    let (text, _, error) = read(sender.send_request(stream_request("goaway")).await.unwrap()).await;
    assert!(text.ends_with("[DONE]\n\n") && error.is_none(), "{error:?}");
    assert!(sender.ready().await.is_err(), "no new stream after GOAWAY");

    let mut sender = cleartext(mock.addr()).await;
    let (text, _, error) = read(
        sender
            .send_request(stream_request("goaway-error;after=2"))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(text.matches("\"content\":").count(), 3, "{text}");
    let reason = format!("{:?}", error.unwrap());
    assert!(reason.contains("ENHANCE_YOUR_CALM"), "{reason}");
}

#[tokio::test]
async fn a_connection_can_be_cut_under_its_streams() {
    let mock = start(Options::default()).unwrap();
    for fault in ["cut", "cut;how=reset", "cut-in-data", "close", "reset"] {
        let mut sender = cleartext(mock.addr()).await;
        let whole = match sender.send_request(stream_request(fault)).await {
            Ok(response) => read(response).await.2.is_none(),
            Err(_) => false,
        };
        assert!(!whole, "{fault}");
        assert!(sender.ready().await.is_err(), "{fault}");
    }
}

/// A client's TLS settings.
fn trusting(pem: &str, alpn: &[&str], own: Option<&crate::Pair>) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}

async fn tls(
    mock: &Handle,
    name: &str,
    connector: &tokio_rustls::TlsConnector,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(mock.addr()).await.unwrap();
    connector
        .connect(ServerName::try_from(name.to_owned()).unwrap(), stream)
        .await
}

fn secure(change: impl FnOnce(&mut Tls)) -> Handle {
    let mut tls = Tls::new(&["dashscope.aliyuncs.com", "*.vendor.test"]).unwrap();
    change(&mut tls);
    start(Options {
        tls: Some(tls),
        ..Options::default()
    })
    .unwrap()
}

#[tokio::test]
async fn tls_shows_its_certificate_and_records_name_and_protocol() {
    let mock = secure(|_| {});
    let connector = trusting(&mock.authority_pem().unwrap(), &["h2", "http/1.1"], None);
    let stream = tls(&mock, "dashscope.aliyuncs.com", &connector).await.unwrap();
    let mut sender = h2(stream).await;
    let request = Request::get("https://dashscope.aliyuncs.com/echo")
        .body(Full::default())
        .unwrap();
    assert_eq!(
        json_of(sender.send_request(request).await.unwrap()).await["version"],
        "HTTP/2.0"
    );
    let connection = &mock.requests()[0].connection;
    assert!(connection.tls && !connection.client_certificate);
    assert_eq!(connection.server_name.as_deref(), Some("dashscope.aliyuncs.com"));
    assert_eq!(connection.alpn.as_deref(), Some("h2"));
    assert!(
        tls(&mock, "elsewhere.test", &connector).await.is_err(),
        "the name is not on the certificate"
    );
    let stranger = trusting(&Authority::new().unwrap().pem(), &[], None);
    assert!(
        tls(&mock, "dashscope.aliyuncs.com", &stranger).await.is_err(),
        "another authority"
    );
}

#[tokio::test]
async fn certificates_expire_and_handshakes_are_slow() {
    let mock = secure(|tls| tls.validity = Validity::Expired);
    let connector = trusting(&mock.authority_pem().unwrap(), &[], None);
    let error = tls(&mock, "dashscope.aliyuncs.com", &connector)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");

    let mock = secure(|tls| tls.delay = Duration::from_secs(86_400));
    let connector = trusting(&mock.authority_pem().unwrap(), &[], None);
    let slow = tls(&mock, "dashscope.aliyuncs.com", &connector);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), slow)
            .await
            .is_err()
    );
    tls(&mock, "slow-tls-1.vendor.test", &connector).await.unwrap();
}

#[tokio::test]
async fn clients_can_be_asked_for_certificates() {
    let clients = Authority::new().unwrap();
    let mock = secure(|tls| tls.client_authority = Some(clients.pem()));
    let pem = mock.authority_pem().unwrap();
    let own = clients.issue(&["client"], Validity::Valid).unwrap();
    let stream = tls(&mock, "a.vendor.test", &trusting(&pem, &["h2"], Some(&own)))
        .await
        .unwrap();
    let mut sender = h2(stream).await;
    let request = Request::get("https://a.vendor.test/health")
        .body(Full::default())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert!(mock.requests()[0].connection.client_certificate);
    // With TLS 1.3 the refusal comes with the first read.
    let refused = match tls(&mock, "a.vendor.test", &trusting(&pem, &["h2"], None)).await {
        Err(_) => true,
        Ok(mut stream) => tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1])
            .await
            .is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn tls_can_end_without_its_farewell() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mock = secure(|_| {});
    let connector = trusting(&mock.authority_pem().unwrap(), &["http/1.1"], None);
    for (fault, farewell) in [("", true), ("no-close-notify", false)] {
        let mut stream = tls(&mock, "a.vendor.test", &connector).await.unwrap();
        let head =
            format!("GET /health HTTP/1.1\r\nhost: a\r\nx-mock-fault: {fault}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text))
            .await
            .unwrap();
        assert!(
            text.ends_with(b"{\"status\":\"ok\"}"),
            "{}",
            String::from_utf8_lossy(&text)
        );
        assert_eq!(read.is_ok(), farewell, "{read:?}");
    }
}

#[tokio::test]
async fn grpc_is_echoed_with_its_trailers() {
    let mock = start(Options::default()).unwrap();
    let mut sender = cleartext(mock.addr()).await;
    let message = Bytes::from_static(b"\0\0\0\0\x03abc");
    let call = |status: Option<&str>| {
        let mut call =
            Request::post("http://mock.test/pkg.Echo/Say").header("content-type", "application/grpc");
        if let Some(status) = status {
            call = call.header("x-mock-grpc-status", status);
        }
        call.body(Full::new(message.clone())).unwrap()
    };
    let response = sender.send_request(call(None)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (text, trailers, _) = read(response).await;
    assert_eq!(
        (text.as_bytes(), &trailers.unwrap()["grpc-status"]),
        (&message[..], &http::HeaderValue::from_static("0"))
    );
    let response = sender.send_request(call(Some("14"))).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
}
