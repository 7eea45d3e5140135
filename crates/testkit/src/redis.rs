//! Real Redis servers for tests: each on free ports, in a directory of its own, killed when dropped.
//!
//! `redis-server` comes from the distribution (`make setup`); without it a test fails and says so.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tollgate_base::clock;

/// Longest that a server takes to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(10);

/// Options of a cluster's node.
const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

/// A running `redis-server`.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    directory: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it speaks TLS besides.
    pub secure: Option<SocketAddr>,
    options: Vec<String>,
}

/// Who a server is, as PEM.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its certificate.
    pub certificate: &'a str,
    /// The key to it.
    pub key: &'a str,
    /// The authority whose certificates it believes.
    pub authority: &'a str,
}

impl Redis {
    /// Starts one with these options (`--requirepass`, `x`).
    ///
    /// # Errors
    /// What it said, when it does not come up.
    pub fn start(options: &[&str]) -> Result<Self, String> {
        Self::prepared(options)?.started()
    }

    /// The same for one that speaks TLS too. Clients need no certificate unless an option says so.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start_secure(identity: Identity<'_>, options: &[&str]) -> Result<Self, String> {
        let mut redis = Self::prepared(options)?;
        let address = free_address()?;
        let mut more = tls_options(redis.directory.path(), address, identity)?;
        more.append(&mut redis.options);
        redis.options = more;
        redis.secure = Some(address);
        redis.started()
    }

    fn prepared(options: &[&str]) -> Result<Self, String> {
        Ok(Self {
            child: None,
            directory: tempfile::tempdir().map_err(|cause| cause.to_string())?,
            address: free_address()?,
            secure: None,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        })
    }

    fn started(mut self) -> Result<Self, String> {
        self.restart()?;
        Ok(self)
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let log = self.directory.path().join("log");
        let output = File::create(&log).map_err(|cause| cause.to_string())?;
        let errors = output.try_clone().map_err(|cause| cause.to_string())?;
        let child = Command::new("redis-server")
            .args(["--port", &self.address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.directory.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|cause| format!("redis-server: {cause}; `make setup` installs it"))?;
        self.child = Some(child);
        let deadline = clock::now() + PATIENCE;
        while self.ask("PING").is_err() {
            let ended = self.child.as_mut().map(Child::try_wait);
            if matches!(ended, Some(Ok(Some(_)))) || clock::now() > deadline {
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            pause();
        }
        Ok(())
    }

    /// Kills it; what it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends it a signal by name: after `STOP` it holds connections open and answers nothing, until `CONT`.
    ///
    /// # Errors
    /// When `kill` does not run or it is not running.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        let child = self.child.as_ref().ok_or("it is not running")?;
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(child.id().to_string())
            .status();
        status.map(drop).map_err(|cause| cause.to_string())
    }

    /// Sends an inline command and gives what comes back at once, as Redis writes it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, command: &str) -> Result<String, String> {
        ask(self.address, command)
    }

    /// Three servers that are one cluster.
    ///
    /// # Errors
    /// When they do not come up or do not agree.
    pub fn cluster() -> Result<[Self; 3], String> {
        let node = || Self::start(&CLUSTER);
        Self::joined([node()?, node()?, node()?])
    }

    /// The same with names by which the nodes tell clients of each other (`node-0.redis.example` and on).
    ///
    /// # Errors
    /// As [`Redis::cluster`].
    pub fn named_cluster() -> Result<[Self; 3], String> {
        let node = |number: usize| {
            let name = format!("node-{number}.redis.example");
            let mut options = CLUSTER.to_vec();
            options.extend(["--cluster-announce-hostname", &name]);
            options.extend(["--cluster-preferred-endpoint-type", "hostname"]);
            Self::start(&options)
        };
        Self::joined([node(0)?, node(1)?, node(2)?])
    }

    /// The same over TLS, between the nodes too.
    ///
    /// # Errors
    /// As [`Redis::cluster`].
    pub fn secure_cluster(identity: Identity<'_>) -> Result<[Self; 3], String> {
        let mut options = CLUSTER.to_vec();
        options.extend(["--tls-cluster", "yes"]);
        let node = || Self::start_secure(identity, &options);
        Self::joined([node()?, node()?, node()?])
    }

    fn joined(nodes: [Self; 3]) -> Result<[Self; 3], String> {
        let mut command = Command::new("redis-cli");
        if nodes.iter().all(|node| node.secure.is_some()) {
            let [node, ..] = &nodes;
            command
                .arg("--tls")
                .arg("--cacert")
                .arg(node.directory.path().join("tls-ca-cert-file"));
        }
        let created = command
            .args(["--cluster", "create"])
            .args(
                nodes
                    .iter()
                    .map(|node| node.secure.unwrap_or(node.address).to_string()),
            )
            .arg("--cluster-yes")
            .output()
            .map_err(|cause| format!("redis-cli: {cause}; `make setup` installs it"))?;
        if !created.status.success() {
            return Err(String::from_utf8_lossy(&created.stdout).into_owned());
        }
        let deadline = clock::now() + PATIENCE;
        while !nodes.iter().all(|node| {
            node.ask("CLUSTER INFO")
                .is_ok_and(|info| info.contains("cluster_state:ok"))
        }) {
            if clock::now() > deadline {
                return Err("the nodes do not agree".to_owned());
            }
            pause();
        }
        Ok(nodes)
    }

    /// A sentinel that watches this server under the name `main`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn sentinel(&self) -> Result<Self, String> {
        self.watched(self.address, None)
    }

    /// The same over TLS, for clients and towards the server, which must speak it.
    ///
    /// # Errors
    /// As [`Redis::sentinel`].
    pub fn secure_sentinel(&self, identity: Identity<'_>) -> Result<Self, String> {
        let secure = self.secure.ok_or("the server speaks no TLS")?;
        self.watched(secure, Some(identity))
    }

    fn watched(&self, server: SocketAddr, identity: Option<Identity<'_>>) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|cause| cause.to_string())?;
        let config = directory.path().join("sentinel.conf");
        let text = format!("sentinel monitor main 127.0.0.1 {} 1\n", server.port());
        std::fs::write(&config, text).map_err(|cause| cause.to_string())?;
        let address = free_address()?;
        let secure = identity.map(|_| free_address()).transpose()?;
        let mut options = Vec::new();
        if let (Some(identity), Some(secure)) = (identity, secure) {
            options = tls_options(directory.path(), secure, identity)?;
            options.extend(["--tls-replication".to_owned(), "yes".to_owned()]);
        }
        let child = Command::new("redis-server")
            .arg(&config)
            .args([
                "--sentinel",
                "--port",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .args(&options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| format!("redis-server: {cause}; `make setup` installs it"))?;
        let sentinel = Self {
            child: Some(child),
            directory,
            address,
            secure,
            options,
        };
        let deadline = clock::now() + PATIENCE;
        while sentinel.ask("PING").is_err() {
            if clock::now() > deadline {
                return Err("the sentinel does not answer".to_owned());
            }
            pause();
        }
        Ok(sentinel)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Options of a server that speaks TLS at this address; its files go to `directory`.
fn tls_options(directory: &Path, address: SocketAddr, identity: Identity<'_>) -> Result<Vec<String>, String> {
    let mut options = vec!["--tls-port".to_owned(), address.port().to_string()];
    for (option, pem) in [
        ("--tls-cert-file", identity.certificate),
        ("--tls-key-file", identity.key),
        ("--tls-ca-cert-file", identity.authority),
    ] {
        let file = directory.join(option.trim_start_matches('-'));
        std::fs::write(&file, pem).map_err(|cause| cause.to_string())?;
        options.extend([option.to_owned(), file.display().to_string()]);
    }
    options.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
    Ok(options)
}

fn free_address() -> Result<SocketAddr, String> {
    // A cluster's nodes also listen 10,000 ports higher.
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
        let address = listener.local_addr().map_err(|cause| cause.to_string())?;
        if address.port() < 55_000 {
            return Ok(address);
        }
    }
}

fn ask(address: SocketAddr, command: &str) -> Result<String, String> {
    let text = |cause: std::io::Error| cause.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .map_err(text)?;
    let mut answer = vec![0; 64 * 1024];
    let length = stream.read(&mut answer).map_err(text)?;
    answer.truncate(length);
    match String::from_utf8_lossy(&answer).into_owned() {
        error if error.starts_with("-LOADING") || error.is_empty() => Err(error),
        answer => Ok(answer),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits outside any runtime for another process"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}
