//! A port through which a test guest ends the run with a value of its own.

use std::sync::Arc;

use crate::bus::BusDevice;
use crate::system::{SystemControl, SystemEvent};

/// The debug-exit port: a write of 1, 2 or 4 bytes is the run's result.
///
/// It has no state; reads give 0.
pub struct DebugExit {
    system: Arc<dyn SystemControl>,
}

impl DebugExit {
    /// How many ports it spans.
    pub const LEN: u16 = 4;

    /// A port that reports to `system`.
    #[must_use]
    pub fn new(system: Arc<dyn SystemControl>) -> Self {
        Self { system }
    }
}

impl BusDevice for DebugExit {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let bytes = data.iter().take(4).rev();
        let value = bytes.fold(0, |value, &byte| value << 8 | u32::from(byte));
        self.system.raise(SystemEvent::DebugExit(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::FakeSystem;

    #[test]
    fn a_write_of_any_width_is_the_value() {
        for (bytes, value) in [
            (&[0x10][..], 0x10),
            (&[0x34, 0x12], 0x1234),
            (&[0x78, 0x56, 0x34, 0x12], 0x1234_5678),
        ] {
            let system = FakeSystem::new();

            DebugExit::new(system.clone()).write(0, bytes);

            assert_eq!(system.events(), [SystemEvent::DebugExit(value)]);
        }
    }
}
