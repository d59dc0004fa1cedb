//! What a device counts of its ticks, for metrics.

use crate::clock::Nanos;

/// Upper bounds of the first buckets of [`TickCounters::lateness`]; the last bucket has none.
pub const LATENESS_BOUNDS: [Nanos; 6] = [
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// What became of the ticks of one device since it was made.
///
/// At any time `due == delivered + dropped + backlog`, and one more while a tick is before the
/// guest and not taken yet. All but `backlog` only ever grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TickCounters {
    /// Ticks whose time came.
    pub due: u64,
    /// Ticks that the guest took.
    pub delivered: u64,
    /// Of those due: the ones that could not be shown to the guest when their time came, because
    /// it had not taken the one before.
    pub coalesced: u64,
    /// Of those delivered: the ones that were shown to the guest later than at their own time.
    pub replayed: u64,
    /// Ticks that the guest will never see: those lost under
    /// [`TickPolicy::Discard`](super::TickPolicy::Discard), those of a backlog that was full or
    /// was emptied, and those faster than the device ticks at all.
    pub dropped: u64,
    /// Ticks that wait to be replayed now.
    pub backlog: u64,
    /// The longest time in ns from when a tick was due to when it was first shown to the guest.
    pub largest_lateness: Nanos,
    /// The sum of all such times in ns.
    pub lateness_sum: Nanos,
    /// How many ticks were shown no later than each of [`LATENESS_BOUNDS`], but later than the
    /// bound before; and at the end, those later than all bounds.
    pub lateness: [u64; LATENESS_BOUNDS.len() + 1],
}

impl TickCounters {
    /// Takes note that a tick was shown to the guest `lateness` ns after its time.
    pub(super) fn shown(&mut self, lateness: Nanos) {
        self.largest_lateness = self.largest_lateness.max(lateness);
        self.lateness_sum = self.lateness_sum.saturating_add(lateness);
        let bucket = LATENESS_BOUNDS.partition_point(|&bound| bound < lateness);
        self.lateness[bucket] += 1;
    }
}
