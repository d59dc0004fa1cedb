//! The files of a browser console, in a folder that nothing outside of is served from.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use tokio::sync::Semaphore;

/// The page that a person is led to: spice-html5's, which connects by itself.
pub(super) const ENTRY: &str = "spice_auto.html";
/// Bytes of a file at most; spice-html5's longest has 50 KiB.
const MAX_FILE: u64 = 4 << 20;
/// Files that are read at a time, so that many browsers do not make many threads.
const READS: usize = 2;

/// A folder with a browser console: that of the `spice-html5` package, or one like it.
#[derive(Debug, Clone)]
pub struct Console {
    folder: Arc<OwnedFd>,
    path: PathBuf,
    reads: Arc<Semaphore>,
}

/// Why a folder is no [`Console`].
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// It can't be opened.
    #[error("cannot open the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds no console.
    #[error("no {ENTRY} in {}", .0.display())]
    NoEntry(PathBuf),
}

/// A file to be sent.
pub(super) struct Served {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: &'static str,
}

impl Console {
    /// The console in `folder`, which must hold `spice_auto.html`.
    ///
    /// # Errors
    ///
    /// The folder can't be opened, or is none of a console.
    pub fn open(folder: &Path) -> Result<Self, ConsoleError> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let opened = openat(CWD, folder, flags, Mode::empty());
        let console = Self {
            folder: Arc::new(opened.map_err(|error| ConsoleError::Folder {
                path: folder.to_owned(),
                source: error.into(),
            })?),
            path: folder.to_owned(),
            reads: Arc::new(Semaphore::new(READS)),
        };
        match console.read_now(ENTRY) {
            Some(_) => Ok(console),
            None => Err(ConsoleError::NoEntry(console.path)),
        }
    }

    /// The file that a URL's decoded path (without its first slash) names; `None` if there is none,
    /// or none that may be served. The disk is read on another thread.
    pub(super) async fn read(&self, path: &str) -> Option<Served> {
        let _permit = self.reads.acquire().await.ok()?;
        let (console, name) = (self.clone(), path.to_owned());
        let bytes = tokio::task::spawn_blocking(move || console.read_now(&name));
        Some(Served {
            bytes: bytes.await.ok()??,
            content_type: content_type(path),
        })
    }

    fn read_now(&self, path: &str) -> Option<Vec<u8>> {
        // No `..`, and nothing that its owner hid.
        if path
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.'))
        {
            return None;
        }
        // The kernel sees to it that no link leads out, whoever changes the folder meanwhile.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&*self.folder, path, flags, Mode::empty(), inside).ok()?;
        let file = File::from(file);
        let about = file.metadata().ok()?;
        if !about.is_file() || about.len() > MAX_FILE {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// What browsers are told of a file; they are told not to guess.
const TYPES: [(&str, &str); 13] = [
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
];

fn content_type(path: &str) -> &'static str {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending);
    TYPES
        .iter()
        .find(|(known, _)| Some(*known) == ending)
        .map_or("application/octet-stream", |(_, content_type)| content_type)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A console in a folder beside a secret.
    fn console() -> (tempfile::TempDir, Console) {
        let outside = tempfile::tempdir().expect("there is a temporary folder");
        let folder = outside.path().join("console");
        let write = |path: &str, text: &str| {
            std::fs::write(outside.path().join(path), text).expect("the folder is writable");
        };
        std::fs::create_dir_all(folder.join("sub")).expect("the folder is writable");
        write("secret.txt", "secret");
        write("console/spice_auto.html", "<html>");
        write("console/sub/a.js", "1");
        write("console/.hidden", "hidden");
        symlink("../secret.txt", folder.join("out.txt")).expect("links can be made");
        symlink("/etc/hostname", folder.join("absolute.txt")).expect("links can be made");
        symlink("..", folder.join("up")).expect("links can be made");
        symlink("sub/a.js", folder.join("in.js")).expect("links can be made");
        let console = Console::open(&folder).expect("it is a console");
        (outside, console)
    }

    #[test]
    fn files_inside_are_read_through_links_inside_too() {
        let (_folder, console) = console();

        for path in ["spice_auto.html", "sub/a.js", "in.js"] {
            assert!(console.read_now(path).is_some(), "{path}");
        }
    }

    #[test]
    fn nothing_outside_is_read_by_any_way() {
        let (folder, console) = console();
        let absolute = folder.path().join("secret.txt").display().to_string();

        for path in [
            "../secret.txt",
            "sub/../../secret.txt",
            "out.txt",
            "absolute.txt",
            "up/secret.txt",
            "/etc/hostname",
            "sub//a.js",
            ".hidden",
            "sub",
            "",
            "a\0b",
            &absolute,
        ] {
            assert!(console.read_now(path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn a_folder_without_a_console_is_told_so() {
        let folder = tempfile::tempdir().expect("there is a temporary folder");

        assert!(matches!(
            Console::open(folder.path()),
            Err(ConsoleError::NoEntry(_))
        ));
        let missing = Console::open(&folder.path().join("missing"));
        assert!(matches!(missing, Err(ConsoleError::Folder { .. })));
    }

    #[test]
    fn browsers_are_told_what_scripts_are() {
        assert_eq!(
            content_type("sub/main.js"),
            "text/javascript; charset=utf-8"
        );
        assert_eq!(content_type("noending"), "application/octet-stream");
    }
}
