//! For how long a thread that serves a queue looks for the driver's next request before it sleeps.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

/// Looking for longer than this costs the host more than a wake-up does.
const LONGEST: Duration = Duration::from_micros(32);
/// Where growing starts.
const FIRST: Duration = Duration::from_micros(4);

/// A time that grows while a little more of it would have saved a sleep, and ends once the driver
/// takes longer than is worth waiting for awake.
#[derive(Debug)]
pub(crate) struct PollWindow {
    length: Duration,
    longest: Duration,
}

impl PollWindow {
    fn new(processors: usize) -> Self {
        // The only processor is needed by whoever is waited for.
        let longest = if processors > 1 {
            LONGEST
        } else {
            Duration::ZERO
        };
        Self {
            length: Duration::ZERO,
            longest,
        }
    }

    /// A window that suits the number of processors that the process may use.
    pub(crate) fn of_this_host() -> Self {
        Self::new(thread::available_parallelism().map_or(1, NonZeroUsize::get))
    }

    /// For how long to look before sleeping.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// The driver's next request came after `time`, counted from the last, and the window was too
    /// short for it.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.length = if time > self.longest {
            Duration::ZERO
        } else {
            (self.length * 2).clamp(FIRST.min(self.longest), self.longest)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[test]
    fn a_quick_driver_is_waited_for_awake() {
        let mut window = PollWindow::new(2);
        let lengths = [10; 5].map(|time| {
            window.waited(us(time));
            window.length()
        });

        assert_eq!(lengths, [us(4), us(8), us(16), us(32), us(32)]);
    }

    #[test]
    fn a_slow_driver_is_slept_for_at_once() {
        let mut window = PollWindow::new(2);
        window.waited(us(5));
        window.waited(us(33));

        assert_eq!(window.length(), Duration::ZERO);
    }

    #[test]
    fn the_only_processor_is_never_kept_from_the_driver() {
        let mut window = PollWindow::new(1);
        window.waited(us(0));
        window.waited(us(5));

        assert_eq!(window.length(), Duration::ZERO);
    }
}
