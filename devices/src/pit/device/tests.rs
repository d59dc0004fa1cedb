//! The counters as a guest programs them, and what comes out on the line.

use super::*;
use crate::clock::{FakeClock, FakeTimer};
use crate::interrupt::{Delivery, FakeLine};

struct Fixture {
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
    line: Arc<FakeLine>,
    pit: Pit,
}

fn fixture() -> Fixture {
    let (clock, timer, line) = (FakeClock::new(0), FakeTimer::new(), FakeLine::new());
    let pit = Pit::new(
        clock.clone(),
        timer.clone(),
        line.clone(),
        TickPolicy::Replay,
    );
    Fixture {
        clock,
        timer,
        line,
        pit,
    }
}

impl Fixture {
    /// Programs channel 0 in `mode` with `count`.
    fn program(&mut self, mode: u8, count: u16) {
        self.pit.write(CONTROL, &[0x30 | mode << 1]);
        for byte in count.to_le_bytes() {
            self.pit.write(0, &[byte]);
        }
    }

    /// Turns the clock to the deadline, and `late` further, and rings.
    fn ring(&mut self, late: Nanos) {
        let deadline = self.timer.deadline().unwrap();
        self.clock.advance(deadline - self.clock.now() + late);
        self.pit.expired();
    }
}

