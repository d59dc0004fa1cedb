//! One counter of the 8254.
//!
//! The counter is never stepped: what it shows is worked out from the ticks that passed since it
//! was loaded.

use serde::{Deserialize, Serialize};

use super::HZ;
use crate::clock::Nanos;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Input ticks in `nanos`.
fn to_ticks(nanos: Nanos) -> u64 {
    // The frequency is below 2^30 Hz, so the result is smaller than the argument.
    (u128::from(nanos) * u128::from(HZ) / NANOS_PER_SECOND) as u64
}

/// The first nanosecond of tick `ticks`.
fn to_nanos(ticks: u64) -> Nanos {
    let nanos = (u128::from(ticks) * NANOS_PER_SECOND).div_ceil(u128::from(HZ));
    Nanos::try_from(nanos).unwrap_or(Nanos::MAX)
}

/// What a counter does when it runs out (8254 datasheet, "Mode Definitions").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    /// 0: the output rises when the count ends.
    TerminalCount,
    /// 1: the gate's edge starts a low pulse of the count's length.
    OneShot,
    /// 2: low for one tick in every count.
    RateGenerator,
    /// 3: high for one half of every count, low for the other.
    SquareWave,
    /// 4: low for one tick when the count ends.
    SoftwareStrobe,
    /// 5: the same, started by the gate's edge.
    HardwareStrobe,
}

impl Mode {
    /// From bits 3:1 of a control word; bit 3 does not matter for modes 2 and 3.
    const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::TerminalCount,
            1 => Self::OneShot,
            2 | 6 => Self::RateGenerator,
            3 | 7 => Self::SquareWave,
            4 => Self::SoftwareStrobe,
            _ => Self::HardwareStrobe,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::TerminalCount => 0,
            Self::OneShot => 1,
            Self::RateGenerator => 2,
            Self::SquareWave => 3,
            Self::SoftwareStrobe => 4,
            Self::HardwareStrobe => 5,
        }
    }

    /// Whether the count starts with the gate's rising edge.
    const fn is_triggered(self) -> bool {
        matches!(self, Self::OneShot | Self::HardwareStrobe)
    }

    const fn is_periodic(self) -> bool {
        matches!(self, Self::RateGenerator | Self::SquareWave)
    }
}

/// Which bytes of a count an access to the channel's port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    /// Low first, then high.
    Both,
}

/// A value held for the guest to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Latched {
    value: u16,
    /// The low byte was read already.
    high_next: bool,
}

/// How far a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Progress {
    /// No count was written since the mode was set.
    Unloaded,
    /// A count is there, but nothing has started it.
    Waiting,
    /// Counting since this time of the clock.
    Since(Nanos),
    /// Held by the gate after this many nanoseconds.
    Paused(Nanos),
}

/// One counter, which is its own saved state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelState {
    mode: Mode,
    access: Access,
    bcd: bool,
    gate: bool,
    /// Ticks of a whole count, 1 to 65,536.
    count: u32,
    progress: Progress,
    /// The low byte of a count whose high byte is to come.
    low: Option<u8>,
    /// The low byte was read and the high byte is next.
    read_high: bool,
    latched: Option<Latched>,
    status: Option<u8>,
}

