//! Devices that are added to the running machine, and taken away with the guest's consent.

use std::sync::Arc;

use caraway_devices::pci::{PciAddress, SlotAnswer};

use super::Control;
use crate::command::{ApiError, DeviceInfo, ErrorCode};
use crate::config::check_plugged;
use crate::config::disk::Disk;
use crate::disk::{DiskInfo, DiskName};
use crate::events::Event;
use crate::machine::PlugError;

impl Control<'_> {
    /// Puts a disk into a free slot.
    pub(super) fn add_disk(&mut self, disk: &Disk) -> Result<DiskInfo, ApiError> {
        let port = self.free_slot()?;
        let ids = self.devices().into_iter().map(|device| device.id);
        let spec = check_plugged(&self.spec.document, ids, disk, port)?;
        let handle = self
            .machine
            .plug_disk(&spec)
            .map_err(|error| refused(&error))?;
        let info = self.disks.add(handle, spec);
        self.events.emit(Event::DeviceAdded {
            id: info.id.clone(),
            slot: port.to_string(),
        });
        Ok(info)
    }

    fn free_slot(&self) -> Result<PciAddress, ApiError> {
        let slots = self.machine.slots();
        slots.free().ok_or_else(|| match slots.count() {
            0 => ApiError::new(
                ErrorCode::WrongState,
                "this machine has no slots for devices that come later",
            )
            .hint("add `\"hotplug\": { \"slots\": 4 }` to its config and start it anew"),
            count => ApiError::new(ErrorCode::Conflict, format!("no slot of {count} is free"))
                .hint("remove a device first, or give the machine more slots in `hotplug`"),
        })
    }

    /// Asks the guest to let a disk go.
    pub(super) fn remove_disk(&mut self, disk: &DiskName) -> Result<(), ApiError> {
        let id = &disk.id;
        self.disks.require(id)?;
        if self.machine.slots().ask(id) {
            return Ok(());
        }
        let message = format!("the disk {id:?} was there from the start and can't be removed");
        let hint = "only what was added by `disk.add` can go while the machine runs";
        Err(ApiError::new(ErrorCode::WrongState, message).hint(hint))
    }

    /// The guest did something about the device behind `port`.
    pub(super) fn slot_answered(&mut self, port: PciAddress, answer: SlotAnswer) {
        // It may have gone since.
        let Some(id) = self.machine.slots().device(port).map(str::to_owned) else {
            return;
        };
        match answer {
            SlotAnswer::Accepted => self.events.emit(Event::DeviceAccepted { id }),
            SlotAnswer::Refused => self.events.emit(Event::DeviceRefused { id }),
            SlotAnswer::Released => {
                self.disks.remove(&id);
                let device = self.machine.unplug(port);
                let events = Arc::clone(&self.events);
                // What is under way may take as long as the host's storage does.
                let work = move || {
                    drop(device);
                    events.emit(Event::DeviceRemoved { id });
                };
                let thread = std::thread::Builder::new().name("unplug".to_owned());
                if let Err(error) = thread.spawn(work) {
                    tracing::error!(%error, "nobody is told that a device has gone");
                }
            }
        }
    }

    /// Every PCI device, by address.
    pub(super) fn devices(&self) -> Vec<DeviceInfo> {
        let own = self.spec.pci_devices().into_iter().map(|entry| DeviceInfo {
            id: entry.id,
            kind: entry.kind.to_owned(),
            address: entry.address.to_string(),
        });
        let plugged = self.machine.slots().devices();
        let plugged = plugged.map(|(port, id)| DeviceInfo {
            id: id.to_owned(),
            kind: "virtio-blk".to_owned(),
            address: format!("{port}/00.0"),
        });
        own.chain(plugged).collect()
    }
}

fn refused(error: &PlugError) -> ApiError {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    ApiError {
        causes: sources.map(ToString::to_string).collect(),
        ..ApiError::new(ErrorCode::Resource, error.to_string())
    }
}
