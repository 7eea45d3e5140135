//! `Controller`: reads the source, compiles, publishes, and tells what it refused.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_base::clock;
use tollgate_compile::compile;
use tollgate_kinds::{Diagnostic, Objects, ReadOptions, read};
use tollgate_snapshot::{Live, Snapshot};

use crate::last_good::{Extent, LastGood, undo};
use crate::{Directory, SourceFile};

/// A look-up of `${NAME}`.
pub type Substitute = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How documents are read and compiled.
#[derive(Clone)]
pub struct Options {
    /// Where documents come from.
    pub directory: Directory,
    /// Namespace of documents that name none.
    pub namespace: String,
    /// Values for `${NAME}`; `None` leaves documents alone.
    pub substitute: Option<Substitute>,
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
    /// When a configured directory itself cannot be read; what is in force stays, and the status says why.
    pub fn reload(&mut self) -> io::Result<Status> {
        let files = match self.options.directory.read() {
            Ok(files) => files,
            Err(cause) => {
                self.note_unreadable(&cause);
                return Err(cause);
            }
        };
        let (mut objects, mut diagnostics) = self.read_files(&files);
        let (mut snapshot, refused) = compile(&objects, &self.options.compile);
        let written = objects.clone();
        let mut remaining = refused.clone();
        diagnostics.extend(refused.iter().cloned());
        for extent in [Extent::Least, Extent::Whole] {
            if !self.last_good.fall_back(&mut objects, &remaining, extent) {
                break;
            }
            (snapshot, remaining) = compile(&objects, &self.options.compile);
            diagnostics.extend(remaining.iter().cloned());
        }
        if undo(&mut objects, &written, &refused, &remaining) {
            (snapshot, remaining) = compile(&objects, &self.options.compile);
        }
        self.last_good.accept(&objects, &remaining);
        Ok(self.publish(snapshot, once_each(diagnostics), objects.len()))
    }

    fn read_files(&self, files: &[SourceFile]) -> (Objects, Vec<Diagnostic>) {
        let (mut objects, mut diagnostics) = (Objects::new(), Vec::new());
        let mut hidden = Vec::new();
        let substitute = self.options.substitute.as_deref();
        let lookup = substitute.map(|lookup| move |name: &str| lookup(name));
        let options = ReadOptions {
            default_namespace: &self.options.namespace,
            substitute: lookup
                .as_ref()
                .map(|lookup| lookup as &dyn Fn(&str) -> Option<String>),
        };
        for file in files {
            let (found, faults) = match &file.text {
                Ok(text) => {
                    let reading = read(text.as_bytes(), &file.name, &options);
                    (reading.objects, reading.diagnostics)
                }
                Err(cause) => {
                    let unread = Diagnostic::error(&file.name, Default::default(), cause.clone());
                    (Vec::new(), vec![unread])
                }
            };
            hidden.extend(self.last_good.hidden_by(&file.name, &faults));
            diagnostics.extend(faults);
            for object in found {
                diagnostics.extend(objects.insert(object).err());
            }
        }
        // Behind all files: one that was moved elsewhere is defined there now.
        for object in hidden {
            if objects.get(&object.key()).is_none() {
                objects.replace(object);
            }
        }
        (objects, diagnostics)
    }

    /// Nothing changes but what is told.
    fn note_unreadable(&mut self, cause: &io::Error) {
        let unread = Diagnostic::error(&"--config".into(), Default::default(), cause.to_string());
        let mut status = self.status.borrow().clone();
        let mut diagnostics = Vec::clone(&status.diagnostics);
        diagnostics.push(unread);
        status.diagnostics = Arc::new(once_each(diagnostics));
        status.rejected = count_errors(&status.diagnostics);
        self.status.send_replace(status);
    }

    fn publish(&mut self, snapshot: Snapshot, diagnostics: Vec<Diagnostic>, objects: usize) -> Status {
        self.generation += 1;
        self.live.publish(Snapshot {
            generation: self.generation,
            ..snapshot
        });
        self.options.compile.modules.published();
        let status = Status {
            generation: self.generation,
            rejected: count_errors(&diagnostics),
            diagnostics: Arc::new(diagnostics),
            objects,
            at: clock::unix_seconds(),
        };
        self.status.send_replace(status.clone());
        status
    }
}

/// Without repetitions: a file's fault is found again when its last good version is compiled.
fn once_each(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told = HashSet::new();
    diagnostics.retain(|diagnostic| told.insert(diagnostic.to_string()));
    diagnostics
}

fn count_errors(diagnostics: &[Diagnostic]) -> BTreeMap<String, u64> {
    let mut rejected = BTreeMap::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        let kind: &str = if diagnostic.kind.is_empty() {
            "unknown"
        } else {
            &diagnostic.kind
        };
        *rejected.entry(kind.to_owned()).or_insert(0) += 1;
    }
    rejected
}
