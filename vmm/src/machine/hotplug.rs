//! Slots, and the devices that come and go while the machine runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caraway_devices::pci::{PciAddress, RootError, RootPort, SlotAnswer};
use caraway_devices::{Lifecycle, MsiProvider, RealClock};
use caraway_virtio::{Block, BlockError};

use super::Machine;
use super::board::Board;
use super::disks::{self, DiskFailed, DiskHandle, RunningDisk};
use super::event_loop::{EventLoop, Served};
use super::nets::{Inherited, NetCard, NetEndError, NetEnds};
use super::notices::{Notice, Notices};
use super::virtio::{AttachError, INTA, Slots};
use crate::config::net::NetSpec;
use crate::config::{DiskSpec, HotplugSpec};
use crate::kvm::IoEvents;

/// How long a guest that knows hot-plug takes at most: Linux waits for 5 s before it lets a device go.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machine's slots, and what is in them.
#[derive(Default)]
pub struct HotplugSlots(Vec<Slot>);

struct Slot {
    /// Where its root port is.
    address: PciAddress,
    port: Arc<RootPort>,
    content: Option<Content>,
}

struct Content {
    id: String,
    /// What the guest was told or asked and has not answered, and when.
    open: Option<(Question, Instant)>,
    device: Device,
    served: Served,
}

/// What a guest is asked about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// To take it.
    Take,
    /// To let it go.
    LetGo,
}

/// A device that runs.
pub enum Device {
    /// A disk.
    Disk(RunningDisk),
    /// A network card.
    Net(NetCard),
}

impl Device {
    /// As `vm.info` calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Disk(_) => "virtio-blk",
            Self::Net(_) => "virtio-net",
        }
    }
}

/// Why a device could not be put into a slot.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// An image can't be used.
    #[error("the disk can't be opened")]
    Image(#[from] BlockError),
    /// There is nothing to join a card to.
    #[error(transparent)]
    Ends(#[from] NetEndError),
    /// The host lacks what the device needs.
    #[error("the device can't be served")]
    Attach(#[from] AttachError),
}

/// What the host must have for any device.
#[derive(Clone)]
pub struct HostParts {
    /// The machine's clock.
    pub clock: Arc<RealClock>,
    /// Descriptors that whoever started the machine left open for it.
    pub inherited: Arc<Inherited>,
}

/// What the machine has for a device.
pub struct Socket<'a> {
    slots: Slots<'a>,
    number: usize,
    disk_failed: DiskFailed,
    notices: &'a Arc<Notices>,
}

/// A kind of device that slots take, as the config describes it.
pub trait Plug: Send + 'static {
    /// What of the host it needs.
    type Host: Send + 'static;
    /// What others may do with it while it runs.
    type Handle;

    /// Its id.
    fn id(&self) -> &str;
    /// The root port of its slot.
    fn port(&self) -> PciAddress;
    /// Opens what of the host it needs. That may take as long as the host likes.
    ///
    /// # Errors
    /// Something is not there, or not ours to use.
    fn open(&self, parts: &HostParts) -> Result<Self::Host, PlugError>;
    /// Puts it into its slot.
    ///
    /// # Errors
    /// Its place is taken, or the host has no thread or descriptor for it.
    fn start(
        &self,
        host: Self::Host,
        socket: &mut Socket<'_>,
    ) -> Result<(Device, Self::Handle), AttachError>;
}

impl Plug for DiskSpec {
    type Host = Block;
    type Handle = DiskHandle;

    fn id(&self) -> &str {
        &self.id
    }

    fn port(&self) -> PciAddress {
        self.address
    }

    fn open(&self, parts: &HostParts) -> Result<Block, PlugError> {
        Ok(disks::open_one(self, &parts.clock)?)
    }

    fn start(
        &self,
        disk: Block,
        socket: &mut Socket<'_>,
    ) -> Result<(Device, DiskHandle), AttachError> {
        let failed = Arc::clone(&socket.disk_failed);
        let disk = RunningDisk::start(&mut socket.slots, socket.number, self, disk, failed)?;
        let handle = disk.handle();
        Ok((Device::Disk(disk), handle))
    }
}

impl Plug for NetSpec {
    type Host = NetEnds;
    /// It is reached by its id.
    type Handle = ();

    fn id(&self) -> &str {
        &self.id
    }

    fn port(&self) -> PciAddress {
        self.address
    }

    fn open(&self, parts: &HostParts) -> Result<NetEnds, PlugError> {
        Ok(NetEnds::open_one(self, &parts.inherited)?)
    }

    fn start(&self, ends: NetEnds, socket: &mut Socket<'_>) -> Result<(Device, ()), AttachError> {
        let Socket {
            slots,
            number,
            notices,
            ..
        } = socket;
        let card = NetCard::attach(*number, self, ends, slots, notices)?;
        Ok((Device::Net(card), ()))
    }
}

/// A device that was taken out of its slot. Dropped, it waits for what is under way, and then lets
/// its files and descriptors go.
pub struct Unplugged {
    /// What the guest had before itself.
    function: Arc<dyn Lifecycle>,
    _served: Served,
    _device: Device,
}

