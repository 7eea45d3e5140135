//! `Sink`: takes finished lines off the data path. Workers append to a buffer of their own, one thread writes them out.
//!
//! A worker never waits for the disk: its buffer's lock is shared only with the writer, which holds it for one swap, and
//! a full buffer drops the line and counts it. Nothing is written later than 100 ms after it was logged.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::metrics::{Counter, Metrics};

/// A line waits at most this long in a worker's buffer.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// A buffer of this many bytes is written at once. Much less, and under load the writer's turns cost the worker more than
/// the writing; much more, and the lines are out of the cache when they are written.
const FLUSH_BYTES: usize = 256 * 1024;
/// A worker's buffer takes no more lines beyond this many bytes: the disk or the reader of our output is stuck.
const BUFFER_LIMIT: usize = 4 * 1024 * 1024;
/// Pause before another try when an output in non-blocking mode is full.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, appended to; created if missing.
    File(PathBuf),
}

/// The access log's writer; one per process.
#[derive(Debug)]
pub struct Sink {
    shared: Arc<Shared>,
}

/// A worker's way into the log; cheap to clone, but each worker should have its own from [`Sink::writer`].
#[derive(Debug, Clone)]
pub struct LineWriter {
    buffer: Arc<Mutex<Buffer>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug)]
struct Shared {
    buffers: Mutex<Vec<Arc<Mutex<Buffer>>>>,
    orders: Mutex<Orders>,
    /// Wakes the writer: something to do.
    work: Condvar,
    /// Wakes those who wait for the writer: a round is done.
    done: Condvar,
    closed: AtomicBool,
    dropped: Counter,
    errors: Counter,
    written: Counter,
}

