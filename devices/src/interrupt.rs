//! Interrupts as a device sees them: a line that has a level, or a message that it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// A wire to an interrupt controller.
pub trait InterruptLine: Send + Sync {
    /// Drives the line high (asserted) or low.
    fn set(&self, level: bool);

    /// One rising edge: low, high, low.
    fn pulse(&self) {
        self.set(false);
        self.set(true);
        self.set(false);
    }
}

/// What became of a rising edge. `KVM_IRQ_LINE_STATUS` says it: above 0, 0, and below 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// An interrupt controller took it.
    Delivered,
    /// It fell together with one that the guest has not taken yet.
    Coalesced,
    /// Every controller behind the line has it masked. One that latches edges, like the 8259, may
    /// still give it to the guest later.
    Masked,
    /// Nobody can tell.
    Unknown,
}

/// A wire on which every edge is a tick that a guest may count.
///
/// Whoever makes one for the PIT calls [`Pit::acknowledged`](crate::Pit::acknowledged) at each end
/// of interrupt of that line, from any thread, as late as it likes; the RTC needs no such call,
/// because reading register C acknowledges. Neither is called from inside these methods.
pub trait TickLine: Send + Sync {
    /// A rising edge: low if it was high, then high, where it stays.
    fn raise(&self) -> Delivery;

    /// Low.
    fn lower(&self);

    /// A rising edge, and low again.
    fn pulse(&self) -> Delivery {
        let delivery = self.raise();
        self.lower();
        delivery
    }

    /// Whether ends of interrupt are reported to the device. If not, a tick counts as taken once
    /// it was [`Delivered`](Delivery::Delivered), or as soon as nobody can tell.
    fn reports_acknowledgements(&self) -> bool;
}

/// A [`TickLine`] of which nobody knows what becomes of its edges.
pub struct Unwatched(pub Arc<dyn InterruptLine>);

impl TickLine for Unwatched {
    fn raise(&self) -> Delivery {
        self.0.set(false);
        self.0.set(true);
        Delivery::Unknown
    }

    fn lower(&self) {
        self.0.set(false);
    }

    fn reports_acknowledgements(&self) -> bool {
        false
    }
}

/// A device's end of a line, which drives it only when its level changes: a line costs a system
/// call, and devices say their level with every access.
pub struct Wire {
    line: Arc<dyn InterruptLine>,
    level: Option<bool>,
}

impl Wire {
    /// An end of `line` that has not driven it yet.
    #[must_use]
    pub fn new(line: Arc<dyn InterruptLine>) -> Self {
        Self { line, level: None }
    }

    /// Drives the line high or low, if it is not so already.
    pub fn set(&mut self, level: bool) {
        if self.level != Some(level) {
            self.line.set(level);
            self.level = Some(level);
        }
    }

    /// Drives the line whatever it was before: after a reset or a restore, when the other end may
    /// have changed.
    pub fn force(&mut self, level: bool) {
        self.level = None;
        self.set(level);
    }
}

/// A level-triggered line that several sources share: high while any of them drives it.
pub struct SharedLine {
    line: Arc<dyn InterruptLine>,
    sources: Mutex<Sources>,
}

/// A bit for each source.
#[derive(Default)]
struct Sources {
    taken: u64,
    driven: u64,
}

/// The bit of every source for which there is no other.
const LAST: u64 = 1 << 63;

impl SharedLine {
    /// Shares `line` among up to 64 sources.
    #[must_use]
    pub fn new(line: Arc<dyn InterruptLine>) -> Arc<Self> {
        Arc::new(Self {
            line,
            sources: Mutex::default(),
        })
    }

    /// A new source's end of the line, which it leaves when it is dropped. More than 64 at a time
    /// share the last one's bit.
    #[must_use]
    pub fn input(self: &Arc<Self>) -> Arc<dyn InterruptLine> {
        let mut sources = self.sources.lock();
        let mask = 1_u64
            .checked_shl(sources.taken.trailing_ones())
            .unwrap_or(LAST);
        sources.taken |= mask;
        Arc::new(SharedInput {
            shared: Arc::clone(self),
            mask,
        })
    }
}

struct SharedInput {
    shared: Arc<SharedLine>,
    mask: u64,
}

impl InterruptLine for SharedInput {
    fn set(&self, level: bool) {
        let mut sources = self.shared.sources.lock();
        let before = sources.driven;
        sources.driven = if level {
            before | self.mask
        } else {
            before & !self.mask
        };
        if (before == 0) != (sources.driven == 0) {
            self.shared.line.set(sources.driven != 0);
        }
    }
}

impl Drop for SharedInput {
    fn drop(&mut self) {
        self.set(false);
        if self.mask != LAST {
            self.shared.sources.lock().taken &= !self.mask;
        }
    }
}

