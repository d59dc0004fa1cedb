//! The fw_cfg device: named blobs that firmware reads, by port or by DMA
//! (QEMU `docs/specs/fw_cfg.rst`).
//!
//! Ports, from [`PORT`]: +0 the selector (16 bits), +1 the data (8 bits), +4..+12 the address of a
//! DMA command, big endian, which the write of its lower half starts.

mod dma;
mod items;

pub use items::{Boot, Items, ItemsError, boot_disk, boot_order, option_rom};

use caraway_arch::GuestMemory;
use serde::{Deserialize, Serialize};

/// The first port.
pub const PORT: u16 = 0x510;
/// How many ports there are, of which +2 and +3 are nobody's.
pub const PORTS: u16 = 12;

const SELECTOR: u16 = 0;
const DATA: u16 = 1;
const DMA_HIGH: u16 = 4;
const DMA_LOW: u16 = 8;

/// What the DMA register reads as: "QEMU CFG".
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// The device: its items and where the guest is reading.
#[derive(Debug, Clone)]
pub struct FwCfg {
    items: Items,
    state: FwCfgState,
}

/// What a snapshot keeps; the items are made again from the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FwCfgState {
    /// The selected item.
    pub selected: u16,
    /// The next byte of it.
    pub offset: u32,
    /// The upper half of the DMA address, until the lower one starts the command.
    pub dma_high: u32,
}

impl FwCfg {
    /// The kind under which the state is saved.
    pub const KIND: &'static str = "fw-cfg";
    /// The version of [`FwCfgState`].
    pub const VERSION: u32 = 1;

    /// A device that offers `items`.
    pub fn new(items: Items) -> Self {
        Self {
            items,
            state: FwCfgState::default(),
        }
    }

    /// What it offers.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The state for a snapshot.
    pub fn save(&self) -> FwCfgState {
        self.state
    }

    /// Goes on from `state`. Every value is possible: an offset past the end reads zeros.
    pub fn restore(&mut self, state: FwCfgState) {
        self.state = state;
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.state = FwCfgState::default();
    }

    /// A read of the port [`PORT`] + `offset`, 1 to 4 bytes.
    pub fn read(&mut self, offset: u16, data: &mut [u8]) {
        match offset {
            DATA => {
                for byte in data {
                    *byte = self.next_byte();
                }
            }
            DMA_HIGH..PORTS => {
                let from = usize::from(offset - DMA_HIGH);
                for (byte, at) in data.iter_mut().zip(from..) {
                    *byte = DMA_SIGNATURE.get(at).copied().unwrap_or(0);
                }
            }
            _ => data.fill(0),
        }
    }

    /// A write of the port [`PORT`] + `offset`, 1 to 4 bytes; one that starts a DMA command runs it
    /// on `memory` before it returns.
    pub fn write(&mut self, offset: u16, data: &[u8], memory: &GuestMemory) {
        match (offset, data) {
            (SELECTOR, &[low, high]) => self.select(u16::from_le_bytes([low, high])),
            (DMA_HIGH, &[a, b, c, d]) => self.state.dma_high = u32::from_be_bytes([a, b, c, d]),
            (DMA_LOW, &[a, b, c, d]) => {
                let high = std::mem::take(&mut self.state.dma_high);
                let low = u32::from_be_bytes([a, b, c, d]);
                self.dma(u64::from(high) << 32 | u64::from(low), memory);
            }
            // Data can't be written through the port, as in QEMU since 2.4.
            _ => tracing::trace!(offset, ?data, "write to fw_cfg that nobody takes"),
        }
    }

    fn select(&mut self, key: u16) {
        self.state.selected = key;
        self.state.offset = 0;
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        usize::try_from(self.state.offset)
            .ok()
            .and_then(|offset| self.items.get(self.state.selected)?.get(offset..))
            .unwrap_or_default()
    }

    fn next_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.state.offset = self.state.offset.saturating_add(1);
        byte
    }
}

#[cfg(test)]
mod tests;
