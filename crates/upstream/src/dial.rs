//! A new connection: TCP, through a forward proxy's tunnel if there is one, then TLS if the cluster wants it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tollgate_observe::metrics::ClusterMetrics;
use tollgate_snapshot::cluster::Tunnel;

use crate::failure::DialFailure;
use crate::stream::{Stream, Transport};
use crate::tls::{self, TlsTarget};
use crate::tunnel;

/// Silence on an open connection before the kernel asks whether the other side is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// A fresh connection.
pub(crate) struct Dialed {
    pub(crate) stream: Stream,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// What the other side chose by ALPN: `None` without TLS or without a choice.
    pub(crate) chosen: Option<Chosen>,
}

/// A protocol chosen by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    Http1,
    Http2,
}

/// Connects to `address`. The caller limits the time.
pub(crate) async fn dial(
    address: SocketAddr,
    tunnel: Option<&Tunnel>,
    target: Option<TlsTarget>,
    metrics: Arc<ClusterMetrics>,
) -> Result<Dialed, DialFailure> {
    let tcp = match tunnel {
        None => reach(address).await?,
        Some(tunnel) => tunnel::open(address, tunnel).await?,
    };
    let local = prepare(&tcp).map_err(|cause| unreached(address, &cause))?;
    let Some(TlsTarget { connector, name }) = target else {
        return Ok(Dialed {
            stream: Stream::new(Transport::Plain(tcp), metrics),
            peer: address,
            local,
            chosen: None,
        });
    };
    let session = connector
        .connect(name.clone(), tcp)
        .await
        .map_err(|cause| DialFailure::Failed(tls::explain(&cause, &name)))?;
    let chosen = match session.get_ref().1.alpn_protocol() {
        Some(b"h2") => Some(Chosen::Http2),
        Some(b"http/1.1") => Some(Chosen::Http1),
        _ => None,
    };
    Ok(Dialed {
        stream: Stream::new(Transport::Tls(Box::new(session)), metrics),
        peer: address,
        local,
        chosen,
    })
}

/// Connects, nothing else.
pub(crate) async fn reach(address: SocketAddr) -> Result<TcpStream, DialFailure> {
    TcpStream::connect(address)
        .await
        .map_err(|cause| unreached(address, &cause))
}

fn unreached(address: SocketAddr, cause: &io::Error) -> DialFailure {
    DialFailure::Failed(format!("connect {address}: {cause}"))
}

/// Socket options; the local address is asked for once, here.
fn prepare(tcp: &TcpStream) -> io::Result<SocketAddr> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)?;
    tcp.local_addr()
}
