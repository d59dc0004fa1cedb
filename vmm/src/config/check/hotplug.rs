//! `hotplug`.

use super::Checker;
use crate::config::hotplug::{Hotplug, HotplugSpec};
use crate::config::path::at;
use crate::config::slots::HOTPLUG;

const DEFAULT: u8 = 4;
/// Functions of a PCI device.
const MOST: u8 = 8;

impl Checker<'_> {
    pub(super) fn hotplug(&mut self, hotplug: &Hotplug) -> Option<HotplugSpec> {
        let path = at!("hotplug");
        let slots = hotplug.slots.unwrap_or(DEFAULT);
        if !(1..=MOST).contains(&slots) {
            let message = format!("a machine can't have {slots} hot-plug slots");
            self.bad(path.then("slots"), message, format!("use 1 to {MOST}"));
        }
        Some(HotplugSpec {
            id: self.id(&hotplug.id, "slots", "slots", &path),
            address: self.address(hotplug.address, Some(HOTPLUG), &path)?,
            slots,
        })
    }
}