/// What the writer is asked to do.
#[derive(Debug, Default)]
struct Orders {
    /// Some buffer holds lines.
    pending: bool,
    /// Do not wait for more lines.
    urgent: bool,
    /// The writer has waited in vain for a line, and the next one wakes it.
    asleep: bool,
    reopen: bool,
    close: bool,
    /// Rounds asked for and finished, for those who wait.
    asked: u64,
    finished: u64,
    ended: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding it leaves at worst a torn line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Opens the target and starts the writer's thread.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no standard output or no thread to be had.
    pub fn start(target: Target, metrics: &Metrics) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = Box::new(target.open()?);
        Self::start_with(output, Some(target), metrics)
    }

    fn start_with(
        output: Box<dyn Write + Send>,
        target: Option<Target>,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            buffers: Mutex::default(),
            orders: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            closed: AtomicBool::new(false),
            dropped: metrics.server.access_log_dropped.clone(),
            errors: metrics.server.access_log_errors.clone(),
            written: metrics.server.access_log_lines.clone(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            output,
            target,
            spare: Vec::new(),
            torn: false,
            failing: false,
        };
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// A worker's own way in.
    #[must_use]
    pub fn writer(&self) -> LineWriter {
        let buffer = Arc::new(Mutex::new(Buffer::default()));
        lock(&self.shared.buffers).push(Arc::clone(&buffer));
        LineWriter {
            buffer,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Opens the file anew, for log rotation: what is buffered goes into the old file first.
    pub fn reopen(&self) {
        lock(&self.shared.orders).reopen = true;
        self.shared.work.notify_one();
    }

    /// Writes out what is buffered; false if that took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let mut orders = lock(&self.shared.orders);
        orders.asked += 1;
        orders.urgent = true;
        let mine = orders.asked;
        self.shared.work.notify_one();
        self.wait(orders, patience, |orders| orders.finished >= mine)
    }

    /// Writes out what is buffered and ends the writer. Lines that come later are dropped and counted. False if a stuck
    /// output took longer than `patience`. Closing twice does no harm.
    pub fn close(&self, patience: Duration) -> bool {
        let mut orders = lock(&self.shared.orders);
        orders.close = true;
        self.shared.work.notify_one();
        self.wait(orders, patience, |orders| orders.ended)
    }

    fn wait(
        &self,
        orders: MutexGuard<'_, Orders>,
        patience: Duration,
        reached: impl Fn(&Orders) -> bool,
    ) -> bool {
        let waited = self
            .shared
            .done
            .wait_timeout_while(orders, patience, |orders| !orders.ended && !reached(orders));
        let (orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reached(&orders)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The thread must not outlive its owner; who wants the last lines calls `close`.
        lock(&self.shared.orders).close = true;
        self.shared.work.notify_one();
    }
}

impl LineWriter {
    /// Lets `fill` append one whole line. Never blocks on the output; a line that finds the buffer full is dropped and
    /// counted, and `fill` is not called.
    pub fn line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = lock(&self.buffer);
        if buffer.bytes.len() >= BUFFER_LIMIT || self.shared.closed.load(Ordering::Relaxed) {
            drop(buffer);
            self.shared.dropped.increment();
            return;
        }
        let before = buffer.bytes.len();
        fill(&mut buffer.bytes);
        buffer.lines += 1;
        let after = buffer.bytes.len();
        drop(buffer);
        let crossed = before < FLUSH_BYTES && after >= FLUSH_BYTES;
        if before == 0 || crossed {
            let mut orders = lock(&self.shared.orders);
            orders.pending = true;
            orders.urgent |= crossed;
            let wakes = orders.asleep || orders.urgent;
            drop(orders);
            if wakes {
                self.shared.work.notify_one();
            }
        }
    }
}

impl Target {
    /// Reads `--access-log` or the ConfigMap's `accessLogFile`: `-` and `/dev/stdout` are standard output, `off` and an
    /// empty text are none, all else is a file's path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "off" => None,
            "-" | "/dev/stdout" => Some(Target::Stdout),
            path => Some(Target::File(path.into())),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            // Not through std's own buffer, which would search every byte for line ends.
            Target::Stdout => Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Target::File(path) => OpenOptions::new().append(true).create(true).open(path),
        }
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    output: Box<dyn Write + Send>,
    target: Option<Target>,
    /// Taken turns with a worker's buffer, so that neither allocates.
    spare: Vec<u8>,
    /// The last write stopped within a line.
    torn: bool,
    /// The last write failed, and the program's own log says so already.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let orders = self.next_orders();
            if orders.close {
                self.shared.closed.store(true, Ordering::Relaxed);
            }
            self.drain();
            if orders.reopen {
                self.reopen();
            }
            let mut state = lock(&self.shared.orders);
            state.finished = orders.asked;
            state.ended = orders.close;
            drop(state);
            self.shared.done.notify_all();
            if orders.close {
                return;
            }
        }
    }

    /// Waits until there is something to do, and a little longer for more of it. Lines mostly come behind others: only
    /// one that comes after a pause wakes the writer.
    fn next_orders(&self) -> Orders {
        let idle = |orders: &mut Orders| !(orders.pending || Self::at_once(orders));
        let gathering = |orders: &mut Orders| !Self::at_once(orders);
        let work = &self.shared.work;
        let mut orders = lock(&self.shared.orders);
        loop {
            let waited = work.wait_timeout_while(orders, FLUSH_AFTER, gathering);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !idle(&mut orders) {
                break;
            }
            orders.asleep = true;
            orders = work
                .wait_while(orders, idle)
                .unwrap_or_else(PoisonError::into_inner);
            orders.asleep = false;
        }
        let taken = Orders {
            asked: orders.asked,
            ..std::mem::take(&mut *orders)
        };
        orders.asked = taken.asked;
        orders.finished = taken.finished;
        taken
    }

    fn at_once(orders: &Orders) -> bool {
        orders.urgent || orders.reopen || orders.close
    }

    fn drain(&mut self) {
        let buffers: Vec<_> = lock(&self.shared.buffers).clone();
        for buffer in &buffers {
            let mut full = std::mem::take(&mut self.spare);
            let mut state = lock(buffer);
            std::mem::swap(&mut state.bytes, &mut full);
            let lines = std::mem::take(&mut state.lines);
            drop(state);
            if !full.is_empty() {
                self.write(&full, lines);
            }
            full.clear();
            // A burst's memory is given back.
            full.shrink_to(2 * FLUSH_BYTES);
            self.spare = full;
        }
        drop(buffers);
        // The list's own reference is all that a worker that is gone leaves behind.
        lock(&self.shared.buffers)
            .retain(|buffer| Arc::strong_count(buffer) > 1 || !lock(buffer).bytes.is_empty());
    }

    fn write(&mut self, bytes: &[u8], lines: u64) {
        match self.end_torn().and_then(|()| self.write_all(bytes)) {
            Ok(()) => {
                self.shared.written.add(lines);
                self.failing = false;
            }
            Err((done, error)) => {
                let lost = bytes.get(done..).unwrap_or_default();
                let lost_lines = u64::try_from(lost.iter().filter(|byte| **byte == b'\n').count());
                let lost_lines = lost_lines.unwrap_or(lines).min(lines);
                if done > 0 {
                    self.torn = bytes.get(done - 1) != Some(&b'\n');
                }
                self.shared.errors.increment();
                self.shared.dropped.add(lost_lines);
                self.shared.written.add(lines - lost_lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "access log cannot be written; lines are dropped until it can");
                }
            }
        }
    }

    /// Better an empty line than one glued to the rest of another; until it is written, nothing else is.
    fn end_torn(&mut self) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.write_all(b"\n").map_err(|(_, error)| (0, error))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Like `Write::write_all`, but says how far it came and waits for an output in non-blocking mode.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(BUSY_PAUSE),
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }

    fn reopen(&mut self) {
        let Some(target) = &self.target else { return };
        match target.open() {
            Ok(file) => {
                self.output = Box::new(file);
                self.torn = false;
            }
            Err(error) => {
                self.shared.errors.increment();
                tracing::warn!(%error, ?target, "access log cannot be reopened; the old file stays in use");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An output that does what it is told before each write, and keeps what it took.
    struct Scripted {
        steps: mpsc::Receiver<io::Result<usize>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a script left, everything is taken.
            let count = self.steps.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            lock(&self.taken).extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        sink: Sink,
        steps: mpsc::Sender<io::Result<usize>>,
        taken: Arc<Mutex<Vec<u8>>>,
        metrics: Arc<Metrics>,
    }

    fn rig() -> Rig {
        let (steps, receiver) = mpsc::channel();
        let (metrics, taken) = (Metrics::new(), Arc::new(Mutex::new(Vec::new())));
        let output = Scripted {
            steps: receiver,
            taken: Arc::clone(&taken),
        };
        let sink = Sink::start_with(Box::new(output), None, &metrics).unwrap();
        Rig {
            sink,
            steps,
            taken,
            metrics,
        }
    }

    fn counts(metrics: &Metrics) -> (u64, u64, u64) {
        let server = &metrics.server;
        let written = server.access_log_lines.get();
        (
            written,
            server.access_log_dropped.get(),
            server.access_log_errors.get(),
        )
    }

    fn text(line: &str) -> impl FnOnce(&mut Vec<u8>) {
        let line = line.to_owned();
        move |out| out.extend_from_slice(line.as_bytes())
    }

    #[test]
    fn lines_of_all_workers_arrive_and_a_close_loses_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let metrics = Metrics::new();
        let sink = Sink::start(Target::File(path.clone()), &metrics).unwrap();
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let log = sink.writer();
                thread::spawn(move || {
                    for number in 0..5_000 {
                        log.line(text(&format!("{worker} {number} {}\n", "x".repeat(50))));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(sink.close(PATIENCE));
        assert_eq!(counts(&metrics), (20_000, 0, 0));
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().next(), Some("before"));
        assert_eq!(log.lines().count(), 20_001);
        for worker in 0..4 {
            let own: Vec<_> = log
                .lines()
                .filter(|line| line.starts_with(&format!("{worker} ")))
                .collect();
            let in_order = own
                .iter()
                .enumerate()
                .all(|(number, line)| line.starts_with(&format!("{worker} {number} ")));
            assert!(own.len() == 5_000 && in_order, "{worker}");
        }
    }

    #[test]
    fn a_worker_that_comes_while_lines_are_written_is_not_forgotten() {
        let rig = rig();
        let first = rig.sink.writer();
        first.line(text("first\n"));
        assert!(!rig.sink.flush(Duration::from_millis(1)));
        while !lock(&first.buffer).bytes.is_empty() {
            thread::yield_now();
        }
        // The writer hangs in the first line and has not seen this one.
        let second = rig.sink.writer();
        rig.steps.send(Ok(usize::MAX)).unwrap();
        assert!(rig.sink.flush(PATIENCE));
        second.line(text("second\n"));
        drop(rig.steps);
        assert!(rig.sink.close(PATIENCE));
        assert_eq!(counts(&rig.metrics), (2, 0, 0));
    }

    #[test]
    fn a_line_is_written_without_being_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let metrics = Metrics::new();
        let sink = Sink::start(Target::File(path.clone()), &metrics).unwrap();
        let log = sink.writer();
        let lines = ["one\n", "right behind it\n", "after a pause\n"];
        for (number, line) in (1..).zip(lines) {
            while number == 3 && !lock(&sink.shared.orders).asleep {
                thread::yield_now();
            }
            log.line(text(line));
            let orders = lock(&sink.shared.orders);
            let written = |_: &Orders| metrics.server.access_log_lines.get() == number;
            assert!(sink.wait(orders, PATIENCE, written), "{line}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), lines.concat());
    }

    #[test]
    fn after_a_rotation_lines_go_into_the_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (
            directory.path().join("access.log"),
            directory.path().join("access.log.1"),
        );
        let metrics = Metrics::new();
        let sink = Sink::start(Target::File(path.clone()), &metrics).unwrap();
        let log = sink.writer();
        log.line(text("old\n"));
        assert!(sink.flush(PATIENCE));
        std::fs::rename(&path, &rotated).unwrap();
        log.line(text("late\n"));
        sink.reopen();
        assert!(sink.flush(PATIENCE));
        log.line(text("new\n"));
        assert!(sink.close(PATIENCE));
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "old\nlate\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        // A file that cannot be opened again leaves the old one in use.
        let sink = Sink::start(Target::File(path.clone()), &metrics).unwrap();
        std::fs::rename(&path, &rotated).unwrap();
        std::fs::create_dir(&path).unwrap();
        sink.reopen();
        sink.writer().line(text("kept\n"));
        assert!(sink.close(PATIENCE));
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "new\nkept\n");
        assert_eq!(metrics.server.access_log_errors.get(), 1);
    }

    #[test]
    fn a_stuck_output_drops_lines_and_never_blocks() {
        let rig = rig();
        let log = rig.sink.writer();
        let big = "x".repeat(1024 * 1024 - 1) + "\n";
        // The writer takes the first line and hangs in it.
        log.line(text("first\n"));
        assert!(!rig.sink.flush(Duration::from_millis(1)));
        while !lock(&log.buffer).bytes.is_empty() {
            thread::yield_now();
        }
        for _ in 0..6 {
            log.line(text(&big));
        }
        log.line(|_| panic!("a full buffer must not be filled"));
        assert_eq!(counts(&rig.metrics), (0, 3, 0));
        assert!(!rig.sink.close(Duration::from_millis(1)));
        drop(rig.steps);
        assert!(rig.sink.close(PATIENCE));
        assert_eq!(counts(&rig.metrics), (5, 3, 0));
        assert_eq!(lock(&rig.taken).len(), 6 + 4 * big.len());
    }

    #[test]
    fn a_full_disk_is_counted_and_the_next_line_stands_alone() {
        let rig = rig();
        let log = rig.sink.writer();
        log.line(text("one\n"));
        log.line(text("two\n"));
        log.line(text("three\n"));
        rig.steps.send(Ok(6)).unwrap();
        rig.steps.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        assert!(rig.sink.flush(PATIENCE));
        assert_eq!(counts(&rig.metrics), (1, 2, 1));
        // It is full for a while.
        for _ in 0..2 {
            log.line(text("lost\n"));
            rig.steps.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
            assert!(rig.sink.flush(PATIENCE));
        }
        assert_eq!(counts(&rig.metrics), (1, 4, 3));
        log.line(text("four\n"));
        drop(rig.steps);
        assert!(rig.sink.flush(PATIENCE));
        assert_eq!(counts(&rig.metrics), (2, 4, 3));
        assert_eq!(&*lock(&rig.taken), b"one\ntw\nfour\n");
    }

    #[test]
    fn an_interrupted_or_busy_output_is_tried_again() {
        let rig = rig();
        rig.sink.writer().line(text("whole\n"));
        for step in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
            rig.steps.send(Err(step.into())).unwrap();
            rig.steps.send(Ok(2)).unwrap();
        }
        drop(rig.steps);
        assert!(rig.sink.close(PATIENCE));
        assert_eq!(counts(&rig.metrics), (1, 0, 0));
        assert_eq!(&*lock(&rig.taken), b"whole\n");
    }

    #[test]
    fn a_line_after_the_end_is_counted_as_dropped() {
        let rig = rig();
        let log = rig.sink.writer();
        drop(rig.steps);
        assert!(rig.sink.close(PATIENCE));
        assert!(rig.sink.close(PATIENCE), "closing twice");
        log.line(text("late\n"));
        assert_eq!(counts(&rig.metrics), (0, 1, 0));
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::File(directory.path().join("missing/access.log"));
        assert_eq!(
            Sink::start(target, &Metrics::new()).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_target_reads_from_the_flag_and_the_config_map() {
        for (text, expected) in [
            ("off", None),
            ("", None),
            ("-", Some(Target::Stdout)),
            ("/dev/stdout", Some(Target::Stdout)),
            ("a/b", Some(Target::File("a/b".into()))),
        ] {
            assert_eq!(Target::parse(text), expected, "{text}");
        }
        assert!(Target::Stdout.open().is_ok());
    }

    #[test]
    fn the_buffer_of_a_worker_that_is_gone_is_forgotten() {
        let rig = rig();
        drop(rig.steps);
        rig.sink.writer().line(text("last\n"));
        assert!(rig.sink.flush(PATIENCE));
        assert!(rig.sink.flush(PATIENCE));
        assert_eq!(lock(&rig.sink.shared.buffers).len(), 0);
        assert_eq!(&*lock(&rig.taken), b"last\n");
    }
}
