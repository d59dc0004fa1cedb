//! The three counters behind their ports, and port 0x61.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::channel::ChannelState;
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
/// Port B: the speaker is connected.
const SPEAKER: u8 = 1 << 1;
/// Port B: changes with every refresh of the memory.
const REFRESH: u8 = 1 << 4;
/// Port B: output of channel 2.
const OUT2: u8 = 1 << 5;
/// Time between two refreshes.
const REFRESH_PERIOD: Nanos = 15_085;

/// The shortest time between two interrupts: what a guest can make the host do is bounded.
const MIN_PERIOD: Nanos = 100_000;

/// What a snapshot keeps of a [`Pit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitState {
    channels: [ChannelState; 3],
    speaker: bool,
    /// The device's time when this was saved.
    now: Nanos,
}

impl PitState {
    fn new() -> Self {
        Self {
            channels: [true, true, false].map(ChannelState::new),
            speaker: false,
            now: 0,
        }
    }
}

/// The programmable interval timer.
///
/// Its timer is armed only while channel 0 has a rise of its output to come; every deadline is
/// absolute, so late wake-ups add no drift.
pub struct Pit {
    state: PitState,
    /// The rise that the timer is armed for.
    due: Option<Nanos>,
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
            due: None,
            time: Timeline::new(clock, timer),
            line,
            ledger: TickLedger::new(policy, acknowledgement),
        }
    }

    /// The guest ended the interrupt of channel 0, at an 8259 or an I/O APIC. Calling this too
    /// often or late is harmless.
    pub fn acknowledged(&mut self) {
        self.ledger.acknowledged(self.time.now());
    }

    /// Drops the ticks that wait to be replayed: the guest has learnt the time from elsewhere, as
    /// when it sets its clock or goes on after a pause that it is told of.
    pub fn forget_lost_ticks(&mut self) {
        self.ledger.forget();
    }

    /// What became of channel 0's ticks.
    #[must_use]
    pub fn counters(&self) -> TickCounters {
        self.ledger.counters()
    }

    /// Arms the timer for the first rise of channel 0 after `after`.
    fn arm(&mut self, after: Nanos) {
        self.due = self.state.channels[0].next_rise(after);
        self.time.arm(self.due);
    }

    fn control(&mut self, word: u8) {
        let now = self.time.now();
        let selected = word >> 6;
        if selected == READ_BACK {
            for (n, channel) in self.state.channels.iter_mut().enumerate() {
                if word & 2 << n == 0 {
                    continue;
                }
                if word & NO_COUNT == 0 {
                    channel.latch_count(now);
                }
                if word & NO_STATUS == 0 {
                    channel.latch_status(now);
                }
            }
            return;
        }
        let Some(channel) = self.state.channels.get_mut(usize::from(selected)) else {
            return;
        };
        if word >> 4 & 3 == 0 {
            channel.latch_count(now);
            return;
        }
        channel.control(word);
        if selected == 0 {
            self.arm(now);
        }
    }

    fn port_b(&self) -> u8 {
        let now = self.time.now();
        let channel = &self.state.channels[2];
        let flag = |set, bit| if set { bit } else { 0 };
        flag(channel.gate(), GATE2)
            | flag(self.state.speaker, SPEAKER)
            | flag(now / REFRESH_PERIOD % 2 == 1, REFRESH)
            | flag(channel.output(now), OUT2)
    }

    fn set_port_b(&mut self, byte: u8) {
        self.state.speaker = byte & SPEAKER != 0;
        self.state.channels[2].set_gate(byte & GATE2 != 0, self.time.now());
    }
}

impl Registers for Pit {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let now = self.time.now();
        for (channel, byte) in self
            .state
            .channels
            .iter_mut()
            .skip(offset as usize)
            .zip(data)
        {
            *byte = channel.read(now);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (port, &byte) in (offset..=CONTROL).zip(data) {
            if port == CONTROL {
                self.control(byte);
                continue;
            }
            let now = self.time.now();
            if let Some(channel) = self.state.channels.get_mut(port as usize) {
                channel.write(byte, now);
            }
            if port == 0 {
                self.arm(now);
            }
        }
    }
}

impl TimerClient for Pit {
    /// One interrupt for all rises that are due by now.
    fn expired(&mut self) {
        self.time.rang();
        let now = self.time.now();
        let Some(due) = self.due.filter(|&due| due <= now) else {
            return self.time.arm(self.due);
        };
        self.line.pulse();
        // The next rise is after now, and not sooner than a guest may ask for.
        let soonest = due.saturating_add(MIN_PERIOD - 1);
        self.arm(now.max(soonest));
    }
}

impl Stateful for Pit {
    type State = PitState;
    const KIND: &'static str = "pit";
    const VERSION: u32 = 1;

    fn save(&self) -> PitState {
        PitState {
            now: self.time.now(),
            ..self.state.clone()
        }
    }

    /// Counts go on from where they were when the state was saved, whatever the clock showed then.
    fn restore(&mut self, state: PitState) -> Result<(), StateError> {
        if let Some(n) = state
            .channels
            .iter()
            .position(|channel| !channel.is_valid())
        {
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what: format!("the count of channel {n} is not 1 to 65536"),
            });
        }
        let now = state.now;
        self.time.resume_at(now);
        self.state = state;
        self.arm(now);
        Ok(())
    }

    fn reset(&mut self) {
        self.state = PitState::new();
        self.arm(0);
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
mod tests {
    use super::*;
    use crate::clock::{FakeClock, FakeTimer};
    use crate::interrupt::FakeLine;

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
        }

        assert_eq!(f.line.edges(), 100);
        let exact = 100 * 11_932 * 1_000_000_000_u64 / super::super::HZ;
        assert_eq!(f.clock.now() - 7_000, exact + 1);
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

        assert!(distance >= MIN_PERIOD, "{distance} ns");
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
}

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
        pit.set_port_b(SPEAKER | GATE2);
    }
);
