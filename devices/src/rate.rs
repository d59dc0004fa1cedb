//! How much may pass in how much time: a token bucket that is asked, and never sleeps.

use std::num::NonZeroU64;

use crate::clock::Nanos;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What a [`RateLimit`] lets pass, in whatever unit its user counts: bytes, operations, packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second in the long run.
    pub per_second: NonZeroU64,
    /// Units that may pass at once after enough quiet: the bucket's capacity.
    pub burst: NonZeroU64,
}

impl Rate {
    /// Units a second, of which those of a tenth of a second may pass at once.
    #[must_use]
    pub fn smooth(per_second: NonZeroU64) -> Self {
        let burst = NonZeroU64::new(per_second.get() / 10).unwrap_or(NonZeroU64::MIN);
        Self { per_second, burst }
    }
}

/// A bucket that fills at a [`Rate`]. Times are those of one [`Clock`](crate::Clock), which the
/// caller reads: one time does for several buckets that are asked together.
///
/// What is larger than the whole bucket passes once that is full, and what comes next waits for it
/// to be paid off, so that nothing waits for ever and the long run is kept.
#[derive(Debug, Clone)]
pub struct RateLimit {
    rate: Rate,
    /// What is in it at `since`, in billionths of a unit; below 0 while something is paid off.
    level: i128,
    since: Nanos,
}

impl RateLimit {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Nanos) -> Self {
        Self {
            rate,
            level: capacity(rate),
            since: now,
        }
    }

    /// The rate as it is set.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Fills at another rate from `now` on. What was saved up stays, as far as it has room; what
    /// has to be paid off stays too.
    pub fn set_rate(&mut self, rate: Rate, now: Nanos) {
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(capacity(rate));
    }

    /// Units that may pass at once.
    #[must_use]
    pub fn available(&self, now: Nanos) -> u64 {
        u64::try_from(self.level_at(now) / NANOS_PER_SECOND).unwrap_or(0)
    }

    /// When `units` may pass: `now` if they may already. Nothing is taken.
    #[must_use]
    pub fn ready_at(&self, units: u64, now: Nanos) -> Nanos {
        let needed = billionths(units).min(capacity(self.rate));
        let missing = needed.saturating_sub(self.level_at(now));
        if missing <= 0 {
            return now;
        }
        let rate = i128::from(self.rate.per_second.get());
        let wait = missing.div_euclid(rate) + i128::from(missing % rate != 0);
        now.saturating_add(Nanos::try_from(wait).unwrap_or(Nanos::MAX))
    }

    /// Takes `units` out, whether or not they may pass. What exceeds the bucket is paid off by
    /// whoever comes next.
    pub fn take(&mut self, units: u64, now: Nanos) {
        self.refill(now);
        self.level = self.level.saturating_sub(billionths(units));
    }

    /// Takes `units` out if they may pass, and changes nothing if not.
    ///
    /// # Errors
    /// When they may, if nobody else takes anything before.
    pub fn try_take(&mut self, units: u64, now: Nanos) -> Result<(), Nanos> {
        match self.ready_at(units, now) {
            at if at > now => Err(at),
            _ => {
                self.take(units, now);
                Ok(())
            }
        }
    }

    /// Puts `units` back that were taken and did not pass after all.
    pub fn put_back(&mut self, units: u64) {
        self.level = self
            .level
            .saturating_add(billionths(units))
            .min(capacity(self.rate));
    }

    /// The level at `now`; a clock that was set back adds nothing.
    fn level_at(&self, now: Nanos) -> i128 {
        let elapsed = i128::from(now.saturating_sub(self.since));
        let gained = elapsed.saturating_mul(i128::from(self.rate.per_second.get()));
        self.level.saturating_add(gained).min(capacity(self.rate))
    }

    fn refill(&mut self, now: Nanos) {
        self.level = self.level_at(now);
        self.since = now;
    }
}

