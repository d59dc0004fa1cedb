//! Interrupts: bits that are pending, bits that the guest wants, and the line that follows both.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caraway_devices::InterruptLine;
use parking_lot::Mutex;

use super::ram::Ram;

/// A release or room in the command ring.
pub(crate) const DISPLAY: u32 = 1 << 0;
/// Room in the cursor ring.
pub(crate) const CURSOR: u32 = 1 << 1;
/// An asynchronous port's work is done.
pub(crate) const IO_CMD: u32 = 1 << 2;
/// The guest did something impossible.
pub(crate) const ERROR: u32 = 1 << 3;
/// Clients came, went or can do something else.
pub(crate) const CLIENT: u32 = 1 << 4;
/// The host wishes for other monitors.
pub(crate) const CLIENT_MONITORS_CONFIG: u32 = 1 << 5;

/// The line, and what decides its level besides the RAM header.
pub(crate) struct Interrupts {
    line: Arc<dyn InterruptLine>,
    /// Level and command register's silence; also keeps those in order who set the line.
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    level: bool,
    silenced: bool,
}

impl Interrupts {
    pub(crate) fn new(line: Arc<dyn InterruptLine>) -> Self {
        let state = Mutex::default();
        Self { line, state }
    }

    /// Makes `bits` pending.
    pub(crate) fn raise(&self, ram: &Ram, bits: u32) {
        let old = ram.int_pending().fetch_or(bits, Ordering::SeqCst);
        if old & bits != bits {
            self.update(ram);
        }
    }

    /// Brings the line to the level that pending and wanted bits ask for.
    pub(crate) fn update(&self, ram: &Ram) {
        let mut state = self.state.lock();
        let pending = ram.int_pending().load(Ordering::SeqCst);
        let level = pending & ram.int_mask() != 0 && !state.silenced;
        if level != state.level {
            state.level = level;
            self.line.set(level);
        }
    }

    /// The command register silences INTx, or does no more.
    pub(crate) fn silence(&self, ram: &Ram, silenced: bool) {
        self.state.lock().silenced = silenced;
        self.update(ram);
    }

    /// Whether the guest listens to changes of the monitors that the host wishes for. A mask of all
    /// ones is one that no driver has set.
    pub(crate) fn wants_monitors(ram: &Ram) -> bool {
        let mask = ram.int_mask();
        mask & CLIENT_MONITORS_CONFIG != 0 && mask != u32::MAX
    }
}
