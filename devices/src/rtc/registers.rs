//! The clock's registers, its three interrupts and its ports.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PORTS;
use super::calendar::{Format, HOURS_24, TimeRegisters};
use super::clock::{ClockSink, Moment, Offset, RtcBase};
use super::nvram::{FirmwareFacts, Nvram};
use crate::bus::Registers;
use crate::clock::{Clock, Nanos, Timeline, Timer, TimerClient};
use crate::interrupt::TickLine;
use crate::state::{StateError, Stateful};
use crate::ticks::{Acknowledgement, TickCounters, TickLedger, TickPolicy};

/// Registers by their index.
mod reg {
    pub(super) const SECOND: u8 = 0x00;
    pub(super) const SECOND_ALARM: u8 = 0x01;
    pub(super) const MINUTE: u8 = 0x02;
    pub(super) const MINUTE_ALARM: u8 = 0x03;
    pub(super) const HOUR: u8 = 0x04;
    pub(super) const HOUR_ALARM: u8 = 0x05;
    pub(super) const WEEKDAY: u8 = 0x06;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const C: u8 = 0x0c;
    pub(super) const D: u8 = 0x0d;
    pub(super) const CENTURY: u8 = 0x32;
    /// The century's place on a PS/2; the same register.
    pub(super) const CENTURY_PS2: u8 = 0x37;
}

/// Register A: an update is about to happen, so the time may change while it is read.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register A: with both of these the divider is held in reset, and the clock stands still.
const DIVIDER_RESET: u8 = 0b11 << 5;
/// Register A after power-on: 32,768 Hz, 1,024 periodic events a second.
const A_RESET: u8 = 0x26;
/// How long before the second changes [`UPDATE_IN_PROGRESS`] shows.
const UPDATE_WINDOW: u32 = 244_141;

/// Register B: the clock stands still so that it can be set.
const SET: u8 = 1 << 7;
/// Register B and C: the periodic event.
const PERIODIC: u8 = 1 << 6;
/// Register B and C: the alarm.
const ALARM: u8 = 1 << 5;
/// Register B and C: the second changed.
const UPDATE: u8 = 1 << 4;
/// Register B: the square wave output, which is wired to nothing.
const SQUARE_WAVE: u8 = 1 << 3;
/// The three events.
const EVENTS: u8 = PERIODIC | ALARM | UPDATE;
/// Register C: an enabled event happened.
const INTERRUPT: u8 = 1 << 7;

/// Register D: the battery is good.
const VALID: u8 = 1 << 7;
/// In an alarm register, from here on: any value matches.
const DONT_CARE: u8 = 0xc0;

/// Frequency of the divider's input in Hz.
const HZ: u128 = 32_768;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// The second after a divider reset is half as long.
const PHASE_AFTER_RESET: u32 = 500_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// The clock standing still.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    registers: TimeRegisters,
    /// Nanoseconds into the second at which it goes on.
    phase: u32,
}

/// What a snapshot keeps of an [`Rtc`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtcState {
    index: u8,
    extended_index: u8,
    a: u8,
    b: u8,
    c: u8,
    /// Second, minute and hour of the alarm.
    alarm: [u8; 3],
    nvram: Nvram,
    offset: Offset,
    held: Option<Held>,
    /// The last second whose events are in register C.
    seen: i64,
}

/// The real-time clock.
pub struct Rtc {
    state: RtcState,
    /// Divider ticks (of 32,768 Hz, by [`Clock::now`]) whose periodic events are in register C.
    seen_ticks: u64,
    time: Timeline,
    line: Arc<dyn TickLine>,
    level: bool,
    ledger: TickLedger,
    sink: Option<Arc<dyn ClockSink>>,
}