impl ChannelState {
    /// A channel that nobody has programmed, with its gate open or not.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            mode: Mode::SquareWave,
            access: Access::Both,
            bcd: false,
            gate,
            count: 0x1_0000,
            progress: Progress::Unloaded,
            low: None,
            read_high: false,
            latched: None,
            status: None,
        }
    }

    /// Whether it could have come from a real counter.
    pub(super) fn is_valid(&self) -> bool {
        (1..=0x1_0000).contains(&self.count)
    }

    /// Takes a control word on: access in bits 5:4 (not 0), mode in 3:1, BCD in 0.
    pub(super) fn control(&mut self, word: u8) {
        *self = Self {
            mode: Mode::from_bits(word >> 1),
            access: match word >> 4 & 3 {
                1 => Access::Low,
                2 => Access::High,
                _ => Access::Both,
            },
            bcd: word & 1 != 0,
            ..Self::new(self.gate)
        };
    }

    /// Holds the count for reading, unless one is held already.
    pub(super) fn latch_count(&mut self, now: Nanos) {
        let value = self.current(now);
        let high_next = self.access == Access::High;
        self.latched.get_or_insert(Latched { value, high_next });
    }

    /// Holds the status for reading, unless one is held already.
    pub(super) fn latch_status(&mut self, now: Nanos) {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::Both => 3,
        };
        let unloaded = self.progress == Progress::Unloaded || self.low.is_some();
        let status = u8::from(self.output(now)) << 7
            | u8::from(unloaded) << 6
            | access << 4
            | self.mode.bits() << 1
            | u8::from(self.bcd);
        self.status.get_or_insert(status);
    }

    /// A read of the channel's port.
    pub(super) fn read(&mut self, now: Nanos) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        if let Some(held) = self.latched {
            let [low, high] = held.value.to_le_bytes();
            let more = self.access == Access::Both && !held.high_next;
            self.latched = more.then_some(Latched {
                high_next: true,
                ..held
            });
            return if held.high_next { high } else { low };
        }
        let [low, high] = self.current(now).to_le_bytes();
        match self.access {
            Access::Low => low,
            Access::High => high,
            Access::Both => {
                self.read_high = !self.read_high;
                if self.read_high { low } else { high }
            }
        }
    }

    /// A write to the channel's port. The new count is in force at once, in every mode.
    pub(super) fn write(&mut self, byte: u8, now: Nanos) {
        match (self.access, self.low.take()) {
            (Access::Low, _) => self.load(byte.into(), now),
            (Access::High, _) => self.load(u16::from(byte) << 8, now),
            (Access::Both, Some(low)) => self.load(u16::from_le_bytes([low, byte]), now),
            (Access::Both, None) => {
                self.low = Some(byte);
                if self.mode == Mode::TerminalCount {
                    // The first byte stops the count that is under way.
                    self.progress = Progress::Unloaded;
                }
            }
        }
    }

    fn load(&mut self, register: u16, now: Nanos) {
        self.count = match (self.bcd, register) {
            (true, 0) => 10_000,
            (false, 0) => 0x1_0000,
            (true, digits) => from_bcd(digits),
            (false, count) => count.into(),
        };
        if self.mode.is_triggered() {
            // A pulse that is under way goes on with the count it started with on hardware; here
            // the next edge starts it anew.
            self.progress = Progress::Waiting;
        } else {
            self.start(now);
        }
    }

    fn start(&mut self, now: Nanos) {
        self.progress = match (self.gate, self.mode) {
            (true, _) => Progress::Since(now),
            (false, Mode::RateGenerator | Mode::SquareWave) => Progress::Waiting,
            (false, _) => Progress::Paused(0),
        };
    }

    /// Opens or shuts the gate.
    pub(super) fn set_gate(&mut self, gate: bool, now: Nanos) {
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        self.gate = gate;
        if self.progress == Progress::Unloaded || !(rises || falls) {
            return;
        }
        self.progress = match (self.mode, self.progress) {
            (mode, _) if rises && (mode.is_triggered() || mode.is_periodic()) => {
                Progress::Since(now)
            }
            (mode, _) if falls && mode.is_periodic() => Progress::Waiting,
            (mode, Progress::Since(start)) if falls && !mode.is_triggered() => {
                Progress::Paused(now.saturating_sub(start))
            }
            (_, Progress::Paused(passed)) if rises => Progress::Since(now.saturating_sub(passed)),
            (_, progress) => progress,
        };
    }

    pub(super) fn gate(&self) -> bool {
        self.gate
    }

    /// Ticks since the count began, if it did.
    fn ticks(&self, now: Nanos) -> Option<u64> {
        match self.progress {
            Progress::Unloaded | Progress::Waiting => None,
            Progress::Since(start) => Some(to_ticks(now.saturating_sub(start))),
            Progress::Paused(passed) => Some(to_ticks(passed)),
        }
    }

    /// The output pin.
    pub(super) fn output(&self, now: Nanos) -> bool {
        let Some(ticks) = self.ticks(now) else {
            return self.mode != Mode::TerminalCount;
        };
        let count = u64::from(self.count);
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => ticks >= count,
            Mode::RateGenerator => ticks % count != count - 1 || count == 1,
            Mode::SquareWave => ticks % count < count.div_ceil(2),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => ticks != count,
        }
    }

    /// The counting element as the guest reads it.
    fn current(&self, now: Nanos) -> u16 {
        let whole = if self.bcd { 10_000 } else { 0x1_0000 };
        let count = u64::from(self.count);
        let left = match (self.ticks(now), self.mode) {
            (None, _) => count,
            (Some(ticks), Mode::RateGenerator) => count - ticks % count,
            // Counts by two, twice in every period; an odd count loses its lowest bit.
            (Some(ticks), Mode::SquareWave) => {
                let even = (count & !1).max(2);
                even - 2 * (ticks % count) % even
            }
            // The others go on below 0, around and around.
            (Some(ticks), _) => (count % whole + whole - ticks % whole) % whole,
        };
        // At most 65,536, which the register shows as 0.
        let left = (left % whole) as u16;
        if self.bcd { to_bcd(left) } else { left }
    }

    /// When the output rises first after `after`, at the earliest; `None` if it never does by
    /// itself.
    pub(super) fn next_rise(&self, after: Nanos) -> Option<Nanos> {
        let Progress::Since(start) = self.progress else {
            return None;
        };
        let count = u64::from(self.count);
        let ticks = to_ticks(after.saturating_sub(start));
        let tick = match self.mode {
            Mode::TerminalCount | Mode::OneShot => (ticks < count).then_some(count)?,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => (ticks <= count).then_some(count + 1)?,
            Mode::RateGenerator | Mode::SquareWave => {
                (ticks / count).checked_add(1)?.checked_mul(count)?
            }
        };
        start.checked_add(to_nanos(tick))
    }
}

