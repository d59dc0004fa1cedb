//! The clock as a guest reads and sets it.

use super::*;
use crate::clock::{FakeClock, FakeTimer};
use crate::interrupt::FakeLine;

const SECOND: Nanos = 1_000_000_000;
/// 2026-11-21 16:05:09.25 UTC.
const WALL: Nanos = 1_795_277_109 * SECOND + SECOND / 4;

struct Fixture {
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
    line: Arc<FakeLine>,
    rtc: Rtc,
}

fn fixture() -> Fixture {
    fixture_at(RtcBase::Utc)
}

fn fixture_at(base: RtcBase) -> Fixture {
    let clock = FakeClock::new(WALL);
    let timer = FakeTimer::new();
    let line = FakeLine::new();
    let rtc = Rtc::new(
        clock.clone(),
        timer.clone(),
        line.clone(),
        base,
        TickPolicy::Replay,
    );
    Fixture {
        clock,
        timer,
        line,
        rtc,
    }
}

impl Fixture {
    fn get(&mut self, index: u8) -> u8 {
        let mut data = [0];
        self.rtc.write(0, &[index]);
        self.rtc.read(1, &mut data);
        data[0]
    }

    fn put(&mut self, index: u8, byte: u8) {
        self.rtc.write(0, &[index]);
        self.rtc.write(1, &[byte]);
    }

    fn time(&mut self) -> [u8; 3] {
        [reg::HOUR, reg::MINUTE, reg::SECOND].map(|index| self.get(index))
    }

    /// Turns the clock to the timer's deadline and rings; gives the time that passed.
    fn ring(&mut self) -> Nanos {
        let passed = self.timer.deadline().unwrap() - self.clock.now();
        self.clock.advance(passed);
        self.rtc.expired();
        passed
    }
}

#[test]
fn the_time_is_the_hosts_with_the_base_added() {
    let utc = fixture().time();
    let local = fixture_at(RtcBase::Local { utc_offset: 3600 }).time();
    let date = fixture_at(RtcBase::Date { seconds: 86_399 }).time();

    assert_eq!(utc, [0x16, 0x05, 0x09]);
    assert_eq!(local, [0x17, 0x05, 0x09]);
    assert_eq!(date, [0x23, 0x59, 0x59]);
}

#[test]
fn update_in_progress_shows_just_before_the_second() {
    let mut f = fixture();
    f.clock.advance(SECOND * 3 / 4 - 300_000);
    let early = f.get(reg::A);

    f.clock.advance(100_000);

    assert_eq!(early, A_RESET);
    assert_eq!(f.get(reg::A), A_RESET | UPDATE_IN_PROGRESS);
}

#[test]
fn periodic_events_keep_to_their_grid() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | PERIODIC);
    for _ in 0..1024 {
        f.ring();
        f.clock.advance(100_000);
        f.get(reg::C);
    }

    assert_eq!(f.clock.now(), SECOND + 100_000);
    assert_eq!(f.line.edges(), 1024);
}

#[test]
fn the_timer_is_idle_while_an_event_waits_for_the_guest() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | PERIODIC);

    f.ring();

    assert!(f.line.level());
    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn reading_register_c_lowers_the_line() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | UPDATE);
    f.ring();

    let c = f.get(reg::C);

    assert_eq!(c & (INTERRUPT | UPDATE), INTERRUPT | UPDATE);
    assert!(!f.line.level());
    assert_eq!(f.get(reg::C), 0);
}

#[test]
fn the_update_event_comes_when_the_second_changes() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | UPDATE);

    let passed = f.ring();

    assert_eq!(passed, SECOND * 3 / 4);
    assert_eq!(f.time(), [0x16, 0x05, 0x10]);
}

#[test]
fn the_alarm_rings_at_its_time() {
    let mut f = fixture();
    f.put(reg::HOUR_ALARM, 0x04);
    f.put(reg::MINUTE_ALARM, 0x30);
    f.put(reg::SECOND_ALARM, 0x00);
    f.put(reg::B, HOURS_24 | ALARM);

    f.ring();

    assert!(f.line.level());
    assert_eq!(f.time(), [0x04, 0x30, 0x00]);
}

#[test]
fn an_alarm_can_match_every_minute() {
    let mut f = fixture();
    f.put(reg::HOUR_ALARM, 0xff);
    f.put(reg::MINUTE_ALARM, 0xc0);
    f.put(reg::SECOND_ALARM, 0x07);
    f.put(reg::B, HOURS_24 | ALARM);

    f.ring();

    assert_eq!(f.time(), [0x16, 0x06, 0x07]);
}

