//! One rule of the ledger each.

use super::*;

const MS: Nanos = 1_000_000;

/// A ledger with a tick every 10 ms whose guest acknowledges, and how often it pulsed.
struct Fixture {
    ledger: TickLedger,
    now: Nanos,
    answer: Delivery,
    pulses: u64,
}

fn fixture(policy: TickPolicy) -> Fixture {
    fixture_with(policy, Acknowledgement::Usually)
}

fn fixture_with(policy: TickPolicy, acknowledgement: Acknowledgement) -> Fixture {
    let mut ledger = TickLedger::new(policy, acknowledgement);
    ledger.set_period(10 * MS);
    Fixture {
        ledger,
        now: 0,
        answer: Delivery::Delivered,
        pulses: 0,
    }
}

impl Fixture {
    fn serve(&mut self) {
        let Self {
            ledger,
            now,
            answer,
            pulses,
        } = self;
        ledger.serve(*now, || {
            *pulses += 1;
            *answer
        });
    }

    /// Lets `ticks` periods pass, and serves.
    fn due(&mut self, ticks: u64) {
        self.now += ticks * 10 * MS;
        self.ledger.due(ticks, self.now);
        self.serve();
    }

    fn acknowledge(&mut self) {
        self.ledger.acknowledged(self.now);
        self.serve();
    }

    /// Lets time pass to the deadline, and serves; how long that was.
    fn wait(&mut self) -> Nanos {
        let deadline = self.ledger.deadline().unwrap();
        let passed = deadline.saturating_sub(self.now);
        self.now += passed;
        self.serve();
        passed
    }

    /// The guest is known to acknowledge, and has taken what there was.
    fn warm(mut self) -> Self {
        self.due(1);
        self.acknowledge();
        self
    }
}

#[test]
fn a_tick_is_shown_when_it_is_due() {
    let mut f = fixture(TickPolicy::Replay);

    f.due(1);

    assert_eq!(f.pulses, 1);
    assert!(f.ledger.is_offered());
}

#[test]
fn no_tick_is_shown_before_the_last_is_taken() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);

    f.due(5);

    assert_eq!(f.pulses, 2);
    assert_eq!(f.ledger.counters().backlog, 5);
    assert_eq!(f.ledger.counters().coalesced, 5);
}

#[test]
fn a_replayed_tick_leaves_the_guest_half_the_time_that_the_last_took() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(5);
    f.acknowledge();
    f.wait();
    f.now += MS / 2;
    f.acknowledge();

    let pause = f.wait();

    assert_eq!(pause, MS / 4);
}

#[test]
fn a_replayed_tick_waits_no_longer_than_an_eighth_of_the_period() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(50);
    f.acknowledge();
    f.now += 9 * MS;
    f.acknowledge();

    let pause = f.wait();

    assert_eq!(pause, 10 * MS / 8);
}

#[test]
fn a_replayed_tick_follows_at_once_if_the_last_took_a_whole_period() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(50);
    let before = f.pulses;

    f.acknowledge();

    assert_eq!(f.pulses, before + 1);
}

#[test]
fn slewed_ticks_come_at_two_to_eight_times_the_rate() {
    for (ticks, interval) in [
        (3, 10 * MS / 3),
        (5, 2 * MS),
        (8, 10 * MS / 8),
        (100, 10 * MS / 8),
    ] {
        let mut f = fixture(TickPolicy::Slew).warm();
        f.due(1);
        f.due(ticks);
        f.acknowledge();
        f.wait();
        let shown = f.now;
        f.acknowledge();

        f.wait();

        // One of them has just been shown.
        assert_eq!(f.now - shown, interval, "{ticks} ticks");
    }
}

#[test]
fn discarded_ticks_are_gone() {
    let mut f = fixture(TickPolicy::Discard).warm();
    f.due(1);
    f.due(5);

    f.acknowledge();

    assert_eq!(f.ledger.deadline(), None);
    assert_eq!(f.ledger.counters().dropped, 5);
    assert_eq!(f.ledger.counters().delivered, 2);
}

#[test]
fn thirty_seconds_of_ticks_may_wait() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);

    f.due(5_000);

    assert_eq!(f.ledger.counters().backlog, 3_000);
    assert_eq!(f.ledger.counters().dropped, 2_000);
}

#[test]
fn a_backlog_keeps_its_time_when_the_period_changes() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(10);

    f.ledger.set_period(30 * MS);
    let long = f.ledger.counters().backlog;
    f.ledger.set_period(MS);

    assert_eq!(long, 3);
    assert_eq!(f.ledger.counters().backlog, 100);
}

