//! One counter of the 8254: its registers, its gate, and when its counting element is loaded.

use serde::{Deserialize, Serialize};

use super::element::{Clocks, Element, Progress, Rises};
use super::mode::{Access, Control, Mode};

/// What the counting element does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Counting {
    /// Nothing, since a control word or the first byte of a new count in mode 0; it shows this.
    Stopped(u16),
    /// It counts, or the gate holds it.
    Loaded(Element),
}

/// The next time the counting element is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Load {
    /// By which clock.
    at: Clocks,
    /// Because the old count ends then, which it does not if the gate shuts before.
    is_reload: bool,
    /// For the low half of a square wave.
    low_half: bool,
}

impl Load {
    /// By the clock after `now`.
    const fn next(now: Clocks) -> Self {
        Self {
            at: now.saturating_add(1),
            is_reload: false,
            low_half: false,
        }
    }
}

/// A value held for the guest to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Latched {
    value: u16,
    /// How many of its bytes are still to be read, 1 or 2.
    bytes: u8,
}

/// One counter, which is its own saved state. Times are clocks of its input; whatever happens
/// "now" happens between clock `now` and the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelState {
    control: Control,
    gate: bool,
    /// Clocks of the count that was last written after the control word, if one was.
    register: Option<u32>,
    /// The count that was last written is not in the counting element yet.
    null_count: bool,
    load: Option<Load>,
    counting: Counting,
    /// The low byte of a count whose high byte is to come.
    low: Option<u8>,
    /// Of a two-byte count, the high byte is read next.
    read_high: bool,
    latched: Option<Latched>,
    status: Option<u8>,
}

impl ChannelState {
    /// A channel that nobody has programmed, with its gate open or not.
    pub(super) const fn new(gate: bool) -> Self {
        Self::programmed(Control::POWER_ON, gate, 0)
    }

    const fn programmed(control: Control, gate: bool, shows: u16) -> Self {
        Self {
            control,
            gate,
            register: None,
            null_count: true,
            load: None,
            counting: Counting::Stopped(shows),
            low: None,
            read_high: false,
            latched: None,
            status: None,
        }
    }

    /// Whether it could have come from a real counter.
    pub(super) fn is_valid(&self) -> bool {
        let allowed = self.mode().smallest_count()..=0x1_0000;
        let loaded = match self.counting {
            Counting::Stopped(_) => None,
            Counting::Loaded(element) => Some(element.count),
        };
        let bytes = self.latched.map(|latched| latched.bytes);
        self.register
            .is_none_or(|count| (1..=0x1_0000).contains(&count))
            && loaded.is_none_or(|count| allowed.contains(&count))
            && bytes.is_none_or(|bytes| (1..=2).contains(&bytes))
    }

    const fn mode(&self) -> Mode {
        self.control.mode()
    }

    /// Loads the counting element if that was to happen by `now`.
    pub(super) fn sync(&mut self, now: Clocks) {
        let Some(load) = self.load.filter(|load| load.at <= now) else {
            return;
        };
        self.load = None;
        let Some(count) = self.register else {
            return;
        };
        self.null_count = false;
        let counts = self.gate || self.mode().is_triggered();
        self.counting = Counting::Loaded(Element {
            count: count.max(self.mode().smallest_count()),
            low_half: load.low_half,
            progress: if counts {
                Progress::Since(load.at)
            } else {
                Progress::Held(0)
            },
        });
    }

    /// Takes a control word on. The count stands still until one is written.
    pub(super) fn control(&mut self, control: Control, now: Clocks) {
        let shows = self.current(now);
        *self = Self::programmed(control, self.gate, shows);
    }

    /// Holds the count for reading, unless one is held already.
    pub(super) fn latch_count(&mut self, now: Clocks) {
        let value = self.current(now);
        let bytes = match self.control.access() {
            Access::Both => 2,
            Access::Low | Access::High => 1,
        };
        self.latched.get_or_insert(Latched { value, bytes });
    }

    /// Holds the status for reading, unless one is held already.
    pub(super) fn latch_status(&mut self, now: Clocks) {
        let output = self.output(now);
        let status = u8::from(output) << 7 | u8::from(self.null_count) << 6 | self.control.bits();
        self.status.get_or_insert(status);
    }

    /// A read of the channel's port: a held status, then a held count, then the count as it is.
    pub(super) fn read(&mut self, now: Clocks) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = match &mut self.latched {
            Some(latched) => {
                let value = latched.value;
                latched.bytes -= 1;
                self.latched = self.latched.filter(|latched| latched.bytes > 0);
                value
            }
            None => self.current(now),
        };
        let [low, high] = value.to_le_bytes();
        let is_high = match self.control.access() {
            Access::Low => false,
            Access::High => true,
            Access::Both => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        if is_high { high } else { low }
    }

    /// A write to the channel's port.
    pub(super) fn write(&mut self, byte: u8, now: Clocks) {
        self.sync(now);
        match (self.control.access(), self.low.take()) {
            (Access::Low, _) => self.set_count(byte.into(), now),
            (Access::High, _) => self.set_count(u16::from(byte) << 8, now),
            (Access::Both, Some(low)) => self.set_count(u16::from_le_bytes([low, byte]), now),
            (Access::Both, None) => {
                self.low = Some(byte);
                if self.mode() == Mode::TerminalCount {
                    self.stop(now);
                }
            }
        }
    }

    /// Ends a terminal count: the output goes low at once.
    fn stop(&mut self, now: Clocks) {
        self.counting = Counting::Stopped(self.current(now));
        self.load = None;
    }

