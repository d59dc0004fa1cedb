//! Ticks that a guest counts: which are due, which it took, and what becomes of the others.
//!
//! A guest that counts interrupts to tell the time needs every one of them. When its vCPU does not
//! run for a while, an interrupt controller keeps one edge and loses the rest, so a device whose
//! interrupts are counted keeps a [`TickLedger`]: never is a tick shown while the guest has not
//! taken the one before, and those that could not be shown wait in a backlog.

mod counters;
mod ledger;

pub use counters::{LATENESS_BOUNDS, TickCounters};
pub use ledger::{Acknowledgement, TickLedger};

/// What becomes of ticks that could not be shown to the guest at their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TickPolicy {
    /// Each follows as soon as the guest has taken the one before, after a pause for its main
    /// program of half the time that the interrupt took, or of an eighth of the period if that is
    /// shorter; at once if the guest was so slow that the next tick would have come by itself.
    #[default]
    Replay,
    /// They follow at two to eight times the rate, the faster the more there are.
    Slew,
    /// They are lost.
    Discard,
}
