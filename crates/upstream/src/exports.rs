//! `Exports`: the thread that carries what is exported to its collectors, over pools, TLS and names of the upstream
//! side.
//!
//! It is made by the first exporter and idles without one; a process that exports nothing has none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::uri::{Authority, Parts, Scheme};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tollgate_base::clock::{self, Instant};
use tollgate_body::Body;
use tollgate_observe::export::{Answer, Counts, Encoder, Item, Pipeline, Queue, Transport};
use tollgate_snapshot::Cluster;

use crate::{Shared, Upstreams};

/// Bytes of a collector's answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Where an exporter's reports go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The collector, with the protocol that its wire format needs.
    pub cluster: Arc<Cluster>,
    /// `host` or `:authority` of the reports.
    pub authority: Authority,
    /// Time limit of one report.
    pub timeout: Duration,
}

/// All exporters of the process; cheap to clone.
#[derive(Clone)]
pub struct Exports(Arc<Inner>);

struct Inner {
    shared: Shared,
    ending: watch::Sender<Option<Instant>>,
    thread: Mutex<Option<Thread>>,
}

/// Makes the future of a pipeline where it runs.
type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    handle: std::thread::JoinHandle<()>,
}

impl std::fmt::Debug for Exports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Exports").finish_non_exhaustive()
    }
}

impl Exports {
    /// None yet.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self(Arc::new(Inner {
            shared,
            ending: watch::channel(None).0,
            thread: Mutex::default(),
        }))
    }

    /// Starts an exporter and gives the queue into it; the exporter ends with the last clone of the queue, once
    /// everything is sent. `name` is for the program's log.
    pub fn start<T: Item>(
        &self,
        name: String,
        encoder: impl Encoder<T> + 'static,
        target: Target,
        counts: Counts,
    ) -> Queue<T> {
        let (pipeline, queue) = Pipeline::new(name, encoder, (), counts, self.0.ending.subscribe());
        let shared = self.0.shared.clone();
        let job: Job = Box::new(move || {
            let way = Way {
                upstreams: Upstreams::new(shared),
                target,
            };
            Box::pin(pipeline.along(way).run())
        });
        let mut thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = spawn();
        }
        if let Some(thread) = &*thread {
            // A thread that is gone drops the job and with it the queue's other end: offers count as dropped.
            drop(thread.jobs.send(job));
        }
        queue
    }

    /// Sends what is left, waiting at most `patience`; blocks. Nothing is exported afterwards.
    pub fn close(&self, patience: Duration) {
        self.0.ending.send_replace(Some(clock::now() + patience));
        let thread = self
            .0
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Thread { jobs, handle }) = thread {
            drop(jobs);
            if handle.join().is_err() {
                tracing::error!("the exporting thread panicked");
            }
        }
    }
}

fn spawn() -> Option<Thread> {
    let (jobs, received) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name("exports".to_owned());
    match thread.spawn(move || work(received)) {
        Ok(handle) => Some(Thread { jobs, handle }),
        Err(cause) => {
            tracing::error!(error = %cause, "cannot start the exporting thread");
            None
        }
    }
}

fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let built = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(cause) => {
            tracing::error!(error = %cause, "the exporting thread cannot make its runtime");
            return;
        }
    };
    runtime.block_on(async move {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => drop(running.spawn_local(job())),
                    None => break,
                },
                Some(ended) = running.join_next() => note(ended),
            }
        }
        while let Some(ended) = running.join_next().await {
            note(ended);
        }
    });
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|cause| cause.is_panic()) {
        tracing::error!("an exporter panicked");
    }
}

/// One collector, as the exporting thread reaches it.
struct Way {
    upstreams: Upstreams,
    target: Target,
}

#[async_trait(?Send)]
impl Transport for Way {
    async fn send(&self, request: http::Request<Bytes>) -> Result<Answer, String> {
        let (mut head, body) = request.into_parts();
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.target.authority.clone());
        parts.path_and_query = head.uri.path_and_query().cloned();
        head.uri = http::Uri::from_parts(parts).unwrap_or_default();
        head.headers
            .insert(http::header::CONTENT_LENGTH, body.len().into());
        let request = tollgate_body::Request::from_parts(head, Body::bytes(body));
        let (cluster, timeout) = (&self.target.cluster, self.target.timeout);
        let outcome = self.upstreams.call(cluster, request, timeout).await;
        let (head, body) = outcome.map_err(|failure| explain(&failure))?.into_parts();
        let collected = http_body_util::Limited::new(body, MAX_ANSWER).collect().await;
        let collected = collected.map_err(|cause| format!("its answer broke off: {cause}"))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }
}

fn explain(failure: &tollgate_base::Error) -> String {
    match failure.log_detail() {
        Some(detail) => format!("{}: {detail}", failure.message()),
        None => failure.message().to_owned(),
    }
}
