//! Addresses where nothing answers: faults that happen before there is a server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

fn bound() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let addr = socket.local_addr()?.as_socket();
    let addr = addr.ok_or_else(|| io::Error::other("a bound socket has no address"))?;
    Ok((socket, addr))
}

/// A port that refuses every connection. It stays taken while this is held, so that nobody else gets it.
pub struct RefusingPort {
    _socket: Socket,
    addr: SocketAddr,
}

impl RefusingPort {
    /// Takes a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port to be had.
    pub fn new() -> io::Result<Self> {
        let (socket, addr) = bound()?;
        Ok(Self {
            _socket: socket,
            addr,
        })
    }

    /// Where it refuses.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A port whose connections are never established: its queue is full, and the system drops what else comes.
pub struct SilentPort {
    _socket: Socket,
    _queued: TcpStream,
    addr: SocketAddr,
}

impl SilentPort {
    /// Takes a free port of 127.0.0.1 and fills its queue.
    ///
    /// # Errors
    /// No port to be had.
    pub fn new() -> io::Result<Self> {
        let (socket, addr) = bound()?;
        // A queue of length 0 holds one connection.
        socket.listen(0)?;
        let queued = TcpStream::connect(addr)?;
        Ok(Self {
            _socket: socket,
            _queued: queued,
            addr,
        })
    }

    /// Where it is silent.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
