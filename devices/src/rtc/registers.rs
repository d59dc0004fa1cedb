//! The clock's registers, its three interrupts and its ports.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calendar::{Format, HOURS_24, TimeRegisters};
use super::clock::{ClockChanged, ClockSink, Moment, Offset, RtcBase};
use super::map::{
    A_RESET, ALARM, DIVIDER_RESET, EVENTS, INTERRUPT, PERIODIC, SET, SQUARE_WAVE, UPDATE,
    UPDATE_IN_PROGRESS, VALID, reg,
};
use super::nvram::{FirmwareFacts, Nvram};
use super::{PORTS, alarm, divider};
use crate::bus::Registers;
use crate::clock::{Clock, Nanos, Timeline, Timer, TimerClient};
use crate::interrupt::{Delivery, TickLine};
use crate::state::{StateError, Stateful};
use crate::ticks::{Acknowledgement, TickCounters, TickLedger, TickPolicy};

/// How long before the second changes [`UPDATE_IN_PROGRESS`] shows, in ns.
const UPDATE_WINDOW: u32 = 244_141;
/// The second after a divider reset is half as long.
const PHASE_AFTER_RESET: u32 = 500_000_000;
/// An alarm or update that met a busy interrupt controller is raised again after this time.
const RETRY: Nanos = 10_000_000;

/// The clock standing still.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    registers: TimeRegisters,
    /// Nanoseconds into the second at which it goes on.
    phase: u32,
    /// The guest has set some of it.
    changed: bool,
}

/// What a snapshot keeps of an [`Rtc`]: neither ticks that wait to be replayed nor what was
/// counted.
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
    /// What `offset` was before changes that nobody was told of.
    unreported: Option<Offset>,
}

