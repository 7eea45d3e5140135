//! `tollgate run`: wires configuration, data plane, admin endpoints and signals together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tollgate_base::shutdown::{self, Phase, Trigger};
use tollgate_base::{Shutdown, task};
use tollgate_console::admin::{self, Sight};
use tollgate_control::{Controller, Directory, Status, Substitute, config_dump};
use tollgate_ledger::Ledger;
use tollgate_modules::Fetcher;
use tollgate_observe::{Books, Metrics};
use tollgate_proxy::{Observers, Running};
use tollgate_snapshot::{Live, Snapshot};
use tollgate_store::Stores;
use tollgate_upstream::{Exports, Override, Shared};
use tollgate_wasm::{Limits, Modules};

use crate::diagnostics::say;
use crate::failure::Failure;
use crate::flags::{ConfigFlags, RunFlags, ServeFlags};
use crate::places;
use crate::signals::{Ask, Signals};

/// Longest wait for modules before the first request is taken.
const MODULES_WAIT: Duration = Duration::from_secs(60);
/// How long the last log lines get to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long the last reports to collectors get.
const LAST_REPORTS: Duration = Duration::from_secs(2);

pub(crate) fn run(flags: RunFlags) -> Result<ExitCode, Failure> {
    let extras = Extras::default();
    serve_until_stopped(controller_options(&flags.config)?, &flags.serve, extras)
}

/// What `demo` adds to `run`.
#[derive(Default)]
pub(crate) struct Extras {
    /// PEM certificates believed besides the system's.
    pub roots: Vec<Vec<u8>>,
    /// Further `--resolve` entries.
    pub resolve: Vec<String>,
    /// Printed once listening, given the HTTP address.
    pub banner: Option<Box<dyn Fn(SocketAddr) -> String>>,
}

/// Options of the control loop from the flags.
pub(crate) fn controller_options(flags: &ConfigFlags) -> Result<tollgate_control::Options, Failure> {
    if flags.config.is_empty() {
        return Err(Failure::usage("nothing to serve: give --config DIR"));
    }
    Ok(control_options(
        flags.config.clone(),
        flags,
        flags.envsubst.then(environment),
    ))
}

