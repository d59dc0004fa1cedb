//! The machine's clock on a real host: it stands still while the machine does, and afterwards shows
//! the host's time again, or goes on from where it stopped.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::{Clock, Nanos};

/// A sleep of the host that is shorter than this is an error of measurement.
const LEAST_SLEEP: Nanos = 100_000_000;

/// Clocks read within this time are taken for read at once, if one of so many tries comes to that.
const TOGETHER: Nanos = 100_000;
const MOST_TRIES: u32 = 10;

/// What the guest's time does after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterPause {
    /// It becomes the host's again.
    CatchUp,
    /// It goes on from where it stopped.
    Continue,
}

/// A pause that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// How long it was.
    pub length: Nanos,
    /// How much later the guest's clocks are to go on than they stopped.
    pub advance: Nanos,
    /// When it ended, by the host's wall clock.
    pub ended: Nanos,
}

/// The clock of a machine.
pub struct RealClock {
    hands: Mutex<Hands>,
}

impl RealClock {
    /// A running clock that reads 0 now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_longer_pauses(0)
    }

    /// As [`new`](Self::new), for tests of what long pauses do: whenever the machine is paused the
    /// host's clocks move on by `extra` more than they do.
    #[must_use]
    pub fn with_longer_pauses(extra: Nanos) -> Arc<Self> {
        Arc::new(Self {
            hands: Mutex::new(Hands::new(HostTime::read(), extra)),
        })
    }

    /// Stops both hands.
    pub fn stop(&self) {
        self.hands.lock().stop(HostTime::read());
    }

    /// Lets both hands go on; the pause that this ends, if the clock stood.
    pub fn start(&self, after: AfterPause) -> Option<Pause> {
        self.hands.lock().start(HostTime::read(), after)
    }

    /// The sleep of the host since this was asked last, if there was one while the clock ran. The
    /// guest's time goes on after it as `after` says.
    pub fn slept(&self, after: AfterPause) -> Option<Pause> {
        self.hands.lock().slept(HostTime::read(), after)
    }

    /// When [`now`](Clock::now) is `deadline`, by the host's `CLOCK_MONOTONIC`, if it runs until
    /// then.
    #[must_use]
    pub fn monotonic_at(&self, deadline: Nanos) -> Nanos {
        let hands = self.hands.lock();
        deadline
            .saturating_add(hands.start)
            .saturating_add(hands.stood)
    }
}

impl Clock for RealClock {
    fn now(&self) -> Nanos {
        let hands = self.hands.lock();
        let until = match hands.stopped {
            Some(at) => at.monotonic,
            None => read(libc::CLOCK_MONOTONIC),
        };
        until.saturating_sub(hands.start + hands.stood)
    }

    fn wall(&self) -> Nanos {
        let hands = self.hands.lock();
        let until = match hands.stopped {
            Some(at) => at.wall,
            None => read(libc::CLOCK_REALTIME),
        };
        hands.shown(until)
    }
}

/// The host's clocks at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct HostTime {
    monotonic: Nanos,
    /// As `monotonic`, and counts while the host sleeps.
    boottime: Nanos,
    wall: Nanos,
}

impl HostTime {
    /// All three, without a pause in between: one that had to wait for a processor is read again.
    fn read() -> Self {
        let mut tries = 0;
        loop {
            let time = Self {
                monotonic: read(libc::CLOCK_MONOTONIC),
                boottime: read(libc::CLOCK_BOOTTIME),
                wall: read(libc::CLOCK_REALTIME),
            };
            tries += 1;
            if tries == MOST_TRIES || time.age() < TOGETHER {
                return time;
            }
        }
    }

    fn age(self) -> Nanos {
        read(libc::CLOCK_MONOTONIC).saturating_sub(self.monotonic)
    }

    /// How long the host has slept since it started, more or less.
    fn asleep(self) -> Nanos {
        self.boottime.saturating_sub(self.monotonic)
    }
}

