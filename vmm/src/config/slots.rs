//! Who gets which PCI address.

use std::collections::BTreeMap;

use caraway_devices::pci::PciAddress;

use super::path::JsonPath;
use super::problem::{Kind, Problem};

const HOST_BRIDGE: u8 = 0x00;
const LPC_BRIDGE: u8 = 0x1f;
/// Where the display is if the config does not say.
pub(crate) const DISPLAY: u8 = 0x02;
/// Where the slots for devices that come later are, if the config does not say.
pub(crate) const HOTPLUG: u8 = 0x1e;
const FIRST_FREE: u8 = 0x03;

/// The device numbers of bus 0 and who has them.
pub(crate) struct Slots {
    taken: BTreeMap<u8, String>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        let chipset = [
            (HOST_BRIDGE, "the host bridge"),
            (LPC_BRIDGE, "the LPC bridge"),
        ];
        Self {
            taken: chipset.map(|(slot, who)| (slot, who.to_owned())).into(),
        }
    }

    /// Gives `address`, which the config at `path` asks for, to `who`.
    pub(crate) fn claim(
        &mut self,
        address: PciAddress,
        who: &str,
        path: JsonPath,
    ) -> Result<(), Box<Problem>> {
        if address.bus() != 0 || address.function() != 0 {
            let message = format!("no device can sit at \"{address}\"");
            let hint = "use bus 00 and function 0: \"00:03.0\" to \"00:1e.0\"";
            return Err(Problem::new(Kind::BadValue, path, message)
                .hint(hint)
                .into());
        }
        if let Some(other) = self.taken.get(&address.device()) {
            let message = format!("\"{address}\" is taken by {other}");
            let hint = match self.next() {
                Some(free) => format!("the nearest free address is \"{}\"", shown(free)),
                None => "every address is taken".to_owned(),
            };
            return Err(Problem::new(Kind::AddressClash, path, message)
                .hint(hint)
                .into());
        }
        self.taken.insert(address.device(), who.to_owned());
        Ok(())
    }

    /// Gives `who` the address `wish` or, if that is taken or `None`, the next free one.
    pub(crate) fn assign(
        &mut self,
        wish: Option<u8>,
        who: &str,
        path: JsonPath,
    ) -> Result<PciAddress, Box<Problem>> {
        let slot = wish
            .filter(|slot| !self.taken.contains_key(slot))
            .or_else(|| self.next());
        let address = slot.and_then(|slot| PciAddress::new(0, slot, 0));
        let (Some(slot), Some(address)) = (slot, address) else {
            let problem = Problem::new(Kind::AddressClash, path, "no PCI address is left for it");
            return Err(problem
                .hint("a machine has room for 28 devices; remove some")
                .into());
        };
        self.taken.insert(slot, who.to_owned());
        Ok(address)
    }

    fn next(&self) -> Option<u8> {
        (FIRST_FREE..LPC_BRIDGE).find(|slot| !self.taken.contains_key(slot))
    }
}

fn shown(slot: u8) -> String {
    PciAddress::new(0, slot, 0).map_or_else(String::new, |address| address.to_string())
}