#[test]
fn an_impossible_alarm_never_rings() {
    let mut f = fixture();
    f.put(reg::MINUTE_ALARM, 0x77);

    f.put(reg::B, HOURS_24 | ALARM);

    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn the_clock_stands_still_while_it_is_set() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | SET);
    f.put(reg::HOUR, 0x23);
    f.put(reg::MINUTE, 0x59);
    f.put(reg::SECOND, 0x58);
    f.clock.advance(10 * SECOND);
    let held = f.time();

    f.put(reg::B, HOURS_24);
    f.clock.advance(SECOND);

    assert_eq!(held, [0x23, 0x59, 0x58]);
    assert_eq!(f.time(), [0x23, 0x59, 0x59]);
}

#[test]
fn the_first_second_after_a_divider_reset_is_half() {
    let mut f = fixture();
    f.put(reg::A, DIVIDER_RESET | 6);
    f.clock.advance(5 * SECOND);
    f.put(reg::A, A_RESET);

    f.clock.advance(SECOND / 2);

    assert_eq!(f.time(), [0x16, 0x05, 0x10]);
}

#[test]
fn enabling_an_event_that_happened_interrupts_at_once() {
    let mut f = fixture();
    f.clock.advance(2 * SECOND);

    f.put(reg::B, HOURS_24 | UPDATE);

    assert!(f.line.level());
}

#[test]
fn the_memory_survives_a_reset() {
    let mut f = fixture();
    f.put(0x0f, 5);
    f.rtc.write(2, &[0x7f]);
    f.rtc.write(3, &[9]);

    f.rtc.reset();

    let mut data = [0];
    f.rtc.write(2, &[0x7f]);
    f.rtc.read(3, &mut data);
    assert_eq!((f.get(0x0f), data[0]), (5, 9));
}

#[test]
fn the_index_port_reads_as_ones() {
    let mut data = [0];

    fixture().rtc.read(0, &mut data);

    assert_eq!(data, [0xff]);
}

/// What a sink was told.
#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<ClockChanged>>);

impl ClockSink for Told {
    fn clock_changed(&self, change: ClockChanged) {
        self.0.lock().push(change);
    }
}

impl Fixture {
    /// The sink that is told from now on.
    fn listen(&mut self) -> Arc<Told> {
        let told = Arc::<Told>::default();
        self.rtc.report_to(told.clone());
        told
    }

    /// Starts ticks at 1,024 Hz.
    fn tick(&mut self) {
        self.put(reg::B, HOURS_24 | PERIODIC);
    }

    /// Lets `ticks` periods pass, and then rings.
    fn miss(&mut self, ticks: u64) {
        self.clock.advance(ticks * SECOND / 1024);
        self.rtc.expired();
    }
}

#[test]
fn a_tick_that_came_too_early_follows_the_read_of_register_c() {
    let mut f = fixture();
    f.tick();
    f.ring();
    f.miss(3);
    let before = f.line.edges();
    f.get(reg::C);
    let lowered = !f.line.level();

    let pause = f.ring();

    assert!(lowered && f.line.level());
    assert_eq!((before, f.line.edges()), (1, 2));
    assert!(pause <= SECOND / 1024 / 8);
    assert_eq!(f.get(reg::C) & PERIODIC, PERIODIC);
}

#[test]
fn every_missed_tick_is_read_once() {
    let mut f = fixture();
    f.tick();
    f.miss(100);

    let mut read = 0;
    for _ in 0..1000 {
        read += u64::from(f.get(reg::C) & PERIODIC != 0);
        if f.rtc.counters().backlog == 0 {
            break;
        }
        f.ring();
    }

    assert!(read >= 100);
    assert_eq!(f.rtc.counters().due, read);
}

#[test]
fn ticks_that_are_switched_off_are_forgotten() {
    let mut f = fixture();
    f.tick();
    f.miss(100);

    f.put(reg::B, HOURS_24);

    let counters = f.rtc.counters();
    assert_eq!((counters.backlog, counters.dropped), (0, 99));
    assert!(!f.line.level());
    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn missed_ticks_keep_their_time_at_another_rate() {
    let mut f = fixture();
    f.tick();
    f.miss(101);

    // 64 Hz.
    f.put(reg::A, 0x2a);

    // 100 of 1/1,024 s are six of 1/64 s and a rest.
    assert_eq!(f.rtc.counters().backlog, 6);
}

#[test]
fn a_polled_periodic_flag_needs_no_interrupt() {
    let mut f = fixture();
    f.clock.advance(SECOND / 1024 + 1);

    let flags = [f.get(reg::C), f.get(reg::C)];

    assert_eq!(flags.map(|c| c & PERIODIC), [PERIODIC, 0]);
    assert_eq!(f.line.edges(), 0);
}

#[test]
fn a_tick_needs_no_edge_of_its_own_while_another_event_interrupts() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | UPDATE | PERIODIC);
    f.clock.advance(SECOND);
    f.rtc.expired();

    let c = f.get(reg::C);

    assert_eq!(c & EVENTS, UPDATE | PERIODIC);
    assert_eq!(f.line.edges(), 1);
}

