//! Learns that the host's wall clock jumped: that somebody set it, or that the host slept.

use std::os::fd::{AsRawFd, RawFd};

use super::timer_fd::{HostClock, TimerFd};

/// Readable when the host's wall clock jumped.
pub struct HostClockJumps(TimerFd);

impl HostClockJumps {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system's, if it has no timer to give.
    pub fn new() -> std::io::Result<Self> {
        let timer = TimerFd::new(HostClock::Wall)?;
        timer.ring_when_set()?;
        Ok(Self(timer))
    }

    /// Whether it jumped since this was asked last.
    #[must_use]
    pub fn take(&self) -> bool {
        let jumped = |error: std::io::Error| error.raw_os_error() == Some(libc::ECANCELED);
        self.0.read().is_err_and(jumped)
    }
}

impl AsRawFd for HostClockJumps {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
