//! Unix sockets that leave no file behind.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error("the socket {} is in use by another program", .0.display())]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{} exists and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The host refuses.
    #[error("cannot listen on {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening Unix socket that only its owner may connect to, and whose file goes when this goes.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`. A socket that nobody answers on is taken for a leftover and replaced.
    ///
    /// Call it before there are other threads: the process's umask changes for a moment, so that
    /// there is no time at which others could connect.
    ///
    /// # Errors
    ///
    /// Somebody answers, the name is that of something else, or the host refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        remove_leftover(path)?;
        // SAFETY: umask only sets a number of this process.
        let mask = unsafe { libc::umask(0o177) };
        let bound = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(mask) };
        let listener = bound.map_err(refused)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        let about = fs::symlink_metadata(path).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        Ok(Self {
            listener,
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            inode: (about.dev(), about.ino()),
        })
    }

    /// Another handle of the listening socket, non-blocking.
    ///
    /// # Errors
    ///
    /// The process has too many descriptors.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|about| (about.dev(), about.ino()) == self.inode);
        if ours {
            // Whoever removed it meanwhile did our work.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_leftover(path: &Path) -> Result<(), SocketError> {
    let Ok(about) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !about.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| SocketError::Bind {
                path: path.to_owned(),
                source,
            }),
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_connect_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");

        let socket = SocketFile::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        drop(socket);

        assert_eq!(mode & 0o777, 0o600);
        assert!(!path.exists());
    }

    #[test]
    fn a_leftover_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        drop(UnixListener::bind(&path).unwrap());

        let socket = SocketFile::bind(&path);

        assert!(socket.is_ok(), "{socket:?}");
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let first = SocketFile::bind(&path).unwrap();

        let second = SocketFile::bind(&path);

        assert!(matches!(second, Err(SocketError::InUse(_))));
        assert!(first.path().exists());
    }

    #[test]
    fn a_file_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();

        let socket = SocketFile::bind(file.path());

        assert!(matches!(socket, Err(SocketError::NotASocket(_))));
        assert!(file.path().exists());
    }

    #[test]
    fn the_socket_of_a_successor_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let first = SocketFile::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = SocketFile::bind(&path).unwrap();

        drop(first);

        assert!(second.path().exists());
    }
}
