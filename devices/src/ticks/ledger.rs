//! The bookkeeping of one device's ticks: pure, with the time as an argument.

use super::{TickCounters, TickPolicy};
use crate::clock::Nanos;
use crate::interrupt::Delivery;

const MICROSECOND: Nanos = 1_000;
const SECOND: Nanos = 1_000_000_000;

/// How much time of ticks may wait; the rest is dropped.
const BACKLOG_SPAN: Nanos = 30 * SECOND;
/// How long a tick waits for its acknowledgement before it is shown again.
const PATIENCE: Nanos = SECOND;
/// After this long without an acknowledgement none is awaited any more, until one comes.
const BLIND_AFTER: Nanos = 60 * SECOND;
/// A guest that masks the interrupt for longer than this does not count its ticks.
const LONG_MASK: Nanos = SECOND;
/// The shortest pause between an acknowledgement and the next replayed tick.
const SHORTEST_PAUSE: Nanos = 50 * MICROSECOND;

/// How far a device learns that the guest has taken a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// Always, as by a read of the RTC's register C: without one the tick has not been taken, and
    /// the line is still high.
    Always,
    /// By the end of interrupt, which some guests and some hosts don't report.
    Usually,
    /// Never: what was delivered counts as taken.
    Never,
}

/// A tick before the guest that it has not taken yet.
#[derive(Debug, Clone, Copy)]
struct Offer {
    /// It waited in the backlog.
    replayed: bool,
    /// When it was first shown.
    first: Nanos,
    /// When it was last shown.
    shown: Nanos,
    /// When it is to be shown again if it has not been taken by then.
    again: Option<Nanos>,
    /// It has been masked every time.
    masked: bool,
}

/// The ticks of one device.
///
/// The device says what falls [`due`](Self::due) and what is [`acknowledged`](Self::acknowledged),
/// calls [`serve`](Self::serve) after either and when [`deadline`](Self::deadline) has come, and
/// has a pulse sent whenever that asks for one. Times are of one clock that never goes back.
///
/// What happens when an acknowledgement never comes, if they come [`Usually`]: the same tick is
/// shown again every second, which is harmless while it waits in an interrupt controller and ends
/// the wait if it got lost. A guest that has not acknowledged a single tick in the second after it
/// set the timer, or none for a minute, is taken for one whose acknowledgements can't be seen: its
/// backlog is dropped, and from then on it is given each tick at its time. The first
/// acknowledgement ends that.
///
/// [`Usually`]: Acknowledgement::Usually
pub struct TickLedger {
    policy: TickPolicy,
    acknowledgement: Acknowledgement,
    /// Nominal time between two ticks; not 0. `None` while there are none.
    period: Option<Nanos>,
    backlog: u64,
    /// What was left of the backlog's time when it was converted to another period.
    carry: Nanos,
    /// When the youngest tick was due.
    last_due: Nanos,
    /// The next tick to be shown did not have to wait for another.
    fresh: bool,
    offer: Option<Offer>,
    /// No tick is shown before this time.
    ready_at: Nanos,
    /// A tick was shown again, so the guest may find it twice.
    spare: bool,
    /// It did find one twice, and the next one that is due is the one that it has.
    ahead: bool,
    /// An acknowledgement has come since the guest set the timer.
    heard: bool,
    /// None is awaited.
    blind: bool,
    counters: TickCounters,
}

