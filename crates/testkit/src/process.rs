//! The gateway's binary as a child process: started on free ports, ended by signal, everything it said kept.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest a test waits for something the gateway should say.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of one output, as they come.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<(Mutex<Said>, Condvar)>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Reads `source` to its end, on a thread of its own.
    pub fn follow(source: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let lines = Self::default();
        let writer = lines.clone();
        let thread = std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.with(|said| said.lines.push(line));
            }
            writer.with(|said| said.ended = true);
        });
        (lines, thread)
    }

    fn with(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// Everything so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .clone()
    }

    /// Waits for a line that `wanted` accepts.
    ///
    /// # Errors
    /// Everything said, when the output ends or patience does.
    pub fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        self.wait_until(|lines| lines.iter().find(|line| wanted(line)).cloned())
    }

    /// Waits until all lines together show what is `wanted`.
    ///
    /// # Errors
    /// Everything said, when the output ends or patience does.
    pub fn wait_until<T>(&self, wanted: impl Fn(&[String]) -> Option<T>) -> Result<T, String> {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let not_yet = |said: &mut Said| wanted(&said.lines).is_none() && !said.ended;
        let waited = self.0.1.wait_timeout_while(guard, PATIENCE, not_yet);
        let (said, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&said.lines).ok_or_else(|| format!("never said it; said:\n{}", said.lines.join("\n")))
    }
}

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// Its directory: `config/` is watched, `data/` written.
    pub directory: tempfile::TempDir,
    /// Plain HTTP.
    pub http: SocketAddr,
    /// Admin endpoints.
    pub admin: SocketAddr,
    /// HTTPS, if it was open from the start.
    pub https: Option<SocketAddr>,
    /// Standard error.
    pub errors: Lines,
    /// Standard output: the access log unless told otherwise.
    pub log: Lines,
}

/// How a gateway is started.
#[derive(Debug)]
pub struct Start {
    binary: PathBuf,
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    command: &'static str,
}

impl Start {
    /// `tollgate run` on free loopback ports, with an empty configuration directory.
    ///
    /// # Errors
    /// When no temporary directory can be made.
    pub fn new(binary: impl AsRef<OsStr>) -> std::io::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("config"))?;
        let binary = PathBuf::from(binary.as_ref());
        Ok(Self {
            binary,
            directory,
            arguments: Vec::new(),
            variables: Vec::new(),
            command: "run",
        })
    }

    /// Another command that serves (`demo`).
    #[must_use]
    pub fn command(mut self, command: &'static str) -> Self {
        self.command = command;
        self
    }

    /// Adds a configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(self, name: &str, text: &str) -> std::io::Result<Self> {
        std::fs::write(self.directory.path().join("config").join(name), text)?;
        Ok(self)
    }

    /// A path beside the configuration, for files that flags name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a flag.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.to_owned());
        self
    }

    /// Adds a flag with its value.
    #[must_use]
    pub fn option(self, flag: &str, value: impl ToString) -> Self {
        self.flag(flag).flag(&value.to_string())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// What it said, when it does not come up.
    pub fn go(self) -> Result<Gateway, String> {
        let mut command = Command::new(&self.binary);
        command
            .arg(self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.command == "run" {
            command.arg("--config").arg(self.directory.path().join("config"));
        }
        if !self.arguments.iter().any(|given| given == "--data") {
            command.arg("--data").arg(self.directory.path().join("data"));
        }
        for (flag, value) in [
            ("--http", "127.0.0.1:0"),
            ("--https", "127.0.0.1:0"),
            ("--admin", "127.0.0.1:0"),
        ] {
            if !self.arguments.iter().any(|given| given == flag) {
                command.args([flag, value]);
            }
        }
        if !self.arguments.iter().any(|given| given == "--console") {
            command.args(["--console", "127.0.0.1:0"]);
        }
        command.args(&self.arguments).envs(self.variables.iter().cloned());
        let mut child = command
            .spawn()
            .map_err(|cause| format!("{}: {cause}", self.binary.display()))?;
        let (errors, _) = Lines::follow(child.stderr.take().ok_or("no standard error")?);
        let (log, _) = Lines::follow(child.stdout.take().ok_or("no standard output")?);
        let ready = errors.wait_for(|line| line.starts_with("tollgate ready "));
        let line = ready.inspect_err(|_| drop(child.kill()))?;
        let address = |name: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(name)?.parse().ok())
        };
        let http = address("http=").ok_or_else(|| format!("no http= in {line}"))?;
        let admin = address("admin=").ok_or_else(|| format!("no admin= in {line}"))?;
        Ok(Gateway {
            child,
            directory: self.directory,
            http,
            admin,
            https: address("https="),
            errors,
            log,
        })
    }

    /// Runs the command with exactly the given arguments to its end, in the directory that holds `config`: for commands
    /// that fail or print.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(self) -> std::io::Result<std::process::Output> {
        let mut command = Command::new(&self.binary);
        command
            .arg(self.command)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned());
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
    }
}

impl Gateway {
    /// The watched directory.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    /// The directory that it writes to, unless `--data` was given.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Writes a configuration file the way an editor does (new file, then rename) and waits until a generation that
    /// contains it is live.
    ///
    /// # Errors
    /// When it is not picked up.
    pub fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let reloads = self.count_reloads();
        let fail = |cause: std::io::Error| cause.to_string();
        let fresh = self.directory.path().join("fresh");
        std::fs::write(&fresh, text).map_err(fail)?;
        std::fs::rename(&fresh, self.config().join(name)).map_err(fail)?;
        self.wait_for_reload(reloads)
    }

    /// Removes a configuration file and waits for the reload.
    ///
    /// # Errors
    /// When it is not noticed.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let reloads = self.count_reloads();
        std::fs::remove_file(self.config().join(name)).map_err(|cause| cause.to_string())?;
        self.wait_for_reload(reloads)
    }

    fn count_reloads(&self) -> usize {
        reloads_in(&self.errors.all())
    }

    fn wait_for_reload(&self, before: usize) -> Result<(), String> {
        self.errors
            .wait_until(|lines| (reloads_in(lines) > before).then_some(()))
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`TERM`, `HUP`).
    ///
    /// # Errors
    /// When `kill` does not run.
    pub fn signal(&self, name: &str) -> std::io::Result<ExitStatus> {
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(mut self) -> std::io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Resident memory in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most resident memory that it has ever had, in KiB: nothing is missed between two looks.
    #[must_use]
    pub fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(
            Path::new("/proc")
                .join(self.child.id().to_string())
                .join("status"),
        );
        let line = status.unwrap_or_default();
        let value = line
            .lines()
            .find_map(|row| row.strip_prefix(name))
            .unwrap_or_default();
        value.trim().trim_end_matches(" kB").parse().unwrap_or_default()
    }
}

fn reloads_in(lines: &[String]) -> usize {
    lines
        .iter()
        .filter(|line| line.contains("configuration reloaded"))
        .count()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