impl Rtc {
    /// A clock that starts at `base`, with an empty memory, and makes good by `policy` what
    /// periodic ticks the guest could not take. `timer` must call [`TimerClient::expired`].
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
        line: Arc<dyn TickLine>,
        base: RtcBase,
        policy: TickPolicy,
    ) -> Self {
        let offset = Offset::of(base, clock.wall());
        let state = RtcState {
            index: 0,
            extended_index: 0,
            a: A_RESET,
            b: HOURS_24,
            c: 0,
            alarm: [0; 3],
            nvram: Nvram::new(),
            offset,
            held: None,
            seen: offset.apply(clock.wall()).seconds,
        };
        let mut rtc = Self {
            state,
            seen_ticks: 0,
            time: Timeline::new(clock, timer),
            line,
            level: false,
            ledger: TickLedger::new(policy, Acknowledgement::Always),
            sink: None,
        };
        rtc.seen_ticks = rtc.ticks();
        rtc
    }

    /// Writes `facts` of the machine where firmware looks for them.
    pub fn describe(&mut self, facts: &FirmwareFacts) {
        self.state.nvram.describe(facts);
    }

    /// Sets a byte of the battery-backed memory; 128 and up are behind ports 0x72 and 0x73.
    pub fn set_nvram(&mut self, index: u8, byte: u8) {
        self.state.nvram.set(index, byte);
    }

    /// Tells `sink` from now on when the guest has set the clock.
    pub fn report_to(&mut self, sink: Arc<dyn ClockSink>) {
        self.sink = Some(sink);
    }

    /// Drops the ticks that wait to be replayed: the guest has learnt the time from elsewhere, as
    /// when it goes on after a pause that it is told of.
    pub fn forget_lost_ticks(&mut self) {
        self.ledger.forget();
    }

    /// What became of the periodic ticks.
    #[must_use]
    pub fn counters(&self) -> TickCounters {
        self.ledger.counters()
    }

    fn drive(&mut self, level: bool) {
        if level && !self.level {
            self.line.raise();
        } else if !level {
            self.line.lower();
        }
        self.level = level;
    }

    /// How many seconds the guest's clock is ahead of the host's UTC.
    #[must_use]
    pub fn offset_seconds(&self) -> i64 {
        self.state.offset.seconds
    }

    fn format(&self) -> Format {
        Format(self.state.b)
    }

    fn moment(&self) -> Moment {
        self.state.offset.apply(self.time.wall())
    }

    fn ticks(&self) -> u64 {
        (u128::from(self.time.now()) * HZ / NANOS_PER_SECOND) as u64
    }

    /// Divider ticks between periodic events, if there are any.
    fn period(&self) -> Option<u64> {
        let running = self.state.a & DIVIDER_RESET != DIVIDER_RESET;
        match self.state.a & 0xf {
            _ if !running => None,
            0 => None,
            // The two fastest codes stand for the rates of codes 8 and 9.
            code @ 1..=2 => Some(1 << (code + 6)),
            code => Some(1 << (code - 1)),
        }
    }

    /// Notes every event until now in register C.
    fn advance(&mut self) {
        let ticks = self.ticks();
        if let Some(period) = self.period()
            && ticks / period != self.seen_ticks / period
        {
            self.state.c |= PERIODIC;
        }
        self.seen_ticks = ticks;
        if self.state.held.is_some() {
            return;
        }
        let now = self.moment().seconds;
        if now > self.state.seen {
            self.state.c |= UPDATE;
            if self.next_alarm().is_some_and(|alarm| alarm <= now) {
                self.state.c |= ALARM;
            }
        }
        self.state.seen = now;
    }

    /// The first second after the last one seen that matches the alarm.
    fn next_alarm(&self) -> Option<i64> {
        let format = self.format();
        let [second, minute, hour] = self.state.alarm;
        let matches = |register: u8, decoded: u8, value: i64| {
            register >= DONT_CARE || i64::from(decoded) == value
        };
        let from = self.state.seen.checked_add(1)?;
        let (mut day, mut of_day) = (
            from.div_euclid(SECONDS_PER_DAY),
            from.rem_euclid(SECONDS_PER_DAY),
        );
        // Skips to the start of the next hour, minute or second that may match; a day and a bit
        // has been searched when it comes by the same time again.
        for _ in 0..2 * (24 + 60 + 60) {
            if !matches(hour, format.decode_hour(hour), of_day / 3600) {
                of_day = (of_day / 3600 + 1) * 3600;
            } else if !matches(minute, format.decode(minute), of_day / 60 % 60) {
                of_day = (of_day / 60 + 1) * 60;
            } else if !matches(second, format.decode(second), of_day % 60) {
                of_day += 1;
            } else {
                return day.checked_mul(SECONDS_PER_DAY)?.checked_add(of_day);
            }
            if of_day >= SECONDS_PER_DAY {
                (day, of_day) = (day + 1, of_day - SECONDS_PER_DAY);
            }
        }
        None
    }

    /// Drives the line and arms the timer for the next event that would raise it.
    fn update(&mut self) {
        let raised = self.state.c & self.state.b & EVENTS != 0;
        self.state.c = self.state.c & EVENTS | if raised { INTERRUPT } else { 0 };
        self.drive(raised);
        let awaited = self.state.b & !self.state.c & EVENTS;
        let deadlines = [
            self.periodic_deadline().filter(|_| awaited & PERIODIC != 0),
            self.second_deadline(awaited),
        ];
        self.time.arm(deadlines.into_iter().flatten().min());
    }

    /// When the next periodic event is, by [`Clock::now`].
    fn periodic_deadline(&self) -> Option<Nanos> {
        let period = u128::from(self.period()?);
        let tick = (u128::from(self.seen_ticks) / period + 1) * period;
        Nanos::try_from((tick * NANOS_PER_SECOND).div_ceil(HZ)).ok()
    }

    /// When the next second begins whose event is `awaited`, by [`Clock::now`].
    fn second_deadline(&self, awaited: u8) -> Option<Nanos> {
        let next = match awaited & (ALARM | UPDATE) {
            0 => return None,
            ALARM => self.next_alarm()?,
            _ => self.state.seen.checked_add(1)?,
        };
        let running = self.state.held.is_none();
        let distance = running.then(|| self.moment().until(next))?;
        self.time.now().checked_add(distance)
    }

    fn time_registers(&self) -> TimeRegisters {
        match self.state.held {
            Some(held) => held.registers,
            None => TimeRegisters::from_seconds(self.moment().seconds, self.format()),
        }
    }

    /// Changes one of the time registers.
    fn set_time(&mut self, change: impl FnOnce(&mut TimeRegisters)) {
        let mut registers = self.time_registers();
        change(&mut registers);
        if let Some(held) = &mut self.state.held {
            held.registers = registers;
        } else {
            let phase = self.moment().nanos;
            self.run_from(registers, phase);
        }
    }

    /// Goes on from the time in `registers`, `phase` nanoseconds into the second.
    fn run_from(&mut self, registers: TimeRegisters, phase: u32) {
        let moment = Moment {
            seconds: registers.to_seconds(self.format()),
            nanos: phase,
        };
        self.state.offset = Offset::between(self.time.wall(), moment);
        self.state.seen = moment.seconds;
    }

    /// Stops or restarts the clock as registers A and B say by now.
    fn hold_or_run(&mut self, phase: Option<u32>) {
        let hold = self.state.b & SET != 0 || self.state.a & DIVIDER_RESET == DIVIDER_RESET;
        match self.state.held.take() {
            None if hold => {
                self.state.held = Some(Held {
                    registers: self.time_registers(),
                    phase: self.moment().nanos,
                });
            }
            Some(held) if hold => self.state.held = Some(held),
            Some(held) => self.run_from(held.registers, phase.unwrap_or(held.phase)),
            None => {}
        }
    }

    fn read_register(&mut self, index: u8) -> u8 {
        let time = self.time_registers();
        match index {
            reg::SECOND => time.second,
            reg::SECOND_ALARM => self.state.alarm[0],
            reg::MINUTE => time.minute,
            reg::MINUTE_ALARM => self.state.alarm[1],
            reg::HOUR => time.hour,
            reg::HOUR_ALARM => self.state.alarm[2],
            reg::WEEKDAY => time.weekday,
            reg::DAY => time.day,
            reg::MONTH => time.month,
            reg::YEAR => time.year,
            reg::CENTURY | reg::CENTURY_PS2 => time.century,
            reg::A => self.state.a | self.update_in_progress(),
            reg::B => self.state.b,
            reg::C => std::mem::take(&mut self.state.c),
            reg::D => VALID,
            _ => self.state.nvram.get(index),
        }
    }

    fn update_in_progress(&self) -> u8 {
        let soon = self.moment().nanos >= 1_000_000_000 - UPDATE_WINDOW;
        if soon && self.state.held.is_none() {
            UPDATE_IN_PROGRESS
        } else {
            0
        }
    }

    fn write_register(&mut self, index: u8, byte: u8) {
        match index {
            reg::SECOND => self.set_time(|time| time.second = byte),
            reg::SECOND_ALARM => self.state.alarm[0] = byte,
            reg::MINUTE => self.set_time(|time| time.minute = byte),
            reg::MINUTE_ALARM => self.state.alarm[1] = byte,
            reg::HOUR => self.set_time(|time| time.hour = byte),
            reg::HOUR_ALARM => self.state.alarm[2] = byte,
            reg::WEEKDAY => self.set_time(|time| time.weekday = byte),
            reg::DAY => self.set_time(|time| time.day = byte),
            reg::MONTH => self.set_time(|time| time.month = byte),
            reg::YEAR => self.set_time(|time| time.year = byte),
            reg::CENTURY | reg::CENTURY_PS2 => self.set_time(|time| time.century = byte),
            reg::A => {
                let was_reset = self.state.a & DIVIDER_RESET == DIVIDER_RESET;
                self.state.a = byte & !UPDATE_IN_PROGRESS;
                self.hold_or_run(was_reset.then_some(PHASE_AFTER_RESET));
            }
            reg::B => {
                // Setting the clock silences its updates.
                let silenced = if byte & SET != 0 { UPDATE } else { 0 };
                if byte & SET != 0 {
                    // The time is held in the format it was running in.
                    self.state.b |= SET;
                    self.hold_or_run(None);
                }
                self.state.b = byte & !silenced;
                self.hold_or_run(None);
            }
            reg::C | reg::D => {}
            _ => self.state.nvram.set(index, byte),
        }
    }
}

