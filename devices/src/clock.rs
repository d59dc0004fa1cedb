//! Time: one [`Clock`] that everything that ticks asks, and the [`Timer`] it wakes up by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Nanoseconds. Of [`Clock::now`] since the clock was made, of [`Clock::wall`] since 1970 in UTC.
pub type Nanos = u64;

/// What time it is.
pub trait Clock: Send + Sync {
    /// Monotonic time since the clock was made; stands still while the machine is paused.
    fn now(&self) -> Nanos;
    /// The wall clock that the machine lives by, since 1970-01-01 in UTC: the host's, unless the
    /// machine's time is to go on unbroken from where it was paused. Stands still with
    /// [`now`](Self::now).
    fn wall(&self) -> Nanos;
}

/// An alarm at an absolute time of the [`Clock`]; whoever owns it calls the device when it is due.
pub trait Timer: Send + Sync {
    /// Rings once at `deadline`, in place of any earlier setting; `None` disarms.
    fn arm(&self, deadline: Option<Nanos>);
}

/// A device that a [`Timer`] wakes.
pub trait TimerClient: Send {
    /// The timer rang. The device looks at its [`Clock`] and does what is due, which may be
    /// nothing: calling this early, late or twice is harmless.
    fn expired(&mut self);
}

/// A device's own time: a [`Clock`] and a [`Timer`] that go on from where they were saved, whatever
/// the machine's clock shows after a restore.
pub struct Timeline {
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    /// How far this is ahead of the clock, modulo 2^64.
    ahead: Nanos,
    /// What the timer is set to, if that is known: setting it costs a system call.
    armed: Option<Option<Nanos>>,
}

impl Timeline {
    /// A timeline that agrees with `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, timer: Arc<dyn Timer>) -> Self {
        Self {
            clock,
            timer,
            ahead: 0,
            armed: None,
        }
    }

    /// What time it is for the device.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.now().wrapping_add(self.ahead)
    }

    /// The host's wall clock, see [`Clock::wall`].
    #[must_use]
    pub fn wall(&self) -> Nanos {
        self.clock.wall()
    }

    /// Goes on from `now`, which [`now`](Self::now) gave when the device was saved.
    pub fn resume_at(&mut self, now: Nanos) {
        self.ahead = now.wrapping_sub(self.clock.now());
        self.rang();
    }

    /// The timer rang, perhaps early: the next [`arm`](Self::arm) sets it whatever it was.
    pub fn rang(&mut self) {
        self.armed = None;
    }

    /// Arms the timer for a time of this timeline, or disarms it.
    pub fn arm(&mut self, deadline: Option<Nanos>) {
        if self.armed == Some(deadline) {
            return;
        }
        self.armed = Some(deadline);
        let clock = self.clock.now();
        let now = clock.wrapping_add(self.ahead);
        let distance = deadline.map(|deadline| deadline.saturating_sub(now));
        self.timer
            .arm(distance.map(|distance| clock.saturating_add(distance)));
    }
}

/// A clock that a test turns by hand.
#[derive(Default)]
pub struct FakeClock {
    now: AtomicU64,
    wall: AtomicU64,
}

impl FakeClock {
    /// A clock that reads 0 with the wall at `wall`.
    #[must_use]
    pub fn new(wall: Nanos) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(0),
            wall: AtomicU64::new(wall),
        })
    }

    /// Turns both hands on.
    pub fn advance(&self, by: Nanos) {
        self.now.fetch_add(by, Ordering::Relaxed);
        self.wall.fetch_add(by, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Nanos {
        self.now.load(Ordering::Relaxed)
    }

    fn wall(&self) -> Nanos {
        self.wall.load(Ordering::Relaxed)
    }
}

/// A timer that remembers its setting, for tests.
#[derive(Default)]
pub struct FakeTimer {
    deadline: Mutex<Option<Nanos>>,
}

impl FakeTimer {
    /// A disarmed timer.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// When it would ring.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        *self.deadline.lock()
    }
}

impl Timer for FakeTimer {
    fn arm(&self, deadline: Option<Nanos>) {
        *self.deadline.lock() = deadline;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_goes_on_from_where_it_was_saved() {
        let (clock, timer) = (FakeClock::new(0), FakeTimer::new());
        clock.advance(10);
        let mut timeline = Timeline::new(clock.clone(), timer.clone());

        timeline.resume_at(1000);
        clock.advance(5);
        timeline.arm(Some(1100));

        assert_eq!(timeline.now(), 1005);
        assert_eq!(timer.deadline(), Some(110));
    }
}
