//! How many bytes and frames may pass in one direction.

use caraway_devices::{Clock, Nanos, Rate, RateLimit};

/// The limits of one direction; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of frames, from the Ethernet header on.
    pub bytes: Option<Rate>,
    /// Frames, each of which may be one that is still to be cut into segments.
    pub packets: Option<Rate>,
}

/// Limits with what has passed of late.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: Option<RateLimit>,
    packets: Option<RateLimit>,
}

impl Meter {
    pub(super) fn new(limits: Limits, now: Nanos) -> Self {
        let mut meter = Self::default();
        meter.set(limits, now);
        meter
    }

    /// Holds to `limits` from `now` on.
    pub(super) fn set(&mut self, limits: Limits, now: Nanos) {
        for (bucket, rate) in [
            (&mut self.bytes, limits.bytes),
            (&mut self.packets, limits.packets),
        ] {
            match (bucket.as_mut(), rate) {
                (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
                (None, Some(rate)) => *bucket = Some(RateLimit::new(rate, now)),
                (_, None) => *bucket = None,
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            bytes: self.bytes.as_ref().map(RateLimit::rate),
            packets: self.packets.as_ref().map(RateLimit::rate),
        }
    }

    /// When the next frame may pass, whatever its length: what is too much of it is paid off by those
    /// after it. `None` if it may now.
    pub(super) fn wait(&self, clock: &dyn Clock) -> Option<Nanos> {
        let now = self.now(clock)?;
        let buckets = [&self.bytes, &self.packets];
        let ready = buckets.into_iter().flatten().map(|b| b.ready_at(1, now));
        ready.max().filter(|at| *at > now)
    }

    /// The time, which costs something to ask for, if anything is limited.
    fn now(&self, clock: &dyn Clock) -> Option<Nanos> {
        let is_limited = self.bytes.is_some() || self.packets.is_some();
        is_limited.then(|| clock.now())
    }

    /// A frame of so many bytes passed.
    pub(super) fn passed(&mut self, bytes: usize, clock: &dyn Clock) {
        let Some(now) = self.now(clock) else {
            return;
        };
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes as u64, now);
        }
        if let Some(bucket) = &mut self.packets {
            bucket.take(1, now);
        }
    }
}
