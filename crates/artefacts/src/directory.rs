//! A directory of one user's own files: who may see them, how they appear whole, which go when room is short.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::SystemTime;

use tollgate_base::clock;

/// Name of the file with the key.
const KEY: &str = "key";
/// Its length in bytes.
pub(crate) const KEY_LENGTH: usize = 32;
/// How compiled modules end.
const ENDING: &str = "cwasm";
/// How what is being written ends.
const PARTIAL: &str = "partial";

/// The directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Whose files are believed: the gateway's own user.
    user: u32,
}

impl Directory {
    /// Makes it if need be; what somebody else owns is refused, what others could enter is closed to them.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let about = fs::symlink_metadata(&path)?;
        if !about.is_dir() {
            return Err(io::Error::other("it is no directory"));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        let mut directory = Self { path, user: 0 };
        directory.user = directory.own_user()?;
        if about.uid() != directory.user {
            return Err(io::Error::other("it belongs to another user"));
        }
        directory.remove_partial();
        Ok(directory)
    }

    /// The user that files of this process belong to.
    fn own_user(&self) -> io::Result<u32> {
        let path = self.path.join(format!("user{}.{PARTIAL}", std::process::id()));
        drop(fs::remove_file(&path));
        let file = created(&path)?;
        let user = file.metadata()?.uid();
        fs::remove_file(&path)?;
        Ok(user)
    }

    /// What was cut off while it was written.
    fn remove_partial(&self) {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == PARTIAL) {
                drop(fs::remove_file(path));
            }
        }
    }

    /// The directory's secret; a new one when there is none that only we can have written.
    pub(crate) fn key(&self) -> io::Result<Vec<u8>> {
        if let Ok(key) = self.read(KEY, KEY_LENGTH as u64)
            && key.len() == KEY_LENGTH
        {
            return Ok(key);
        }
        let mut key = vec![0; KEY_LENGTH];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no random bytes"))?;
        self.write(KEY, &[&key])?;
        Ok(key)
    }

    /// A file that is ours alone, of at most `limit` bytes; it counts as used now.
    pub(crate) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let path = self.path.join(name);
        if fs::symlink_metadata(&path)?.is_symlink() {
            return Err(io::Error::other("it is a link"));
        }
        let mut file = File::open(&path)?;
        let about = file.metadata()?;
        self.check(&about, limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
        Read::by_ref(&mut file).take(limit).read_to_end(&mut bytes)?;
        // Only the order in which files go depends on it.
        drop(file.set_modified(clock::wall()));
        Ok(bytes)
    }

    fn check(&self, about: &Metadata, limit: u64) -> io::Result<()> {
        let fault = if !about.is_file() {
            "it is no file"
        } else if about.uid() != self.user {
            "it belongs to another user"
        } else if about.mode() & 0o077 != 0 {
            "others may read or write it"
        } else if about.len() > limit {
            "it is too large"
        } else {
            return Ok(());
        };
        Err(io::Error::other(fault))
    }

    /// Writes a file of ours alone, which appears whole or not at all.
    pub(crate) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let partial = self.path.join(format!("{name}.{}.{PARTIAL}", std::process::id()));
        drop(fs::remove_file(&partial));
        let written = created(&partial).and_then(|mut file| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            fs::rename(&partial, self.path.join(name))
        });
        if written.is_err() {
            drop(fs::remove_file(&partial));
        }
        written
    }

    /// Removes compiled modules, the one used longest ago first, until all together have at most `most` bytes.
    pub(crate) fn make_room(&self, most: u64) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|ending| ending == ENDING) {
                let about = entry.metadata()?;
                files.push((about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= most {
                break;
            }
            fs::remove_file(path)?;
            total -= length;
        }
        Ok(())
    }
}

fn created(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
