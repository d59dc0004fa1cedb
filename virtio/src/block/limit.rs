//! How much a guest may ask of a disk in a second.

use caraway_devices::{Nanos, Rate, RateLimit};

/// What a disk is limited to; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes read, written or zeroed.
    pub bytes: Option<Rate>,
    /// Requests of any kind.
    pub operations: Option<Rate>,
}

/// What is left of a disk's limits.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    bytes: Option<RateLimit>,
    operations: Option<RateLimit>,
}

impl Throttle {
    pub(crate) fn new(limits: Limits, now: Nanos) -> Self {
        let limit = |rate: Option<Rate>| rate.map(|rate| RateLimit::new(rate, now));
        Self {
            bytes: limit(limits.bytes),
            operations: limit(limits.operations),
        }
    }

    /// Holds these limits from `now` on; what has to be paid off stays.
    pub(crate) fn set(&mut self, limits: Limits, now: Nanos) {
        for (limit, rate) in [
            (&mut self.bytes, limits.bytes),
            (&mut self.operations, limits.operations),
        ] {
            match (&mut *limit, rate) {
                (Some(limit), Some(rate)) => limit.set_rate(rate, now),
                (_, rate) => *limit = rate.map(|rate| RateLimit::new(rate, now)),
            }
        }
    }

    /// Nanoseconds from `now` until the next request may begin; 0 if it may begin now. How large it
    /// is only counts for those after it.
    pub(crate) fn wait(&self, now: Nanos) -> Nanos {
        let limits = self.bytes.iter().chain(&self.operations);
        let ready = limits.map(|limit| limit.ready_at(1, now));
        ready.max().unwrap_or(now).saturating_sub(now)
    }

    /// Counts a request over `bytes`.
    pub(crate) fn take(&mut self, bytes: u64, now: Nanos) {
        if let Some(limit) = &mut self.bytes {
            limit.take(bytes, now);
        }
        if let Some(limit) = &mut self.operations {
            limit.take(1, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const MS: Nanos = 1_000_000;

    fn rate(per_second: u64, burst: u64) -> Option<Rate> {
        Some(Rate {
            per_second: NonZeroU64::new(per_second)?,
            burst: NonZeroU64::new(burst)?,
        })
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let limits = Limits {
            operations: rate(100, 5),
            bytes: None,
        };
        let mut throttle = Throttle::new(limits, 0);

        let starts = (0..8).scan(0, |now, _| {
            *now += throttle.wait(*now);
            throttle.take(4096, *now);
            Some(*now / MS)
        });

        assert_eq!(starts.collect::<Vec<_>>(), [0, 0, 0, 0, 0, 10, 20, 30]);
    }

    #[test]
    fn the_slower_of_two_limits_counts() {
        let limits = Limits {
            bytes: rate(1 << 20, 1 << 20),
            operations: rate(10, 1),
        };
        let mut throttle = Throttle::new(limits, 0);
        throttle.take(4096, 0);
        let few_bytes = throttle.wait(0);
        throttle.take(2 << 20, 0);

        assert_eq!(few_bytes, 100 * MS);
        assert!(throttle.wait(0) > 1000 * MS);
    }

    #[test]
    fn a_limit_that_is_lifted_frees_what_waits() {
        let limits = Limits {
            operations: rate(1, 1),
            bytes: None,
        };
        let mut throttle = Throttle::new(limits, 0);
        throttle.take(0, 0);
        let before = throttle.wait(0);
        throttle.set(Limits::default(), 0);

        assert_eq!((before, throttle.wait(0)), (1000 * MS, 0));
    }
}
