//! `hotplug`: slots for devices that come while the machine runs.

use caraway_devices::pci::PciAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// PCI Express slots, empty at first, each behind a root port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hotplug {
    /// Names the ports, which are functions of one device; `"slots"` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// PCI address; 00:1e.0, or the next free one, if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<PciAddress>,
    /// How many, 1 to 8; 4 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub slots: Option<u8>,
}

/// PCI Express slots, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotplugSpec {
    /// Names the ports.
    pub id: String,
    /// The PCI address of the first port; the others are the functions after it.
    pub address: PciAddress,
    /// How many, 1 to 8.
    pub slots: u8,
}

impl HotplugSpec {
    /// The addresses of the ports, in the order of the slots' numbers from 1.
    pub fn ports(&self) -> impl Iterator<Item = PciAddress> + use<> {
        let (bus, device) = (self.address.bus(), self.address.device());
        (0..self.slots).filter_map(move |function| PciAddress::new(bus, device, function))
    }

    /// As the config would say it.
    #[must_use]
    pub fn to_config(&self) -> Hotplug {
        Hotplug {
            id: Some(self.id.clone()),
            address: Some(self.address),
            slots: Some(self.slots),
        }
    }
}
