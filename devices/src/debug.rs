//! Ports by which firmware and guests say how they are: the debug console, POST codes, pvpanic.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, Registers};
use crate::state::{StateError, Stateful};
use crate::system::{SystemControl, SystemEvent};

/// The port of [`DebugPort`] that SeaBIOS and OVMF write to.
pub const DEBUG_PORT: u16 = 0x402;
/// What reading the debug port gives: somebody listens.
const DEBUG_PRESENT: u8 = 0xe9;
/// Bytes of a line after which it is logged even if it does not end.
const MAX_LINE: usize = 512;

/// A port whose bytes are lines of text, logged under the target `firmware`.
#[derive(Default)]
pub struct DebugPort {
    line: Vec<u8>,
}

impl DebugPort {
    /// A port to which nothing was written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, byte: u8) {
        if !matches!(byte, b'\n' | b'\r' | 0) {
            self.line.push(byte);
        }
        if byte == b'\n' || self.line.len() >= MAX_LINE {
            let text = String::from_utf8_lossy(&self.line);
            tracing::debug!(target: "firmware", "{}", text.escape_debug());
            self.line.clear();
        }
    }
}

impl Registers for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(DEBUG_PRESENT);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        for &byte in data {
            self.push(byte);
        }
    }
}

/// What a snapshot keeps of a [`DebugPort`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebugPortState {
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl Stateful for DebugPort {
    type State = DebugPortState;
    const KIND: &'static str = "debug-port";
    const VERSION: u32 = 1;

    fn save(&self) -> DebugPortState {
        DebugPortState {
            line: self.line.clone(),
        }
    }

    fn restore(&mut self, state: DebugPortState) -> Result<(), StateError> {
        if state.line.len() >= MAX_LINE {
            let what = format!("a line of {} bytes; {MAX_LINE} end one", state.line.len());
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what,
            });
        }
        self.line = state.line;
        Ok(())
    }

    fn reset(&mut self) {
        self.line.clear();
    }
}

/// The port of [`PostPort`].
pub const POST_PORT: u16 = 0x80;

/// The port of power-on self test codes, which guests also write to just to pass the time. Keeps
/// nothing.
pub struct PostPort;

impl BusDevice for PostPort {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

/// The port of [`PvPanic`].
pub const PVPANIC_PORT: u16 = 0x505;
/// The guest panicked.
const PANICKED: u8 = 1 << 0;
/// The guest panicked and takes care of it itself (a crash kernel).
const CRASH_LOADED: u8 = 1 << 1;

/// The pvpanic device: a guest's kernel reports its panic here.
///
/// A read tells which events there are. Only a panic that the guest leaves to the machine is
/// reported to the machine.
pub struct PvPanic {
    system: Arc<dyn SystemControl>,
}

impl PvPanic {
    /// A device that reports to `system`.
    #[must_use]
    pub fn new(system: Arc<dyn SystemControl>) -> Self {
        Self { system }
    }
}

impl BusDevice for PvPanic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        match data.first() {
            Some(event) if event & PANICKED != 0 => self.system.raise(SystemEvent::Panicked),
            Some(event) => tracing::warn!(event, "the guest reports a crash and handles it"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::FakeSystem;

    #[test]
    fn the_debug_port_says_that_somebody_listens() {
        let mut data = [0];

        DebugPort::new().read(0, &mut data);

        assert_eq!(data, [0xe9]);
    }

    #[test]
    fn a_line_that_never_ends_is_bounded() {
        let mut port = DebugPort::new();

        for _ in 0..10_000 {
            port.write(0, b"x");
        }

        assert!(port.line.len() < MAX_LINE);
    }

    #[test]
    fn a_panic_is_reported_but_not_one_that_the_guest_handles() {
        let system = FakeSystem::new();
        let device = PvPanic::new(system.clone());

        device.write(0, &[CRASH_LOADED]);
        device.write(0, &[PANICKED]);

        assert_eq!(system.events(), [SystemEvent::Panicked]);
    }
}

crate::state_tests!(
    debug_port_state,
    DebugPort::new(),
    |port: &mut DebugPort| port.write(0, b"half a line")
);
