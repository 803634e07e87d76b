//! Takes the folder of a session whose process has died, so that nobody else does.

use std::fs::{self, File, TryLockError};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folder::{self, options};
use super::pages;
use crate::recorder::hotpath;

/// Ours as long as this lives. One at a time in a process.
pub struct Claim {
    pub path: PathBuf,
    lock: File,
}

impl Claim {
    /// None: its process lives, or somebody else has it, or had it and is done.
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let lock = match options().read(true).write(true).open(path.join("lock")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let _other_is_at_it = remove_session(path);
                return Ok(None);
            }
            opened => opened?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it before us may have removed it.
        if lock.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        hotpath::hold(hotpath::HELD_RECOVERY, &lock);
        Ok(Some(Self {
            path: path.to_owned(),
            lock,
        }))
    }

    /// Everything in it has arrived.
    pub fn remove(self) -> Result<()> {
        remove_session(&self.path)
    }

    /// The buffers are not needed any more, or of no use.
    pub fn remove_pages(&self) {
        pages::remove_from(&self.path);
        if let Some(id) = folder::id_in(&self.path) {
            let _gone = fs::remove_dir_all(folder::pages_in_memory().join(id));
        }
    }

    /// It can't be read: kept under a name that nobody looks at, for whoever wants to know why.
    pub fn set_aside(self) -> Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".unreadable");
        let aside = self.path.with_file_name(name);
        let _older = fs::remove_dir_all(&aside);
        fs::rename(&self.path, aside)
    }
}

/// Removes a session's folder, of which everything has arrived. The lock goes first: a folder without one (they come into
/// being with it) is one whose removal was cut short, and whoever finds it goes on.
pub fn remove_session(path: &Path) -> Result<()> {
    fs::remove_file(path.join("lock")).or_else(unless_gone)?;
    fs::remove_dir_all(path).or_else(unless_gone)
}

fn unless_gone(error: Error) -> Result<()> {
    match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        hotpath::let_go(hotpath::HELD_RECOVERY, &self.lock);
    }
}
