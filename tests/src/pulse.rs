//! What the bare guest says about its ticks.

use std::fmt;
use std::time::{Duration, Instant};

use crate::vm::Vm;
use crate::wait::wait_for;

/// Ticks a second that the guest asks its PIT for.
pub const RATE: f64 = 1_193_182.0 / 11_932.0;

/// One of the guest's lines.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Ticks since the start.
    pub count: u64,
    /// The processor's clock then.
    pub time: u64,
    /// The longest gap between two ticks since the line before, by that clock.
    pub longest: u64,
}

/// What the guest said so far.
pub fn reports(vm: &Vm) -> Vec<Report> {
    // The last line may not have been written to its end.
    let serial = vm.serial();
    let lines = serial.split_inclusive('\n');
    lines
        .filter_map(|line| parse(line.strip_suffix("\r\n")?))
        .collect()
}

fn parse(line: &str) -> Option<Report> {
    let mut fields = line.strip_prefix("tick ")?.split(' ').map(str::parse);
    Some(Report {
        count: fields.next()?.ok()?,
        time: fields.next()?.ok()?,
        longest: fields.next()?.ok()?,
    })
}

/// The next line that the guest says from now on.
///
/// # Panics
/// If none comes.
pub fn next(vm: &Vm) -> Report {
    let seen = reports(vm).len();
    wait_for("a tick of the guest", || reports(vm).get(seen).copied())
}

/// Of the lines that the guest says within `time`, the one at which it lagged least.
///
/// # Panics
/// If it says none.
pub fn steady(vm: &Vm, time: Duration, hertz: f64) -> Report {
    let first = next(vm);
    std::thread::sleep(time);
    let lead = |report: &Report| report.count as f64 - report.time as f64 / hertz * RATE;
    reports(vm)
        .into_iter()
        .filter(|report| report.time >= first.time)
        .max_by(|a, b| lead(a).total_cmp(&lead(b)))
        .expect("the first is among them")
}

/// How a guest's ticks went between two of its lines.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    /// Ticks that came.
    pub came: u64,
    /// Ticks that were due, by the processor's clock.
    pub due: f64,
    /// The longest gap between two.
    pub longest: Duration,
}

impl Ticks {
    /// Those since `start`, of a processor whose clock has this frequency.
    ///
    /// # Panics
    /// If no further line comes.
    pub fn since(vm: &Vm, start: Report, hertz: f64) -> Self {
        let end = next(vm);
        let later = reports(vm)
            .into_iter()
            .filter(|report| report.time > start.time);
        let longest = later.map(|report| report.longest).max().unwrap_or(0);
        Self {
            came: end.count - start.count,
            due: (end.time - start.time) as f64 / hertz * RATE,
            longest: Duration::from_secs_f64(longest as f64 / hertz),
        }
    }

    /// Ticks that should have come and did not.
    pub fn missed(&self) -> f64 {
        self.due - self.came as f64
    }
}

/// The frequency of the processor's clock, which guests share, measured for `time`.
pub fn frequency(time: Duration) -> f64 {
    let (start, before) = (Instant::now(), tsc());
    std::thread::sleep(time);
    tsc().wrapping_sub(before) as f64 / start.elapsed().as_secs_f64()
}

fn tsc() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl fmt::Display for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (came, missed, longest) = (self.came, self.missed(), self.longest.as_millis());
        write!(
            f,
            "{came} ticks, {missed:.1} missed, {longest} ms at most between two"
        )
    }
}