impl TickLedger {
    /// An empty ledger without a period.
    #[must_use]
    pub fn new(policy: TickPolicy, acknowledgement: Acknowledgement) -> Self {
        Self {
            policy,
            acknowledgement,
            period: None,
            backlog: 0,
            carry: 0,
            last_due: 0,
            fresh: false,
            offer: None,
            ready_at: 0,
            spare: false,
            ahead: false,
            heard: false,
            blind: acknowledgement == Acknowledgement::Never,
            counters: TickCounters::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> TickCounters {
        TickCounters {
            backlog: self.backlog,
            ..self.counters
        }
    }

    /// Ticks come every `period` ns from now on (0 is taken for 1); the backlog is converted to
    /// as many ticks as take the same time.
    pub fn set_period(&mut self, period: Nanos) {
        let period = period.max(1);
        let Some(old) = self.period.replace(period).filter(|&old| old != period) else {
            return;
        };
        let owed = u128::from(old) * u128::from(self.backlog) + u128::from(self.carry);
        let ticks = u64::try_from(owed / u128::from(period)).unwrap_or(u64::MAX);
        // A remainder is smaller than its divisor.
        self.carry = (owed % u128::from(period)) as Nanos;
        // More of the short ones were due, and fewer of the long ones can be given.
        let more = ticks.saturating_sub(self.backlog);
        self.counters.due = self.counters.due.saturating_add(more);
        self.backlog += more;
        self.limit(ticks.min(self.capacity()));
    }

    /// There are no ticks any more, until a period is set: the guest stopped its timer.
    pub fn stop(&mut self) {
        self.forget();
        self.withdraw();
        self.period = None;
    }

    /// Drops the backlog: the guest knows the time from elsewhere.
    pub fn forget(&mut self) {
        self.limit(0);
        self.carry = 0;
        self.ahead = false;
    }

    /// The guest set its timer anew, and perhaps another part of it than before: nobody waits any
    /// longer for the tick that is before it.
    pub fn restart(&mut self) {
        self.withdraw();
        self.heard = false;
        self.ready_at = 0;
    }

    /// As new, but for what was counted.
    pub fn reset(&mut self) {
        self.stop();
        *self = Self {
            counters: self.counters,
            ..Self::new(self.policy, self.acknowledgement)
        };
    }

    /// `ticks` were faster than the device ticks at all: due, but merged with others.
    pub fn merged(&mut self, ticks: u64) {
        self.counters.due = self.counters.due.saturating_add(ticks);
        self.counters.dropped = self.counters.dropped.saturating_add(ticks);
    }

    /// `ticks` fell due since this was last called, the youngest of them at `last`.
    pub fn due(&mut self, ticks: u64, last: Nanos) {
        if ticks == 0 {
            return;
        }
        self.counters.due = self.counters.due.saturating_add(ticks);
        let found = u64::from(std::mem::take(&mut self.ahead));
        self.counters.delivered += found;
        let ticks = ticks - found;
        let free = self.offer.is_none() && self.backlog == 0;
        let behind = ticks.saturating_sub(free.into());
        self.counters.coalesced = self.counters.coalesced.saturating_add(behind);
        self.backlog = self.backlog.saturating_add(ticks);
        self.last_due = last;
        self.fresh |= free && ticks > 0;
        let capacity = match self.policy {
            TickPolicy::Discard => u64::from(free),
            TickPolicy::Replay | TickPolicy::Slew => self.capacity(),
        };
        self.limit(capacity);
    }

    /// The one tick of a timer that does not go on by itself was due at `due`: it is shown at once
    /// by `pulse`, and nothing of it is made good, since the guest will set the timer anew.
    pub fn once(&mut self, due: Nanos, now: Nanos, pulse: impl FnOnce() -> Delivery) {
        self.counters.due = self.counters.due.saturating_add(1);
        self.counters.shown(now.saturating_sub(due));
        match pulse() {
            Delivery::Delivered | Delivery::Unknown => self.counters.delivered += 1,
            Delivery::Masked => self.counters.dropped += 1,
            Delivery::Coalesced => {
                self.counters.coalesced += 1;
                self.counters.dropped += 1;
            }
        }
    }

    /// The guest took the tick that was before it.
    pub fn acknowledged(&mut self, now: Nanos) {
        if self.acknowledgement == Acknowledgement::Never {
            return;
        }
        self.heard = true;
        self.blind = false;
        let Some(offer) = self.offer.take() else {
            return self.take_spare();
        };
        if offer.masked && now.saturating_sub(offer.first) >= LONG_MASK {
            self.forget();
        }
        self.taken(offer, now);
    }

    /// Shows a tick to the guest by `pulse`, if it is time for one.
    pub fn serve(&mut self, now: Nanos, pulse: impl FnOnce() -> Delivery) {
        if let Some(offer) = self.offer {
            if offer.again.is_none_or(|again| again > now) {
                return;
            }
            if !self.is_hopeless(offer, now) {
                self.spare = true;
                return self.show(offer, now, pulse());
            }
            self.blind = true;
            self.withdraw();
            self.forget();
        }
        if self.backlog == 0 || now < self.ready_at {
            return;
        }
        let behind = self.period.unwrap_or(0).saturating_mul(self.backlog - 1);
        let due = self.last_due.saturating_sub(behind);
        self.counters.shown(now.saturating_sub(due));
        self.backlog -= 1;
        let offer = Offer {
            replayed: !std::mem::take(&mut self.fresh),
            first: now,
            shown: now,
            again: None,
            masked: true,
        };
        self.show(offer, now, pulse());
    }

    /// When [`serve`](Self::serve) will have something to do if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        match self.offer {
            Some(offer) => offer.again,
            None => (self.backlog > 0).then_some(self.ready_at),
        }
    }