fn read(clock: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to. It stays 0 if the host has no such clock.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let seconds = Nanos::try_from(time.tv_sec).unwrap_or(0);
    let nanos = Nanos::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// How the machine's clock lies to the host's.
struct Hands {
    /// `CLOCK_MONOTONIC` when the clock was made.
    start: Nanos,
    /// How long it stood still since.
    stood: Nanos,
    /// When it stopped, if it stands.
    stopped: Option<HostTime>,
    /// What of the host's wall clock the guest is not to see.
    kept_back: Nanos,
    /// How long the host had slept when that was looked at last.
    asleep: Nanos,
    /// How much longer each pause is made out to be, and how much that came to by now.
    extra: Nanos,
    extra_so_far: Nanos,
}

impl Hands {
    fn new(at: HostTime, extra: Nanos) -> Self {
        Self {
            start: at.monotonic,
            stood: 0,
            stopped: None,
            kept_back: 0,
            asleep: at.asleep(),
            extra,
            extra_so_far: 0,
        }
    }

    fn shown(&self, wall: Nanos) -> Nanos {
        wall.saturating_add(self.extra_so_far)
            .saturating_sub(self.kept_back)
    }

    fn stop(&mut self, at: HostTime) {
        self.stopped.get_or_insert(at);
    }

    fn start(&mut self, at: HostTime, after: AfterPause) -> Option<Pause> {
        let stopped = self.stopped.take()?;
        let seen = self.shown(stopped.wall);
        self.stood += at.monotonic.saturating_sub(stopped.monotonic);
        self.asleep = at.asleep();
        self.extra_so_far += self.extra;
        let wall = at.wall.saturating_add(self.extra_so_far);
        self.kept_back = match after {
            AfterPause::CatchUp => 0,
            AfterPause::Continue => wall.saturating_sub(seen),
        };
        let length = at.boottime.saturating_sub(stopped.boottime) + self.extra;
        Some(Pause {
            length,
            // None if the host's clock was set back meanwhile: the guest's does not go backwards.
            advance: self.shown(at.wall).saturating_sub(seen),
            ended: at.wall,
        })
    }

    fn slept(&mut self, at: HostTime, after: AfterPause) -> Option<Pause> {
        let before = std::mem::replace(&mut self.asleep, at.asleep());
        let length = self.asleep.saturating_sub(before);
        if length < LEAST_SLEEP || self.stopped.is_some() {
            return None;
        }
        let advance = match after {
            AfterPause::CatchUp => length + std::mem::take(&mut self.kept_back),
            AfterPause::Continue => {
                self.kept_back += length;
                0
            }
        };
        Some(Pause {
            length,
            advance,
            ended: at.wall,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const WALL: Nanos = 1_000_000 * SECOND;

    /// The host's clocks after it ran for this long and slept for that long.
    fn host(ran: Nanos, slept: Nanos) -> HostTime {
        HostTime {
            monotonic: ran,
            boottime: ran + slept,
            wall: WALL + ran + slept,
        }
    }

    fn hands() -> Hands {
        Hands::new(host(0, 0), 0)
    }

    #[test]
    fn after_a_pause_the_wall_clock_is_the_hosts_again() {
        let mut hands = hands();
        hands.stop(host(10 * SECOND, 0));

        let pause = hands.start(host(70 * SECOND, 0), AfterPause::CatchUp);

        let expected = Pause {
            length: 60 * SECOND,
            advance: 60 * SECOND,
            ended: WALL + 70 * SECOND,
        };
        assert_eq!(pause, Some(expected));
        assert_eq!(hands.shown(WALL + 71 * SECOND), WALL + 71 * SECOND);
    }

    #[test]
    fn after_a_pause_the_wall_clock_goes_on_from_where_it_stopped() {
        let mut hands = hands();
        hands.stop(host(10 * SECOND, 0));

        let pause = hands.start(host(70 * SECOND, 0), AfterPause::Continue);

        assert_eq!(pause.unwrap().advance, 0);
        assert_eq!(hands.shown(WALL + 71 * SECOND), WALL + 11 * SECOND);
    }

    #[test]
    fn catching_up_makes_up_for_all_that_was_kept_back() {
        let mut hands = hands();
        hands.stop(host(10 * SECOND, 0));
        hands.start(host(70 * SECOND, 0), AfterPause::Continue);
        hands.stop(host(80 * SECOND, 0));

        let pause = hands.start(host(81 * SECOND, 0), AfterPause::CatchUp);

        assert_eq!(pause.unwrap().advance, 61 * SECOND);
        assert_eq!(hands.shown(WALL + 90 * SECOND), WALL + 90 * SECOND);
    }

    #[test]
    fn a_pause_may_be_made_out_to_be_longer() {
        let mut hands = Hands::new(host(0, 0), 600 * SECOND);
        hands.stop(host(10 * SECOND, 0));

        let pause = hands.start(host(11 * SECOND, 0), AfterPause::CatchUp);

        let pause = pause.unwrap();
        assert_eq!((pause.length, pause.advance), (601 * SECOND, 601 * SECOND));
        assert_eq!(hands.shown(WALL + 11 * SECOND), WALL + 611 * SECOND);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_turn_the_guests_back() {
        let mut hands = hands();
        hands.stop(host(10 * SECOND, 0));
        let mut set_back = host(20 * SECOND, 0);
        set_back.wall -= 3600 * SECOND;

        let pause = hands.start(set_back, AfterPause::CatchUp);

        assert_eq!(pause.unwrap().advance, 0);
    }

    #[test]
    fn a_sleep_of_the_host_is_a_pause() {
        let mut hands = hands();

        let caught_up = hands.slept(host(10 * SECOND, 50 * SECOND), AfterPause::CatchUp);
        let again = hands.slept(host(11 * SECOND, 50 * SECOND), AfterPause::CatchUp);
        let continued = hands.slept(host(20 * SECOND, 80 * SECOND), AfterPause::Continue);

        assert_eq!(caught_up.unwrap().advance, 50 * SECOND);
        assert_eq!(again, None);
        let continued = continued.unwrap();
        assert_eq!((continued.length, continued.advance), (30 * SECOND, 0));
        assert_eq!(hands.shown(WALL + 100 * SECOND), WALL + 70 * SECOND);
    }

    #[test]
    fn a_sleep_during_a_pause_is_part_of_it() {
        let mut hands = hands();
        hands.stop(host(10 * SECOND, 0));
        let during = hands.slept(host(20 * SECOND, 30 * SECOND), AfterPause::CatchUp);

        let pause = hands.start(host(20 * SECOND, 30 * SECOND), AfterPause::CatchUp);
        let later = hands.slept(host(21 * SECOND, 30 * SECOND), AfterPause::CatchUp);

        assert_eq!((during, later), (None, None));
        assert_eq!(pause.unwrap().length, 40 * SECOND);
    }

    #[test]
    fn a_stopped_clock_stands_still() {
        let clock = RealClock::new();
        clock.stop();
        let before = (clock.now(), clock.wall());
        std::thread::sleep(Duration::from_millis(5));

        let after = (clock.now(), clock.wall());

        assert_eq!(before, after);
    }

    #[test]
    fn a_restarted_clock_goes_on_from_where_it_stopped() {
        let clock = RealClock::new();
        clock.stop();
        let stopped_at = clock.now();
        std::thread::sleep(Duration::from_millis(50));
        clock.start(AfterPause::CatchUp);

        let after = clock.now();

        assert!(
            after - stopped_at < 40_000_000,
            "{} ns passed",
            after - stopped_at
        );
    }

    #[test]
    fn a_deadline_is_as_far_off_by_the_hosts_clock() {
        let clock = RealClock::new();
        clock.stop();
        std::thread::sleep(Duration::from_millis(5));
        clock.start(AfterPause::CatchUp);
        let before = read(libc::CLOCK_MONOTONIC);

        let at = clock.monotonic_at(clock.now() + SECOND);

        let after = read(libc::CLOCK_MONOTONIC);
        assert!((before..=after).contains(&(at - SECOND)));
    }
}