#[test]
fn an_update_that_met_a_busy_controller_is_raised_again() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | UPDATE);
    f.line.answer(Delivery::Coalesced);
    f.ring();
    f.line.answer(Delivery::Delivered);

    let waited = f.ring();

    assert_eq!((waited, f.line.edges()), (RETRY, 2));
    assert!(
        f.timer
            .deadline()
            .is_none_or(|deadline| deadline > f.clock.now() + RETRY)
    );
}

#[test]
fn a_restore_drops_what_was_to_be_replayed() {
    let mut f = fixture();
    f.tick();
    f.miss(100);
    let saved = f.rtc.save();
    let mut other = fixture();

    other.rtc.restore(saved).unwrap();

    // The one that the guest had not read is there still.
    assert_eq!(other.rtc.counters().backlog, 0);
    assert_eq!(other.get(reg::C) & PERIODIC, PERIODIC);
    assert_eq!(other.get(reg::C) & PERIODIC, 0);
}

#[test]
fn setting_the_clock_is_told_once_when_it_is_done() {
    let mut f = fixture();
    let told = f.listen();
    f.put(reg::B, HOURS_24 | SET);
    f.put(reg::HOUR, 0x17);
    f.put(reg::MINUTE, 0x06);
    let early = told.0.lock().len();

    f.put(reg::B, HOURS_24);

    let step = 3660 * i128::from(SECOND);
    assert_eq!(early, 0);
    assert_eq!(*told.0.lock(), [ClockChanged { offset: step, step }]);
}

#[test]
fn setting_a_running_clock_is_told_once_when_the_second_ends() {
    let mut f = fixture();
    let told = f.listen();
    f.put(reg::HOUR, 0x15);
    f.put(reg::MINUTE, 0x04);
    let early = told.0.lock().len();

    f.ring();

    let step = -3660 * i128::from(SECOND);
    assert_eq!(early, 0);
    assert_eq!(*told.0.lock(), [ClockChanged { offset: step, step }]);
    assert_eq!(f.timer.deadline(), None);
}

#[test]
fn setting_the_clock_to_what_it_shows_is_no_change() {
    let mut f = fixture();
    let told = f.listen();
    f.put(reg::B, HOURS_24 | SET);
    f.put(reg::HOUR, 0x16);

    f.put(reg::B, HOURS_24);

    assert!(told.0.lock().is_empty());
}

#[test]
fn setting_the_clock_forgets_missed_ticks() {
    let mut f = fixture();
    f.tick();
    f.miss(100);
    f.put(reg::B, HOURS_24 | PERIODIC | SET);
    f.put(reg::HOUR, 0x17);

    f.put(reg::B, HOURS_24 | PERIODIC);

    assert_eq!(f.rtc.counters().backlog, 0);
}

#[test]
fn a_clock_that_was_only_looked_at_while_it_stood_is_right() {
    let mut f = fixture();
    f.put(reg::B, HOURS_24 | SET);
    f.clock.advance(10 * SECOND);

    f.put(reg::B, HOURS_24);

    assert_eq!(f.time(), [0x16, 0x05, 0x19]);
}

#[test]
fn a_reset_undoes_a_setting_that_was_not_ended() {
    let mut f = fixture();
    let told = f.listen();
    f.put(reg::A, DIVIDER_RESET | 6);
    f.put(reg::B, HOURS_24 | SET);
    f.put(reg::HOUR, 0x03);
    f.clock.advance(10 * SECOND);

    f.rtc.reset();

    assert_eq!(f.time(), [0x16, 0x05, 0x19]);
    assert!(told.0.lock().is_empty());
}

#[test]
fn a_shifted_clock_tells_nobody() {
    let mut f = fixture();
    let told = f.listen();

    f.rtc.shift(-10 * SECOND as i64);
    f.clock.advance(2 * SECOND);

    assert_eq!(f.time(), [0x16, 0x05, 0x01]);
    assert!(told.0.lock().is_empty());
}

#[test]
fn ticks_keep_their_divider_when_the_clock_is_set() {
    let mut f = fixture();
    f.tick();
    f.put(reg::SECOND, 0x30);

    let passed = f.ring();

    assert_eq!(passed, (SECOND).div_ceil(1024));
}

#[test]
fn a_guest_in_12_hours_sets_the_afternoon() {
    let mut f = fixture();
    f.put(reg::B, SET);
    f.put(reg::HOUR, 0x91);
    f.put(reg::B, 0);
    let twelve = f.get(reg::HOUR);

    f.put(reg::B, HOURS_24);

    assert_eq!((twelve, f.get(reg::HOUR)), (0x91, 0x23));
}

#[test]
fn both_places_of_the_century_are_one() {
    let mut f = fixture();

    f.put(reg::CENTURY_PS2, 0x19);

    assert_eq!((f.get(reg::CENTURY), f.get(reg::CENTURY_PS2)), (0x19, 0x19));
}
