//! Files, folders and sockets that the config names.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Checker;
use crate::config::path::JsonPath;
use crate::config::problem::{Kind, Problem};

/// `sockaddr_un` has room for 108 bytes with the final zero.
const SOCKET_PATH: usize = 107;

impl Checker<'_> {
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.document.base().join(path)
    }

    /// The absolute path of the file that the config at `place` names; a problem is noted if it
    /// can't be read.
    pub(super) fn file(&mut self, path: &Path, place: JsonPath, what: &str) -> PathBuf {
        let full = self.absolute(path);
        let fault = match std::fs::metadata(&full) {
            Err(error) => Some(reason(&error)),
            Ok(about) if about.is_dir() => Some("it is a folder".to_owned()),
            Ok(_) => readable(&full).err().map(|error| reason(&error)),
        };
        if let Some(fault) = fault {
            let message = format!("cannot use the {what} \"{}\": {fault}", path.display());
            let hint = format!(
                "looked for {}; relative paths are relative to the config's folder",
                full.display()
            );
            self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
        }
        full
    }

    /// The absolute path of a file that is to be made.
    pub(super) fn new_file(&mut self, path: &Path, place: JsonPath) -> PathBuf {
        let full = self.absolute(path);
        if !full.parent().is_some_and(Path::is_dir) {
            let message = format!("no folder for the file \"{}\"", full.display());
            let problem = Problem::new(Kind::MissingFile, place, message);
            self.note(problem.hint("make the folder first"));
        }
        full
    }

    pub(super) fn socket(&mut self, path: &Path, place: JsonPath) -> PathBuf {
        let full = self.absolute(path);
        let length = full.as_os_str().len();
        if length > SOCKET_PATH {
            let message = format!(
                "the socket path \"{}\" has {length} bytes; the kernel takes {SOCKET_PATH}",
                full.display()
            );
            self.bad(
                place,
                message,
                "use a shorter path, for example in /run or /tmp",
            );
        } else if !full.parent().is_some_and(Path::is_dir) {
            let message = format!("no folder for the socket \"{}\"", full.display());
            let hint = "make the folder first";
            self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
        }
        full
    }
}

/// Whether the file can be opened; a FIFO without a writer does not hold us up.
fn readable(path: &Path) -> std::io::Result<()> {
    let mut how = std::fs::OpenOptions::new();
    how.read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map(drop)
}

/// The reason without the number that std appends.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    }
}
