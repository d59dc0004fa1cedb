//! The configuration ports 0xcf8..=0xcff (PCI 3.0, 3.2.2.3.2).

use std::sync::Arc;

use parking_lot::Mutex;

use super::{PciAddress, PciRoot};
use crate::bus::{BusDevice, Registers};
use crate::state::{StateError, Stateful};
use crate::system::ResetRegister;

/// Address register: accesses to the data register reach a configuration space.
const ENABLE: u32 = 1 << 31;
/// Offset of the reset register from port 0xcf8.
const RESET_REGISTER: u64 = 1;
/// Offset of the data register from port 0xcf8.
const DATA: u64 = 4;

/// The eight ports from 0xcf8: a 32-bit address register and the data register behind it.
///
/// The byte at 0xcf9 is the chipset's reset register when it is accessed as a byte.
pub struct ConfigPorts {
    root: Arc<PciRoot>,
    reset_register: Arc<Mutex<ResetRegister>>,
    address: u32,
}

impl ConfigPorts {
    /// The first port.
    pub const BASE: u16 = 0xcf8;
    /// How many there are.
    pub const LEN: u16 = 8;

    /// The ports of `root`, with `reset_register` at 0xcf9.
    #[must_use]
    pub fn new(root: Arc<PciRoot>, reset_register: Arc<Mutex<ResetRegister>>) -> Self {
        Self {
            root,
            reset_register,
            address: 0,
        }
    }

    /// The function and register that the data port shows at `offset` in it.
    fn target(&self, offset: u64) -> Option<(PciAddress, u16)> {
        let register = (self.address & 0xfc) as u16 + (offset & 3) as u16;
        let address = PciAddress::from_rid((self.address >> 8) as u16);
        (self.address & ENABLE != 0).then_some((address, register))
    }
}

impl Registers for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET_REGISTER, 1) => BusDevice::read(&*self.reset_register, 0, data),
            (DATA.., 1..=4) => {
                if let Some((address, register)) = self.target(offset) {
                    self.root.config_read(address, register, data);
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            (0, &[a, b, c, d]) => self.address = u32::from_le_bytes([a, b, c, d]) & !3,
            (RESET_REGISTER, [_]) => BusDevice::write(&*self.reset_register, 0, data),
            (DATA.., data) if data.len() <= 4 => {
                if let Some((address, register)) = self.target(offset) {
                    self.root.config_write(address, register, data);
                }
            }
            _ => {}
        }
    }
}

impl Stateful for ConfigPorts {
    type State = u32;
    const KIND: &'static str = "pci-ports";
    const VERSION: u32 = 1;

    fn save(&self) -> u32 {
        self.address
    }

    fn restore(&mut self, address: u32) -> Result<(), StateError> {
        self.address = address & !3;
        Ok(())
    }

    fn reset(&mut self) {
        self.address = 0;
    }
}