impl Drop for Unplugged {
    fn drop(&mut self) {
        self.function.reset();
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
                content: None,
            }))
        });
        slots.collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The ports of slots that have no device.
    pub fn free(&self) -> impl Iterator<Item = PciAddress> {
        let free = self.0.iter().filter(|slot| slot.content.is_none());
        free.map(|slot| slot.address)
    }

    /// The id of the device in the slot behind `port`, of which the guest now said something.
    #[must_use]
    pub fn answered(&mut self, port: PciAddress) -> Option<String> {
        let content = self.slot(port)?.content.as_mut()?;
        content.open = None;
        Some(content.id.clone())
    }

    /// Asks the guest to let the device `id` go; `false` if it is in no slot.
    #[must_use]
    pub fn ask(&mut self, id: &str) -> bool {
        for slot in &mut self.0 {
            if let Some(content) = slot.content.as_mut().filter(|content| content.id == id) {
                content.open = Some((Question::LetGo, Instant::now()));
                slot.port.press_button();
                return true;
            }
        }
        false
    }

    /// When a guest that has not answered by then is not expected to any more.
    #[must_use]
    pub fn patience_ends(&self) -> Option<Instant> {
        let contents = self.0.iter().filter_map(|slot| slot.content.as_ref());
        let since = contents.filter_map(|content| Some(content.open?.1)).min();
        since.map(|since| since + PATIENCE)
    }

    /// The devices about which the guest has been silent for too long; each is told once.
    pub fn unanswered(&mut self, now: Instant) -> impl Iterator<Item = (String, Question)> {
        let contents = self.0.iter_mut().filter_map(|slot| slot.content.as_mut());
        contents.filter_map(move |content| {
            let late = |open: &mut (Question, Instant)| open.1 + PATIENCE <= now;
            let (question, _) = content.open.take_if(late)?;
            Some((content.id.clone(), question))
        })
    }

    /// The guest could answer nothing until now.
    pub fn wait_anew(&mut self) {
        let contents = self.0.iter_mut().filter_map(|slot| slot.content.as_mut());
        for (_, since) in contents.filter_map(|content| content.open.as_mut()) {
            *since = Instant::now();
        }
    }

    /// Every device in a slot: the address of the slot's root port, the device's id, and the device.
    pub fn devices(&self) -> impl Iterator<Item = (PciAddress, &str, &Device)> {
        self.0.iter().filter_map(|slot| {
            let content = slot.content.as_ref()?;
            Some((slot.address, content.id.as_str(), &content.device))
        })
    }

    /// The disks in slots.
    pub(super) fn disks(&self) -> impl Iterator<Item = &RunningDisk> {
        self.devices().filter_map(|(.., device)| match device {
            Device::Disk(disk) => Some(disk),
            Device::Net(_) => None,
        })
    }

    /// The network cards in slots.
    pub(super) fn nets(&self) -> impl Iterator<Item = &NetCard> {
        self.devices().filter_map(|(.., device)| match device {
            Device::Net(card) => Some(card),
            Device::Disk(_) => None,
        })
    }

    fn slot(&mut self, port: PciAddress) -> Option<&mut Slot> {
        self.0.iter_mut().find(|slot| slot.address == port)
    }
}

impl Machine {
    /// Puts the device of `spec`, for which `host` was opened, into its slot, tells the guest, and has
    /// `devices` serve it.
    ///
    /// # Errors
    /// Its place is taken, or the host has no thread or descriptor for it; nothing has changed then.
    pub fn plug<P: Plug>(
        &mut self,
        spec: &P,
        host: P::Host,
        devices: &EventLoop,
    ) -> Result<P::Handle, AttachError> {
        let (clock, timers) = self.time.parts();
        self.numbers += 1;
        let mut socket = Socket {
            slots: Slots {
                board: &mut self.board,
                memory: &self.memory,
                msi: &self.interrupts as &dyn MsiProvider,
                doorbells: IoEvents::new(Arc::clone(&self.vm)),
                clock: Arc::clone(clock),
                timers,
            },
            number: self.numbers,
            disk_failed: Arc::clone(&self.disk_failed),
            notices: &self.notices,
        };
        let started = spec.start(host, &mut socket);
        let sources = std::mem::take(&mut self.board.sources);
        let (device, handle) = started.inspect_err(|_| {
            // It may be in the slot already, with nobody to serve it.
            if let Some(device) = self.take_out(spec.port()) {
                device.reset();
            }
        })?;
        if let Some(slot) = self.slots.slot(spec.port()) {
            slot.content = Some(Content {
                id: spec.id().to_owned(),
                open: Some((Question::Take, Instant::now())),
                device,
                served: devices.serve(sources),
            });
        }
        Ok(handle)
    }

    /// Takes the device out of the slot behind `port`, if there is one.
    pub fn unplug(&mut self, port: PciAddress) -> Option<Unplugged> {
        let Content { device, served, .. } = self.slots.slot(port)?.content.take()?;
        Some(Unplugged {
            function: self.take_out(port)?,
            _served: served,
            _device: device,
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

    /// The same, to ask the guest for one of them.
    pub fn slots_mut(&mut self) -> &mut HotplugSlots {
        &mut self.slots
    }

    /// What the host must have for devices that come.
    #[must_use]
    pub fn host_parts(&self) -> HostParts {
        HostParts {
            clock: Arc::clone(self.time.parts().0),
            inherited: Arc::clone(&self.inherited),
        }
    }
}
