//! The floor: a one-thread epoll TCP relay, one upstream connection for each client connection, no parsing.
//! A request costs two `recv`, two `send` and its share of `epoll_pwait2`; no user-space proxy costs less without
//! io_uring, splice or help from the kernel.   usage: bench-floor LISTEN_PORT UPSTREAM_PORT
use bench_load::{Epoll, close_fd, read_fd, would_block, write_fd};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

const NO_PEER: RawFd = -1;

struct Relay {
    epoll: Epoll,
    /// Descriptor → the one at the other end.
    peers: Vec<RawFd>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, upstream_port: u16) {
        while let Ok((client, _)) = listener.accept() {
            let upstream = TcpStream::connect(("127.0.0.1", upstream_port)).expect("the upstream");
            let [client, upstream] = [client, upstream].map(|socket| {
                socket.set_nodelay(true).expect("nodelay");
                socket.set_nonblocking(true).expect("non-blocking socket");
                socket.into_raw_fd()
            });
            for (from, to) in [(client, upstream), (upstream, client)] {
                if self.peers.len() <= from as usize {
                    self.peers.resize(from as usize + 1, NO_PEER);
                }
                self.peers[from as usize] = to;
                self.epoll.add(from, from as u64, false);
            }
        }
    }

    fn forward(&mut self, from: RawFd, buffer: &mut [u8]) {
        let to = self.peers[from as usize];
        if to == NO_PEER {
            return;
        }
        let count = read_fd(from, buffer);
        if count > 0 {
            let mut sent = 0;
            while sent < count as usize {
                let written = write_fd(to, &buffer[sent..count as usize]);
                if written > 0 {
                    sent += written as usize;
                } else if !would_block() {
                    break;
                }
            }
        } else if count == 0 || !would_block() {
            for end in [from, to] {
                self.peers[end as usize] = NO_PEER;
                close_fd(end);
            }
        }
    }
}

fn main() {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .map(|port| {
            port.parse()
                .expect("usage: bench-floor LISTEN_PORT UPSTREAM_PORT")
        })
        .collect();
    let listener = TcpListener::bind(("127.0.0.1", ports[0])).expect("the port is free");
    listener.set_nonblocking(true).expect("non-blocking socket");
    let mut relay = Relay {
        epoll: Epoll::new(256),
        peers: Vec::new(),
    };
    relay.epoll.add(listener.as_raw_fd(), 0, false);
    let mut ready = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        relay.epoll.wait(None, &mut ready);
        for &(token, _) in &ready {
            match token {
                0 => relay.accept(&listener, ports[1]),
                fd => relay.forward(fd as RawFd, &mut buffer),
            }
        }
    }
}
