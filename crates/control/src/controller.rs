//! `Controller`: reads the source, compiles, publishes, and tells what it refused.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_base::clock;
use tollgate_compile::compile;
use tollgate_kinds::{Diagnostic, Objects, ReadOptions, read};
use tollgate_snapshot::{Live, Snapshot};

use crate::last_good::LastGood;
use crate::{Directory, SourceFile};

/// How documents are read and compiled.
#[derive(Clone)]
pub struct Options {
    /// Where documents come from.
    pub directory: Directory,
    /// Namespace of documents that name none.
    pub namespace: String,
    /// Values for `${NAME}`; `None` leaves documents alone.
    pub substitute: Option<Arc<dyn Fn(&str) -> Option<String> + Send + Sync>>,
    /// Options of the compiler.
    pub compile: tollgate_compile::Options,
}

/// What came of the newest reading.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Generation in force; 0 before the first.
    pub generation: u64,
    /// Everything refused or doubtful.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// Errors per kind; documents of unknown kind count as `unknown`.
    pub rejected: BTreeMap<String, u64>,
    /// Objects in force.
    pub objects: usize,
    /// Unix time of the reading, in seconds.
    pub at: u64,
}

/// Turns the source's documents into generations of the snapshot.
pub struct Controller {
    options: Options,
    live: Live,
    last_good: LastGood,
    generation: u64,
    status: watch::Sender<Status>,
}

impl Controller {
    /// A controller that has read nothing yet; the status starts at generation 0.
    #[must_use]
    pub fn new(options: Options, live: Live) -> (Self, watch::Receiver<Status>) {
        let (status, receiver) = watch::channel(Status::default());
        (
            Self {
                options,
                live,
                last_good: LastGood::default(),
                generation: 0,
                status,
            },
            receiver,
        )
    }

    /// Reads, compiles and publishes once.
    ///
    /// # Errors
    /// When a configured directory itself cannot be read; what is in force stays.
    pub fn reload(&mut self) -> io::Result<Status> {
        let files = self.options.directory.read()?;
        let (mut objects, mut diagnostics) = self.read_files(&files);
        let (mut snapshot, refused) = compile(&objects, &self.options.compile);
        let mut remaining = refused.clone();
        if self.last_good.fall_back(&mut objects, &refused) {
            (snapshot, remaining) = compile(&objects, &self.options.compile);
            diagnostics.extend(refused);
            let known: HashSet<String> = diagnostics.iter().map(ToString::to_string).collect();
            diagnostics.extend(
                remaining
                    .iter()
                    .filter(|new| !known.contains(&new.to_string()))
                    .cloned(),
            );
        } else {
            diagnostics.extend(refused);
        }
        self.last_good.accept(&objects, &remaining);
        Ok(self.publish(snapshot, diagnostics, objects.len()))
    }

    fn read_files(&self, files: &[SourceFile]) -> (Objects, Vec<Diagnostic>) {
        let (mut objects, mut diagnostics) = (Objects::new(), Vec::new());
        let substitute = self.options.substitute.as_deref();
        let lookup = substitute.map(|lookup| move |name: &str| lookup(name));
        let options = ReadOptions {
            default_namespace: &self.options.namespace,
            substitute: lookup
                .as_ref()
                .map(|lookup| lookup as &dyn Fn(&str) -> Option<String>),
        };
        for file in files {
            let broken;
            let mut present = HashSet::new();
            match &file.text {
                Ok(text) => {
                    let reading = read(text.as_bytes(), &file.name, &options);
                    broken = reading.diagnostics.iter().any(Diagnostic::is_error);
                    diagnostics.extend(reading.diagnostics);
                    for object in reading.objects {
                        present.insert(object.key());
                        diagnostics.extend(objects.insert(object).err());
                    }
                }
                Err(cause) => {
                    broken = true;
                    diagnostics.push(Diagnostic::error(&file.name, Default::default(), cause.clone()));
                }
            }
            if broken {
                for object in self.last_good.missing_from(&file.name, &present) {
                    // One that moved to another file is defined there now.
                    drop(objects.insert(object));
                }
            }
        }
        (objects, diagnostics)
    }

    fn publish(&mut self, snapshot: Snapshot, diagnostics: Vec<Diagnostic>, objects: usize) -> Status {
        self.generation += 1;
        self.live.publish(Snapshot {
            generation: self.generation,
            ..snapshot
        });
        let mut rejected = BTreeMap::new();
        for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
            let kind: &str = if diagnostic.kind.is_empty() {
                "unknown"
            } else {
                &diagnostic.kind
            };
            *rejected.entry(kind.to_owned()).or_insert(0) += 1;
        }
        let status = Status {
            generation: self.generation,
            diagnostics: Arc::new(diagnostics),
            rejected,
            objects,
            at: clock::unix_seconds(),
        };
        self.status.send_replace(status.clone());
        status
    }
}