/// The number whose four decimal digits are `digits`' nibbles.
fn from_bcd(digits: u16) -> u32 {
    let nibbles = [12, 8, 4, 0].map(|shift| u32::from(digits >> shift & 0xf));
    let number = nibbles.iter().fold(0, |number, digit| number * 10 + digit);
    // Nibbles over 9 are no digits; the 8254 leaves open what they mean.
    number.clamp(1, 10_000)
}

fn to_bcd(number: u16) -> u16 {
    let digit = |unit: u16| number / unit % 10;
    digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: u8 = 3 << 4;

    /// A channel in `mode` that was loaded with `count` at 0.
    fn loaded(mode: u8, count: u16) -> ChannelState {
        let mut channel = ChannelState::new(true);
        channel.control(BOTH | mode << 1);
        for byte in count.to_le_bytes() {
            channel.write(byte, 0);
        }
        channel
    }

    fn read16(channel: &mut ChannelState, now: Nanos) -> u16 {
        let low = channel.read(now);
        u16::from_le_bytes([low, channel.read(now)])
    }

    /// The output at each of the first `ticks` ticks, as text.
    fn trace(channel: &ChannelState, ticks: u64) -> String {
        let level = |tick| {
            if channel.output(to_nanos(tick)) {
                '#'
            } else {
                '_'
            }
        };
        (0..ticks).map(level).collect()
    }

    #[test]
    fn outputs_have_the_shapes_of_the_datasheet() {
        for (mode, shape) in [
            (0, "____######"),
            (2, "###_###_##"),
            (3, "##__##__##"),
            (4, "####_#####"),
        ] {
            assert_eq!(trace(&loaded(mode, 4), 10), shape, "mode {mode}");
        }
        assert_eq!(trace(&loaded(3, 5), 10), "###__###__");
    }

    #[test]
    fn triggered_modes_wait_for_the_gate() {
        for (mode, shape) in [(1, "____######"), (5, "####_#####")] {
            let mut channel = loaded(mode, 4);
            let before = trace(&channel, 10);
            channel.set_gate(false, 0);

            channel.set_gate(true, 0);

            assert_eq!(before, "##########");
            assert_eq!(trace(&channel, 10), shape, "mode {mode}");
        }
    }

    #[test]
    fn the_gate_pauses_a_count() {
        let mut channel = loaded(0, 10);
        channel.set_gate(false, to_nanos(4));

        let held = read16(&mut channel, to_nanos(100));
        channel.set_gate(true, to_nanos(100));

        assert_eq!(held, 6);
        assert!(!channel.output(to_nanos(105)));
        assert!(channel.output(to_nanos(107)));
    }

    #[test]
    fn the_gate_restarts_a_square_wave() {
        let mut channel = loaded(3, 4);
        channel.set_gate(false, to_nanos(3));
        let shut = channel.output(to_nanos(3));

        channel.set_gate(true, to_nanos(7));

        assert!(shut);
        let levels = [0, 1, 2, 3, 4].map(|tick| channel.output(to_nanos(7) + to_nanos(tick)));
        assert_eq!(levels, [true, true, false, false, true]);
    }

    #[test]
    fn a_latched_count_stands_still() {
        let mut channel = loaded(2, 1000);
        channel.latch_count(to_nanos(100));
        channel.latch_count(to_nanos(200));

        let latched = read16(&mut channel, to_nanos(300));
        let live = read16(&mut channel, to_nanos(400));

        assert_eq!((latched, live), (900, 600));
    }

    #[test]
    fn a_latched_status_comes_before_the_count() {
        let mut channel = loaded(2, 1000);
        channel.latch_count(to_nanos(100));
        channel.latch_status(to_nanos(100));

        let status = channel.read(0);

        assert_eq!(status, 0x80 | BOTH | 2 << 1);
        assert_eq!(read16(&mut channel, 0), 900);
    }

    #[test]
    fn the_status_tells_that_no_count_was_written() {
        let mut channel = ChannelState::new(true);
        channel.control(BOTH);

        channel.latch_status(0);

        assert_eq!(channel.read(0), 0x40 | BOTH);
    }

    #[test]
    fn a_bcd_count_reads_as_digits() {
        let mut channel = ChannelState::new(true);
        channel.control(BOTH | 2 << 1 | 1);
        channel.write(0x00, 0);
        channel.write(0x10, 0);

        assert_eq!(read16(&mut channel, to_nanos(1)), 0x0999);
    }

    #[test]
    fn single_byte_access_reads_and_writes_that_byte() {
        let mut channel = ChannelState::new(true);
        channel.control(2 << 4 | 2 << 1);
        channel.write(0x12, 0);

        assert_eq!(channel.read(0), 0x12);
        assert_eq!(channel.count, 0x1200);
    }

    proptest! {
        #[test]
        fn a_terminal_count_counts_down_and_wraps(count in 1_u16.., ticks in 0_u64..200_000) {
            let mut channel = loaded(0, count);

            let value = read16(&mut channel, to_nanos(ticks));

            prop_assert_eq!(value, (u64::from(count)).wrapping_sub(ticks) as u16);
        }

        #[test]
        fn a_rate_generator_stays_between_one_and_its_count(count in 1_u16.., now: Nanos) {
            let mut channel = loaded(2, count);

            let value = read16(&mut channel, now);

            prop_assert!((1..=count).contains(&value));
        }

        #[test]
        fn the_output_is_low_before_a_rise_and_high_at_it(
            mode in prop_oneof![Just(0_u8), Just(2), Just(3), Just(4)],
            count in 2_u16..,
            after in 0_u64..50_000_000,
        ) {
            let channel = loaded(mode, count);

            if let Some(rise) = channel.next_rise(after) {
                prop_assert!(rise > after);
                prop_assert!(channel.output(rise));
                prop_assert!(!channel.output(rise - 1));
            }
        }

        #[test]
        fn rises_of_a_periodic_mode_do_not_drift(count in 2_u16.., rises in 1_u64..2000) {
            let channel = loaded(2, count);
            let mut at = 0;

            for _ in 0..rises {
                at = channel.next_rise(at).unwrap();
            }

            prop_assert_eq!(at, to_nanos(rises * u64::from(count)));
        }
    }
}
