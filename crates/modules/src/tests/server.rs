//! A small HTTP server whose answers are a table, and which remembers what it was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate_upstream::{Options as UpstreamOptions, Shared};

use crate::digest::sha256_hex;
use crate::{Fetcher, Options};

#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Given only with this `Authorization`; others get what `otherwise` says.
    pub(crate) wants: Option<(String, Box<Answer>)>,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            wants: None,
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok("")
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn only_with(mut self, authorization: &str, otherwise: Answer) -> Self {
        self.wants = Some((authorization.to_owned(), Box::new(otherwise)));
        self
    }
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    table: Arc<Mutex<HashMap<String, Answer>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            table: Arc::default(),
            seen: Arc::default(),
        };
        let accepting = server.clone();
        tollgate_base::task::spawn("test server", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tollgate_base::task::spawn("test connection", accepting.clone().answer(stream));
            }
        });
        server
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        self.table.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// `PATH AUTHORIZATION` of each request since the last call.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Puts an image with these layers there; gives the manifest's digest.
    pub(crate) fn image(&self, name: &str, media_type: &str, layers: &[(&str, &[u8])]) -> String {
        let mut described = Vec::new();
        for (layer_type, content) in layers {
            let digest = format!("sha256:{}", sha256_hex(content));
            self.put(&format!("/v2/{name}/blobs/{digest}"), Answer::ok(*content));
            described
                .push(serde_json::json!({"mediaType": layer_type, "digest": digest, "size": content.len()}));
        }
        let manifest =
            serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "layers": described}).to_string();
        let digest = sha256_hex(manifest.as_bytes());
        self.put(
            &format!("/v2/{name}/manifests/1.0.0"),
            Answer::ok(manifest.clone()),
        );
        self.put(
            &format!("/v2/{name}/manifests/latest"),
            Answer::ok(manifest.clone()),
        );
        self.put(
            &format!("/v2/{name}/manifests/sha256:{digest}"),
            Answer::ok(manifest),
        );
        digest
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
            // A TLS hello: this server speaks none.
            if head.first() == Some(&0x16) {
                return;
            }
        }
        let text = String::from_utf8(head).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        let authorization = text
            .lines()
            .find_map(|line| line.strip_prefix("authorization: "))
            .unwrap_or("-")
            .to_owned();
        self.seen.lock().unwrap().push(format!("{path} {authorization}"));
        let found = self.table.lock().unwrap().get(&path).cloned();
        let mut answer = found.unwrap_or_else(|| Answer::status(404));
        if let Some((wanted, otherwise)) = answer.wants.take()
            && wanted != authorization
        {
            answer = *otherwise;
        }
        let mut out = format!(
            "HTTP/1.1 {} x\r\ncontent-length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        stream.write_all(out.as_bytes()).await.unwrap();
        stream.write_all(&answer.body).await.unwrap();
    }
}

pub(crate) fn fetcher(options: Options) -> Fetcher {
    fetcher_resolving(options, &[])
}

/// With `--resolve` entries.
pub(crate) fn fetcher_resolving(options: Options, overrides: &[String]) -> Fetcher {
    let upstream = UpstreamOptions {
        overrides: overrides.iter().map(|text| text.parse().unwrap()).collect(),
        ..UpstreamOptions::default()
    };
    Fetcher::new(Shared::new(tokio::runtime::Handle::current(), &upstream), options)
}
