//! DMA commands: firmware writes the address of one, and the device works it off at once.

use caraway_arch::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::FwCfg;

const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// What the guest wrote, in its order: control, length, address, all big endian.
struct Command {
    control: u32,
    length: u32,
    address: u64,
}

impl Command {
    fn read(memory: &GuestMemory, at: GuestAddress) -> Option<Self> {
        Some(Self {
            control: u32::from_be(memory.read_obj(at).ok()?),
            length: u32::from_be(memory.read_obj(offset(at, 4)?).ok()?),
            address: u64::from_be(memory.read_obj(offset(at, 8)?).ok()?),
        })
    }
}

fn offset(at: GuestAddress, bytes: u64) -> Option<GuestAddress> {
    at.0.checked_add(bytes).map(GuestAddress)
}

impl FwCfg {
    /// Runs the command at guest address `at` and writes its outcome back: 0, or bit 0 for an
    /// error.
    pub(super) fn dma(&mut self, at: u64, memory: &GuestMemory) {
        let at = GuestAddress(at);
        let Some(command) = Command::read(memory, at) else {
            tracing::debug!(address = at.0, "fw_cfg command outside guest memory");
            return;
        };
        if command.control & SELECT != 0 {
            let [high, low, ..] = command.control.to_be_bytes();
            self.select(u16::from_be_bytes([high, low]));
        }
        let done = if command.control & READ != 0 {
            self.copy_out(&command, memory).is_some()
        } else if command.control & WRITE != 0 {
            // No item is the guest's to write.
            false
        } else {
            true
        };
        if command.control & (READ | SKIP | WRITE) != 0 {
            self.state.offset = self.state.offset.saturating_add(command.length);
        }
        let outcome = if done { 0 } else { ERROR };
        if memory.write_obj(outcome.to_be(), at).is_err() {
            tracing::debug!(
                address = at.0,
                "fw_cfg command in memory that can't be written"
            );
        }
    }

    /// Copies what is left of the item, and zeros after its end, as far as there is memory.
    fn copy_out(&self, command: &Command, memory: &GuestMemory) -> Option<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let length = usize::try_from(command.length).ok()?;
        let rest = self.rest();
        let item = rest.get(..length).unwrap_or(rest);
        memory
            .write_slice(item, GuestAddress(command.address))
            .ok()?;
        let mut at = offset(GuestAddress(command.address), item.len() as u64)?;
        let mut left = length - item.len();
        while left > 0 {
            let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
            memory.write_slice(zeros, at).ok()?;
            at = offset(at, zeros.len() as u64)?;
            left -= zeros.len();
        }
        Some(())
    }
}
