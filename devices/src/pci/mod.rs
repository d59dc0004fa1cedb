//! PCI Express: functions, their configuration space, and the root that they hang off.

use std::sync::Arc;

use parking_lot::Mutex;
use vm_memory::MmapRegion;

mod address;
mod config;
mod host_bridge;
mod intx;
mod lpc;
mod mapper;
mod msix;
mod ports;
mod root;
mod root_port;
#[cfg(test)]
mod tests;

pub use address::{PciAddress, PciAddressError};
pub use config::{Bar, BarKind, Capability, ConfigSpace, ConfigState, Ids};
pub use host_bridge::{EcamPlacement, EcamWindow, HostBridge};
pub use intx::{IntxRouter, PIRQ_COUNT, PIRQ_GSI_BASE, pirq_of};
pub use lpc::{LPC_ADDRESS, LpcBridge, PmPorts};
pub use mapper::FakeMapper;
pub use msix::{Msix, MsixError, MsixState, Vector};
pub use ports::ConfigPorts;
pub use root::{PciRoot, RootError};
pub use root_port::{RootPort, SlotAnswer, SlotTaken};

/// Host memory that a BAR shows to the guest without any exit.
#[derive(Clone)]
pub struct BarMemory {
    /// The memory; its length is the BAR's.
    pub region: Arc<MmapRegion>,
    /// Whether guest writes are refused (they come to [`PciFunction::bar_write`] then).
    pub read_only: bool,
}

/// A PCI function: its configuration space and what is behind its BARs.
///
/// The root handles every access to the configuration space itself, through
/// [`config`](Self::config), and maps and unmaps the BARs as the guest sets them.
pub trait PciFunction: Send + Sync {
    /// The configuration space.
    fn config(&self) -> &Mutex<ConfigSpace>;

    /// Called before the guest reads `len` bytes at `offset` of the configuration space, with its
    /// lock free: where a capability's register is computed and not stored.
    fn config_reading(&self, offset: u16, len: usize) {
        let _ = (offset, len);
    }

    /// Called after the guest wrote `len` bytes at `offset` of the configuration space, with its
    /// lock free: where a capability reacts (MSI-X enable, command register).
    fn config_written(&self, offset: u16, len: usize) {
        let _ = (offset, len);
    }

    /// Called after a reset or a restore changed the configuration space, with its lock free.
    fn config_restored(&self) {
        self.config_written(0, 0x1000);
    }

    /// Fills `data` from `offset` in BAR `bar` (0..=5, 6 for the expansion ROM).
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Takes `data` written at `offset` in BAR `bar` (0..=5, 6 for the expansion ROM).
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);

    /// The memory behind BAR `bar`, if it is memory and not registers.
    fn bar_memory(&self, bar: u8) -> Option<BarMemory> {
        let _ = bar;
        None
    }

    /// BAR `bar` decodes at `base` from now on, or nowhere: for whoever keeps ioeventfds there.
    fn bar_moved(&self, bar: u8, base: Option<u64>) {
        let _ = (bar, base);
    }
}

/// Puts BAR memory into the guest's physical address space: the machine, or a test.
pub trait MemoryMapper: Send + Sync {
    /// Shows `memory` at guest-physical address `base`.
    ///
    /// # Errors
    /// Whatever the host says; also if the range overlaps RAM or another mapping.
    fn map(&self, base: u64, memory: &BarMemory) -> std::io::Result<MappingId>;
    /// Takes a mapping away.
    fn unmap(&self, id: MappingId);
}

/// Names one mapping of a [`MemoryMapper`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingId(pub u32);
