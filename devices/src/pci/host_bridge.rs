//! The memory controller hub at 00:00.0 (Intel 3 Series datasheet, chapter 5).

use std::sync::Weak;

use parking_lot::Mutex;

use super::{ConfigSpace, Ids, PciFunction};

/// Base and enable of the enhanced configuration window (5.1.15).
const PCIEXBAR: usize = 0x60;
/// Where the window is before firmware moves it; it is off then.
const PCIEXBAR_RESET: u64 = 0xb000_0000;
/// Programmable attribute maps: what of 0xc0000..=0xfffff is RAM (5.1.18 and following).
const PAM: usize = 0x90;
const PAM_COUNT: usize = 7;
/// System management RAM control, and its reset value: no such RAM open (5.1.31).
const SMRAM: usize = 0x9d;
const SMRAM_RESET: u8 = 0x02;
/// Extended system management RAM control (5.1.32).
const ESMRAMC: usize = 0x9e;
const ESMRAMC_RESET: u8 = 0x38;
/// Where OVMF asks for a larger TSEG: reads back as written, which says that there is none.
const EXTENDED_TSEG: usize = 0x50;

/// Where the enhanced configuration window is, in guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcamWindow {
    /// First address.
    pub base: u64,
    /// Length in bytes: 1 MiB for each bus.
    pub len: u64,
}

impl EcamWindow {
    /// The window that the PCIEXBAR register's value `register` describes; `None` while it is off.
    #[must_use]
    pub const fn from_register(register: u64) -> Option<Self> {
        let len: u64 = match register & 0x7 {
            0b001 => 256 << 20,
            0b011 => 128 << 20,
            0b101 => 64 << 20,
            _ => return None,
        };
        Some(Self {
            base: register & 0xf_ffff_ffff & !(len - 1),
            len,
        })
    }
}

/// Whoever puts the window on the guest's address space: the root.
pub trait EcamPlacement: Send + Sync {
    /// Moves the window, or takes it away.
    fn place(&self, window: Option<EcamWindow>);
}

/// The host bridge 8086:29c0.
///
/// It keeps the PAM and SMRAM registers as firmware writes them; RAM is always readable and
/// writable at 0xc0000..=0xfffff, and there is no system management mode.
pub struct HostBridge<P: EcamPlacement> {
    config: Mutex<ConfigSpace>,
    root: Weak<P>,
}

impl<P: EcamPlacement> HostBridge<P> {
    /// A bridge that places the enhanced configuration window through `root`.
    #[must_use]
    pub fn new(root: Weak<P>) -> Self {
        // Firmware takes this subsystem id for the sign that it runs in a virtual machine with
        // fw_cfg.
        let mut config = ConfigSpace::new(Ids {
            vendor: 0x8086,
            device: 0x29c0,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            class: 0x06_00_00,
            revision: 0x02,
        });
        config.set(PCIEXBAR, &PCIEXBAR_RESET.to_le_bytes());
        config.allow(PCIEXBAR, &0xf_fc00_0007_u64.to_le_bytes());
        config.allow(PAM, &[0x30]);
        config.allow(PAM + 1, &[0x33; PAM_COUNT - 1]);
        config.set(SMRAM, &[SMRAM_RESET]);
        config.allow(SMRAM, &[0x78]);
        config.set(ESMRAMC, &[ESMRAMC_RESET]);
        config.allow(ESMRAMC, &[0x87]);
        config.allow(EXTENDED_TSEG, &[0xff; 2]);
        Self {
            config: Mutex::new(config),
            root,
        }
    }
}

impl<P: EcamPlacement> PciFunction for HostBridge<P> {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.config
    }

    fn config_written(&self, offset: u16, len: usize) {
        let from = usize::from(offset);
        if from >= PCIEXBAR + 8 || from + len <= PCIEXBAR {
            return;
        }
        let register = {
            let config = self.config.lock();
            u64::from(config.u32_at(PCIEXBAR)) | u64::from(config.u32_at(PCIEXBAR + 4)) << 32
        };
        if let Some(root) = self.root.upgrade() {
            root.place(EcamWindow::from_register(register));
        }
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}
}
