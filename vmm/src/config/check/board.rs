//! The machine itself: its name, processors, memory and ports.

use uuid::Uuid;

use super::Checker;
use crate::config::Config;
use crate::config::path::at;

/// The I/O ports of the platform, where `debug_exit` can't be.
const TAKEN_PORTS: [(u16, u16, &str); 12] = [
    (0x0000, 0x000f, "the DMA controller"),
    (0x0020, 0x0021, "the interrupt controller"),
    (0x0040, 0x0043, "the timer"),
    (0x0060, 0x0064, "the keyboard controller"),
    (0x0070, 0x0071, "the CMOS clock"),
    (0x00a0, 0x00a1, "the interrupt controller"),
    (0x03b0, 0x03df, "the VGA"),
    (0x03f8, 0x03ff, "the serial port"),
    (0x0402, 0x0402, "the firmware's debug port"),
    (0x0510, 0x051b, "fw_cfg"),
    (0x0600, 0x067f, "power management"),
    (0x0cf8, 0x0cff, "PCI configuration"),
];

impl Checker<'_> {
    pub(super) fn name(&mut self, config: &Config) -> String {
        let name = config
            .name
            .clone()
            .or_else(|| self.document.stem().map(String::from))
            .unwrap_or_else(|| "caraway".to_owned());
        if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
            let message = format!("{name:?} is not a name");
            self.bad(
                at!("name"),
                message,
                "use 1 to 255 bytes without control characters",
            );
        }
        name
    }

    /// The same for every run of the same machine.
    pub(super) fn identity(&self, name: &str) -> Uuid {
        let place = self.document.base().join(name);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_os_str().as_encoded_bytes())
    }

    pub(super) fn cpus(&mut self, cpus: u32) -> u8 {
        match u8::try_from(cpus) {
            Ok(count @ 1..=254) => count,
            _ => {
                let message = format!("a machine can't have {cpus} CPUs");
                self.bad(at!("cpus"), message, "use 1 to 254");
                1
            }
        }
    }

    pub(super) fn debug_exit(&mut self, port: u16) -> Option<u16> {
        let owner = TAKEN_PORTS
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&port));
        if let Some((first, last, owner)) = owner {
            let message = format!("port {port} ({port:#x}) is {owner}'s ({first:#x} to {last:#x})");
            self.bad(
                at!("debug_exit"),
                message,
                "use a free port, such as 1281 (0x501)",
            );
            return None;
        }
        Some(port)
    }
}
