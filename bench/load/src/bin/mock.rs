//! Mock OpenAI-compatible upstream: one thread, raw epoll, no allocation on the hot path.
//!
//! POST anything                    a chat.completion of about `reply` bytes, with a usage block
//! POST with "stream":true          SSE: role chunk, N content chunks, stop chunk, usage chunk, [DONE]
//! GET anything                     "ok", or a model list when the path ends in /models
//!
//! Behaviour comes from flags (--chunks N --delay-us D --ttft-us T --reply B --latency-us L), and for one request
//! from a query (?chunks=..), a header `x-mock: chunks=..,delay_us=..`, or a directive in the prompt
//! `[[chunks=200 delay_us=1000]]`, which survives gateways that drop headers and queries. `echo=1` answers with
//! the request as it arrived, inside the message's text. Each content chunk carries `@<16 digits>@`: nanoseconds
//! of CLOCK_MONOTONIC at the write.
use bench_load::{
    Epoll, close_fd, find, fine_timers, header, nodelay, now_ns, number, read_fd, would_block, write_fd,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

#[derive(Clone, Copy, PartialEq)]
struct Behaviour {
    chunks: u64,
    delay_us: u64,
    ttft_us: u64,
    latency_us: u64,
    reply: u64,
    status: u64,
    echo: u64,
}

impl Behaviour {
    /// Reads `name=number` pairs; anything else is somebody's prompt and is passed over.
    fn apply(&mut self, text: &[u8]) {
        for pair in text.split(|byte| b" ,&;".contains(byte)) {
            let Some(equals) = pair.iter().position(|&byte| byte == b'=') else {
                continue;
            };
            let value = number(&pair[equals + 1..]);
            match &pair[..equals] {
                b"chunks" => self.chunks = value,
                b"delay_us" => self.delay_us = value,
                b"ttft_us" => self.ttft_us = value,
                b"latency_us" => self.latency_us = value,
                b"reply" => self.reply = value,
                b"status" => self.status = value,
                b"echo" => self.echo = value,
                _ => {}
            }
        }
    }

    fn for_request(mut self, request: &Request<'_>) -> Self {
        if let Some(query) = request.path.iter().position(|&byte| byte == b'?') {
            self.apply(&request.path[query + 1..]);
        }
        if let Some(value) = header(request.head, "x-mock") {
            self.apply(value);
        }
        if let Some(open) = find(request.body, b"[[")
            && let Some(length) = find(&request.body[open..], b"]]")
        {
            self.apply(&request.body[open + 2..open + length]);
        }
        self
    }
}

/// One complete request in a connection's input.
struct Request<'a> {
    /// Request line and headers, each with its line break.
    head: &'a [u8],
    method: &'a [u8],
    path: &'a [u8],
    body: &'a [u8],
    /// Where the next request begins.
    end: usize,
}

enum Parsed<'a> {
    Request(Request<'a>),
    Incomplete { wants_continue: bool },
    Nonsense,
}

fn parse(input: &[u8]) -> Parsed<'_> {
    let Some(blank) = find(input, b"\r\n\r\n") else {
        return if input.len() < 1 << 20 {
            Parsed::Incomplete {
                wants_continue: false,
            }
        } else {
            Parsed::Nonsense
        };
    };
    let head = &input[..blank + 2];
    let body_start = blank + 4;
    let end = if let Some(length) = header(head, "content-length") {
        body_start + number(length) as usize
    } else if header(head, "transfer-encoding").is_some() {
        match find(&input[body_start..], b"0\r\n\r\n") {
            Some(last) => body_start + last + 5,
            None => {
                return Parsed::Incomplete {
                    wants_continue: false,
                };
            }
        }
    } else {
        body_start
    };
    if input.len() < end {
        let wants_continue = header(head, "expect").is_some() && input.len() == body_start;
        return Parsed::Incomplete { wants_continue };
    }
    let line = &head[..head.iter().position(|&byte| byte == b'\r').unwrap_or(0)];
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or(b"/");
    Parsed::Request(Request {
        head,
        method,
        path,
        body: &input[body_start..end],
        end,
    })
}

#[derive(Clone, Copy)]
enum Mode {
    Idle,
    Delayed(Behaviour),
    /// The number of the next SSE event.
    Stream(Behaviour, u64),
}

struct Connection {
    fd: RawFd,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// The socket is full: output continues when epoll says so.
    blocked: bool,
    close: bool,
    mode: Mode,
    /// Tells a timer of this connection from one of the connection that had its place before.
    generation: u32,
}

