//! Timers of devices: timerfds that follow the machine's clock and rest while it is stopped.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Weak};

use caraway_devices::{Clock, Nanos, RealClock, Timer};
use parking_lot::Mutex;

use super::timer_fd::{HostClock, TimerFd};

/// All timers of the machine.
pub struct Timers {
    clock: Arc<RealClock>,
    /// Those of devices that have gone are let go.
    all: Mutex<Vec<Weak<DeviceTimer>>>,
}

impl Timers {
    /// No timer yet; deadlines are times of `clock`.
    #[must_use]
    pub fn new(clock: Arc<RealClock>) -> Self {
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
        let fd = TimerFd::new(HostClock::Monotonic)?;
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
        let mut all = self.all.lock();
        all.retain(|timer| timer.strong_count() > 0);
        all.push(Arc::downgrade(&timer));
        drop(all);
        Ok(timer)
    }

    /// No timer rings until [`resume`](Self::resume).
    pub fn suspend(&self) {
        self.each(|timer| timer.set_suspended(true));
    }

    /// Every timer rings at once, and then as much later as the clock stood still.
    pub fn resume(&self) {
        self.each(|timer| timer.set_suspended(false));
        self.ring_all();
    }

    /// Every timer rings at once, so that its device sees what the wall clock shows now.
    pub fn ring_all(&self) {
        let now = self.clock.now();
        self.each(|timer| timer.arm(Some(now)));
    }

    fn each(&self, act: impl Fn(&DeviceTimer)) {
        let all = self.all.lock();
        all.iter()
            .filter_map(Weak::upgrade)
            .for_each(|timer| act(&timer));
    }
}

/// One timer.
pub struct DeviceTimer {
    clock: Arc<RealClock>,
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
        let deadline = state.deadline.filter(|_| !state.suspended);
        let deadline = deadline.map(|deadline| self.clock.monotonic_at(deadline));
        if let Err(error) = state.fd.set(deadline) {
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