/// What a message-signalled interrupt writes, and where (PCI 3.0, 6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Physical address of the write.
    pub address: u64,
    /// The doubleword written.
    pub data: u32,
}

/// One message-signalled interrupt of a device.
pub trait MsiVector: Send + Sync {
    /// Sends the message that was set last; without one nothing is sent.
    fn trigger(&self);
    /// What [`trigger`](Self::trigger) sends from now on; `None` while masked or disabled.
    fn set_message(&self, message: Option<MsiMessage>);
}

/// Why no interrupt could be had.
#[derive(Debug, thiserror::Error)]
pub enum MsiError {
    /// The machine has no more interrupt routes.
    #[error("no interrupt route is left for {wanted} more vectors")]
    Exhausted {
        /// How many were asked for.
        wanted: u16,
    },
    /// The host refused.
    #[error("the host refused an interrupt route")]
    Host(#[source] std::io::Error),
}

/// Whoever hands out message-signalled interrupts: the machine, or a test.
pub trait MsiProvider: Send + Sync {
    /// `count` new vectors, with no message set.
    ///
    /// # Errors
    /// [`MsiError`] if the machine is out of routes or the host refuses.
    fn vectors(&self, count: u16) -> Result<Vec<Arc<dyn MsiVector>>, MsiError>;
}

/// A line that remembers, for tests. As a [`TickLine`] it reports acknowledgements, and answers to
/// every edge what it was told to.
#[derive(Default)]
pub struct FakeLine {
    level: AtomicBool,
    edges: AtomicU64,
    /// `None` stands for [`Delivery::Delivered`].
    answer: Mutex<Option<Delivery>>,
}

impl FakeLine {
    /// A line that is low.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it is high now.
    #[must_use]
    pub fn level(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }

    /// How often it rose.
    #[must_use]
    pub fn edges(&self) -> u64 {
        self.edges.load(Ordering::Relaxed)
    }

    /// From now on says `delivery` of every edge.
    pub fn answer(&self, delivery: Delivery) {
        *self.answer.lock() = Some(delivery);
    }
}

impl TickLine for FakeLine {
    fn raise(&self) -> Delivery {
        self.set(false);
        self.set(true);
        self.answer.lock().unwrap_or(Delivery::Delivered)
    }

    fn lower(&self) {
        self.set(false);
    }

    fn reports_acknowledgements(&self) -> bool {
        true
    }
}

impl InterruptLine for FakeLine {
    fn set(&self, level: bool) {
        if level && !self.level.swap(level, Ordering::Relaxed) {
            self.edges.fetch_add(1, Ordering::Relaxed);
        }
        self.level.store(level, Ordering::Relaxed);
    }
}

/// A vector that remembers, for tests; also the provider of such vectors.
#[derive(Default)]
pub struct FakeMsi {
    /// Every vector handed out, in order.
    pub vectors: Mutex<Vec<Arc<FakeVector>>>,
}

/// One vector of [`FakeMsi`].
#[derive(Default)]
pub struct FakeVector {
    message: Mutex<Option<MsiMessage>>,
    sent: Mutex<Vec<MsiMessage>>,
}

impl FakeVector {
    /// The messages sent so far.
    #[must_use]
    pub fn sent(&self) -> Vec<MsiMessage> {
        self.sent.lock().clone()
    }

    /// The message it would send.
    #[must_use]
    pub fn message(&self) -> Option<MsiMessage> {
        *self.message.lock()
    }
}

impl MsiVector for FakeVector {
    fn trigger(&self) {
        self.sent.lock().extend(*self.message.lock());
    }

    fn set_message(&self, message: Option<MsiMessage>) {
        *self.message.lock() = message;
    }
}

impl MsiProvider for FakeMsi {
    fn vectors(&self, count: u16) -> Result<Vec<Arc<dyn MsiVector>>, MsiError> {
        let mut all = self.vectors.lock();
        let new: Vec<Arc<FakeVector>> = (0..count).map(|_| Arc::default()).collect();
        all.extend(new.iter().cloned());
        Ok(new.into_iter().map(|v| v as Arc<dyn MsiVector>).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter(AtomicU64);

    impl InterruptLine for Counter {
        fn set(&self, _level: bool) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wire_drives_its_line_only_when_the_level_changes() {
        let line = Arc::new(Counter::default());
        let mut wire = Wire::new(line.clone());

        for level in [false, false, true, true, false] {
            wire.set(level);
        }
        wire.force(false);

        assert_eq!(line.0.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn shared_line_is_high_while_anyone_drives_it() {
        let line = FakeLine::new();
        let shared = SharedLine::new(line.clone());
        let (a, b) = (shared.input(), shared.input());

        a.set(true);
        b.set(true);
        a.set(false);
        let while_b = line.level();
        b.set(false);

        assert!(while_b);
        assert!(!line.level());
        assert_eq!(line.edges(), 1);
    }
}
