//! The counting element of a counter, after it was loaded.
//!
//! It is never stepped: what it shows is worked out from the clocks that passed.

use serde::{Deserialize, Serialize};

use super::mode::Mode;

/// Clock edges of the counters' input since the device's time began.
pub(super) type Clocks = u64;

/// How far a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Progress {
    /// Counting since it was loaded by this clock.
    Since(Clocks),
    /// Held by the gate after so many clocks.
    Held(Clocks),
}

/// A count that was loaded, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Element {
    /// Clocks of a whole count, 1 to 65,536; at least 2 in a periodic mode.
    pub(super) count: u32,
    /// It was loaded for the low half of a square wave.
    pub(super) low_half: bool,
    pub(super) progress: Progress,
}

/// Rises of an output in a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rises {
    /// All of them.
    pub(super) all: u64,
    /// Those that are ticks, see [`Element::tick`].
    pub(super) ticks: u64,
    /// The last one that is a tick.
    pub(super) last: Clocks,
}

impl Rises {
    pub(super) const fn one(at: Clocks) -> Self {
        let (all, ticks, last) = (1, 1, at);
        Self { all, ticks, last }
    }

    /// With `later` ones.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            all: self.all.saturating_add(later.all),
            ticks: self.ticks.saturating_add(later.ticks),
            last: self.last.max(later.last),
        }
    }
}

impl Element {
    const fn length(&self) -> u64 {
        self.count as u64
    }

    /// Clocks of the high half of a square wave; the low half is the rest.
    const fn high_half(&self) -> u64 {
        self.length().div_ceil(2)
    }

    pub(super) fn elapsed(&self, now: Clocks) -> Clocks {
        match self.progress {
            Progress::Since(start) => now.saturating_sub(start),
            Progress::Held(elapsed) => elapsed,
        }
    }

    /// Clocks since the period began in which it was loaded.
    fn phase(&self, now: Clocks) -> Clocks {
        let before = if self.low_half { self.high_half() } else { 0 };
        self.elapsed(now).saturating_add(before)
    }

    /// The output pin.
    pub(super) fn output(&self, mode: Mode, now: Clocks) -> bool {
        let elapsed = self.elapsed(now);
        match mode {
            Mode::TerminalCount | Mode::OneShot => elapsed >= self.length(),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => elapsed != self.length(),
            // A shut gate sets these two high.
            _ if matches!(self.progress, Progress::Held(_)) => true,
            Mode::RateGenerator => elapsed % self.length() != self.length() - 1,
            Mode::SquareWave => self.phase(now) % self.length() < self.high_half(),
        }
    }

    /// What is left of the count, modulo `modulus`.
    pub(super) fn value(&self, mode: Mode, modulus: u32, now: Clocks) -> u32 {
        let modulus = u64::from(modulus);
        let left = match mode {
            Mode::RateGenerator => self.length() - self.elapsed(now) % self.length(),
            // Counts by two, once in each half; an odd count loses its lowest bit.
            Mode::SquareWave => {
                let phase = self.phase(now) % self.length();
                let of_half = phase.checked_sub(self.high_half()).unwrap_or(phase);
                (self.length() & !1) - 2 * of_half
            }
            // The others go on below 0, around and around.
            _ => self.length() % modulus + modulus - self.elapsed(now) % modulus,
        };
        (left % modulus) as u32
    }

    /// The clock after `now` at which a periodic mode loads a new count.
    pub(super) fn next_load(&self, mode: Mode, now: Clocks) -> Option<Clocks> {
        let Progress::Since(start) = self.progress else {
            return None;
        };
        let length = self.length();
        let phase = self.phase(now) % length;
        let rest = match mode {
            Mode::SquareWave if phase < self.high_half() => self.high_half() - phase,
            _ => length - phase,
        };
        now.max(start).checked_add(rest)
    }

    /// Clocks between two ticks of a periodic mode: the shortest whole number of periods that is
    /// no shorter than `floor`.
    pub(super) fn tick(&self, floor: u32) -> u64 {
        let periods = u64::from(floor).div_ceil(self.length()).max(1);
        periods * self.length()
    }

    /// The first tick after `after`, if the output ever rises by itself.
    pub(super) fn next_tick(&self, mode: Mode, after: Clocks, floor: u32) -> Option<Clocks> {
        let Progress::Since(start) = self.progress else {
            return None;
        };
        if !mode.is_periodic() {
            return self.only_rise(mode).filter(|&rise| rise > after);
        }
        let tick = self.tick(floor);
        let rest = tick - self.phase(after) % tick;
        after.max(start).checked_add(rest)
    }

    /// The output's rises after `after`, up to and including `until`.
    pub(super) fn rises(&self, mode: Mode, after: Clocks, until: Clocks, floor: u32) -> Rises {
        let Progress::Since(_) = self.progress else {
            return Rises::default();
        };
        if !mode.is_periodic() {
            let only = self.only_rise(mode);
            let within = only.filter(|&rise| after < rise && rise <= until);
            return within.map_or(Rises::default(), Rises::one);
        }
        let (from, to) = (self.phase(after), self.phase(until));
        let between = |length: u64| (to / length).saturating_sub(from / length);
        let tick = self.tick(floor);
        let (all, ticks) = (between(self.length()), between(tick));
        let last = match ticks {
            0 => 0,
            _ => until.saturating_sub(to % tick),
        };
        Rises { all, ticks, last }
    }

    /// When a mode that is not periodic has its output rise.
    fn only_rise(&self, mode: Mode) -> Option<Clocks> {
        let Progress::Since(start) = self.progress else {
            return None;
        };
        let after = match mode {
            Mode::SoftwareStrobe | Mode::HardwareStrobe => self.length() + 1,
            _ => self.length(),
        };
        start.checked_add(after)
    }
}