    fn set_count(&mut self, register: u16, now: Clocks) {
        self.register = Some(self.control.digits().count(register));
        self.null_count = true;
        match (self.mode(), self.counting) {
            (Mode::TerminalCount, _) => {
                self.stop(now);
                self.load = Some(Load::next(now));
            }
            (Mode::SoftwareStrobe, _) => self.load = Some(Load::next(now)),
            // The gate's edge loads it.
            (Mode::OneShot | Mode::HardwareStrobe, _) => {}
            // A trigger that came before will load it.
            _ if self.load.is_some_and(|load| !load.is_reload) => {}
            (_, Counting::Stopped(_)) => self.load = Some(Load::next(now)),
            (mode, Counting::Loaded(element)) => {
                let next = element.next_load(mode, now);
                self.load = next.map(|at| Load {
                    at,
                    is_reload: true,
                    low_half: mode == Mode::SquareWave && element.output(mode, at - 1),
                });
            }
        }
    }

    /// Opens or shuts the gate.
    pub(super) fn set_gate(&mut self, gate: bool, now: Clocks) {
        self.sync(now);
        if std::mem::replace(&mut self.gate, gate) == gate {
            return;
        }
        let mode = self.mode();
        if gate && (mode.is_triggered() || mode.is_periodic()) {
            // Without a count there is nothing to trigger.
            self.load = self.register.map(|_| Load::next(now));
            return;
        }
        if mode.is_triggered() {
            return;
        }
        if let Counting::Loaded(element) = &mut self.counting {
            let elapsed = element.elapsed(now);
            element.progress = if gate {
                Progress::Since(now.saturating_sub(elapsed))
            } else {
                Progress::Held(elapsed)
            };
        }
        self.load = self.load.filter(|load| !load.is_reload);
    }

    pub(super) const fn gate(&self) -> bool {
        self.gate
    }

    /// The output pin.
    pub(super) fn output(&mut self, now: Clocks) -> bool {
        self.sync(now);
        self.level(now)
    }

    /// The output pin at a time at which nothing is to be loaded.
    fn level(&self, now: Clocks) -> bool {
        match self.counting {
            Counting::Stopped(_) => self.mode() != Mode::TerminalCount,
            // A one-shot that waits for its trigger is in `Stopped`.
            Counting::Loaded(element) => element.output(self.mode(), now),
        }
    }

    /// The counting element as the guest reads it.
    fn current(&mut self, now: Clocks) -> u16 {
        self.sync(now);
        let digits = self.control.digits();
        match self.counting {
            Counting::Stopped(shows) => shows,
            Counting::Loaded(element) => {
                digits.encode(element.value(self.mode(), digits.modulus(), now))
            }
        }
    }

    /// Clocks between two ticks of the output, if it has them: a count was written in a periodic
    /// mode. `floor` is as in [`Element::tick`].
    pub(super) fn period(&self, floor: u32) -> Option<u64> {
        let count = self.register.filter(|_| self.mode().is_periodic())?;
        let element = Element {
            count: count.max(self.mode().smallest_count()),
            low_half: false,
            progress: Progress::Held(0),
        };
        Some(element.tick(floor))
    }

    /// Whether the output rises again and again, once a count is written.
    pub(super) const fn is_periodic(&self) -> bool {
        self.mode().is_periodic()
    }

    /// Whether it has stood still since the last control word.
    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.counting, Counting::Stopped(_))
    }

    fn next_of_element(&self, after: Clocks, floor: u32) -> Option<Clocks> {
        match self.counting {
            Counting::Stopped(_) => None,
            Counting::Loaded(element) => element.next_tick(self.mode(), after, floor),
        }
    }

    fn rises_of_element(&self, after: Clocks, until: Clocks, floor: u32) -> Rises {
        match self.counting {
            Counting::Stopped(_) => Rises::default(),
            Counting::Loaded(element) => element.rises(self.mode(), after, until, floor),
        }
    }

    /// As it is by `now`.
    fn at(mut self, now: Clocks) -> Self {
        self.sync(now);
        self
    }

    /// As it is after `load`, and whether its output rises by that.
    fn after(&self, load: Load) -> (Self, bool) {
        let then = self.at(load.at);
        let was_low = !self.level(load.at.saturating_sub(1));
        (then, was_low && then.level(load.at))
    }

    /// The first clock after `after` by which the output rises, if it does by itself. Only ticks
    /// (see [`Element::tick`]) of a periodic mode count.
    pub(super) fn next_rise(&self, after: Clocks, floor: u32) -> Option<Clocks> {
        let now = self.at(after);
        let first = now.next_of_element(after, floor);
        let Some(load) = now.load else {
            return first;
        };
        first.filter(|&rise| rise < load.at).or_else(|| {
            let (then, rises) = now.after(load);
            let at_load = rises.then_some(load.at);
            at_load.or_else(|| then.next_of_element(load.at, floor))
        })
    }

    /// The output's rises after `after`, up to and including `until`. Rises by programming are
    /// none: no guest counts them.
    pub(super) fn rises(&self, after: Clocks, until: Clocks, floor: u32) -> Rises {
        let now = self.at(after);
        let Some(load) = now.load.filter(|load| load.at <= until) else {
            return now.rises_of_element(after, until, floor);
        };
        let (then, rises) = now.after(load);
        let at_load = if rises {
            Rises::one(load.at)
        } else {
            Rises::default()
        };
        now.rises_of_element(after, load.at.saturating_sub(1), floor)
            .and(at_load)
            .and(then.rises_of_element(load.at, until, floor))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
