//! The three counters behind their ports, and port 0x61.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::HZ;
use super::channel::ChannelState;
use super::element::{Clocks, Rises};
use super::mode::Control;
use crate::bus::{BusDevice, Registers};
use crate::clock::{Clock, Nanos, Timeline, Timer, TimerClient};
use crate::interrupt::TickLine;
use crate::state::{StateError, Stateful};
use crate::ticks::{Acknowledgement, TickCounters, TickLedger, TickPolicy};

/// Offset of the control word from port 0x40.
const CONTROL: u64 = 3;
/// Control word, bits 7:6: read back several channels.
const READ_BACK: u8 = 3;
/// Read-back command: do not latch the counts.
const NO_COUNT: u8 = 1 << 5;
/// Read-back command: do not latch the statuses.
const NO_STATUS: u8 = 1 << 4;

/// Port B: gate of channel 2.
const GATE2: u8 = 1 << 0;
/// Port B: what a guest may write beside the gate: the speaker, which is wired to nothing, and the
/// masks of two errors that never happen.
const PORT_B_KEPT: u8 = 0b1110;
/// Port B: changes with every refresh of the memory.
const REFRESH: u8 = 1 << 4;
/// Port B: output of channel 2.
const OUT2: u8 = 1 << 5;
/// Time between two refreshes.
const REFRESH_PERIOD: Nanos = 15_085;

/// The shortest period of ticks in clocks, just over 100 µs: what a guest can make the host do is
/// bounded.
const FLOOR: u32 = 120;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Clocks of the counters' input in `nanos`.
fn to_clocks(nanos: Nanos) -> Clocks {
    // The frequency is below 2^30 Hz, so the result is smaller than the argument.
    (u128::from(nanos) * u128::from(HZ) / NANOS_PER_SECOND) as Clocks
}

/// The first nanosecond of clock `clocks`.
fn to_nanos(clocks: Clocks) -> Nanos {
    let nanos = (u128::from(clocks) * NANOS_PER_SECOND).div_ceil(u128::from(HZ));
    Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
}

/// What a snapshot keeps of a [`Pit`]: neither ticks that wait to be replayed nor what was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitState {
    channels: [ChannelState; 3],
    /// What is kept of port B.
    port_b: u8,
    /// The device's time when this was saved.
    now: Nanos,
}

impl PitState {
    fn new() -> Self {
        Self {
            channels: [true, true, false].map(ChannelState::new),
            port_b: 0,
            now: 0,
        }
    }
}

/// The programmable interval timer.
///
/// Its timer is armed only while channel 0 has a tick to come or to replay; every deadline is
/// absolute, so late wake-ups add no drift.
pub struct Pit {
    state: PitState,
    /// The clock until which channel 0's ticks are in the ledger.
    seen: Clocks,
    time: Timeline,
    line: Arc<dyn TickLine>,
    ledger: TickLedger,
}

