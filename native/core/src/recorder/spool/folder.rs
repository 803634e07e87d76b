//! The folders of the spool: private, ours, and no symlink on the way.

use std::ffi::{c_int, c_uint, CString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::codec::ids::parse_uuid;

const O_NOFOLLOW: c_int = if cfg!(target_os = "linux") {
    if cfg!(target_arch = "aarch64") {
        0o100_000
    } else {
        0o400_000
    }
} else {
    0x100
};
/// File systems where allocated pages can be written without fail: tmpfs, ext2 to 4, XFS.
const SURE_FILE_SYSTEMS: [i64; 3] = [0x0102_1994, 0xef53, 0x5846_5342];

extern "C" {
    fn geteuid() -> c_uint;
    #[cfg(target_os = "linux")]
    fn statfs(path: *const std::ffi::c_char, into: *mut u64) -> c_int;
}

pub fn user() -> u32 {
    // SAFETY: has no preconditions and never fails.
    unsafe { geteuid() }
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("{}: {why}", path.display()))
}

/// The same error, with the path that it is about.
fn at(path: &Path) -> impl FnOnce(Error) -> Error + '_ {
    |error| Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the folder (its parents too) unless it is there; refuses one that others can look into or that isn't ours.
pub fn private_folder(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(at(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(at(path)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(at(path))?;
    if !found.is_dir() {
        return Err(refuse(path, "not a folder"));
    }
    if found.uid() != user() {
        return Err(refuse(path, "belongs to another user"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(refuse(path, "others have access to it (its mode should be 0700)"));
    }
    Ok(())
}

pub fn create_file(path: &Path) -> Result<File> {
    options().append(true).create_new(true).open(path)
}

pub fn open_file(path: &Path) -> Result<File> {
    let file = options().read(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(refuse(path, "not a file"));
    }
    Ok(file)
}

pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(O_NOFOLLOW);
    options
}

/// Whether writing to allocated pages of files there can't fail.
#[cfg(target_os = "linux")]
pub fn keeps_pages(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // Larger than `struct statfs`, whose first word is the type of the file system.
    let mut answer = [0_u64; 64];
    // SAFETY: the path is terminated, the buffer is large enough and writable.
    let status = unsafe { statfs(path.as_ptr(), answer.as_mut_ptr()) };
    status == 0 && SURE_FILE_SYSTEMS.contains(&(answer[0] as i64))
}

#[cfg(not(target_os = "linux"))]
pub fn keeps_pages(_: &Path) -> bool {
    false
}

/// Where the pages of all our sessions are: in memory when possible, for a disk's write-back makes callers wait.
pub fn pages_in_memory() -> PathBuf {
    PathBuf::from(format!("/dev/shm/micromegas-{}", user()))
}

/// What the name of a session's folder begins with while it is being made.
const UNNAMED: &str = "new-";

/// Where the folder of a session is made.
pub fn unnamed(spool: &Path, process_id: &str) -> PathBuf {
    spool.join(format!("{UNNAMED}{process_id}"))
}

/// The id of the process whose folder it is, named or not.
pub fn id_in(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_prefix(UNNAMED).unwrap_or(name))
}

/// The folders of sessions, living and dead, in a spool. Anything else there is none of ours.
pub fn sessions(spool: &Path) -> Result<Vec<PathBuf>> {
    folders(spool, "")
}

/// The folders of sessions that are being made, or were when their processes died.
pub fn all_unnamed(spool: &Path) -> Result<Vec<PathBuf>> {
    folders(spool, UNNAMED)
}

fn folders(spool: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(spool).map_err(at(spool))? {
        let entry = entry?;
        let is_session = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(prefix))
            .is_some_and(|id| parse_uuid(id).as_deref() == Ok(id));
        if is_session && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// What the files of a folder take, not looking deeper.
pub fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.blocks() * 512)
        .sum()
}
