//! What a guest that counts timer interrupts should have counted, by the processor's clock.
//!
//! The guest reports its count and the time-stamp counter, which runs on whatever becomes of the
//! guest's thread; the host knows how fast it runs.

use std::time::{Duration, Instant};

/// Ticks a second of the PIT's input.
const PIT_HZ: f64 = 1_193_182.0;
/// And of the RTC's.
const RTC_HZ: f64 = 32_768.0;

/// A timer as the guest programs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ticking {
    /// The PIT, with this divisor; 0 is 65,536.
    Pit(u16),
    /// The RTC, with this rate code of register A, from 3 to 15.
    Rtc(u8),
}

impl Ticking {
    /// Ticks a second.
    pub fn hz(self) -> f64 {
        match self {
            Self::Pit(0) => PIT_HZ / 65_536.0,
            Self::Pit(divisor) => PIT_HZ / f64::from(divisor),
            Self::Rtc(code) => RTC_HZ / f64::from(1_u32 << (code - 1)),
        }
    }

    /// The label of its metrics.
    pub fn device(self) -> &'static str {
        match self {
            Self::Pit(_) => "pit",
            Self::Rtc(_) => "rtc",
        }
    }

    /// The bare guest's command line that makes it count these.
    pub fn cmdline(self, route: &str) -> String {
        let source = match self {
            Self::Pit(divisor) => format!("source=pit divisor={divisor}"),
            Self::Rtc(code) => format!("source=rtc code={code}"),
        };
        format!("test=ticks {source} route={route}")
    }
}

/// How fast the time-stamp counter runs, by the host's monotonic clock.
pub struct Tsc {
    counter: u64,
    at: Instant,
}

impl Tsc {
    /// Begins to measure.
    pub fn begin() -> Self {
        Self {
            counter: counter(),
            at: Instant::now(),
        }
    }

    /// Ticks a second so far; exact to some parts in ten million after a second.
    pub fn hz(&self) -> f64 {
        (counter() - self.counter) as f64 / self.at.elapsed().as_secs_f64()
    }
}

fn counter() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What a guest reported at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Ticks that it has taken.
    pub taken: u64,
    /// The processor's clock.
    pub counter: u64,
}

/// Everything that a guest reported so far: when its ticks began, and its counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports {
    /// The processor's clock before the ticks began, and after.
    pub from: [u64; 2],
    /// Oldest first.
    pub all: Vec<Report>,
}

impl Reports {
    /// What the whole lines of `serial` say, once they say when the ticks began.
    pub fn of(serial: &str) -> Option<Self> {
        let whole = serial.rsplit_once('\n')?.0;
        let mut from = None;
        let mut all = Vec::new();
        for line in whole.lines() {
            let Some(words) = line.trim_end().strip_prefix("ticks ") else {
                continue;
            };
            let number = |word: &str| match word.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => word.parse().ok(),
            };
            match words.split(' ').collect::<Vec<_>>()[..] {
                ["from", asked, begun] => from = Some([number(asked)?, number(begun)?]),
                [taken, counter] => all.push(Report {
                    taken: number(taken)?,
                    counter: number(counter)?,
                }),
                _ => return None,
            }
        }
        from.map(|from| Self { from, all })
    }

    /// How many ticks were due when the guest made `report`, with a counter that runs at `tsc_hz`: at
    /// least, and at most. The RTC's first tick may come at once, since its divider runs on.
    pub fn due(&self, report: Report, ticking: Ticking, tsc_hz: f64) -> [i64; 2] {
        let [latest, earliest] = self.from.map(|from| {
            let seconds = report.counter.wrapping_sub(from) as f64 / tsc_hz;
            (seconds * ticking.hz()).floor() as i64
        });
        [
            earliest,
            latest + i64::from(matches!(ticking, Ticking::Rtc(_))),
        ]
    }

    /// For each report how many more ticks the guest had taken than were due, below 0 if fewer.
    pub fn excess(&self, ticking: Ticking, tsc_hz: f64) -> Vec<i64> {
        let excess = |report: &Report| {
            let [least, most] = self.due(*report, ticking, tsc_hz);
            let taken = report.taken as i64;
            taken - taken.clamp(least, most)
        };
        self.all.iter().map(excess).collect()
    }
}

/// How long a test lets a guest report after its thread runs freely again.
pub const WATCHED: Duration = Duration::from_millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_up_to_the_last_whole_line() {
        let reports = Reports::of("ticks from 90 100\r\nticks 7 200\r\nticks 9 3").unwrap();

        assert_eq!(reports.from, [90, 100]);
        let expected = Report {
            taken: 7,
            counter: 200,
        };
        assert_eq!(reports.all, [expected]);
    }

    #[test]
    fn the_excess_is_what_was_taken_beyond_what_was_due() {
        let serial = "ticks from 0 0\nticks 10 1000\nticks 18 2000\nticks 30 3000\n";
        let reports = Reports::of(serial).unwrap();

        let ticking = Ticking::Pit(11_932);
        assert_eq!(reports.excess(ticking, 10_000.0), [1, -1, 1]);
    }
}