struct Server {
    epoll: Epoll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// (when, connection, its generation)
    timers: BinaryHeap<Reverse<(u64, usize, u32)>>,
    usual: Behaviour,
    usual_reply: Vec<u8>,
    generations: u32,
}

const HEAD_OF_REPLY: &str = r#"{"id":"chatcmpl-mock0000000000000001","object":"chat.completion","created":1732300000,"model":"gpt-4o-mini","system_fingerprint":"fp_mock","choices":[{"index":0,"message":{"role":"assistant","content":""#;
const TAIL_OF_REPLY: &str = r#"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":187,"completion_tokens":142,"total_tokens":329,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default"}"#;
const WORDS: &str = "Gateways forward what they are given and count what they forward. ";
const FAILURE: &str =
    r#"{"error":{"message":"mock failure","type":"server_error","param":null,"code":null}}"#;
const HEAD_OF_EVENT: &str = "data: {\"id\":\"chatcmpl-mock0000000000000001\",\"object\":\"chat.completion.chunk\",\"created\":1732300000,\"model\":\"gpt-4o-mini\",\"system_fingerprint\":\"fp_mock\",";

fn completion(text: &str) -> String {
    format!("{HEAD_OF_REPLY}{text}{TAIL_OF_REPLY}")
}

/// The request as it arrived, as the text of a completion.
fn echo(request: &Request<'_>) -> String {
    let wire = [request.head, b"\r\n", request.body].concat();
    let mut text = String::new();
    for character in String::from_utf8_lossy(&wire).chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control < ' ' => text.push_str(&format!("\\u{:04x}", control as u32)),
            other => text.push(other),
        }
    }
    completion(&text)
}

fn whole_response(behaviour: &Behaviour, body: Option<String>) -> Vec<u8> {
    let body = match body {
        Some(body) => body,
        None if behaviour.status != 200 => FAILURE.to_owned(),
        None => {
            let length = (behaviour.reply as usize).saturating_sub(HEAD_OF_REPLY.len() + TAIL_OF_REPLY.len());
            completion(&WORDS.chars().cycle().take(length).collect::<String>())
        }
    };
    format!(
        "HTTP/1.1 {} Mock\r\ncontent-type: application/json\r\nserver: mock\r\nx-request-id: req_mock\r\nopenai-processing-ms: 1\r\ncontent-length: {}\r\n\r\n{body}",
        behaviour.status,
        body.len()
    )
    .into_bytes()
}

