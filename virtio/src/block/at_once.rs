//! What the page cache does at once, without the ring.

use std::time::{Duration, Instant};

/// Bytes of a write that is worth a thread of the kernel's.
const LARGE: u64 = 128 << 10;
/// A smaller one that takes longer waited for something.
const SLOW: Duration = Duration::from_micros(200);
/// For how long writes then go through the ring.
const HANDED_OVER: Duration = Duration::from_millis(100);

/// Which transfers are tried by a plain call first.
///
/// On most file systems the ring hands each write to a thread of the kernel, at twice the price of
/// the write; but one that has to wait, for memory or for a journal, holds up the requests behind it.
#[derive(Debug)]
pub(crate) struct AtOnce {
    /// Whether the host can tell what is cached.
    pub(crate) reads: bool,
    /// Until when writes go through the ring.
    slow_until: Option<Instant>,
}

impl AtOnce {
    pub(crate) fn new() -> Self {
        Self {
            reads: true,
            slow_until: None,
        }
    }

    /// Leaves everything to the ring.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self {
            reads: false,
            slow_until: Some(Instant::now() + Duration::from_secs(3600)),
        }
    }

    /// Whether a write of `len` bytes at `now` is likely not to wait.
    pub(crate) fn may_write(&self, len: u64, now: Instant) -> bool {
        len < LARGE && self.slow_until.is_none_or(|until| now >= until)
    }

    /// A write began at `began` and ended at `ended`.
    pub(crate) fn wrote(&mut self, began: Instant, ended: Instant) {
        self.slow_until = (ended - began > SLOW).then(|| ended + HANDED_OVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_are_made_at_once_and_large_ones_are_not() {
        let (at_once, now) = (AtOnce::new(), Instant::now());

        assert!(at_once.may_write(LARGE - 1, now));
        assert!(!at_once.may_write(LARGE, now));
    }

    #[test]
    fn a_write_that_waited_sends_the_next_ones_through_the_ring_for_a_while() {
        let (mut at_once, began) = (AtOnce::new(), Instant::now());
        let ended = began + SLOW + Duration::from_nanos(1);
        at_once.wrote(began, ended);

        let just_before = ended + HANDED_OVER - Duration::from_nanos(1);
        assert!(!at_once.may_write(512, just_before));
        assert!(at_once.may_write(512, ended + HANDED_OVER));
    }

    #[test]
    fn a_quick_write_changes_nothing() {
        let (mut at_once, began) = (AtOnce::new(), Instant::now());
        at_once.wrote(began, began + SLOW);

        assert!(at_once.may_write(512, began + SLOW));
    }
}
