//! Timers of devices: timerfds that follow the machine's clock and rest while it is stopped.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use caraway_devices::{Clock, Nanos, Timer};
use parking_lot::Mutex;
use vmm_sys_util::timerfd::TimerFd;

/// All timers of the machine.
pub struct Timers {
    clock: Arc<dyn Clock>,
    all: Mutex<Vec<Arc<DeviceTimer>>>,
}

impl Timers {
    /// No timer yet; deadlines are times of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            all: Mutex::default(),
        }
    }

    /// A new, disarmed timer.
    ///
    /// # Errors
    /// The system's, if it has no descriptor to give.
    pub fn timer(&self) -> std::io::Result<Arc<DeviceTimer>> {
        let fd = TimerFd::new()?;
        let state = State {
            fd,
            deadline: None,
            suspended: false,
        };
        let descriptor = state.fd.as_raw_fd();
        let clock = Arc::clone(&self.clock);
        let timer = Arc::new(DeviceTimer {
            clock,
            descriptor,
            state: Mutex::new(state),
        });
        self.all.lock().push(Arc::clone(&timer));
        Ok(timer)
    }

    /// No timer rings until [`resume`](Self::resume).
    pub fn suspend(&self) {
        self.all
            .lock()
            .iter()
            .for_each(|timer| timer.set_suspended(true));
    }

    /// Every timer rings as much later as the clock stood still.
    pub fn resume(&self) {
        self.all
            .lock()
            .iter()
            .for_each(|timer| timer.set_suspended(false));
    }
}

/// One timer.
pub struct DeviceTimer {
    clock: Arc<dyn Clock>,
    descriptor: RawFd,
    state: Mutex<State>,
}

struct State {
    fd: TimerFd,
    deadline: Option<Nanos>,
    suspended: bool,
}

impl DeviceTimer {
    /// The descriptor that is readable once the timer has rung.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    /// Takes note that it rang; `false` if it was set anew since, and has not rung after all.
    pub fn acknowledge(&self) -> bool {
        let mut state = self.state.lock();
        // The descriptor blocks, so it is only read when it is due.
        let due = state
            .deadline
            .is_some_and(|deadline| deadline <= self.clock.now());
        if !due {
            self.program(&mut state);
            return false;
        }
        state.deadline = None;
        self.program(&mut state);
        true
    }

    fn set_suspended(&self, suspended: bool) {
        let mut state = self.state.lock();
        state.suspended = suspended;
        self.program(&mut state);
    }

    /// Setting a timerfd, or clearing it, also makes it unreadable.
    fn program(&self, state: &mut State) {
        let result = match state.deadline {
            Some(deadline) if !state.suspended => {
                // A timerfd takes 0 for "never".
                let wait = deadline.saturating_sub(self.clock.now()).max(1);
                state.fd.reset(Duration::from_nanos(wait), None)
            }
            _ => state.fd.clear(),
        };
        if let Err(error) = result {
            tracing::error!(%error, "a timer could not be set");
        }
    }
}

impl Timer for DeviceTimer {
    fn arm(&self, deadline: Option<Nanos>) {
        let mut state = self.state.lock();
        if state.deadline == deadline {
            return;
        }
        state.deadline = deadline;
        self.program(&mut state);
    }
}
