//! Virtio devices: on the bus, and served by the event loop.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use caraway_devices::pci::{PciAddress, RootError};
use caraway_devices::{GuestMemory, Lifecycle, MsiProvider, RealClock};
use caraway_virtio::{NotifyRegistrar, VirtioDevice, VirtioPci, VirtioPciError};

use super::board::Board;
use super::event_loop::{Keep, Source};
use super::timers::{DeviceTimer, Timers};

/// Virtio devices interrupt by INTA where a guest can't do MSI-X.
pub(super) const INTA: u8 = 1;

/// Why a virtio device is not there.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The device can't be made.
    #[error("the device at {address} can't be made")]
    Device {
        /// Where it was to be.
        address: PciAddress,
        /// Why.
        #[source]
        source: VirtioPciError,
    },
    /// Its place is taken.
    #[error("the device can't be placed")]
    Place(#[from] RootError),
    /// The host has no descriptor for it.
    #[error("the host has no descriptor for the device")]
    Descriptor(#[source] std::io::Error),
    /// The host has no thread or descriptor for it.
    #[error("the thread of disk {index} can't be started")]
    Thread {
        /// Which disk, counted from the start of the machine.
        index: usize,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// What virtio devices need of the machine.
pub struct Slots<'a> {
    /// Where they go.
    pub board: &'a mut Board,
    /// What they read and write.
    pub memory: &'a GuestMemory,
    /// Where their interrupts come from.
    pub msi: &'a dyn MsiProvider,
    /// Where their doorbells go.
    pub doorbells: Arc<dyn NotifyRegistrar>,
    /// The machine's time.
    pub clock: Arc<RealClock>,
    /// Where they get their timers.
    pub timers: &'a Timers,
}

impl Slots<'_> {
    /// Puts `device` at `address`, or into the slot there if that is a root port's; whoever asks serves
    /// its queues.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach<D: VirtioDevice + 'static>(
        &mut self,
        address: PciAddress,
        device: Arc<D>,
    ) -> Result<Arc<VirtioPci<D>>, AttachError> {
        let line = self.board.intx.line(address, INTA);
        let doorbells = Arc::clone(&self.doorbells);
        let pci = VirtioPci::new(device, self.memory.clone(), self.msi, line, doorbells)
            .map_err(|source| AttachError::Device { address, source })?;
        match self.board.pci.port(address) {
            Some(_) => self.board.pci.plug(address, pci.clone())?,
            None => self.board.pci.add(address, pci.clone())?,
        }
        self.board
            .lifecycles
            .push(pci.clone() as Arc<dyn Lifecycle>);
        Ok(pci)
    }

    /// Puts `device` at `address`, its queues served by the event loop; its PCI function.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach_to_loop<D: VirtioDevice + 'static>(
        &mut self,
        address: PciAddress,
        device: Arc<D>,
    ) -> Result<Arc<VirtioPci<D>>, AttachError> {
        let pci = self.attach(address, device)?;
        for (index, event) in (0..).zip(pci.queue_events()) {
            let fd = event.as_raw_fd();
            let pci = Arc::clone(&pci);
            self.board.sources.push(Source::new(fd, move || {
                pci.process_queue(index);
                Keep::Yes
            }));
        }
        Ok(pci)
    }

    /// Calls `expired` on the event loop whenever `timer` has rung.
    pub fn serve_timer(&mut self, timer: Arc<DeviceTimer>, expired: impl Fn() + Send + 'static) {
        let descriptor = timer.descriptor();
        self.board.sources.push(Source::new(descriptor, move || {
            if timer.acknowledge() {
                expired();
            }
            Keep::Yes
        }));
    }
}