/// The real-time clock.
pub struct Rtc {
    state: RtcState,
    /// Steps of the divider (by [`Clock::now`]) whose periodic events were booked.
    seen_steps: u64,
    time: Timeline,
    line: Arc<dyn TickLine>,
    /// What the line was driven to.
    level: bool,
    /// When to raise it again, because a controller was busy with the last interrupt.
    retry: Option<Nanos>,
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
            unreported: None,
        };
        Self {
            state,
            seen_steps: divider::steps(clock.now()),
            time: Timeline::new(clock, timer),
            line,
            level: false,
            retry: None,
            ledger: TickLedger::new(policy, Acknowledgement::Always),
            sink: None,
        }
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

    /// How many seconds the guest's clock is ahead of the host's UTC.
    #[must_use]
    pub fn offset_seconds(&self) -> i64 {
        self.state.offset.seconds
    }

    /// Puts the guest's clock `by` ns forward, or back: not the guest's doing, so nobody is told.
    /// A machine whose time goes on after a pause as if there had been none puts it back by the
    /// length of the pause.
    pub fn shift(&mut self, by: i64) {
        self.state.offset = self.state.offset.plus(by.into());
        self.state.unreported = self.state.unreported.map(|offset| offset.plus(by.into()));
        let now = self.advance();
        self.update(now);
    }

    /// Drops the ticks that wait to be replayed: the guest has learnt the time from elsewhere, as
    /// when it goes on after a pause that it is told of.
    pub fn forget_lost_ticks(&mut self) {
        let now = self.advance();
        self.ledger.forget();
        self.update(now);
    }

    /// What became of the periodic ticks until now.
    #[must_use]
    pub fn counters(&mut self) -> TickCounters {
        let now = self.advance();
        self.update(now);
        self.ledger.counters()
    }

    fn format(&self) -> Format {
        Format(self.state.b)
    }

    fn moment(&self) -> Moment {
        self.state.offset.apply(self.time.wall())
    }

    /// Steps of the divider between ticks: periodic events that interrupt.
    fn tick(&self) -> Option<u64> {
        divider::period(self.state.a).filter(|_| self.state.b & PERIODIC != 0)
    }

    /// Books every event until now, which it returns.
    fn advance(&mut self) -> Nanos {
        let now = self.time.now();
        let steps = divider::steps(now);
        if let Some(period) = divider::period(self.state.a) {
            let events = (steps / period).saturating_sub(self.seen_steps / period);
            if self.state.b & PERIODIC != 0 {
                self.ledger
                    .due(events, divider::nanos(steps - steps % period));
            } else if events > 0 {
                self.state.c |= PERIODIC;
            }
        }
        self.seen_steps = steps;
        self.advance_seconds();
        now
    }

    fn advance_seconds(&mut self) {
        if self.state.held.is_some() {
            return;
        }
        let second = self.moment().seconds;
        if second > self.state.seen {
            self.state.c |= UPDATE;
            if self.next_alarm().is_some_and(|alarm| alarm <= second) {
                self.state.c |= ALARM;
            }
        }
        if second != self.state.seen {
            self.state.seen = second;
            self.report();
        }
    }

    fn next_alarm(&self) -> Option<i64> {
        alarm::next(self.state.alarm, self.format(), self.state.seen)
    }

    /// Tells that the guest has set the clock, if it has: once it is done, and that is when it lets
    /// the clock run, or when the next second begins if it never stopped it.
    fn report(&mut self) {
        let Some(before) = self.state.unreported.take() else {
            return;
        };
        // What the guest was told by then does not have to be told by ticks.
        self.ledger.forget();
        let offset = self.state.offset.nanos();
        let step = offset - before.nanos();
        if let Some(sink) = self.sink.as_ref().filter(|_| step != 0) {
            sink.clock_changed(ClockChanged { offset, step });
        }
    }

    /// Shows the guest a tick if it is time, drives the line, and arms the timer for the next thing
    /// that the guest or the sink is to notice.
    fn update(&mut self, now: Nanos) {
        if !self.is_raised() {
            // Before it rises again.
            self.drive(false, now);
        }
        let again = self.ledger.is_offered();
        let (line, level, c) = (&self.line, &mut self.level, &mut self.state.c);
        self.ledger.serve(now, || {
            *c |= PERIODIC;
            if *level && !again {
                // Another event interrupted, and the guest will find this one with it.
                return Delivery::Delivered;
            }
            *level = true;
            line.raise()
        });
        let raised = self.is_raised();
        self.state.c = self.state.c & EVENTS | if raised { INTERRUPT } else { 0 };
        self.drive(raised, now);
        let awaited = self.state.b & !self.state.c & EVENTS;
        let deadlines = [
            self.tick_deadline(),
            self.ledger.deadline(),
            self.second_deadline(awaited),
            self.retry,
        ];
        self.time.arm(deadlines.into_iter().flatten().min());
    }

    /// Whether an enabled event waits for the guest.
    fn is_raised(&self) -> bool {
        self.state.c & self.state.b & EVENTS != 0
    }

    fn drive(&mut self, level: bool, now: Nanos) {
        if !level {
            self.retry = None;
            if std::mem::take(&mut self.level) {
                self.line.lower();
            }
            return;
        }
        let due = self.retry.is_some_and(|retry| retry <= now);
        if !self.level || due {
            self.level = true;
            let is_lost = self.line.raise() == Delivery::Coalesced;
            self.retry = is_lost.then(|| now.saturating_add(RETRY));
        }
    }

    /// When the next tick is, unless the guest has to take another one before: then it is booked
    /// when the guest does.
    fn tick_deadline(&self) -> Option<Nanos> {
        let period = self.tick().filter(|_| !self.ledger.is_offered())?;
        let next = (self.seen_steps / period).checked_add(1)?;
        Some(divider::nanos(next.checked_mul(period)?))
    }

    /// When the next second begins whose event is `awaited`, by [`Clock::now`].
    fn second_deadline(&self, awaited: u8) -> Option<Nanos> {
        let next = match awaited & (ALARM | UPDATE) {
            _ if self.state.unreported.is_some() => self.state.seen.checked_add(1)?,
            0 => return None,
            ALARM => self.next_alarm()?,
            _ => self.state.seen.checked_add(1)?,
        };
        let running = self.state.held.is_none();
        let distance = running.then(|| self.moment().until(next))?;
        self.time.now().checked_add(distance)
    }

    /// Tells the ledger what registers A and B say of ticks.
    fn set_ticks(&mut self, now: Nanos) {
        match self.tick() {
            None => self.ledger.stop(),
            Some(period) => {
                let starts = !self.ledger.is_running();
                self.ledger.set_period(divider::nanos(period));
                if starts && self.state.c & PERIODIC != 0 {
                    // It happened before the guest wanted to hear of it.
                    self.ledger.due(1, now);
                }
            }
        }
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
            held.changed = true;
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
        let offset = Offset::between(self.time.wall(), moment);
        let before = std::mem::replace(&mut self.state.offset, offset);
        self.state.unreported.get_or_insert(before);
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
                    changed: false,
                });
            }
            Some(held) if hold => {
                let phase = phase.unwrap_or(held.phase);
                self.state.held = Some(Held { phase, ..held });
            }
            Some(held) if held.changed || phase.is_some() => {
                self.run_from(held.registers, phase.unwrap_or(held.phase));
                self.report();
            }
            // Nothing was set, so the time is right as it would have gone on.
            Some(_) => self.state.seen = self.moment().seconds,
            None => {}
        }
    }

    /// Register C, which reading clears: the guest has taken the tick if there is one in it.
    fn take_events(&mut self, now: Nanos) -> u8 {
        let events = std::mem::take(&mut self.state.c);
        if events & PERIODIC != 0 {
            self.ledger.acknowledged(now);
        }
        events
    }

    fn read_register(&mut self, index: u8, now: Nanos) -> u8 {
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
            reg::C => self.take_events(now),
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
                    let now = self.advance();
                    self.update(now);
                    let byte = self.read_register(self.state.index, now);
                    self.update(now);
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
                    let now = self.advance();
                    self.write_register(self.state.index, byte);
                    self.set_ticks(now);
                    self.update(now);
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
        let now = self.advance();
        self.update(now);
    }
}

impl Stateful for Rtc {
    type State = RtcState;
    const KIND: &'static str = "rtc";
    const VERSION: u32 = 2;

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
        let now = self.time.now();
        self.seen_steps = divider::steps(now);
        self.hold_or_run(None);
        self.ledger.reset();
        self.set_ticks(now);
        self.line.lower();
        self.level = false;
        self.update(now);
        Ok(())
    }

    /// Time, alarm and memory have a battery and stay; but a clock that the guest had begun to set
    /// goes on as it was, since nobody will set it to the end.
    fn reset(&mut self) {
        self.advance();
        self.state.b &= !(SET | EVENTS | SQUARE_WAVE);
        if self.state.a & DIVIDER_RESET == DIVIDER_RESET {
            self.state.a = A_RESET;
        }
        self.state.c = 0;
        self.state.index = 0;
        self.state.extended_index = 0;
        if let Some(held) = &mut self.state.held {
            held.changed = false;
        }
        self.hold_or_run(None);
        self.ledger.reset();
        self.line.lower();
        self.level = false;
        self.update(self.time.now());
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
