//! How INTx pins reach the interrupt controllers.
//!
//! A function's pin goes to one of eight PIRQ lines, A to H ([`pirq_of`]). PIRQ *n* always drives
//! GSI 16 + *n* ([`PIRQ_GSI_BASE`]), an IOAPIC pin; that is what the ACPI `_PRT` in APIC mode must
//! say. It drives an ISA interrupt too if the chipset's PIRQ*n*_ROUT register names one, which is
//! how firmware and PIC-mode guests see it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::PciAddress;
use crate::interrupt::{InterruptLine, SharedLine};

/// How many PIRQ lines there are.
pub const PIRQ_COUNT: usize = 8;
/// GSI of PIRQ A; the others follow.
pub const PIRQ_GSI_BASE: usize = 16;
/// ISA interrupts that a PIRQ can be routed to.
const ISA_COUNT: usize = 16;
/// PIRQ*n*_ROUT: set while the line is routed to no ISA interrupt (ICH9 datasheet 13.1.18).
const ROUTE_DISABLED: u8 = 1 << 7;

/// Which PIRQ (0 for A to 7 for H) INTx `pin` (1 for A to 4 for D) of the function at `address` is
/// wired to: on devices 0 to 24 E to H by (device + pin) mod 4, on 25 to 31 A to D by pin.
#[must_use]
pub const fn pirq_of(address: PciAddress, pin: u8) -> u8 {
    let pin = pin.wrapping_sub(1) & 3;
    match address.device() {
        device @ 0..=24 => 4 + (device + pin) % 4,
        _ => pin,
    }
}

/// The PIRQ lines and their routing registers.
pub struct IntxRouter {
    pirqs: Vec<Arc<SharedLine>>,
    wiring: Arc<Wiring>,
}

struct Wiring {
    gsis: Vec<Arc<dyn InterruptLine>>,
    state: Mutex<Levels>,
}

struct Levels {
    /// A bit for each PIRQ that is driven.
    driven: u8,
    /// The ISA interrupt of each PIRQ.
    routes: [Option<u8>; PIRQ_COUNT],
}

impl Levels {
    /// A bit for each ISA interrupt that some PIRQ drives.
    fn isa(&self) -> u16 {
        let lines = (0..PIRQ_COUNT).filter(|&n| self.driven & 1 << n != 0);
        lines
            .filter_map(|n| self.routes[n])
            .fold(0, |isa, irq| isa | 1 << (irq & 15))
    }
}

impl IntxRouter {
    /// Routes to `gsis`, the lines of GSI 0 to 23 in order. A line that is missing is not driven;
    /// one that an ISA device drives as well must be a [`SharedLine`]'s input.
    #[must_use]
    pub fn new(gsis: &[Arc<dyn InterruptLine>]) -> Arc<Self> {
        let wiring = Arc::new(Wiring {
            gsis: gsis.to_vec(),
            state: Mutex::new(Levels {
                driven: 0,
                routes: [None; PIRQ_COUNT],
            }),
        });
        let pirq = |index| {
            SharedLine::new(Arc::new(Pirq {
                wiring: Arc::clone(&wiring),
                index,
            }))
        };
        Arc::new(Self {
            pirqs: (0..PIRQ_COUNT).map(pirq).collect(),
            wiring,
        })
    }

    /// The line of INTx `pin` (1 for A to 4 for D) of the function at `address`. Each call gives a
    /// source of its own.
    #[must_use]
    pub fn line(&self, address: PciAddress, pin: u8) -> Arc<dyn InterruptLine> {
        let pirq = usize::from(pirq_of(address, pin)) % PIRQ_COUNT;
        self.pirqs[pirq].input()
    }

    /// Takes the PIRQA_ROUT to PIRQH_ROUT registers on.
    pub fn set_routes(&self, registers: [u8; PIRQ_COUNT]) {
        let route = |register: u8| (register & ROUTE_DISABLED == 0).then_some(register & 0xf);
        self.wiring
            .change(|levels| levels.routes = registers.map(route));
    }
}

impl Wiring {
    /// Changes the levels and drives what differs then.
    fn change(&self, change: impl FnOnce(&mut Levels)) {
        let mut levels = self.state.lock();
        let (pirqs, isa) = (levels.driven, levels.isa());
        change(&mut levels);
        let (new_pirqs, new_isa) = (levels.driven, levels.isa());
        for n in (0..PIRQ_COUNT).filter(|n| (pirqs ^ new_pirqs) & 1 << n != 0) {
            self.drive(PIRQ_GSI_BASE + n, new_pirqs & 1 << n != 0);
        }
        for n in (0..ISA_COUNT).filter(|n| (isa ^ new_isa) & 1 << n != 0) {
            self.drive(n, new_isa & 1 << n != 0);
        }
    }

    fn drive(&self, gsi: usize, level: bool) {
        if let Some(line) = self.gsis.get(gsi) {
            line.set(level);
        }
    }
}

/// One PIRQ line, behind the [`SharedLine`] that gathers its functions.
struct Pirq {
    wiring: Arc<Wiring>,
    index: usize,
}

impl InterruptLine for Pirq {
    fn set(&self, level: bool) {
        self.wiring.change(|levels| {
            let mask = 1 << self.index;
            levels.driven = if level {
                levels.driven | mask
            } else {
                levels.driven & !mask
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::FakeLine;

    fn router() -> (Vec<Arc<FakeLine>>, Arc<IntxRouter>) {
        let lines: Vec<_> = (0..24).map(|_| FakeLine::new()).collect();
        let gsis: Vec<_> = lines
            .iter()
            .map(|line| Arc::clone(line) as Arc<dyn InterruptLine>)
            .collect();
        let router = IntxRouter::new(&gsis);
        (lines, router)
    }

    fn high(lines: &[Arc<FakeLine>]) -> Vec<usize> {
        (0..lines.len()).filter(|&n| lines[n].level()).collect()
    }

    #[test]
    fn slots_rotate_over_pirq_e_to_h_and_chipset_slots_over_a_to_d() {
        let pirq = |device, pin| pirq_of(PciAddress::new(0, device, 0).unwrap(), pin);

        assert_eq!([pirq(1, 1), pirq(1, 3), pirq(4, 1)], [5, 7, 4]);
        assert_eq!([pirq(31, 1), pirq(25, 4)], [0, 3]);
    }

    #[test]
    fn a_pin_drives_its_ioapic_line() {
        let (lines, router) = router();

        let pin = router.line(PciAddress::new(0, 2, 0).unwrap(), 1);
        pin.set(true);

        assert_eq!(high(&lines), [22]);
    }

    #[test]
    fn a_routed_pirq_drives_its_isa_line_too() {
        let (lines, router) = router();
        let pin = router.line(PciAddress::new(0, 2, 0).unwrap(), 1);
        pin.set(true);

        router.set_routes([11; PIRQ_COUNT]);
        let routed = high(&lines);
        router.set_routes([0x80; PIRQ_COUNT]);

        assert_eq!(routed, [11, 22]);
        assert_eq!(high(&lines), [22]);
    }

    #[test]
    fn functions_share_a_pirq() {
        let (lines, router) = router();
        let one = router.line(PciAddress::new(0, 2, 0).unwrap(), 1);
        let other = router.line(PciAddress::new(0, 6, 0).unwrap(), 1);

        one.set(true);
        other.set(true);
        one.set(false);
        let still = high(&lines);
        other.set(false);

        assert_eq!(still, [22]);
        assert!(high(&lines).is_empty());
    }
}
