//! Devices that come while the machine runs.

use std::collections::BTreeMap;

use caraway_devices::pci::PciAddress;
use uuid::Uuid;

use super::Checker;
use super::nets::Taken;
use crate::config::disk::Disk;
use crate::config::net::{Net, NetSpec, NetTo};
use crate::config::path::{JsonPath, at};
use crate::config::problem::{Kind, Problem};
use crate::config::slots::Slots;
use crate::config::{DiskSpec, Document, Host};

/// What a running machine has, and a device that comes must not have too.
pub(crate) struct Present<'a> {
    /// Where relative paths start.
    pub document: &'a Document,
    /// What addresses of network cards are made from.
    pub machine: Uuid,
    /// Of every device.
    pub ids: Vec<String>,
    /// What network cards are joined to, with their ids.
    pub nets: Vec<(String, NetTo)>,
}

impl Present<'_> {
    /// Checks a disk for the slot whose root port is at `port`.
    ///
    /// # Errors
    /// What is wrong with it first, at a path within the disk.
    pub(crate) fn disk(&self, disk: &Disk, port: PciAddress) -> Result<DiskSpec, Box<Problem>> {
        let spec = self.check(&disk.id, disk.address, |checker| {
            checker.disk(disk, 0, JsonPath::default())
        })?;
        Ok(DiskSpec {
            address: port,
            ..spec
        })
    }

    /// Checks a network card for the slot whose root port is at `port`.
    ///
    /// # Errors
    /// What is wrong with it first, at a path within the card.
    pub(crate) fn net(&self, net: &Net, port: PciAddress) -> Result<NetSpec, Box<Problem>> {
        let mut taken = Taken::new();
        for (id, to) in &self.nets {
            let place = at!(id.as_str());
            taken.extend(to.claims().into_iter().map(|what| (what, place.clone())));
        }
        let spec = self.check(&net.id, net.address, |checker| {
            checker.net(net, 0, JsonPath::default(), self.machine, &mut taken)
        })?;
        Ok(NetSpec {
            address: port,
            ..spec
        })
    }

    fn check<S>(
        &self,
        id: &Option<String>,
        address: Option<PciAddress>,
        device: impl FnOnce(&mut Checker<'_>) -> Option<S>,
    ) -> Result<S, Box<Problem>> {
        let host = Host::probe();
        let ids = self.ids.iter().map(|id| (id.clone(), at!(id.as_str())));
        let mut checker = Checker {
            document: self.document,
            host: &host,
            problems: Vec::new(),
            ids: BTreeMap::from_iter(ids),
            slots: Slots::new(),
        };
        if let Some(address) = address {
            let message = format!("\"{address}\" is not where a device can be added");
            let hint = "leave it out: the device gets the first free slot";
            checker.bad(at!("address"), message, hint);
        }
        if let Some(id) = id {
            checker.claim_id(id, at!("id"));
        }
        let spec = device(&mut checker);
        let nowhere = || {
            let message = "there is no room for it";
            Problem::new(Kind::BadValue, JsonPath::default(), message)
        };
        match (checker.problems.into_iter().next(), spec) {
            (None, Some(spec)) => Ok(spec),
            (problem, _) => Err(Box::new(problem.unwrap_or_else(nowhere))),
        }
    }
}
