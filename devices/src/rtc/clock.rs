//! The guest's time of day, as a distance from the host's.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// What time the clock shows at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's time in UTC.
    #[default]
    Utc,
    /// The host's time in a zone east of UTC by this many seconds.
    Local {
        /// Seconds to add to UTC.
        utc_offset: i32,
    },
    /// A moment, from which time goes on.
    Date {
        /// Seconds since 1970.
        seconds: i64,
    },
}

/// The guest has set its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChanged {
    /// Nanoseconds by which the guest's clock is ahead of the host's UTC now; negative if behind.
    pub offset: i128,
    /// By how many of them the guest has moved it.
    pub step: i128,
}

/// Who hears that the guest has set its clock.
pub trait ClockSink: Send + Sync {
    /// Called once for each time the clock was set, when it runs again; under the lock of the
    /// [`Rtc`](super::Rtc), so it must not come back to it. The RTC has forgotten its own missed
    /// ticks by then; those of the PIT are to be forgotten too
    /// ([`forget_lost_ticks`](crate::Pit::forget_lost_ticks)).
    fn clock_changed(&self, change: ClockChanged);
}

/// A moment of the guest's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub(super) seconds: i64,
    /// Nanoseconds into the second.
    pub(super) nanos: u32,
}

impl Moment {
    /// Nanoseconds until `seconds` begins; 0 if it has.
    pub(super) fn until(self, seconds: i64) -> Nanos {
        let distance = (i128::from(seconds) - i128::from(self.seconds)) * NANOS_PER_SECOND;
        Nanos::try_from(distance - i128::from(self.nanos)).unwrap_or(0)
    }
}

/// How far the guest's clock is from the host's wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offset {
    pub(super) seconds: i64,
    nanos: u32,
}

impl Offset {
    pub(super) fn of(base: RtcBase, wall: Nanos) -> Self {
        match base {
            RtcBase::Utc => Self::default(),
            RtcBase::Local { utc_offset } => Self {
                seconds: utc_offset.into(),
                nanos: 0,
            },
            RtcBase::Date { seconds } => Self::between(wall, Moment { seconds, nanos: 0 }),
        }
    }

    /// The offset with which the guest's clock shows `moment` at `wall`.
    pub(super) fn between(wall: Nanos, moment: Moment) -> Self {
        let guest = i128::from(moment.seconds) * NANOS_PER_SECOND + i128::from(moment.nanos);
        let Moment { seconds, nanos } = split(guest - i128::from(wall));
        Self { seconds, nanos }
    }

    /// The offset of a clock that is `nanos` further ahead.
    pub(super) fn plus(self, nanos: i128) -> Self {
        let Moment { seconds, nanos } = split(self.nanos() + nanos);
        Self { seconds, nanos }
    }

    /// The offset in nanoseconds.
    pub(super) fn nanos(self) -> i128 {
        i128::from(self.seconds) * NANOS_PER_SECOND + i128::from(self.nanos)
    }

    /// What the guest's clock shows at `wall`.
    pub(super) fn apply(self, wall: Nanos) -> Moment {
        split(i128::from(wall) + self.nanos())
    }
}

fn split(nanos: i128) -> Moment {
    let seconds = nanos.div_euclid(NANOS_PER_SECOND);
    Moment {
        seconds: seconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        // The remainder is under 10^9.
        nanos: nanos.rem_euclid(NANOS_PER_SECOND) as u32,
    }
}
