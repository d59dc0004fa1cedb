//! Slots, and the devices that come and go while the machine runs.

use std::sync::Arc;

use caraway_devices::pci::{PciAddress, RootError, RootPort, SlotAnswer};
use caraway_devices::{Lifecycle, MsiProvider};

use caraway_virtio::BlockError;

use super::Machine;
use super::board::Board;
use super::disks::{self, DiskHandle, RunningDisk};
use super::notices::{Notice, Notices};
use super::virtio::{AttachError, INTA, Slots};
use crate::config::{DiskSpec, HotplugSpec};
use crate::kvm::IoEvents;

/// The machine's slots, and what is in them.
#[derive(Default)]
pub struct HotplugSlots(Vec<Slot>);

struct Slot {
    /// Where its root port is.
    address: PciAddress,
    port: Arc<RootPort>,
    device: Option<PluggedDisk>,
}

struct PluggedDisk {
    id: String,
    disk: RunningDisk,
}

/// Why a disk could not be put into a slot.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// An image can't be used.
    #[error("the disk can't be opened")]
    Image(#[from] BlockError),
    /// The host lacks what the device needs.
    #[error("the disk can't be served")]
    Attach(#[from] AttachError),
}

/// A device that was taken out of its slot. Dropped, it waits for what is under way, and then lets
/// its files go.
pub struct Unplugged {
    /// What the guest had before itself.
    device: Arc<dyn Lifecycle>,
    _disk: RunningDisk,
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        self.device.reset();
    }
}

impl HotplugSlots {
    /// Puts the root ports of `spec` on the board.
    ///
    /// # Errors
    /// An address is taken.
    pub fn add(
        spec: Option<&HotplugSpec>,
        board: &Board,
        notices: &Arc<Notices>,
    ) -> Result<Self, RootError> {
        let ports = spec.into_iter().flat_map(HotplugSpec::ports).zip(1..);
        let slots = ports.filter_map(|(address, number)| {
            let line = board.intx.line(address, INTA);
            let notices = Arc::clone(notices);
            let answered = move |answer: SlotAnswer| {
                let port = address;
                notices.post(Notice::Slot { port, answer });
            };
            let port = RootPort::new(number, line, answered)?;
            let added = board.pci.add_port(address, Arc::clone(&port));
            Some(added.map(|()| Slot {
                address,
                port,
                device: None,
            }))
        });
        slots.collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The port of a slot that has no device.
    #[must_use]
    pub fn free(&self) -> Option<PciAddress> {
        let free = self.0.iter().find(|slot| slot.device.is_none());
        free.map(|slot| slot.address)
    }

    /// The id of the device in the slot behind `port`.
    #[must_use]
    pub fn device(&self, port: PciAddress) -> Option<&str> {
        let slot = self.0.iter().find(|slot| slot.address == port)?;
        slot.device.as_ref().map(|device| device.id.as_str())
    }

    /// Asks the guest to let the device `id` go; `false` if it is in no slot.
    #[must_use]
    pub fn ask(&self, id: &str) -> bool {
        let of = |slot: &&Slot| slot.device.as_ref().is_some_and(|device| device.id == id);
        let slot = self.0.iter().find(of);
        slot.inspect(|slot| slot.port.press_button()).is_some()
    }

    /// Every device in a slot: the address of the slot's root port, and the device's id.
    pub fn devices(&self) -> impl Iterator<Item = (PciAddress, &str)> {
        self.0.iter().filter_map(|slot| {
            let device = slot.device.as_ref()?;
            Some((slot.address, device.id.as_str()))
        })
    }

    /// The disks in slots.
    pub(super) fn disks(&self) -> impl Iterator<Item = &RunningDisk> {
        let devices = self.0.iter().filter_map(|slot| slot.device.as_ref());
        devices.map(|device| &device.disk)
    }

    fn slot(&mut self, port: PciAddress) -> Option<&mut Slot> {
        self.0.iter_mut().find(|slot| slot.address == port)
    }
}

impl Machine {
    /// Puts a disk into the slot whose root port is at the address of `spec`, and tells the guest.
    ///
    /// # Errors
    /// [`PlugError`]; nothing has changed then.
    pub fn plug_disk(&mut self, spec: &DiskSpec) -> Result<DiskHandle, PlugError> {
        let (clock, timers) = self.time.parts();
        let disk = disks::open_one(spec, clock)?;
        let index = self.disks.len() + self.slots.disks().count();
        let mut slots = Slots {
            board: &mut self.board,
            memory: &self.memory,
            msi: &self.interrupts as &dyn MsiProvider,
            doorbells: IoEvents::new(Arc::clone(&self.vm)),
            clock: Arc::clone(clock),
            timers,
        };
        let failures = Arc::clone(&self.disk_failed);
        let started = RunningDisk::start(&mut slots, index, spec, disk, failures);
        let disk = started.inspect_err(|_| {
            // It may be in the slot already, with nobody to serve it.
            if let Some(device) = self.take_out(spec.address) {
                device.reset();
            }
        })?;
        let handle = disk.handle();
        if let Some(slot) = self.slots.slot(spec.address) {
            let id = spec.id.clone();
            slot.device = Some(PluggedDisk { id, disk });
        }
        Ok(handle)
    }

    /// Takes the device out of the slot behind `port`, if there is one.
    pub fn unplug(&mut self, port: PciAddress) -> Option<Unplugged> {
        let PluggedDisk { disk, .. } = self.slots.slot(port)?.device.take()?;
        Some(Unplugged {
            device: self.take_out(port)?,
            _disk: disk,
        })
    }

    /// Takes what is behind `port` off the bus, and tells the guest.
    fn take_out(&mut self, port: PciAddress) -> Option<Arc<dyn Lifecycle>> {
        let function = self.board.pci.unplug(port)?;
        let is_it = |device: &Arc<dyn Lifecycle>| {
            Arc::as_ptr(device).cast::<()>() == Arc::as_ptr(&function).cast::<()>()
        };
        let at = self.board.lifecycles.iter().position(is_it)?;
        Some(self.board.lifecycles.remove(at))
    }

    /// The slots of devices that come and go.
    #[must_use]
    pub fn slots(&self) -> &HotplugSlots {
        &self.slots
    }
}
