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