/// Options of the control loop for directories and variables of the caller's choice.
pub(crate) fn control_options(
    directories: Vec<PathBuf>,
    flags: &ConfigFlags,
    substitute: Option<Substitute>,
) -> tollgate_control::Options {
    tollgate_control::Options {
        directory: Directory::new(directories),
        namespace: flags.namespace.clone(),
        substitute,
        compile: tollgate_compile::Options {
            system_namespace: flags.namespace.clone(),
            ingress_class: flags.ingress_class.clone(),
            environment: variable,
            ..tollgate_compile::Options::default()
        },
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line is where the environment is read"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn environment() -> Substitute {
    Arc::new(variable)
}

/// Serves until a signal, then drains.
pub(crate) fn serve_until_stopped(
    control: tollgate_control::Options,
    flags: &ServeFlags,
    extras: Extras,
) -> Result<ExitCode, Failure> {
    start_log(&flags.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
        .map_err(|cause| format!("cannot start the background runtime: {cause}"))?;
    let outcome = runtime.block_on(async {
        // Before anything else: a signal that nobody listens for kills.
        let signals = Signals::new().map_err(|cause| format!("cannot listen for signals: {cause}"))?;
        let gateway = Gateway::start(control, flags, extras).await?;
        Ok(gateway.serve(signals, Duration::from_secs(flags.drain)).await)
    });
    runtime.shutdown_timeout(LAST_LINES);
    outcome
}

fn start_log(level: &str) -> Result<(), String> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(level).map_err(|cause| format!("--log {level}: {cause}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}

struct Gateway {
    controller: Controller,
    changes: tokio::sync::mpsc::Receiver<()>,
    module_changes: watch::Receiver<u64>,
    status: watch::Receiver<Status>,
    running: Arc<Running>,
    observers: Observers,
    ledger: Ledger,
    live: Live,
    exports: Exports,
    stores: Stores,
    trigger: Trigger,
}

impl Gateway {
    async fn start(
        mut control: tollgate_control::Options,
        flags: &ServeFlags,
        extras: Extras,
    ) -> Result<Self, Failure> {
        let (trigger, shutdown) = shutdown::channel();
        let (observers, ledger) = observers(flags)?;
        let live = Live::new(Snapshot::default());
        let overrides = overrides(flags, &extras.resolve)?;
        let stores = places::stores(flags.redis.as_deref(), &overrides, &live, observers.metrics())?;
        control.compile.stores = stores.clone();
        let upstream = upstream(overrides, &observers, extras.roots);
        let modules = modules(flags, &observers, &upstream);
        control.compile.modules = modules.clone();
        let module_changes = modules.changes();
        let changes = control.directory.watch();
        let (mut controller, status) = Controller::new(control, live.clone());
        let first = first_reading(&mut controller, &modules).await?;
        observers.configuration(first.generation, &first.rejected);
        ledger.configure(live.load().settings.ledger.clone());

        let exports = Exports::new(upstream.clone());
        ledger.connect(tokio::runtime::Handle::current(), upstream.clone());
        let admin = bind(flags.admin.0).await?;
        let options = tollgate_proxy::Options {
            http: flags.http.0,
            https: flags.https.0,
            workers: flags.workers.map_or_else(default_workers, usize::from),
            max_connections: flags.max_connections,
            live: live.clone(),
            upstream,
            exports: exports.clone(),
            modules: modules.clone(),
            observers: observers.clone(),
            shutdown: shutdown.clone(),
        };
        let running = Arc::new(tollgate_proxy::start(options).map_err(|cause| cause.to_string())?);
        announce(&running, admin.as_ref().map(|(_, address)| *address));
        report(&first);
        if let (Some(banner), Some(address)) = (extras.banner, running.http()) {
            say(&banner(address));
        }
        if let Some((listener, _)) = admin {
            let sight = View {
                live: live.clone(),
                status: status.clone(),
                modules,
                observers: observers.clone(),
                stores: stores.clone(),
                shutdown: shutdown.clone(),
            };
            drop(task::spawn(
                "admin endpoints",
                admin::serve(listener, Arc::new(sight), shutdown),
            ));
        }
        Ok(Self {
            controller,
            changes,
            module_changes,
            status,
            running,
            observers,
            ledger,
            live,
            exports,
            stores,
            trigger,
        })
    }

    async fn serve(mut self, mut signals: Signals, drain: Duration) -> ExitCode {
        loop {
            tokio::select! {
                Some(()) = self.changes.recv() => self.reload(),
                Ok(()) = self.module_changes.changed() => self.reload(),
                ask = signals.next() => match ask {
                    Ask::Reload => {
                        self.observers.reopen();
                        self.reload();
                    }
                    Ask::Stop => break,
                },
            }
        }
        self.stop(&mut signals, drain).await;
        ExitCode::SUCCESS
    }

    fn reload(&mut self) {
        match self.controller.reload() {
            Ok(status) => {
                self.observers.configuration(status.generation, &status.rejected);
                self.ledger.configure(self.live.load().settings.ledger.clone());
                if let Err(cause) = self.running.published() {
                    tracing::error!(error = %cause, "a listener could not be opened");
                }
                report(&status);
                // Last: who reads this line finds the rest in place.
                tracing::info!(
                    generation = status.generation,
                    objects = status.objects,
                    "configuration reloaded"
                );
            }
            Err(cause) => {
                tracing::error!(error = %cause, "the configuration could not be read; the last one stays");
                let status = self.status.borrow().clone();
                self.observers.configuration(status.generation, &status.rejected);
            }
        }
    }

    /// Not ready, no new connections, open requests finish; after `drain` or a second signal they end.
    async fn stop(self, signals: &mut Signals, drain: Duration) {
        self.trigger.advance(Phase::Draining);
        tracing::info!(generation = self.status.borrow().generation, "draining");
        let running = self.running.clone();
        let mut workers = tokio::task::spawn_blocking(move || running.join());
        let finished = tokio::select! {
            _ = &mut workers => true,
            () = tokio::time::sleep(drain) => false,
            () = signals.stop() => false,
        };
        self.trigger.advance(Phase::Stopped);
        if !finished {
            drop(workers.await);
        }
        self.stores.flush(LAST_LINES).await;
        let (observers, ledger) = (self.observers.clone(), self.ledger.clone());
        let exports = self.exports.clone();
        let close = move || {
            exports.close(LAST_REPORTS);
            observers.close(LAST_LINES);
            ledger.close(LAST_LINES);
        };
        drop(tokio::task::spawn_blocking(close).await);
    }
}

/// Access log, metrics and ledger; with what consumers have used so far.
fn observers(flags: &ServeFlags) -> Result<(Observers, Ledger), Failure> {
    let mut started = Err("not asked for".to_owned());
    let books = |metrics: &Metrics| match Ledger::start(&flags.data, metrics) {
        Ok(ledger) => {
            let books = ledger.books(&flags.data);
            started = Ok(ledger);
            books
        }
        Err(cause) => {
            started = Err(cause.to_string());
            Books::default()
        }
    };
    let observers = Observers::start(&flags.access_log, books)
        .map_err(|cause| format!("--access-log {}: {cause}", flags.access_log))?;
    let ledger = started.map_err(|cause| format!("cannot start the usage ledger: {cause}"))?;
    Ok((observers, ledger))
}

/// The host of modules, none made yet.
fn modules(flags: &ServeFlags, observers: &Observers, upstream: &Shared) -> Modules {
    let limits = Limits::default().with(&flags.wasm_limit);
    let options = tollgate_modules::Options {
        limit: limits.module,
        cache: Some(flags.data.join("modules")),
        mirrors: flags.wasm_mirror.clone(),
        ..tollgate_modules::Options::default()
    };
    let fetcher = Fetcher::new(upstream.clone(), options);
    Modules::new(
        limits,
        Some(observers.metrics().clone()),
        Some(fetcher),
        Some(flags.data.join("compiled")),
    )
}

/// Reads, and waits for the modules that the configuration names: no request shall meet one that is only being loaded.
async fn first_reading(controller: &mut Controller, modules: &Modules) -> Result<Status, Failure> {
    let mut read = || controller.reload().map_err(|cause| format!("--config: {cause}"));
    let first = read()?;
    let changes = modules.changes();
    if tokio::time::timeout(MODULES_WAIT, modules.settled())
        .await
        .is_err()
    {
        tracing::warn!("some modules are still being loaded: their plugins cannot run yet");
    }
    if *changes.borrow() == 0 {
        return Ok(first);
    }
    Ok(read()?)
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn overrides(flags: &ServeFlags, more: &[String]) -> Result<Vec<Override>, Failure> {
    let overrides = flags.resolve.iter().chain(more).map(|text| {
        text.parse::<Override>()
            .map_err(|cause| Failure::usage(format!("--resolve {text}: {cause}")))
    });
    overrides.collect()
}

fn upstream(overrides: Vec<Override>, observers: &Observers, roots: Vec<Vec<u8>>) -> Shared {
    let options = tollgate_upstream::Options {
        overrides,
        extra_roots: roots,
        metrics: observers.metrics().clone(),
        ..tollgate_upstream::Options::default()
    };
    Shared::new(tokio::runtime::Handle::current(), &options)
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<(TcpListener, SocketAddr)>, String> {
    let Some(wanted) = address else { return Ok(None) };
    let failed = |cause: std::io::Error| format!("cannot listen on {wanted}: {cause}");
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let real = listener.local_addr().map_err(failed)?;
    Ok(Some((listener, real)))
}

fn announce(running: &Running, admin: Option<SocketAddr>) {
    let show =
        |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let (http, https, admin) = (show(running.http()), show(running.https()), show(admin));
    say(&format!(
        "tollgate ready http={http} https={https} admin={admin} console=off"
    ));
}

fn report(status: &Status) {
    for diagnostic in status.diagnostics.iter() {
        say(&diagnostic.to_string());
    }
}

/// What the admin endpoints see.
struct View {
    live: Live,
    status: watch::Receiver<Status>,
    modules: Modules,
    observers: Observers,
    stores: Stores,
    shutdown: Shutdown,
}

impl Sight for View {
    fn metrics(&self) -> String {
        self.observers.render()
    }

    fn ready(&self) -> Result<(), String> {
        if self.shutdown.phase() != Phase::Running {
            return Err("draining".to_owned());
        }
        match self.status.borrow().generation {
            0 => Err("no configuration yet".to_owned()),
            _ => Ok(()),
        }
    }

    fn troubles(&self) -> Vec<String> {
        self.stores.troubles()
    }

    fn config_dump(&self) -> serde_json::Value {
        let mut dump = config_dump(&self.live.load(), &self.status.borrow());
        dump["modules"] = serde_json::json!(self.modules.show());
        dump
    }
}
