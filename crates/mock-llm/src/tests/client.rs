//! A blocking HTTP/1.1 client that keeps what ordinary clients hide: chunk borders, a missing end, a reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Long enough for a slow machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By its declared length or its last chunk.
    Whole,
    /// The connection closed before that.
    Closed,
    /// The connection was reset.
    Reset,
}

/// A response as it was on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The chunks of a chunked body; a body with a length is one chunk.
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) trailers: String,
    pub(crate) ended: Ended,
    /// What came behind the body's end before the connection closed (only if it closes).
    pub(crate) surplus: Vec<u8>,
}

impl Answer {
    pub(crate) fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The values of the `data:` lines.
    pub(crate) fn data(&self) -> Vec<String> {
        let text = self.text();
        text.split(['\r', '\n'])
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim_start().to_owned())
            .collect()
    }

    /// The `data:` lines that are JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.data()
            .iter()
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }
}

/// A connection with what it has read ahead.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    failed: Option<Ended>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            failed: None,
        }
    }

    pub(crate) fn send(&mut self, raw: &[u8]) {
        self.stream.write_all(raw).unwrap();
    }

    /// Reads more; false at the end.
    fn more(&mut self) -> bool {
        let mut piece = [0; 65_536];
        match self.stream.read(&mut piece) {
            Ok(0) => self.failed = Some(Ended::Closed),
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.failed = Some(Ended::Reset),
            Err(error) => panic!("{error}"),
        }
        false
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// `length` bytes, or what came before the end.
    pub(crate) fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < length && self.more() {}
        let got = length.min(self.buffer.len());
        (self.buffer.drain(..got).collect(), got == length)
    }

    fn block(&mut self) -> Option<String> {
        let mut block = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(block);
            }
            block.push_str(&line);
            block.push('\n');
        }
    }

    /// The head of the next response; `None` when the connection ended before one.
    pub(crate) fn read_head(&mut self) -> Result<String, Ended> {
        self.block().ok_or_else(|| self.failed.unwrap())
    }

    /// One chunk of a chunked body, as far as it came.
    pub(crate) fn read_chunk(&mut self) -> Result<Vec<u8>, (Vec<u8>, Ended)> {
        let Some(size) = self.line() else {
            return Err((Vec::new(), self.failed.unwrap()));
        };
        let size = usize::from_str_radix(&size, 16).unwrap();
        if size == 0 {
            return Ok(Vec::new());
        }
        match self.exactly(size + 2) {
            (mut chunk, true) => {
                chunk.truncate(size);
                Ok(chunk)
            }
            (part, false) => Err((part, self.failed.unwrap())),
        }
    }

    /// The whole next response, or as much of it as there was.
    pub(crate) fn read(&mut self) -> Result<Answer, Ended> {
        let head = self.read_head()?;
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            chunks: Vec::new(),
            trailers: String::new(),
            ended: Ended::Whole,
            surplus: Vec::new(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                match self.read_chunk() {
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => answer.chunks.push(chunk),
                    Err((part, ended)) => {
                        answer.chunks.push(part);
                        answer.ended = ended;
                        return Ok(answer);
                    }
                }
            }
            answer.trailers = self.block().unwrap();
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            let (body, whole) = self.exactly(length);
            answer.chunks.push(body);
            if !whole {
                answer.ended = self.failed.unwrap();
            }
        }
        if answer.header("connection") == Some("close") {
            while self.more() {}
            answer.surplus = std::mem::take(&mut self.buffer);
        }
        Ok(answer)
    }
}

/// The bytes of a request; `headers` are whole lines without their ends.
pub(crate) fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut raw = format!("{method} {target} HTTP/1.1\r\nhost: mock.test\r\n").into_bytes();
    for header in headers {
        raw.extend_from_slice(header.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        raw.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    raw.extend_from_slice(b"\r\n");
    raw.extend_from_slice(body);
    raw
}

/// Sends a JSON body on a new connection.
pub(crate) fn post(addr: SocketAddr, path: &str, headers: &[&str], body: &Value) -> Result<Answer, Ended> {
    let mut client = Client::connect(addr);
    client.send(&request("POST", path, headers, body.to_string().as_bytes()));
    client.read()
}

/// A GET on a new connection.
pub(crate) fn get(addr: SocketAddr, target: &str) -> Answer {
    let mut client = Client::connect(addr);
    client.send(&request("GET", target, &[], b""));
    client.read().unwrap()
}
