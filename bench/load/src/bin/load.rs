//! Load generator: one thread, raw epoll, HTTP/1.1 keep-alive, loopback targets only. Prints one JSON object.
//!   closed loop: --conns N            each connection sends its next request when the last is answered
//!   open loop:   --rate R --conns N   constant arrivals; latency counts from the planned send time
//!   --stream     counts SSE events and reads the `@<16 digits>@` time stamps that the mock writes
//! Others: --url U --body FILE --duration S --warmup S --ramp-ms MS (spread the first sends) -H 'name: value'
use bench_load::histogram::Histogram;
use bench_load::response::Response;
use bench_load::{Epoll, close_fd, fine_timers, nodelay, now_ns, number, read_fd, would_block, write_fd};
use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{IntoRawFd, RawFd};

struct Options {
    url: String,
    connections: usize,
    duration_s: f64,
    warmup_s: f64,
    /// Requests a second; 0 is the closed loop.
    rate: f64,
    body: Vec<u8>,
    stream: bool,
    ramp_ms: u64,
    headers: String,
}

fn options() -> Options {
    let mut options = Options {
        url: String::new(),
        connections: 64,
        duration_s: 5.0,
        warmup_s: 1.0,
        rate: 0.0,
        body: Vec::new(),
        stream: false,
        ramp_ms: 0,
        headers: String::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--stream" {
            options.stream = true;
            continue;
        }
        let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--url" => options.url = value,
            "--conns" => options.connections = value.parse().expect("--conns"),
            "--duration" => options.duration_s = value.parse().expect("--duration"),
            "--warmup" => options.warmup_s = value.parse().expect("--warmup"),
            "--rate" => options.rate = value.parse().expect("--rate"),
            "--body" => options.body = std::fs::read(value).expect("--body"),
            "--ramp-ms" => options.ramp_ms = value.parse().expect("--ramp-ms"),
            "-H" => options.headers.push_str(&format!("{value}\r\n")),
            _ => panic!("unknown option {name}"),
        }
    }
    options
}