    /// Whether there are ticks: a period was set, and nothing stopped them since.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.period.is_some()
    }

    /// Whether a tick is before the guest that it has not taken.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.offer.is_some()
    }

    /// Whether it is no use to wait for the acknowledgement of `offer` any longer.
    fn is_hopeless(&self, offer: Offer, now: Nanos) -> bool {
        let patience = if self.heard { BLIND_AFTER } else { PATIENCE };
        self.acknowledgement == Acknowledgement::Usually
            && !offer.masked
            && now.saturating_sub(offer.first) >= patience
    }

    /// `offer` was shown, with this result.
    fn show(&mut self, mut offer: Offer, now: Nanos, delivery: Delivery) {
        offer.shown = now;
        self.offer = None;
        let period = self.period.unwrap_or(PATIENCE);
        let again = match delivery {
            Delivery::Delivered | Delivery::Unknown if self.blind => {
                // Nobody will say when it is taken: half a period is a guess.
                self.taken(offer, now);
                self.ready_at = now.saturating_add(period / 2);
                return;
            }
            Delivery::Delivered | Delivery::Unknown => {
                if offer.masked {
                    offer.first = now;
                }
                offer.masked = false;
                PATIENCE
            }
            Delivery::Coalesced => {
                // The one that waits in the controller will be taken for this one, if anybody says
                // when; if not, this one is lost and has to be shown again.
                offer.masked = false;
                self.spare = false;
                match self.acknowledgement {
                    Acknowledgement::Usually if !self.blind => PATIENCE,
                    _ => self.slewed(period),
                }
            }
            Delivery::Masked => {
                if now.saturating_sub(offer.first) >= LONG_MASK {
                    self.forget();
                }
                period
            }
        };
        // What always is acknowledged keeps its line high, where no new edge is of use; except that
        // a controller that was still busy with the one before does not keep this one.
        let waits =
            self.acknowledgement == Acknowledgement::Always && delivery != Delivery::Coalesced;
        offer.again = (!waits).then(|| now.saturating_add(again));
        self.offer = Some(offer);
    }

    /// The guest took `offer` by `now`.
    fn taken(&mut self, offer: Offer, now: Nanos) {
        self.counters.delivered += 1;
        self.counters.replayed += u64::from(offer.replayed);
        let period = self.period.unwrap_or(0);
        self.ready_at = match self.policy {
            TickPolicy::Slew => offer.shown.saturating_add(self.slewed(period)).max(now),
            TickPolicy::Replay | TickPolicy::Discard => {
                let busy = now.saturating_sub(offer.shown);
                let pause = (busy / 2).max(SHORTEST_PAUSE).min(period / 8);
                // At an end of interrupt after a whole period the next one would be there on real
                // hardware too.
                let overtaken = busy >= period && self.acknowledgement == Acknowledgement::Usually;
                now.saturating_add(if overtaken { 0 } else { pause })
            }
        };
    }

    /// An end of interrupt with no tick before the guest: of one that was shown twice, the guest
    /// found both.
    fn take_spare(&mut self) {
        if !std::mem::take(&mut self.spare) {
            return;
        }
        self.ahead = self.backlog == 0;
        if !self.ahead {
            self.backlog -= 1;
            self.fresh &= self.backlog > 0;
            self.counters.delivered += 1;
            self.counters.replayed += 1;
        }
    }

    /// Nobody waits any longer for the tick before the guest.
    fn withdraw(&mut self) {
        if let Some(offer) = self.offer.take() {
            // It was shown, and unless it was masked the guest will find it.
            if offer.masked {
                self.counters.dropped += 1;
            } else {
                self.counters.delivered += 1;
                self.counters.replayed += u64::from(offer.replayed);
            }
        }
    }

    /// The time between two ticks at two to eight times their rate, by how many wait.
    fn slewed(&self, period: Nanos) -> Nanos {
        period / (self.backlog.clamp(1, 7) + 1)
    }

    /// How many ticks may wait.
    fn capacity(&self) -> u64 {
        self.period
            .map_or(1, |period| (BACKLOG_SPAN / period).max(1))
    }

    /// Drops what is over `capacity`.
    fn limit(&mut self, capacity: u64) {
        let over = self.backlog.saturating_sub(capacity);
        self.counters.dropped = self.counters.dropped.saturating_add(over);
        self.backlog -= over;
        self.fresh &= self.backlog > 0;
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
