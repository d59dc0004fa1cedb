//! One writer or many readers an image: a lock that belongs to the open file (`fcntl(2)`, "Open
//! file description locks"), which QEMU's image locks see too.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// Bytes that QEMU's users of an image lock to say what they do (`100 + n`) and what others may not
/// do meanwhile (`200 + n`), n being one of its permissions (its `file-posix.c`).
mod byte {
    const USE: i64 = 100;
    const BAR: i64 = 200;
    /// To rely on what is read.
    pub(super) const READING: i64 = USE;
    /// To write, and to change the size.
    pub(super) const CHANGING: [i64; 2] = [USE + 1, USE + 3];
    pub(super) const NO_CHANGING: [i64; 2] = [BAR + 1, BAR + 3];
}

/// Locks `file`: shared, so that others may only read, else for this one alone. `Ok(false)` if
/// someone else has it.
pub(crate) fn lock(file: &File, shared: bool) -> io::Result<bool> {
    if !shared {
        return set(file, libc::F_WRLCK, 0, 0);
    }
    // QEMU does not look whether bytes are locked that it does not know, so these are its own.
    for at in [byte::READING].into_iter().chain(byte::NO_CHANGING) {
        if !set(file, libc::F_RDLCK, at, 1)? {
            return Ok(false);
        }
    }
    for at in byte::CHANGING {
        if !is_free(file, at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn request(kind: i32, start: i64, len: i64) -> libc::flock {
    // SAFETY: `flock` is plain numbers, for which all zeroes is a value.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = kind as libc::c_short;
    request.l_whence = libc::SEEK_SET as libc::c_short;
    request.l_start = start;
    request.l_len = len;
    request
}

/// Takes a lock of this kind on `len` bytes; 0 is all to the end.
fn set(file: &File, kind: i32, start: i64, len: i64) -> io::Result<bool> {
    let request = request(kind, start, len);
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `request` is a valid
    // `flock` that the call only reads.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether nobody else has a lock on the byte `at`.
fn is_free(file: &File, at: i64) -> io::Result<bool> {
    let mut request = request(libc::F_WRLCK, at, 1);
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `request` is a valid
    // `flock` that the call may write.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut request) };
    if result == 0 {
        return Ok(i32::from(request.l_type) == libc::F_UNLCK);
    }
    Err(io::Error::last_os_error())
}

/// Who has a lock on the file that `file` is open on. The kernel names nobody for a lock of an open
/// file, so this looks through what every process has open; `None` if that is not permitted.
pub(crate) fn holder(file: &File) -> Option<Holder> {
    let wanted = file.metadata().ok()?;
    let own = (std::process::id(), file.as_raw_fd());
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|&pid| holds_lock(pid, &wanted, own))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = name.trim().to_owned();
            Holder { pid, name }
        })
}

/// Whether process `pid` has a descriptor other than `own` through which it locks the file.
fn holds_lock(pid: u32, wanted: &fs::Metadata, own: (u32, i32)) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        let name = entry.file_name();
        if (pid, name.to_str().and_then(|fd| fd.parse().ok())) == (own.0, Some(own.1)) {
            return false;
        }
        let same = fs::metadata(entry.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        same && fs::read_to_string(process.join("fdinfo").join(name))
            .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
    })
}
