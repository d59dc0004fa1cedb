//! Signals that end the machine, read from a descriptor like any other event.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// The signals that ask the machine to end.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
/// Bytes of one `signalfd_siginfo`; the signal's number is in the first four.
const RECORD: usize = std::mem::size_of::<libc::signalfd_siginfo>();

/// The ending signals of this process, kept from doing what they do by default.
pub struct Signals {
    file: File,
}

impl Signals {
    /// Blocks the signals in this thread, and so in every thread that it starts from here on.
    ///
    /// # Errors
    /// The system's.
    pub fn take() -> std::io::Result<Self> {
        let set = vmm_sys_util::signal::create_sigset(&ENDING).map_err(std::io::Error::from)?;
        // SAFETY: `set` is a valid set; a null pointer asks for no copy of the old mask.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(std::io::Error::from_raw_os_error(failed));
        }
        // SAFETY: -1 asks for a new descriptor, `set` is valid.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file })
    }

    /// The descriptor that is readable once a signal has come.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The next signal's number, if one has come.
    pub fn take_next(&mut self) -> Option<i32> {
        let mut record = [0; RECORD];
        match self.file.read(&mut record) {
            Ok(RECORD) => record
                .first_chunk()
                .map(|number| i32::from_ne_bytes(*number)),
            _ => None,
        }
    }
}