#[test]
fn nothing_is_armed_until_channel_0_is_programmed() {
    let mut f = fixture();
    f.pit.write(CONTROL, &[0xb6]);
    f.pit.write(2, &[0]);
    f.pit.write(2, &[4]);

    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn a_rate_generator_interrupts_without_drift() {
    let mut f = fixture();
    f.program(2, 11_932);

    for _ in 0..100 {
        f.ring(7_000);
        f.pit.acknowledged();
    }

    assert_eq!(f.line.edges(), 100);
    assert_eq!(f.clock.now() - 7_000, to_nanos(1 + 100 * 11_932));
}

#[test]
fn missed_periods_make_one_interrupt() {
    let mut f = fixture();
    f.program(2, 11_932);

    f.ring(1_000_000_000);

    assert_eq!(f.line.edges(), 1);
    assert!(f.timer.deadline().unwrap() > f.clock.now());
}

#[test]
fn a_terminal_count_interrupts_once() {
    let mut f = fixture();
    f.program(0, 1000);

    f.ring(0);

    assert_eq!(f.line.edges(), 1);
    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn the_fastest_guest_does_not_flood_the_host() {
    let mut f = fixture();
    f.program(2, 2);
    f.ring(0);

    let distance = f.timer.deadline().unwrap() - f.clock.now();

    assert!(distance >= 100_000, "{distance} ns");
}

#[test]
fn ticks_faster_than_the_floor_are_merged_and_counted() {
    for count in [1, 2, 3, 100] {
        let mut f = fixture();
        f.program(2, count);

        // A second and a bit, with a guest that takes every tick.
        while f.clock.now() < 1_000_000_000 {
            f.ring(0);
            f.pit.acknowledged();
        }

        let counters = f.pit.counters();
        assert!(
            (4_900..=10_000).contains(&f.line.edges()),
            "{count}: {counters:?}"
        );
        // The datasheet forbids 1, which is taken for 2.
        let due = (to_clocks(f.clock.now()) - 1) / u64::from(count.max(2));
        assert_eq!(counters.due, due, "{count}");
        assert_eq!(counters.due, counters.delivered + counters.dropped);
    }
}

#[test]
fn a_guest_that_never_stops_programming_gets_no_more_ticks_than_it_writes() {
    let mut f = fixture();
    f.pit.write(CONTROL, &[0x14]);

    for _ in 0..10_000 {
        f.pit.write(0, &[2]);
        f.clock.advance(1_000);
        f.pit.expired();
        f.pit.acknowledged();
    }

    assert!(f.line.edges() <= 1_000, "{} edges", f.line.edges());
    let counters = f.pit.counters();
    assert!(counters.backlog <= counters.due);
}

#[test]
fn a_missed_tick_follows_the_end_of_the_interrupt() {
    let mut f = fixture();
    f.program(2, 11_932);
    f.ring(0);
    f.pit.acknowledged();
    f.ring(35_000_000);
    let before = f.line.edges();

    f.pit.acknowledged();
    f.ring(0);

    assert_eq!((before, f.line.edges()), (2, 3));
    assert_eq!(f.pit.counters().backlog, 2);
}

#[test]
fn a_terminal_count_is_never_made_good() {
    let mut f = fixture();
    f.program(0, 1000);
    f.line.answer(Delivery::Coalesced);

    f.ring(50_000_000);

    assert_eq!(f.timer.deadline(), None);
    assert_eq!(f.pit.counters().dropped, 1);
}

#[test]
fn a_timer_that_is_set_anew_waits_for_no_old_acknowledgement() {
    let mut f = fixture();
    f.program(2, 11_932);
    f.ring(0);

    f.program(2, 11_932);
    f.ring(0);

    assert_eq!(f.line.edges(), 2);
}

#[test]
fn a_missed_tick_survives_another_divisor() {
    let mut f = fixture();
    f.program(2, 11_932);
    f.ring(0);
    f.pit.acknowledged();
    f.ring(100_000_000);
    let before = f.pit.counters().backlog;

    f.program(2, 2 * 11_932);

    // Nine of 10 ms are four of 20 ms and a rest, and one is shown at once.
    assert_eq!((before, f.pit.counters().backlog), (9, 3));
}

#[test]
fn a_restore_drops_what_was_to_be_replayed() {
    let mut f = fixture();
    f.program(2, 11_932);
    f.ring(100_000_000);
    let saved = f.pit.save();
    let mut other = fixture();

    other.pit.restore(saved).unwrap();

    assert_eq!(other.pit.counters().backlog, 0);
    assert!(other.timer.deadline().unwrap() > 0);
    other.ring(0);
    assert_eq!(other.line.edges(), 1);
}

#[test]
fn an_early_ring_does_nothing() {
    let mut f = fixture();
    f.program(2, 11_932);
    let deadline = f.timer.deadline();

    f.pit.expired();

    assert_eq!(f.line.edges(), 0);
    assert_eq!(f.timer.deadline(), deadline);
}

#[test]
fn port_b_gates_and_shows_channel_2() {
    let mut f = fixture();
    f.pit.write(CONTROL, &[0xb0]);
    f.pit.write(2, &[100]);
    f.pit.write(2, &[0]);
    let clock = Arc::clone(&f.clock);
    let pit = Arc::new(Mutex::new(f.pit));
    let port = ControlPortB(Arc::clone(&pit));
    let read = || {
        let mut data = [0];
        port.read(0, &mut data);
        data[0] & !REFRESH
    };
    clock.advance(1_000_000);
    let shut = read();

    port.write(0, &[GATE2]);
    let open = read();
    clock.advance(100_000);

    assert_eq!([shut, open, read()], [0, GATE2, GATE2 | OUT2]);
}

#[test]
fn the_read_back_command_latches_several_channels() {
    let mut f = fixture();
    f.program(2, 1000);
    let mut data = [0];

    f.pit.write(CONTROL, &[0xc0 | NO_COUNT | 0b1010]);
    f.pit.read(0, &mut data);
    let first = data[0];
    f.pit.read(2, &mut data);

    assert_eq!(first & 0x3f, 0x34);
    assert_eq!(data[0] & 0x40, 0x40);
}

#[test]
fn counts_go_on_after_a_restore_under_another_clock() {
    let mut f = fixture();
    f.clock.advance(500_000_000);
    f.program(0, 50_000);
    f.clock.advance(20_000_000);
    let left = f.timer.deadline().unwrap() - f.clock.now();
    let saved = f.pit.save();
    let mut other = fixture();

    other.pit.restore(saved).unwrap();

    assert_eq!(other.timer.deadline(), Some(left));
}
