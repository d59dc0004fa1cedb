//! The LPC bridge of the ICH9 at 00:1f.0 (ICH9 datasheet chapter 13).

use std::sync::Arc;

use parking_lot::Mutex;

use super::intx::{IntxRouter, PIRQ_COUNT};
use super::{ConfigSpace, Ids, PciAddress, PciFunction};
use crate::bus::{Bus, BusDevice};

/// Where the bridge sits, as on every machine with this chipset: 00:1f.0.
pub const LPC_ADDRESS: PciAddress = PciAddress::from_rid(0x00f8);

/// Base of the power management ports (13.1.13).
const PMBASE: usize = 0x40;
/// Whether they decode, and which interrupt the SCI is (13.1.14).
const ACPI_CNTL: usize = 0x44;
const ACPI_EN: u8 = 1 << 7;
/// PIRQA_ROUT to PIRQD_ROUT (13.1.18).
const PIRQ_A: usize = 0x60;
/// PIRQE_ROUT to PIRQH_ROUT (13.1.20).
const PIRQ_E: usize = 0x68;
/// A PIRQ register after reset: routed nowhere.
const PIRQ_RESET: [u8; 4] = [0x80; 4];
/// General power management configuration (13.8.1).
const GEN_PMCON: usize = 0xa0;
/// Root complex base address (13.1.41); kept, but nobody decodes what it points at.
const RCBA: usize = 0xf0;

/// Where the power management ports are before firmware moves them. They are on then, so that a
/// kernel that is booted without firmware finds them.
const PM_DEFAULT: u16 = 0x600;

/// The power management ports that the bridge moves about.
pub struct PmPorts {
    /// The ports' device, see [`AcpiPm`](crate::AcpiPm).
    pub device: Arc<dyn BusDevice>,
    /// The I/O address space they go to.
    pub pio: Arc<Bus>,
}

impl PmPorts {
    /// How many ports there are (13.8.3).
    pub const LEN: u64 = 0x80;
}

/// The LPC bridge 8086:2918: routes INTx and places the power management ports.
pub struct LpcBridge {
    config: Mutex<ConfigSpace>,
    router: Arc<IntxRouter>,
    pm: PmPorts,
    pm_base: Mutex<Option<u64>>,
}

impl LpcBridge {
    /// A bridge that has placed `pm` at its default base 0x600.
    #[must_use]
    pub fn new(router: Arc<IntxRouter>, pm: PmPorts) -> Arc<Self> {
        let mut config = ConfigSpace::new(Ids {
            vendor: 0x8086,
            device: 0x2918,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            class: 0x06_01_00,
            revision: 0x02,
        })
        .multifunction();
        // The bridge decodes ports and memory and is a master, whatever the guest writes.
        config.set(0x04, &[0x07, 0x00]);
        config.allow(0x04, &[0, 0]);
        config.set(PMBASE, &(u32::from(PM_DEFAULT) | 1).to_le_bytes());
        config.allow(PMBASE, &0x0000_ff80_u32.to_le_bytes());
        config.set(ACPI_CNTL, &[ACPI_EN]);
        config.allow(ACPI_CNTL, &[0x87]);
        for base in [PIRQ_A, PIRQ_E] {
            config.set(base, &PIRQ_RESET);
            config.allow(base, &[0x8f; 4]);
        }
        config.allow(GEN_PMCON, &[0xff; 2]);
        config.allow(RCBA, &0xffff_c001_u32.to_le_bytes());
        let bridge = Arc::new(Self {
            config: Mutex::new(config),
            router,
            pm,
            pm_base: Mutex::new(None),
        });
        bridge.apply();
        bridge
    }

    /// Does what the registers say.
    fn apply(&self) {
        let (base, routes) = {
            let config = self.config.lock();
            let mut bytes = [0; PIRQ_COUNT];
            config.read(PIRQ_A as u16, &mut bytes[..4]);
            config.read(PIRQ_E as u16, &mut bytes[4..]);
            let on = config.u16_at(ACPI_CNTL) as u8 & ACPI_EN != 0;
            let base = u64::from(config.u16_at(PMBASE) & 0xff80);
            (Some(base).filter(|&base| on && base != 0), bytes)
        };
        self.router.set_routes(routes);
        self.place_pm(base);
    }

    fn place_pm(&self, base: Option<u64>) {
        let mut current = self.pm_base.lock();
        if *current == base {
            return;
        }
        if let Some(old) = current.take() {
            self.pm.pio.remove(old);
        }
        let Some(base) = base else { return };
        let device = Arc::clone(&self.pm.device);
        match self.pm.pio.insert(base, PmPorts::LEN, device) {
            Ok(()) => *current = Some(base),
            Err(error) => tracing::warn!(%error, "the power management ports stay unmapped"),
        }
    }
}

impl PciFunction for LpcBridge {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.config
    }

    fn config_written(&self, _offset: u16, _len: usize) {
        self.apply();
    }

    fn bar_read(&self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, _data: &[u8]) {}
}