#[test]
fn a_guest_that_sets_its_clock_gets_no_old_ticks() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(10);

    f.ledger.forget();
    f.acknowledge();

    assert_eq!(f.ledger.deadline(), None);
    assert_eq!(f.ledger.counters().dropped, 10);
}

#[test]
fn a_reset_empties_the_backlog_and_keeps_the_counts() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(10);

    f.ledger.reset();

    let counters = f.ledger.counters();
    assert_eq!(f.ledger.deadline(), None);
    assert_eq!(
        (counters.due, counters.backlog, counters.dropped),
        (12, 0, 10)
    );
    assert_eq!(counters.delivered, 2);
}

#[test]
fn a_short_mask_loses_no_tick() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.answer = Delivery::Masked;
    f.due(1);
    f.due(20);
    f.answer = Delivery::Delivered;

    f.wait();
    f.acknowledge();

    assert_eq!(f.ledger.counters().dropped, 0);
    assert_eq!(f.ledger.counters().backlog, 20);
}

#[test]
fn ticks_of_a_long_mask_are_forgotten() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.answer = Delivery::Masked;
    f.due(1);
    for _ in 0..1_000 {
        f.due(1);
    }

    f.answer = Delivery::Delivered;
    f.wait();
    f.acknowledge();

    assert_eq!(f.ledger.deadline(), None);
    assert!(f.ledger.counters().dropped >= 998);
}

#[test]
fn a_tick_that_is_never_acknowledged_is_shown_again() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);

    let waited = f.wait();

    assert_eq!(waited, SECOND);
    assert_eq!(f.pulses, 3);
    assert_eq!(f.ledger.counters().delivered, 1);
}

#[test]
fn a_guest_that_finds_a_tick_twice_gets_one_less_later() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(10);
    f.now += SECOND;
    f.serve();
    f.acknowledge();

    f.ledger.acknowledged(f.now);

    assert_eq!(f.ledger.counters().backlog, 9);
}

#[test]
fn a_guest_that_never_acknowledges_gets_each_tick_at_its_time() {
    let mut f = fixture(TickPolicy::Replay);
    f.due(1);
    f.wait();
    f.due(1);
    let before = f.pulses;

    for _ in 0..100 {
        f.due(1);
    }

    assert_eq!(f.pulses - before, 100);
    assert_eq!(f.ledger.counters().coalesced, 0);
}

#[test]
fn an_acknowledgement_ends_the_blindness() {
    let mut f = fixture(TickPolicy::Replay);
    f.due(1);
    f.wait();
    f.acknowledge();

    f.due(1);
    f.due(1);

    assert_eq!(f.ledger.counters().backlog, 1);
}

#[test]
fn a_guest_that_stood_still_for_a_while_is_not_taken_for_blind() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    for _ in 0..20 {
        f.due(100);
    }

    f.acknowledge();

    assert_eq!(f.ledger.counters().dropped, 0);
    assert_eq!(f.ledger.counters().backlog, 2_000);
}

#[test]
fn a_tick_that_met_a_busy_controller_is_shown_again_if_its_line_stays_high() {
    let mut f = fixture_with(TickPolicy::Replay, Acknowledgement::Always);
    f.answer = Delivery::Coalesced;
    f.due(1);
    f.answer = Delivery::Delivered;

    let waited = f.wait();

    assert_eq!((waited, f.pulses), (5 * MS, 2));
    assert_eq!(f.ledger.deadline(), None);
}

#[test]
fn without_acknowledgements_what_was_delivered_counts_as_taken() {
    let mut f = fixture_with(TickPolicy::Replay, Acknowledgement::Never);
    f.due(1);
    f.answer = Delivery::Coalesced;
    f.due(1);
    f.answer = Delivery::Unknown;

    f.wait();

    assert_eq!(f.ledger.counters().delivered, 2);
    assert!(!f.ledger.is_offered());
}

#[test]
fn lateness_is_from_the_ticks_own_time() {
    let mut f = fixture(TickPolicy::Replay).warm();
    f.due(1);
    f.due(5);

    f.acknowledge();

    let counters = f.ledger.counters();
    assert_eq!(counters.largest_lateness, 40 * MS);
    assert_eq!(counters.lateness, [2, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_single_tick_is_shown_at_once_and_never_again() {
    let mut f = fixture(TickPolicy::Replay);
    f.ledger.stop();

    f.ledger.once(0, 0, || Delivery::Masked);

    assert_eq!(f.ledger.deadline(), None);
    assert_eq!(f.ledger.counters().dropped, 1);
}
