//! Listening sockets: binding them so that each worker has its own, accepting, the TLS handshake.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tollgate_base::shutdown::Phase;
use tollgate_base::task;

use crate::connection;
use crate::stream::Stream;
use crate::tls::{Authorities, ServerSide};
use crate::worker::Worker;

/// Connections waiting to be accepted, per socket.
const BACKLOG: i32 = 4096;
/// Longest a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the process ran out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds `count` sockets to one address; port 0 picks one for all.
///
/// # Errors
/// When the port is in use, also by another process that would share it.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<StdListener>> {
    // Sharing is between our own workers only: a first bind without it finds a stranger on the port.
    drop(bind_one(address, false)?);
    let first = bind_one(address, true)?;
    let real = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(bind_one(real, true)?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr, share: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket for one worker.
pub(crate) struct Listener {
    pub socket: StdListener,
    /// TLS towards clients, for the HTTPS listener.
    pub tls: Option<ServerSide>,
}

/// Accepts until the gateway drains.
pub(crate) async fn accept(worker: Rc<Worker>, listener: Listener) -> io::Result<()> {
    let socket = TcpListener::from_std(listener.socket)?;
    let mut shutdown = worker.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown.reached(Phase::Draining) => return Ok(()),
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, listener.tls.as_ref(), stream, peer),
            // One client that hung up while it waited says nothing about the next.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(cause) => {
                tracing::warn!(error = %cause, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts a connection, unless the worker has too many.
fn admit(worker: &Rc<Worker>, tls: Option<&ServerSide>, stream: TcpStream, peer: SocketAddr) {
    if worker.connections.get() >= worker.max_connections {
        worker.observer.connection_refused(tls.is_some());
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    if let Err(cause) = stream.set_nodelay(true) {
        tracing::debug!(error = %cause, "cannot set TCP_NODELAY");
    }
    let tls = tls.cloned();
    let open = OpenConnection::new(worker.clone(), tls.is_some());
    let turns = worker.turns;
    let serving = async move {
        let (stream, vouched) = match tls {
            None => (Stream::Plain(stream), None),
            // Boxed: a handshake is large and soon over.
            Some(side) => match Box::pin(handshake(&side, &open.worker, stream)).await {
                Some((stream, vouched)) => (Stream::Tls(Box::new(stream)), vouched),
                None => return,
            },
        };
        connection::serve(open, stream, vouched, peer, local).await;
    };
    drop(task::spawn_local("client connection", turns.seat(serving)));
}

async fn handshake(
    side: &ServerSide,
    worker: &Worker,
    stream: TcpStream,
) -> Option<(TlsStream<TcpStream>, Option<Authorities>)> {
    let handshake = side.handshake(&worker.live, stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(agreed)) => Some(agreed),
        Ok(Err(cause)) => {
            tracing::debug!(error = %cause, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Counts a connection while it lives, also as a tunnel.
pub(crate) struct OpenConnection {
    pub worker: Rc<Worker>,
    tls: bool,
}

impl OpenConnection {
    fn new(worker: Rc<Worker>, tls: bool) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        worker.observer.connection_opened(tls);
        Self { worker, tls }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker
            .connections
            .set(self.worker.connections.get().saturating_sub(1));
        self.worker.observer.connection_closed(self.tls);
    }
}
