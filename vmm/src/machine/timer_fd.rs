//! A timerfd with absolute times: what passes between a decision and the call does not make it late.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use caraway_devices::Nanos;

const NANOS_PER_SECOND: Nanos = 1_000_000_000;
const NEVER: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Which of the host's clocks a timer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostClock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_REALTIME`.
    Wall,
}

/// One timer.
pub struct TimerFd(OwnedFd);

impl TimerFd {
    /// A disarmed timer.
    ///
    /// # Errors
    /// The system's, if it has no descriptor to give.
    pub fn new(clock: HostClock) -> std::io::Result<Self> {
        let clock = match clock {
            HostClock::Monotonic => libc::CLOCK_MONOTONIC,
            HostClock::Wall => libc::CLOCK_REALTIME,
        };
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::timerfd_create(clock, flags) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Rings once at `deadline`, in nanoseconds of its clock, at once if that is past; or never.
    /// Either way it has not rung yet.
    ///
    /// # Errors
    /// The system's.
    pub fn set(&self, deadline: Option<Nanos>) -> std::io::Result<()> {
        let at = deadline.map_or(NEVER, |deadline| libc::timespec {
            tv_sec: (deadline / NANOS_PER_SECOND) as libc::time_t,
            // 0 of both would be "never".
            tv_nsec: (deadline % NANOS_PER_SECOND).max(1) as libc::c_long,
        });
        self.program(at, libc::TFD_TIMER_ABSTIME)
    }

    /// Rings, by an error of [`read`](Self::read), whenever its clock is set or the host wakes up.
    ///
    /// # Errors
    /// The system's.
    pub fn ring_when_set(&self) -> std::io::Result<()> {
        let end_of_time = libc::timespec {
            tv_sec: libc::time_t::MAX,
            tv_nsec: 0,
        };
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        self.program(end_of_time, flags)
    }

    fn program(&self, at: libc::timespec, flags: libc::c_int) -> std::io::Result<()> {
        let setting = libc::itimerspec {
            it_interval: NEVER,
            it_value: at,
        };
        let (fd, no_old) = (self.0.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: `setting` is a valid time to read, and no old setting is asked for.
        match unsafe { libc::timerfd_settime(fd, flags, &raw const setting, no_old) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// How often it rang since it was set or read.
    ///
    /// # Errors
    /// `WouldBlock` if it did not, `ECANCELED` if its clock was set, see
    /// [`ring_when_set`](Self::ring_when_set).
    pub fn read(&self) -> std::io::Result<u64> {
        let mut rung = 0_u64;
        // SAFETY: `rung` has room for the 8 bytes that are asked for.
        match unsafe { libc::read(self.0.as_raw_fd(), (&raw mut rung).cast(), 8) } {
            8 => Ok(rung),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

impl AsRawFd for TimerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_is_past_rings_at_once() {
        let timer = TimerFd::new(HostClock::Monotonic).unwrap();

        timer.set(Some(0)).unwrap();

        assert_eq!(timer.read().unwrap(), 1);
    }

    #[test]
    fn setting_a_timer_makes_it_quiet() {
        let timer = TimerFd::new(HostClock::Monotonic).unwrap();
        timer.set(Some(0)).unwrap();

        timer.set(None).unwrap();

        let error = timer.read().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_wall_clock_that_runs_on_does_not_ring() {
        let timer = TimerFd::new(HostClock::Wall).unwrap();

        timer.ring_when_set().unwrap();

        let error = timer.read().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