impl Pit {
    /// A timer that nobody has programmed, whose channel 0 pulses `line`, and makes good by
    /// `policy` what the guest could not take. `timer` must call [`TimerClient::expired`], and
    /// whoever hears of the line's ends of interrupt [`acknowledged`](Self::acknowledged).
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
        line: Arc<dyn TickLine>,
        policy: TickPolicy,
    ) -> Self {
        let acknowledgement = if line.reports_acknowledgements() {
            Acknowledgement::Usually
        } else {
            Acknowledgement::Never
        };
        Self {
            state: PitState::new(),
            seen: to_clocks(clock.now()),
            time: Timeline::new(clock, timer),
            line,
            ledger: TickLedger::new(policy, acknowledgement),
        }
    }

    /// The guest ended the interrupt of channel 0, at an 8259 or an I/O APIC. Calling this too
    /// often or late is harmless.
    pub fn acknowledged(&mut self) {
        let now = self.advance();
        self.ledger.acknowledged(now);
        self.update(now);
    }

    /// Drops the ticks that wait to be replayed: the guest has learnt the time from elsewhere, as
    /// when it sets its clock or goes on after a pause that it is told of.
    pub fn forget_lost_ticks(&mut self) {
        let now = self.advance();
        self.ledger.forget();
        self.update(now);
    }

    /// What became of channel 0's ticks until now.
    #[must_use]
    pub fn counters(&mut self) -> TickCounters {
        let now = self.advance();
        self.update(now);
        self.ledger.counters()
    }

    /// Books every rise of channel 0 until now, which it returns.
    fn advance(&mut self) -> Nanos {
        let now = self.time.now();
        let clocks = to_clocks(now);
        let channel = &mut self.state.channels[0];
        let rises = channel.rises(self.seen, clocks, FLOOR);
        self.seen = clocks;
        channel.sync(clocks);
        self.book(rises, now);
        now
    }

    fn book(&mut self, rises: Rises, now: Nanos) {
        let last = to_nanos(rises.last);
        if self.state.channels[0].is_periodic() {
            self.ledger.merged(rises.all - rises.ticks);
            self.ledger.due(rises.ticks, last);
        } else if rises.ticks > 0 {
            self.ledger.once(last, now, || self.line.pulse());
        }
    }

    /// Shows the guest a tick if it is time, and arms the timer for the next one.
    fn update(&mut self, now: Nanos) {
        self.ledger.serve(now, || self.line.pulse());
        // While the guest has to take another tick before, the next ones are booked when it does.
        let next = match self.ledger.is_offered() {
            true => None,
            false => self.state.channels[0].next_rise(self.seen, FLOOR),
        };
        let deadlines = [next.map(to_nanos), self.ledger.deadline()];
        self.time.arm(deadlines.into_iter().flatten().min());
    }

    /// Does something to channel `n`, and tells the ledger what it means.
    fn program(&mut self, n: usize, act: impl FnOnce(&mut ChannelState, Clocks)) {
        let Some(channel) = self.state.channels.get_mut(n) else {
            return;
        };
        act(channel, self.seen);
        if n > 0 {
            return;
        }
        match channel.period(FLOOR) {
            Some(period) => {
                if channel.is_stopped() {
                    // It starts anew, and with it whoever listens.
                    self.ledger.restart();
                }
                self.ledger.set_period(to_nanos(period));
            }
            // What is owed is converted when the new count is known.
            None if channel.is_periodic() => {}
            None => self.ledger.stop(),
        }
    }

    fn control(&mut self, word: u8) {
        let now = self.seen;
        let selected = word >> 6;
        if selected == READ_BACK {
            let channels = self.state.channels.iter_mut().enumerate();
            for (_, channel) in channels.filter(|(n, _)| word & 2 << n != 0) {
                if word & NO_COUNT == 0 {
                    channel.latch_count(now);
                }
                if word & NO_STATUS == 0 {
                    channel.latch_status(now);
                }
            }
            return;
        }
        self.program(selected.into(), |channel, now| match Control::new(word) {
            None => channel.latch_count(now),
            Some(control) => channel.control(control, now),
        });
    }

    fn port_b(&mut self) -> u8 {
        let now = self.time.now();
        let channel = &mut self.state.channels[2];
        let flag = |set, bit| if set { bit } else { 0 };
        self.state.port_b
            | flag(channel.gate(), GATE2)
            | flag(now / REFRESH_PERIOD % 2 == 1, REFRESH)
            | flag(channel.output(to_clocks(now)), OUT2)
    }

    fn set_port_b(&mut self, byte: u8) {
        let now = to_clocks(self.time.now());
        self.state.port_b = byte & PORT_B_KEPT;
        self.state.channels[2].set_gate(byte & GATE2 != 0, now);
    }
}

impl Registers for Pit {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let now = self.advance();
        let channels = self.state.channels.iter_mut();
        for (channel, byte) in channels.skip(offset as usize).zip(data) {
            *byte = channel.read(self.seen);
        }
        self.update(now);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let now = self.advance();
        for (port, &byte) in (offset..=CONTROL).zip(data) {
            match port {
                CONTROL => self.control(byte),
                _ => self.program(port as usize, |channel, now| channel.write(byte, now)),
            }
        }
        self.update(now);
    }
}

impl TimerClient for Pit {
    fn expired(&mut self) {
        self.time.rang();
        let now = self.advance();
        self.update(now);
    }
}

impl Stateful for Pit {
    type State = PitState;
    const KIND: &'static str = "pit";
    const VERSION: u32 = 2;

    fn save(&self) -> PitState {
        PitState {
            now: self.time.now(),
            ..self.state.clone()
        }
    }

    /// Counts go on from where they were when the state was saved, whatever the clock showed then,
    /// and no tick from before waits to be replayed.
    fn restore(&mut self, state: PitState) -> Result<(), StateError> {
        let wrong = state
            .channels
            .iter()
            .position(|channel| !channel.is_valid());
        if let Some(n) = wrong {
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what: format!(
                    "channel {n} has a count that is not 1 to 65536 (2 to 65536 in modes 2 and 3), \
                     or a held count of other than 1 or 2 bytes"
                ),
            });
        }
        let now = state.now;
        self.time.resume_at(now);
        self.seen = to_clocks(now);
        self.state = PitState {
            port_b: state.port_b & PORT_B_KEPT,
            ..state
        };
        self.ledger.reset();
        self.program(0, |_, _| {});
        self.update(now);
        Ok(())
    }

    fn reset(&mut self) {
        let now = self.advance();
        self.state = PitState::new();
        self.ledger.reset();
        self.update(now);
    }
}

/// System control port B, which belongs to a [`Pit`].
pub struct ControlPortB(pub Arc<Mutex<Pit>>);

impl BusDevice for ControlPortB {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(first) = data.first_mut() {
            *first = self.0.lock().port_b();
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if let Some(&byte) = data.first() {
            self.0.lock().set_port_b(byte);
        }
    }
}

#[cfg(test)]
mod tests;

crate::state_tests!(
    pit_state,
    Pit::new(
        crate::clock::FakeClock::new(0),
        crate::clock::FakeTimer::new(),
        crate::interrupt::FakeLine::new(),
        TickPolicy::Replay,
    ),
    |pit: &mut Pit| {
        pit.write(CONTROL, &[0x34]);
        pit.write(0, &[1]);
        pit.write(0, &[2]);
        pit.set_port_b(PORT_B_KEPT | GATE2);
    }
);
