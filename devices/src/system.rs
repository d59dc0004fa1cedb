//! What a guest can do to the machine as a whole, and the registers it does it by.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::bus::Registers;
use crate::state::{StateError, Stateful};

/// Something the guest did that concerns the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemEvent {
    /// The guest switched itself off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest went to sleep (ACPI S3); see [`AcpiPm::wake`](crate::AcpiPm::wake).
    Sleep,
    /// The guest's kernel reported a panic.
    Panicked,
    /// The guest ended the run with a value of its own.
    DebugExit(u32),
}

/// Whoever acts on a [`SystemEvent`]: the machine, or a test.
pub trait SystemControl: Send + Sync {
    /// Notes `event` and returns at once. It is called from a vCPU's thread with the device's lock
    /// held, so it must not call back into a device.
    fn raise(&self, event: SystemEvent);
}

/// A [`SystemControl`] that remembers, for tests.
#[derive(Default)]
pub struct FakeSystem {
    events: Mutex<Vec<SystemEvent>>,
}

impl FakeSystem {
    /// One to which nothing has happened.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What happened so far.
    #[must_use]
    pub fn events(&self) -> Vec<SystemEvent> {
        self.events.lock().clone()
    }
}

impl SystemControl for FakeSystem {
    fn raise(&self, event: SystemEvent) {
        self.events.lock().push(event);
    }
}

/// The port of [`ResetRegister`]. It lies inside of the PCI configuration ports 0xcf8..=0xcff, so
/// [`ConfigPorts`](crate::pci::ConfigPorts) passes its byte on.
pub const RESET_REGISTER_PORT: u16 = 0xcf9;

/// Reset register: the kind of reset (set: hard).
const RST_SYSTEM: u8 = 1 << 1;
/// Reset register: a rising edge resets.
const RST_CPU: u8 = 1 << 2;
/// Reset register: a full power cycle.
const RST_FULL: u8 = 1 << 3;

/// The ICH9 reset control register at port 0xcf9 (ICH9 datasheet 13.7.5).
///
/// Writing 0x06 or 0x0e resets; in general a rising edge of bit 2 does.
pub struct ResetRegister {
    value: u8,
    system: Arc<dyn SystemControl>,
}

impl ResetRegister {
    /// A register that reports resets to `system`.
    #[must_use]
    pub fn new(system: Arc<dyn SystemControl>) -> Self {
        Self { value: 0, system }
    }
}

impl Registers for ResetRegister {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.value);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let resets = value & RST_CPU != 0 && self.value & RST_CPU == 0;
        self.value = value & (RST_SYSTEM | RST_FULL);
        if resets {
            self.system.raise(SystemEvent::Reset);
        }
    }
}

impl Stateful for ResetRegister {
    type State = u8;
    const KIND: &'static str = "reset-register";
    const VERSION: u32 = 1;

    fn save(&self) -> u8 {
        self.value
    }

    fn restore(&mut self, value: u8) -> Result<(), StateError> {
        self.value = value & (RST_SYSTEM | RST_FULL);
        Ok(())
    }

    fn reset(&mut self) {
        self.value = 0;
    }
}

/// The port of [`Port92`].
pub const PORT92: u16 = 0x92;

/// Port 0x92: a rising edge resets.
const FAST_INIT: u8 = 1 << 0;
/// Port 0x92: address line 20 is on.
const FAST_A20: u8 = 1 << 1;

/// System control port A: fast reset and A20 (ICH9 datasheet 13.7.3).
///
/// A20 is kept as written but never masks an address: guests that still switch it off only test
/// that the port works.
pub struct Port92 {
    value: u8,
    system: Arc<dyn SystemControl>,
}

impl Port92 {
    /// A port that reports resets to `system`, with A20 on.
    #[must_use]
    pub fn new(system: Arc<dyn SystemControl>) -> Self {
        Self {
            value: FAST_A20,
            system,
        }
    }
}

impl Registers for Port92 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.value);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let resets = value & FAST_INIT != 0 && self.value & FAST_INIT == 0;
        self.value = value & (FAST_A20 | FAST_INIT);
        if resets {
            self.system.raise(SystemEvent::Reset);
        }
    }
}

impl Stateful for Port92 {
    type State = u8;
    const KIND: &'static str = "port92";
    const VERSION: u32 = 1;

    fn save(&self) -> u8 {
        self.value
    }

    fn restore(&mut self, value: u8) -> Result<(), StateError> {
        self.value = value & (FAST_A20 | FAST_INIT);
        Ok(())
    }

    fn reset(&mut self) {
        self.value = FAST_A20;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_reset_sequences_of_port_cf9_reset_once() {
        for value in [0x06, 0x0e] {
            let system = FakeSystem::new();
            let mut register = ResetRegister::new(system.clone());

            register.write(0, &[value & !RST_CPU]);
            register.write(0, &[value]);

            assert_eq!(system.events(), [SystemEvent::Reset], "{value:#x}");
        }
    }

    #[test]
    fn port_92_resets_by_its_lowest_bit_only() {
        let system = FakeSystem::new();
        let mut port = Port92::new(system.clone());

        port.write(0, &[FAST_A20]);
        let before = system.events();
        port.write(0, &[FAST_A20 | FAST_INIT]);

        assert_eq!(before, []);
        assert_eq!(system.events(), [SystemEvent::Reset]);
    }
}

crate::state_tests!(
    reset_register_state,
    ResetRegister::new(FakeSystem::new()),
    |register: &mut ResetRegister| register.write(0, &[RST_SYSTEM])
);
crate::state_tests!(
    port92_state,
    Port92::new(FakeSystem::new()),
    |port: &mut Port92| port.write(0, &[0])
);