/// Appends event `index` of a stream with `chunks` content chunks, as one HTTP chunk.
fn push_event(output: &mut Vec<u8>, index: u64, chunks: u64) {
    let mut event: Vec<u8> = Vec::with_capacity(320);
    event.extend_from_slice(HEAD_OF_EVENT.as_bytes());
    if index == 0 {
        event.extend_from_slice(b"\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    } else if index <= chunks {
        event.extend_from_slice(
            format!("\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"@{:016}@ tok\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n", now_ns()).as_bytes(),
        );
    } else if index == chunks + 1 {
        event.extend_from_slice(
            b"\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n",
        );
    } else if index == chunks + 2 {
        let total = 187 + chunks;
        event.extend_from_slice(
            format!("\"choices\":[],\"usage\":{{\"prompt_tokens\":187,\"completion_tokens\":{chunks},\"total_tokens\":{total}}}}}\n\n").as_bytes(),
        );
    } else {
        event.clear();
        event.extend_from_slice(b"data: [DONE]\n\n");
    }
    let _ = write!(output, "{:x}\r\n", event.len());
    output.extend_from_slice(&event);
    output.extend_from_slice(b"\r\n");
    if index == chunks + 3 {
        output.extend_from_slice(b"0\r\n\r\n");
    }
}

/// What to do with a connection after a step.
#[derive(PartialEq)]
enum Fate {
    Keep,
    Drop,
}

impl Server {
    fn new(epoll: Epoll, usual: Behaviour) -> Self {
        Server {
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            usual,
            usual_reply: whole_response(&usual, None),
            generations: 0,
        }
    }

    fn accept(&mut self, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("non-blocking socket");
            let fd = stream.into_raw_fd();
            nodelay(fd);
            self.generations = self.generations.wrapping_add(1);
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.connections[index] = Some(Connection {
                fd,
                input: Vec::with_capacity(8192),
                output: Vec::with_capacity(4096),
                sent: 0,
                blocked: false,
                close: false,
                mode: Mode::Idle,
                generation: self.generations,
            });
            self.epoll.add(fd, index as u64 + 1, false);
        }
    }

    fn drop_connection(&mut self, index: usize) {
        if let Some(connection) = self.connections[index].take() {
            close_fd(connection.fd);
            self.free.push(index);
        }
    }

    fn on_ready(&mut self, index: usize, events: u32, buffer: &mut [u8]) {
        if self.connections[index].is_none() {
            return;
        }
        let mut fate = Fate::Keep;
        if events & libc::EPOLLOUT as u32 != 0 {
            fate = self.flush(index);
            if fate == Fate::Keep
                && self.connections[index]
                    .as_ref()
                    .is_some_and(|c| !c.blocked && matches!(c.mode, Mode::Stream(..)))
            {
                fate = self.advance(index);
            }
        }
        if fate == Fate::Keep && events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
            fate = self.receive(index, buffer);
        }
        if fate == Fate::Drop {
            self.drop_connection(index);
        }
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> Fate {
        let Some(connection) = self.connections[index].as_mut() else {
            return Fate::Keep;
        };
        let count = read_fd(connection.fd, buffer);
        if count > 0 {
            connection.input.extend_from_slice(&buffer[..count as usize]);
            self.answer_requests(index)
        } else if count == 0 || !would_block() {
            Fate::Drop
        } else {
            Fate::Keep
        }
    }

    fn flush(&mut self, index: usize) -> Fate {
        let Some(connection) = self.connections[index].as_mut() else {
            return Fate::Keep;
        };
        while connection.sent < connection.output.len() {
            let written = write_fd(connection.fd, &connection.output[connection.sent..]);
            if written > 0 {
                connection.sent += written as usize;
            } else if written < 0 && would_block() {
                if !connection.blocked {
                    connection.blocked = true;
                    self.epoll.modify(connection.fd, index as u64 + 1, true);
                }
                return Fate::Keep;
            } else {
                return Fate::Drop;
            }
        }
        connection.output.clear();
        connection.sent = 0;
        if connection.blocked {
            connection.blocked = false;
            self.epoll.modify(connection.fd, index as u64 + 1, false);
        }
        if connection.close && matches!(connection.mode, Mode::Idle) {
            Fate::Drop
        } else {
            Fate::Keep
        }
    }

    /// Answers the complete requests of a connection's input, one at a time.
    fn answer_requests(&mut self, index: usize) -> Fate {
        loop {
            let usual = self.usual;
            let Some(connection) = self.connections[index].as_mut() else {
                return Fate::Keep;
            };
            if !matches!(connection.mode, Mode::Idle) || connection.input.is_empty() {
                return Fate::Keep;
            }
            let input = std::mem::take(&mut connection.input);
            let request = match parse(&input) {
                Parsed::Request(request) => request,
                Parsed::Nonsense => return Fate::Drop,
                Parsed::Incomplete { wants_continue } => {
                    if wants_continue {
                        write_fd(connection.fd, b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    connection.input = input;
                    return Fate::Keep;
                }
            };
            connection.close |=
                header(request.head, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
            let mut delay_us = 0;
            if request.method == b"GET" || request.method == b"HEAD" {
                push_get_reply(&mut connection.output, request.path);
            } else {
                let behaviour = usual.for_request(&request);
                let stream = [&b"\"stream\":true"[..], b"\"stream\": true"]
                    .iter()
                    .any(|t| find(request.body, t).is_some());
                if stream && behaviour.status == 200 {
                    connection.mode = Mode::Stream(behaviour, 0);
                    delay_us = behaviour.ttft_us;
                } else if behaviour.latency_us > 0 {
                    connection.mode = Mode::Delayed(behaviour);
                    delay_us = behaviour.latency_us;
                } else if behaviour.echo > 0 {
                    connection
                        .output
                        .extend_from_slice(&whole_response(&behaviour, Some(echo(&request))));
                } else if behaviour == usual {
                    connection.output.extend_from_slice(&self.usual_reply);
                } else {
                    connection
                        .output
                        .extend_from_slice(&whole_response(&behaviour, None));
                }
            }
            let (end, generation) = (request.end, connection.generation);
            connection.input = input;
            connection.input.drain(..end);
            if delay_us > 0 {
                self.timers
                    .push(Reverse((now_ns() + delay_us * 1000, index, generation)));
                return Fate::Keep;
            }
            let fate = match connection.mode {
                Mode::Idle => self.flush(index),
                _ => return self.advance(index),
            };
            if fate == Fate::Drop {
                return fate;
            }
        }
    }

    /// The time of a delayed answer or of a stream's next events has come.
    fn advance(&mut self, index: usize) -> Fate {
        let Some(connection) = self.connections[index].as_mut() else {
            return Fate::Keep;
        };
        match connection.mode {
            Mode::Idle => Fate::Keep,
            Mode::Delayed(behaviour) => {
                connection
                    .output
                    .extend_from_slice(&whole_response(&behaviour, None));
                connection.mode = Mode::Idle;
                if self.flush(index) == Fate::Drop {
                    Fate::Drop
                } else {
                    self.answer_requests(index)
                }
            }
            Mode::Stream(behaviour, next) => self.stream(index, behaviour, next),
        }
    }

    /// Writes events until the stream's next pause, at most eight where it has none: others want their turn.
    fn stream(&mut self, index: usize, behaviour: Behaviour, mut next: u64) -> Fate {
        let last = behaviour.chunks + 3;
        let turns = if behaviour.delay_us == 0 { 8 } else { 1 };
        for _ in 0..turns {
            let Some(connection) = self.connections[index].as_mut() else {
                return Fate::Keep;
            };
            if connection.blocked {
                connection.mode = Mode::Stream(behaviour, next);
                return Fate::Keep;
            }
            if next == 0 {
                connection.output.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nserver: mock\r\nx-request-id: req_mock\r\ntransfer-encoding: chunked\r\n\r\n");
            }
            push_event(&mut connection.output, next, behaviour.chunks);
            // The three closing events leave together.
            while next > behaviour.chunks && next < last {
                next += 1;
                push_event(&mut connection.output, next, behaviour.chunks);
            }
            let done = next == last;
            next += 1;
            connection.mode = if done {
                Mode::Idle
            } else {
                Mode::Stream(behaviour, next)
            };
            if self.flush(index) == Fate::Drop {
                return Fate::Drop;
            }
            if done {
                return self.answer_requests(index);
            }
        }
        let due = if behaviour.delay_us == 0 {
            0
        } else {
            now_ns() + behaviour.delay_us * 1000
        };
        if let Some(connection) = &self.connections[index] {
            self.timers.push(Reverse((due, index, connection.generation)));
        }
        Fate::Keep
    }

    fn fire_timers(&mut self) {
        let now = now_ns();
        let mut due = Vec::new();
        while let Some(&Reverse((when, index, generation))) = self.timers.peek()
            && when <= now
        {
            self.timers.pop();
            due.push((index, generation));
        }
        for (index, generation) in due {
            let is_same = self.connections[index]
                .as_ref()
                .is_some_and(|c| c.generation == generation);
            if is_same && self.advance(index) == Fate::Drop {
                self.drop_connection(index);
            }
        }
    }
}

fn push_get_reply(output: &mut Vec<u8>, path: &[u8]) {
    let body = if path.ends_with(b"/models") {
        r#"{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1,"owned_by":"mock"}]}"#
    } else {
        "ok"
    };
    let _ = write!(
        output,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: mock\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn main() {
    let mut usual = Behaviour {
        chunks: 100,
        delay_us: 0,
        ttft_us: 0,
        latency_us: 0,
        reply: 1024,
        status: 200,
        echo: 0,
    };
    let mut port = 9000u16;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else {
            panic!("{} needs a value", pair[0])
        };
        match name.trim_start_matches('-') {
            "port" => port = value.parse().expect("--port"),
            other => usual.apply(format!("{}={value}", other.replace('-', "_")).as_bytes()),
        }
    }
    fine_timers();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    // SAFETY: only the backlog of a socket that we own changes; the standard library's is too short here.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    listener.set_nonblocking(true).expect("non-blocking socket");
    let epoll = Epoll::new(1024);
    epoll.add(listener.as_raw_fd(), 0, false);
    let mut server = Server::new(epoll, usual);
    let mut ready = Vec::new();
    let mut buffer = vec![0u8; 256 * 1024];
    eprintln!("mock on 127.0.0.1:{port}");
    loop {
        let next = server.timers.peek().map(|timer| timer.0.0);
        server.epoll.wait(next, &mut ready);
        for &(token, events) in &ready {
            match token {
                0 => server.accept(&listener),
                token => server.on_ready(token as usize - 1, events, &mut buffer),
            }
        }
        server.fire_timers();
    }
}
