//! Real Redis servers for tests: each on free ports, in a directory of its own, killed when dropped.
//!
//! `redis-server` comes from the distribution (`make setup`); without it a test fails and says so.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tollgate_base::clock;

/// Longest that a server takes to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(10);

/// A running `redis-server`.
#[derive(Debug)]
pub struct Redis {
    child: Option<Child>,
    directory: tempfile::TempDir,
    /// Where it listens.
    pub address: SocketAddr,
    options: Vec<String>,
}

impl Redis {
    /// Starts one with these options (`--requirepass`, `x`).
    ///
    /// # Errors
    /// What it said, when it does not come up.
    pub fn start(options: &[&str]) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|cause| cause.to_string())?;
        let mut redis = Self {
            child: None,
            directory,
            address: free_address()?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        redis.restart()?;
        Ok(redis)
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
        let node = || Self::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]);
        let nodes = [node()?, node()?, node()?];
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(|node| node.address.to_string()))
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
        let directory = tempfile::tempdir().map_err(|cause| cause.to_string())?;
        let config = directory.path().join("sentinel.conf");
        let text = format!("sentinel monitor main 127.0.0.1 {} 1\n", self.address.port());
        std::fs::write(&config, text).map_err(|cause| cause.to_string())?;
        let address = free_address()?;
        let child = Command::new("redis-server")
            .arg(&config)
            .args([
                "--sentinel",
                "--port",
                &address.port().to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| format!("redis-server: {cause}; `make setup` installs it"))?;
        let sentinel = Self {
            child: Some(child),
            directory,
            address,
            options: Vec::new(),
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
