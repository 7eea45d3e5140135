//! A configuration directory as a source: what files it holds, and when they change.
//!
//! Read recursively in path order. Changes come from the operating system's notifications and, because those miss
//! symbolic-link flips and network mounts, from a comparison of contents every few seconds.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Most files that are read.
pub(crate) const MAX_FILES: usize = 100_000;
/// How often contents are compared whatever the notifications say.
const POLL: Duration = Duration::from_secs(3);
/// Quiet time after a notification before the directory is read: an editor's write is several events.
const SETTLE: Duration = Duration::from_millis(100);

/// One file's name as shown in diagnostics, and its text or why it cannot be read.
#[derive(Debug, Clone, Hash)]
pub struct SourceFile {
    /// Path as the user would write it.
    pub name: Arc<str>,
    /// Contents.
    pub text: Result<String, String>,
}

/// The directories (or single files) of `--config`.
#[derive(Debug, Clone)]
pub struct Directory {
    roots: Vec<PathBuf>,
}

impl Directory {
    /// Watches these; each is a directory or a file.
    #[must_use]
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots }
    }

    /// Everything that can be read now, in path order.
    ///
    /// # Errors
    /// When a root itself cannot be read; a bad file inside becomes a `SourceFile` that says so.
    pub fn read(&self) -> io::Result<Vec<SourceFile>> {
        let mut files = Vec::new();
        let mut visited = HashSet::new();
        for root in &self.roots {
            let about =
                |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", root.display()));
            if fs::metadata(root).map_err(about)?.is_dir() {
                read_directory(root, &mut visited, &mut files).map_err(about)?;
            } else {
                files.push(read_file(root));
            }
        }
        if files.len() > MAX_FILES {
            files.truncate(MAX_FILES);
            files.push(SourceFile {
                name: "--config".into(),
                text: Err(format!("more than {MAX_FILES} files: the rest is not read")),
            });
        }
        Ok(files)
    }

    /// A channel that receives one value whenever the contents have changed since this call: call it before reading.
    /// Dropping the receiver ends the watch.
    #[must_use]
    pub fn watch(&self) -> mpsc::Receiver<()> {
        let (changed, receiver) = mpsc::channel(1);
        let directory = self.clone();
        let known = self.fingerprint();
        drop(tollgate_base::task::spawn("configuration watch", async move {
            directory.run_watch(changed, known).await
        }));
        receiver
    }

    async fn run_watch(self, changed: mpsc::Sender<()>, first: u64) {
        let (ping, mut pings) = mpsc::channel(1);
        let mut known = first;
        let mut places = self.places();
        // Kept alive for as long as it is the right one.
        let mut _watcher = self.notifications(ping.clone());
        loop {
            tokio::select! {
                Some(()) = pings.recv() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(POLL) => {}
                () = changed.closed() => return,
            }
            while pings.try_recv().is_ok() {}
            let directory = self.clone();
            let looked = tokio::task::spawn_blocking(move || (directory.fingerprint(), directory.places()));
            let Ok((now, places_now)) = looked.await else {
                continue;
            };
            if places_now != places {
                // A root that was removed and made again is another one: the old one's watch hears nothing.
                places = places_now;
                _watcher = self.notifications(ping.clone());
            }
            if now != known {
                known = now;
                if changed.send(()).await.is_err() {
                    return;
                }
            }
        }
    }

    fn notifications(&self, ping: mpsc::Sender<()>) -> Option<impl Watcher> {
        let on_event = move |event: notify::Result<notify::Event>| {
            if is_change(&event) {
                // A ping that is waiting already says the same.
                let _ = ping.try_send(());
            }
        };
        let mut watcher = match notify::recommended_watcher(on_event) {
            Ok(watcher) => watcher,
            Err(cause) => {
                tracing::warn!(error = %cause, "no file notifications: changes are found by comparison only");
                return None;
            }
        };
        // Whoever reads tells of one that is not there; once it is, it is watched.
        for root in self.roots.iter().filter(|root| root.exists()) {
            if let Err(cause) = watcher.watch(root, RecursiveMode::Recursive) {
                tracing::warn!(error = %cause, path = %root.display(), "cannot be watched: changes are found by comparison only");
            }
        }
        Some(watcher)
    }

    /// Which directories the roots' names stand for at present.
    fn places(&self) -> Vec<Option<(u64, u64)>> {
        let place = |root: &PathBuf| {
            let metadata = fs::metadata(root).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        self.roots.iter().map(place).collect()
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self.read() {
            Ok(files) => files.hash(&mut hasher),
            Err(cause) => cause.to_string().hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Whether an event may tell of other contents. Opening and reading are events too: one look would lead to the next.
fn is_change(event: &notify::Result<notify::Event>) -> bool {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event
        .as_ref()
        .map_or(true, |event| !event.kind.is_access() || event.kind == written)
}

fn read_directory(
    directory: &Path,
    visited: &mut HashSet<PathBuf>,
    files: &mut Vec<SourceFile>,
) -> io::Result<()> {
    // A symbolic link that leads back up must not be followed for ever.
    if !visited.insert(directory.canonicalize()?) {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)?
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if files.len() > MAX_FILES {
            return Ok(());
        }
        if path.is_dir() {
            if let Err(cause) = read_directory(&path, visited, files) {
                files.push(SourceFile {
                    name: name_of(&path),
                    text: Err(cause.to_string()),
                });
            }
        } else if has_known_ending(&path) {
            files.push(read_file(&path));
        }
    }
    Ok(())
}

fn has_known_ending(path: &Path) -> bool {
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    ["yaml", "yml", "json"]
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}

fn read_file(path: &Path) -> SourceFile {
    SourceFile {
        name: name_of(path),
        text: read_text(path),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let told = |cause: io::Error| cause.to_string();
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path).map_err(told)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(told)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())
}

fn name_of(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Directory) -> Vec<String> {
        let files = directory.read().expect("readable");
        files
            .iter()
            .map(|file| file.name.rsplit('/').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn reads_known_endings_recursively_in_order_and_skips_hidden_files() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(root.path().join("b/..data")).expect("made");
        for name in [
            "b/2.yml",
            "a.yaml",
            "c.json",
            "d.txt",
            ".e.yaml",
            "b/..data/3.yaml",
        ] {
            fs::write(root.path().join(name), "kind: X").expect("written");
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("b/loop")).expect("linked");
        let directory = Directory::new(vec![root.path().to_owned()]);
        assert_eq!(names(&directory), ["a.yaml", "2.yml", "c.json"]);
    }

    #[test]
    fn a_missing_root_is_an_error_that_names_it() {
        let failure = Directory::new(vec!["/nonexistent/dir".into()])
            .read()
            .expect_err("missing");
        assert!(failure.to_string().contains("/nonexistent/dir"), "{failure}");
    }

    #[test]
    fn a_bad_file_does_not_hide_its_neighbours() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::write(root.path().join("a.yaml"), [0xff, 0xfe, 0x00]).expect("written");
        fs::write(root.path().join("b.yaml"), "kind: X").expect("written");
        let files = Directory::new(vec![root.path().to_owned()])
            .read()
            .expect("readable");
        assert!(files[0].text.is_err());
        assert!(files[1].text.is_ok());
    }

    #[test]
    fn what_is_no_file_or_too_large_says_so() {
        let root = tempfile::tempdir().expect("temporary directory");
        let pipe = std::process::Command::new("mkfifo")
            .arg(root.path().join("a.yaml"))
            .status();
        assert!(pipe.expect("mkfifo").success());
        let large = fs::File::create(root.path().join("b.yaml")).expect("made");
        large.set_len(MAX_FILE + 1).expect("grown");
        let files = Directory::new(vec![root.path().to_owned()])
            .read()
            .expect("readable");
        let texts: Vec<_> = files.iter().map(|file| file.text.clone()).collect();
        let expected = [
            "not a regular file".to_owned(),
            format!("larger than {MAX_FILE} bytes"),
        ];
        assert_eq!(texts, expected.map(Err));
    }

    #[test]
    fn looking_is_no_change() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(root.path().join("more")).expect("made");
        for name in ["a.yaml", "more/b.yaml"] {
            fs::write(root.path().join(name), "kind: X").expect("written");
        }
        let (told, events) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(told).expect("notifications");
        watcher
            .watch(root.path(), RecursiveMode::Recursive)
            .expect("watched");
        let directory = Directory::new(vec![root.path().to_owned()]);
        assert_eq!(names(&directory).len(), 2);
        let last = root.path().join("last.yaml");
        fs::write(&last, "kind: X").expect("written");
        let is_of_last = |event: &notify::Result<notify::Event>| {
            event.as_ref().is_ok_and(|event| event.paths.contains(&last))
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for event in events {
            let list = if is_of_last(&event) {
                &mut after
            } else {
                &mut before
            };
            let is_end = is_of_last(&event)
                && event
                    .as_ref()
                    .is_ok_and(|event| event.kind.is_access() && is_change(&Ok(event.clone())));
            list.push(event);
            if is_end {
                break;
            }
        }
        assert!(!before.iter().any(is_change), "{before:?}");
        assert!(after.iter().any(is_change), "{after:?}");
    }

    #[tokio::test]
    async fn a_change_between_the_call_and_the_first_look_is_announced() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::write(root.path().join("a.yaml"), "kind: X").expect("written");
        // The task of the watch runs only once this test waits.
        let mut changes = Directory::new(vec![root.path().to_owned()]).watch();
        fs::write(root.path().join("a.yaml"), "kind: Y").expect("written");
        assert!(changes.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_root_that_is_removed_and_made_again_and_a_flipped_link_are_announced() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (config, mount) = (root.path().join("config"), root.path().join("mount"));
        for (directory, text) in [("one", "kind: X"), ("two", "kind: Y")] {
            fs::create_dir_all(mount.join(directory)).expect("made");
            fs::write(mount.join(directory).join("a.yaml"), text).expect("written");
        }
        std::os::unix::fs::symlink("one", mount.join("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/a.yaml", mount.join("a.yaml")).expect("linked");
        fs::rename(mount.join("one"), mount.join("..one")).expect("renamed");
        fs::rename(mount.join("two"), mount.join("..two")).expect("renamed");
        let flip = |target: &str| {
            std::os::unix::fs::symlink(target, mount.join("..new")).expect("linked");
            fs::rename(mount.join("..new"), mount.join("..data")).expect("flipped");
        };
        flip("..one");
        fs::create_dir(&config).expect("made");
        let directory = Directory::new(vec![config.clone(), mount.clone()]);
        assert_eq!(names(&directory), ["a.yaml"]);
        let mut changes = directory.watch();
        flip("..two");
        assert!(changes.recv().await.is_some());
        fs::remove_dir(&config).expect("removed");
        assert!(changes.recv().await.is_some());
        fs::create_dir(&config).expect("made");
        assert!(changes.recv().await.is_some());
        fs::write(config.join("b.yaml"), "kind: Z").expect("written");
        assert!(changes.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_change_is_announced() {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::write(root.path().join("a.yaml"), "kind: X").expect("written");
        let mut changes = Directory::new(vec![root.path().to_owned()]).watch();
        // Whether notifications have started or not, the comparison of contents finds it.
        let writer = async {
            let mut round = 0;
            loop {
                round += 1;
                fs::write(root.path().join("a.yaml"), format!("kind: X{round}")).expect("written");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::select! {
            change = changes.recv() => assert!(change.is_some()),
            () = writer => {}
        }
    }
}