/// Where to connect, and the bytes that every connection sends.
fn target(options: &Options) -> (SocketAddr, Vec<u8>) {
    let rest = options.url.strip_prefix("http://").expect("an http:// address");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host.to_socket_addrs().expect("--url").next().expect("--url");
    assert!(address.ip().is_loopback(), "loopback targets only");
    let mut request = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench-load\r\naccept: */*\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        options.headers,
        options.body.len()
    )
    .into_bytes();
    request.extend_from_slice(&options.body);
    (address, request)
}

struct Connection {
    fd: RawFd,
    response: Response,
    /// The beginning of an SSE line whose end has not come yet.
    line: Vec<u8>,
    /// When the request was sent, or should have been (open loop).
    began: u64,
    first_event: bool,
    done_event: bool,
    /// Bytes of the request that the socket has not taken yet.
    unsent: usize,
}

/// What is counted. `in_window` is false while warming up.
#[derive(Default)]
struct Tally {
    in_window: bool,
    sent: u64,
    answered: u64,
    /// Answers in the window with a status of 2xx, and all others.
    good: u64,
    bad: u64,
    errors: u64,
    resets: u64,
    truncated: u64,
    statuses: BTreeMap<u64, u64>,
    bytes: u64,
    events: u64,
    all_events: u64,
    latency: Histogram,
    first_event: Histogram,
    transit: Histogram,
}

impl Tally {
    /// Cuts body bytes into SSE lines and reads what each tells.
    fn events(&mut self, connection: &mut EventReader<'_>, bytes: &[u8], now: u64) {
        let line = &mut *connection.line;
        line.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(length) = line[used..].iter().position(|&byte| byte == b'\n') {
            let text = &line[used..used + length];
            used += length + 1;
            if !text.starts_with(b"data:") {
                continue;
            }
            self.all_events += 1;
            *connection.done_event |= text.trim_ascii_end().ends_with(b"[DONE]");
            let first = !std::mem::replace(connection.first_event, true);
            if !self.in_window {
                continue;
            }
            self.events += 1;
            if first {
                self.first_event.add(now - connection.began);
            }
            if let Some(at) = text.iter().position(|&byte| byte == b'@')
                && text.get(at + 17) == Some(&b'@')
            {
                self.transit
                    .add(now.saturating_sub(number(&text[at + 1..at + 17])));
            }
        }
        line.drain(..used);
    }
}

/// The parts of a connection that reading events changes.
struct EventReader<'a> {
    line: &'a mut Vec<u8>,
    first_event: &'a mut bool,
    done_event: &'a mut bool,
    began: u64,
}

struct Generator {
    options: Options,
    address: SocketAddr,
    request: Vec<u8>,
    epoll: Epoll,
    connections: Vec<Connection>,
    tally: Tally,
    started: u64,
    window: std::ops::Range<u64>,
    /// Open loop: nanoseconds between arrivals, the next one, and those that found no free connection.
    gap: u64,
    next_arrival: u64,
    late: VecDeque<u64>,
    longest_queue: usize,
    idle: Vec<usize>,
    /// Closed loop: connections that have not sent yet.
    not_begun: VecDeque<usize>,
}

impl Generator {
    fn new(options: Options) -> Self {
        let (address, request) = target(&options);
        let epoll = Epoll::new(1024);
        let connections: Vec<Connection> = (0..options.connections)
            .map(|index| {
                let fd = connect(&address);
                epoll.add(fd, index as u64, false);
                Connection {
                    fd,
                    response: Response::default(),
                    line: Vec::new(),
                    began: 0,
                    first_event: false,
                    done_event: false,
                    unsent: 0,
                }
            })
            .collect();
        let started = now_ns();
        let measured_from = started + (options.warmup_s * 1e9) as u64;
        Generator {
            window: measured_from..measured_from + (options.duration_s * 1e9) as u64,
            gap: if options.rate > 0.0 {
                (1e9 / options.rate) as u64
            } else {
                0
            },
            next_arrival: started,
            late: VecDeque::new(),
            longest_queue: 0,
            idle: (0..options.connections).rev().collect(),
            not_begun: (0..options.connections).collect(),
            tally: Tally::default(),
            options,
            address,
            request,
            epoll,
            connections,
            started,
        }
    }

    fn run(&mut self) {
        let mut ready = Vec::new();
        let mut buffer = vec![0u8; 256 * 1024];
        loop {
            let now = now_ns();
            if now >= self.window.end {
                return;
            }
            self.tally.in_window = now >= self.window.start;
            let next = if self.gap > 0 {
                self.arrivals(now)
            } else {
                self.ramp(now)
            };
            self.epoll.wait(Some(next.min(self.window.end)), &mut ready);
            for &(token, events) in &ready {
                self.on_ready(token as usize, events, &mut buffer);
            }
        }
    }

    /// Open loop: sends what is due; when to look again.
    fn arrivals(&mut self, now: u64) -> u64 {
        while self.next_arrival <= now {
            self.late.push_back(self.next_arrival);
            self.next_arrival += self.gap;
        }
        self.longest_queue = self.longest_queue.max(self.late.len());
        while !self.late.is_empty()
            && let Some(index) = self.idle.pop()
        {
            self.send_late(index);
        }
        self.next_arrival
    }

    /// Closed loop: sends the first request of each connection at its place in the ramp; when to look again.
    fn ramp(&mut self, now: u64) -> u64 {
        let ramp_ns = self.options.ramp_ms * 1_000_000;
        while let Some(&index) = self.not_begun.front() {
            let due = self.started + ramp_ns * index as u64 / self.options.connections as u64;
            if due > now {
                return due;
            }
            self.not_begun.pop_front();
            self.send(index, now_ns());
        }
        u64::MAX
    }

    fn send_late(&mut self, index: usize) {
        match self.late.pop_front() {
            Some(planned) => self.send(index, planned),
            None => self.idle.push(index),
        }
    }

    fn send(&mut self, index: usize, began: u64) {
        let connection = &mut self.connections[index];
        connection.began = began;
        connection.response.expect();
        connection.first_event = false;
        connection.done_event = false;
        connection.line.clear();
        let written = write_fd(connection.fd, &self.request).max(0) as usize;
        connection.unsent = self.request.len() - written;
        if connection.unsent > 0 {
            self.epoll.modify(connection.fd, index as u64, true);
        }
        self.tally.sent += 1;
    }

    fn on_ready(&mut self, index: usize, events: u32, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        if events & libc::EPOLLOUT as u32 != 0 && connection.unsent > 0 {
            let from = self.request.len() - connection.unsent;
            connection.unsent -= write_fd(connection.fd, &self.request[from..]).max(0) as usize;
            if connection.unsent == 0 {
                self.epoll.modify(connection.fd, index as u64, false);
            }
        }
        if events & !(libc::EPOLLOUT as u32) == 0 {
            return;
        }
        let count = read_fd(connection.fd, buffer);
        let now = now_ns();
        if count > 0 {
            if self.read(index, &buffer[..count as usize], now) {
                self.answered(index, now);
                let closes = self.connections[index].response.closes;
                if closes {
                    self.replace(index);
                }
                self.next_request(index);
            }
        } else if count == 0 || !would_block() {
            let was_idle = connection.response.is_idle();
            if connection.response.ends_with_connection() {
                self.answered(index, now);
            } else if !was_idle {
                self.tally.resets += 1;
            }
            self.replace(index);
            if !was_idle {
                self.next_request(index);
            }
        }
    }

    /// Reads a piece of an answer; true when the answer is complete.
    fn read(&mut self, index: usize, bytes: &[u8], now: u64) -> bool {
        let connection = &mut self.connections[index];
        let tally = &mut self.tally;
        let stream = self.options.stream;
        let mut reader = EventReader {
            line: &mut connection.line,
            first_event: &mut connection.first_event,
            done_event: &mut connection.done_event,
            began: connection.began,
        };
        connection.response.feed(bytes, |body| {
            tally.bytes += body.len() as u64;
            if stream {
                tally.events(&mut reader, body, now);
            }
        })
    }

    fn answered(&mut self, index: usize, now: u64) {
        let connection = &self.connections[index];
        let tally = &mut self.tally;
        let good = (200..300).contains(&connection.response.status);
        *tally.statuses.entry(connection.response.status).or_default() += 1;
        tally.answered += 1;
        tally.errors += u64::from(!good);
        tally.truncated += u64::from(self.options.stream && !connection.done_event);
        if !self.window.contains(&now) {
            return;
        }
        tally.good += u64::from(good);
        tally.bad += u64::from(!good);
        // An answer that began before the window says nothing about the time in it.
        if good && connection.began >= self.window.start {
            tally.latency.add(now - connection.began);
        }
    }

    fn replace(&mut self, index: usize) {
        close_fd(self.connections[index].fd);
        let fd = connect(&self.address);
        self.connections[index].fd = fd;
        self.connections[index].response.forget();
        self.epoll.add(fd, index as u64, false);
    }

    fn next_request(&mut self, index: usize) {
        self.connections[index].response.rest();
        if self.gap > 0 {
            self.send_late(index);
        } else {
            self.send(index, now_ns());
        }
    }

    fn report(&self) -> String {
        let tally = &self.tally;
        let measured = now_ns().min(self.window.end).saturating_sub(self.window.start) as f64 / 1e9;
        let open = self
            .connections
            .iter()
            .filter(|c| c.first_event && !c.response.is_idle())
            .count();
        let statuses: Vec<String> = tally
            .statuses
            .iter()
            .map(|(status, count)| format!("\"{status}\":{count}"))
            .collect();
        format!(
            "{{\"rps\":{:.1},\"done\":{},\"bad\":{},\"total\":{},\"sent\":{},\"errors\":{},\"resets\":{},\"truncated\":{},\"open_streams\":{open},\"status\":{{{}}},\"secs\":{measured:.3},\"bytes\":{},\"events_ps\":{:.1},\"total_events\":{},\"max_backlog\":{},\"lat_us\":{},\"ttft_us\":{},\"hop_us\":{}}}\n",
            tally.good as f64 / measured,
            tally.good,
            tally.bad,
            tally.answered,
            tally.sent,
            tally.errors,
            tally.resets,
            tally.truncated,
            statuses.join(","),
            tally.bytes,
            tally.events as f64 / measured,
            tally.all_events,
            self.longest_queue,
            tally.latency.json(),
            tally.first_event.json(),
            tally.transit.json()
        )
    }
}

fn connect(address: &SocketAddr) -> RawFd {
    for _ in 0..100 {
        if let Ok(stream) = TcpStream::connect(address) {
            stream.set_nonblocking(true).expect("non-blocking socket");
            let fd = stream.into_raw_fd();
            nodelay(fd);
            return fd;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    eprintln!("cannot connect to {address}");
    std::process::exit(2)
}

fn main() {
    fine_timers();
    let mut generator = Generator::new(options());
    generator.run();
    print!("{}", generator.report());
}
