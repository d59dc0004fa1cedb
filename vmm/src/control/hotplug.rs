//! Devices that are added to the running machine, and taken away with the guest's consent.

use std::sync::Arc;
use std::time::Instant;

use caraway_devices::pci::{PciAddress, SlotAnswer};

use super::Control;
use crate::command::{ApiError, Command, ErrorCode, Reply, VmState};
use crate::config::disk::Disk;
use crate::config::net::{Net, NetSpec, NetTo};
use crate::config::{DiskSpec, Present};
use crate::device::{Asked, DeviceInfo, DeviceName, Opened};
use crate::disk::DiskInfo;
use crate::events::Event;
use crate::machine::{Plug, PlugError, Question};
use crate::nets::NetInfo;

/// A device whose slot is kept for it while what it needs of the host is being opened.
pub(super) struct Coming {
    port: PciAddress,
    id: String,
    /// What it will be joined to, if it is a network card.
    net: Option<NetTo>,
}

impl Control<'_> {
    /// Puts a disk into a free slot.
    pub(super) fn add_disk(&mut self, disk: &Disk, reply: Reply<DiskInfo>) {
        let spec = self
            .free_slot()
            .and_then(|port| Ok(self.present().disk(disk, port)?));
        self.open(spec, None, reply, Command::DiskOpened);
    }

    /// Puts a network card into a free slot.
    pub(super) fn add_net(&mut self, net: &Net, reply: Reply<NetInfo>) {
        let spec = self
            .free_slot()
            .and_then(|port| Ok(self.present().net(net, port)?));
        let to = spec.as_ref().ok().map(|spec| spec.to.clone());
        self.open(spec, to, reply, Command::NetOpened);
    }

    fn free_slot(&self) -> Result<PciAddress, ApiError> {
        let slots = self.machine.slots();
        let is_kept = |port: &PciAddress| self.coming.iter().any(|coming| coming.port == *port);
        let free = slots.free().find(|port| !is_kept(port));
        free.ok_or_else(|| match slots.count() {
            0 => ApiError::new(
                ErrorCode::WrongState,
                "this machine has no slots for devices that come later",
            )
            .hint("add `\"hotplug\": { \"slots\": 4 }` to its config and start it anew"),
            count => ApiError::new(ErrorCode::Conflict, format!("no slot of {count} is free"))
                .hint("remove a device first, or give the machine more slots in `hotplug`"),
        })
    }

    /// What a device that comes must not have too.
    fn present(&self) -> Present<'_> {
        let ids = self.devices().into_iter().map(|device| device.id);
        let coming = self.coming.iter().map(|coming| coming.id.clone());
        let nets = self.machine.nets();
        let nets = nets.map(|card| (card.id().to_owned(), card.to().clone()));
        let joining = self.coming.iter();
        let joining = joining.filter_map(|coming| Some((coming.id.clone(), coming.net.clone()?)));
        Present {
            document: &self.spec.document,
            machine: self.spec.uuid,
            ids: ids.chain(coming).collect(),
            nets: nets.chain(joining).collect(),
        }
    }

    /// Keeps the slot, and opens what the device needs in a thread of its own, as the host may take its
    /// time; `opened` then brings it back.
    fn open<P: Plug, T: Send + 'static>(
        &mut self,
        spec: Result<P, ApiError>,
        net: Option<NetTo>,
        reply: Reply<T>,
        opened: fn(Box<Opened<P, T>>) -> Command,
    ) {
        let spec = match spec {
            Ok(spec) => spec,
            // Whoever asked may be gone.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (port, id) = (spec.port(), spec.id().to_owned());
        let (parts, commands) = (self.machine.host_parts(), self.commands.clone());
        let work = move || {
            let host = spec.open(&parts);
            commands.send(opened(Box::new(Opened { spec, host, reply })));
        };
        let thread = std::thread::Builder::new().name("plug".to_owned());
        match thread.spawn(work) {
            Ok(_) => self.coming.push(Coming { port, id, net }),
            // Whoever asked is told that there is no answer.
            Err(error) => tracing::error!(%error, "a device can't be added"),
        }
    }

    /// Puts a device into the slot that was kept for it; `known` takes note of it and tells what it is.
    fn plug<P: Plug, T>(
        &mut self,
        opened: Opened<P, T>,
        known: impl FnOnce(&mut Self, P, P::Handle) -> Result<T, ApiError>,
    ) {
        let Opened { spec, host, reply } = opened;
        let (id, port) = (spec.id().to_owned(), spec.port());
        self.coming.retain(|coming| coming.port != port);
        let plugged = host.and_then(|host| {
            let plugged = self.machine.plug(&spec, host, &self.devices);
            plugged.map_err(PlugError::from)
        });
        let info = match plugged {
            Ok(handle) => {
                let slot = port.to_string();
                self.events.emit(Event::DeviceAdded { id, slot });
                known(self, spec, handle)
            }
            Err(error) => Err(refused(&error)),
        };
        drop(reply.send(info));
    }

    pub(super) fn disk_opened(&mut self, opened: Opened<DiskSpec, DiskInfo>) {
        self.plug(opened, |this, spec, handle| {
            Ok(this.disks.add(handle, spec))
        });
    }

    pub(super) fn net_opened(&mut self, opened: Opened<NetSpec, NetInfo>) {
        self.plug(opened, |this, spec, ()| {
            let card = this.net(&spec.id)?;
            card.export(&this.metrics);
            Ok(card.into())
        });
    }

    /// Asks the guest to let a disk go.
    pub(super) fn remove_disk(&mut self, disk: &DeviceName) -> Result<(), ApiError> {
        self.disks.require(&disk.id)?;
        self.remove("disk", "disk.add", &disk.id)
    }

    /// Asks the guest to let a network card go.
    pub(super) fn remove_net(&mut self, net: &DeviceName) -> Result<(), ApiError> {
        self.net(&net.id)?;
        self.remove("network card", "net.add", &net.id)
    }

    fn remove(&mut self, what: &str, verb: &str, id: &str) -> Result<(), ApiError> {
        if self.machine.slots_mut().ask(id) {
            return Ok(());
        }
        let message = format!("the {what} {id:?} was there from the start and can't be removed");
        let hint = format!("only what was added by `{verb}` can go while the machine runs");
        Err(ApiError::new(ErrorCode::WrongState, message)
            .path("id")
            .hint(hint))
    }

    /// The guest did something about the device behind `port`.
    pub(super) fn slot_answered(&mut self, port: PciAddress, answer: SlotAnswer) {
        // It may have gone since.
        let Some(id) = self.machine.slots_mut().answered(port) else {
            return;
        };
        match answer {
            SlotAnswer::Accepted => self.events.emit(Event::DeviceAccepted { id }),
            SlotAnswer::Refused => self.events.emit(Event::DeviceRefused { id }),
            SlotAnswer::Released => {
                self.disks.remove(&id);
                self.metrics.forget(("net", &id));
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

    /// When to look for guests that do not answer; never while the guest stands still.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        let running = self.state == VmState::Running;
        running.then(|| self.machine.slots().patience_ends())?
    }

    /// Tells of devices about which the guest is silent.
    pub(super) fn tell_unanswered(&mut self) {
        for (id, question) in self.machine.slots_mut().unanswered(Instant::now()) {
            let asked = match question {
                Question::Take => Asked::Add,
                Question::LetGo => Asked::Remove,
            };
            self.events.emit(Event::DeviceUnanswered { id, asked });
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
        let plugged = plugged.map(|(port, id, device)| DeviceInfo {
            id: id.to_owned(),
            kind: device.kind().to_owned(),
            address: format!("{port}/00.0"),
        });
        own.chain(plugged).collect()
    }
}

fn refused(error: &PlugError) -> ApiError {
    let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let told = ApiError {
        causes: sources.map(ToString::to_string).collect(),
        ..ApiError::new(ErrorCode::Resource, error.to_string())
    };
    match error {
        PlugError::Ends(error) => told.path(error.key()).hint(error.hint()),
        PlugError::Image(_) | PlugError::Attach(_) => told,
    }
}
