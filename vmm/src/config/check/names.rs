//! Ids and PCI addresses: those that are given first, the rest around them.

use caraway_devices::pci::PciAddress;

use super::Checker;
use crate::config::Config;
use crate::config::path::{JsonPath, at};
use crate::config::problem::{Kind, Problem};

impl Checker<'_> {
    /// Takes every id and address that is written down, so that defaults go around them.
    pub(super) fn claim_what_is_given(&mut self, config: &Config) {
        if let Some(display) = &config.display {
            self.claim(&display.id, display.address, at!("display"), "the display");
        }
        for (index, display) in config.displays.iter().enumerate() {
            let who = format!("displays[{index}]");
            self.claim(&display.id, display.address, at!("displays", index), &who);
        }
        for (index, input) in config.inputs.iter().flatten().enumerate() {
            let who = format!("inputs[{index}]");
            self.claim(&input.id, input.address, at!("inputs", index), &who);
        }
        for (index, disk) in config.disks.iter().enumerate() {
            let who = format!("disks[{index}]");
            self.claim(&disk.id, disk.address, at!("disks", index), &who);
        }
        if let Some(balloon) = &config.balloon {
            self.claim(&balloon.id, balloon.address, at!("balloon"), "balloon");
        }
        for (index, net) in config.nets.iter().enumerate() {
            let who = format!("nets[{index}]");
            self.claim(&net.id, net.address, at!("nets", index), &who);
        }
        if let Some(vsock) = &config.vsock {
            self.claim(&vsock.id, vsock.address, at!("vsock"), "vsock");
        }
        if let Some(hotplug) = &config.hotplug {
            self.claim(&hotplug.id, hotplug.address, at!("hotplug"), "hotplug");
        }
        if let Some(rng) = &config.rng {
            self.claim(&rng.id, rng.address, at!("rng"), "rng");
        }
    }

    fn claim(
        &mut self,
        id: &Option<String>,
        address: Option<PciAddress>,
        path: JsonPath,
        who: &str,
    ) {
        if let Some(id) = id {
            self.claim_id(id, path.then("id"));
        }
        if let Some(address) = address
            && let Err(problem) = self.slots.claim(address, who, path.then("address"))
        {
            self.note(*problem);
        }
    }

    pub(super) fn claim_id(&mut self, id: &str, path: JsonPath) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            let message = format!("{id:?} is not an id");
            self.bad(
                path,
                message,
                "use 1 to 64 letters, digits, `-`, `_` or `.`",
            );
            return;
        }
        if let Some(other) = self.ids.get(id) {
            let free = self.free_id(id.trim_end_matches(|c: char| c.is_ascii_digit()));
            let message = format!("the id \"{id}\" is already that of {other}");
            let hint = format!("ids are unique among all devices; \"{free}\" is free");
            self.note(Problem::new(Kind::DuplicateId, path, message).hint(hint));
            return;
        }
        self.ids.insert(id.to_owned(), path);
    }

    fn free_id(&self, stem: &str) -> String {
        (0..=self.ids.len())
            .map(|n| format!("{stem}{n}"))
            .find(|id| !self.ids.contains_key(id))
            .unwrap_or_else(|| stem.to_owned())
    }

    /// The id of the device at `path`: the one given, or `default` or, if that is taken, the
    /// first free one of `stem` and a number.
    pub(super) fn id(
        &mut self,
        given: &Option<String>,
        default: &str,
        stem: &str,
        path: &JsonPath,
    ) -> String {
        if let Some(id) = given {
            return id.clone();
        }
        let id = match self.ids.contains_key(default) {
            true => self.free_id(stem),
            false => default.to_owned(),
        };
        self.ids.insert(id.clone(), path.then("id"));
        id
    }

    /// The address of the device at `path`: the one given, or `wish`, or the next free one.
    pub(super) fn address(
        &mut self,
        given: Option<PciAddress>,
        wish: Option<u8>,
        path: &JsonPath,
    ) -> Option<PciAddress> {
        if given.is_some() {
            return given;
        }
        match self.slots.assign(wish, &path.to_string(), path.clone()) {
            Ok(address) => Some(address),
            Err(problem) => {
                self.note(*problem);
                None
            }
        }
    }
}
