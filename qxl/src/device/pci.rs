//! The PCI side: ids, BARs, and what is behind them.

use caraway_devices::pci::{BarKind, BarMemory, ConfigSpace, Ids, PciFunction};
use parking_lot::Mutex;

use super::memslots::PlacedBar;
use super::{BAR_PORTS, BAR_RAM, BAR_ROM, BAR_VRAM, BAR_VRAM64, Qxl};
use crate::config::QxlConfig;
use crate::memory::Memory;

/// Ports of BAR 3.
const PORTS_LEN: u64 = 32;
/// Offset of the command register.
const COMMAND: u16 = 4;

pub(super) fn config_space(config: &QxlConfig) -> ConfigSpace {
    let ids = Ids {
        vendor: 0x1b36,
        device: 0x0100,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        class: if config.vga { 0x03_00_00 } else { 0x03_80_00 },
        revision: 5,
    };
    let space = ConfigSpace::new(ids)
        .with_bar(BAR_RAM, BarKind::Mem32, config.ram)
        .with_bar(BAR_VRAM, BarKind::Mem32, config.vram)
        .with_bar(BAR_ROM, BarKind::Mem32, super::rom::ROM_LEN)
        .with_bar(BAR_PORTS, BarKind::Io, PORTS_LEN)
        .with_interrupt_pin(1);
    match config.vram64 {
        Some(size) => space.with_bar(BAR_VRAM64, BarKind::Mem64, size),
        None => space,
    }
}

impl Qxl {
    fn bar(&self, bar: u8) -> Option<&Memory> {
        match bar {
            BAR_RAM => Some(&self.memory),
            BAR_VRAM => Some(&self.vram),
            BAR_ROM => Some(&self.rom_memory),
            BAR_VRAM64 => self.vram64.as_ref(),
            _ => None,
        }
    }

    /// The BARs that memory slots may be in, where the guest has put them.
    pub(super) fn placed_bars(&self) -> Vec<PlacedBar> {
        let bars = self.space.lock().bars();
        let slots = bars
            .iter()
            .filter(|bar| [BAR_RAM, BAR_VRAM, BAR_VRAM64].contains(&bar.index));
        let placed = slots.filter_map(|bar| {
            Some(PlacedBar {
                bar: bar.index,
                base: bar.base?,
                size: bar.size,
            })
        });
        placed.collect()
    }
}

impl PciFunction for Qxl {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.space
    }

    fn config_written(&self, offset: u16, len: usize) {
        if (offset..offset.saturating_add(len as u16)).contains(&(COMMAND + 1)) {
            let silenced = self.space.lock().is_intx_disabled();
            self.interrupts.silence(&self.ram, silenced);
        }
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(memory) = self.bar(bar) {
            // What is past the end keeps its ones.
            let _ = memory.read(offset, data);
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        match (bar, data) {
            // Ports take bytes only.
            (BAR_PORTS, [value]) => self.write_port(offset, *value),
            (BAR_RAM | BAR_VRAM | BAR_VRAM64, data) => {
                if let Some(memory) = self.bar(bar) {
                    // What is past the end is lost.
                    let _ = memory.write(offset, data);
                }
            }
            _ => {}
        }
    }

    fn bar_memory(&self, bar: u8) -> Option<BarMemory> {
        self.bar(bar).map(|memory| BarMemory {
            region: memory.region(),
            read_only: bar == BAR_ROM,
        })
    }
}