fn capacity(rate: Rate) -> i128 {
    billionths(rate.burst.get())
}

fn billionths(units: u64) -> i128 {
    i128::from(units) * NANOS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate {
            per_second: NonZeroU64::new(per_second).unwrap(),
            burst: NonZeroU64::new(burst).unwrap(),
        }
    }

    #[test]
    fn a_full_bucket_lets_a_burst_pass_and_then_says_when() {
        let mut limit = RateLimit::new(rate(100, 10), 5);

        assert_eq!(limit.try_take(10, 5), Ok(()));

        assert_eq!(limit.try_take(2, 5), Err(5 + SECOND / 50));
        assert_eq!(limit.try_take(2, 5 + SECOND / 50), Ok(()));
    }

    #[test]
    fn quiet_saves_up_no_more_than_the_burst() {
        let mut limit = RateLimit::new(rate(100, 10), 0);
        limit.take(10, 0);

        assert_eq!(limit.available(SECOND / 20), 5);
        assert_eq!(limit.available(1000 * SECOND), 10);
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_off() {
        let mut limit = RateLimit::new(rate(100, 10), 0);

        assert_eq!(limit.try_take(110, 0), Ok(()));

        // 100 units of debt, and then the one that is asked for.
        assert_eq!(limit.ready_at(1, 0), SECOND + SECOND / 100);
    }

    #[test]
    fn another_rate_holds_from_now_on() {
        let mut limit = RateLimit::new(rate(100, 10), 0);
        limit.take(10, 0);

        limit.set_rate(rate(1000, 500), SECOND / 20);

        assert_eq!(limit.available(SECOND / 20), 5);
        assert_eq!(limit.available(SECOND / 10), 55);
    }

    #[test]
    fn a_smaller_bucket_spills() {
        let mut limit = RateLimit::new(rate(100, 100), 0);

        limit.set_rate(rate(100, 7), 0);

        assert_eq!(limit.available(0), 7);
    }

    #[test]
    fn what_did_not_pass_goes_back() {
        let mut limit = RateLimit::new(rate(100, 10), 0);
        limit.take(8, 0);

        limit.put_back(100);

        assert_eq!(limit.available(0), 10);
    }

    #[test]
    fn a_clock_that_was_set_back_changes_nothing() {
        let mut limit = RateLimit::new(rate(100, 10), SECOND);
        limit.take(10, SECOND);

        assert_eq!(limit.available(0), 0);
    }

    proptest! {
        #[test]
        fn no_more_passes_than_burst_and_rate_allow(
            per_second in 1..u64::MAX, burst in 1..u64::MAX,
            steps in prop::collection::vec((0..u64::MAX / 64, 0..SECOND), 1..64),
        ) {
            let mut limit = RateLimit::new(rate(per_second, burst), 0);
            let (mut now, mut passed, mut largest) = (0, 0_u128, 0_u128);
            for (units, wait) in steps {
                now += wait;
                if limit.try_take(units, now).is_ok() {
                    passed += u128::from(units);
                    largest = largest.max(u128::from(units));
                }
            }
            let earned = u128::from(now) * u128::from(per_second) / u128::from(SECOND);
            prop_assert!(passed <= u128::from(burst).max(largest) + earned + largest);
        }

        #[test]
        fn what_is_announced_for_a_time_passes_then_and_not_before(
            per_second in 1..1_000_000_u64, burst in 1..1_000_000_u64,
            taken in 0..2_000_000_u64, units in 1..2_000_000_u64,
        ) {
            let mut limit = RateLimit::new(rate(per_second, burst), 0);
            limit.take(taken, 0);
            let at = limit.ready_at(units, 0);

            prop_assert_eq!(limit.ready_at(units, at), at);
            if at > 0 {
                prop_assert_eq!(limit.try_take(units, at - 1), Err(at));
            }
            prop_assert_eq!(limit.try_take(units, at), Ok(()));
        }
    }
}