impl Registers for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        for (port, byte) in (offset..PORTS.into()).zip(data) {
            *byte = match port {
                1 => {
                    self.advance();
                    let byte = self.read_register(self.state.index);
                    self.update();
                    byte
                }
                2 => self.state.extended_index,
                3 => self.state.nvram.get(self.state.extended_index | 0x80),
                _ => 0xff,
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (port, &byte) in (offset..PORTS.into()).zip(data) {
            match port {
                // Bit 7 masks the NMI, of which there is none.
                0 => self.state.index = byte & 0x7f,
                1 => {
                    self.advance();
                    self.write_register(self.state.index, byte);
                    self.update();
                }
                2 => self.state.extended_index = byte & 0x7f,
                _ => self.state.nvram.set(self.state.extended_index | 0x80, byte),
            }
        }
    }
}

impl TimerClient for Rtc {
    fn expired(&mut self) {
        self.time.rang();
        self.advance();
        self.update();
    }
}

impl Stateful for Rtc {
    type State = RtcState;
    const KIND: &'static str = "rtc";
    const VERSION: u32 = 1;

    fn save(&self) -> RtcState {
        self.state.clone()
    }

    /// The clock goes on from the host's time by the saved offset, so a guest that was asleep
    /// finds the right time.
    fn restore(&mut self, state: RtcState) -> Result<(), StateError> {
        self.state = RtcState {
            index: state.index & 0x7f,
            extended_index: state.extended_index & 0x7f,
            a: state.a & !UPDATE_IN_PROGRESS,
            ..state
        };
        self.time.rang();
        self.seen_ticks = self.ticks();
        self.hold_or_run(None);
        self.level = false;
        self.drive(self.state.c & self.state.b & EVENTS != 0);
        self.update();
        Ok(())
    }

    /// Time, alarm and memory have a battery and stay.
    fn reset(&mut self) {
        self.advance();
        self.state.b &= !(EVENTS | SQUARE_WAVE);
        self.state.c = 0;
        self.state.index = 0;
        self.state.extended_index = 0;
        self.drive(false);
        self.update();
    }
}

#[cfg(test)]
mod tests;

crate::state_tests!(
    rtc_state,
    Rtc::new(
        crate::clock::FakeClock::new(5_000_000_000),
        crate::clock::FakeTimer::new(),
        crate::interrupt::FakeLine::new(),
        RtcBase::Utc,
        TickPolicy::Replay,
    ),
    |rtc: &mut Rtc| {
        rtc.write(0, &[reg::B]);
        rtc.write(1, &[HOURS_24 | PERIODIC]);
        rtc.write(2, &[3]);
    }
);
