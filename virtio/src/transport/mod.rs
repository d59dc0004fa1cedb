//! The virtio-pci transport, modern devices only (section 4.1).

use std::io;
use std::sync::Arc;

use caraway_devices::pci::{ConfigSpace, Msix, MsixError, PciFunction};
use caraway_devices::{GuestMemory, InterruptLine, MsiProvider};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::VirtioDevice;
use crate::queue::Virtqueue;
use crate::split::{SplitError, SplitRing};

mod common;
mod layout;
mod signals;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use signals::Signals;
pub use state::VirtioPciState;
#[cfg(test)]
pub(crate) use status::EVENT_IDX;

use common::{Action, Common, QueueSetup};
use layout::Region;

/// Whoever lets a guest's write to an address ring an eventfd without leaving the kernel: KVM's
/// ioeventfd, or a test.
pub trait NotifyRegistrar: Send + Sync {
    /// A write of any length at guest-physical `address` adds one to `event` from now on, and does
    /// not come to [`PciFunction::bar_write`] any more.
    ///
    /// # Errors
    /// Whatever the host says; the queue then works by trapped writes.
    fn register(&self, address: u64, event: &EventFd) -> io::Result<()>;
    /// Takes such an address back.
    fn unregister(&self, address: u64, event: &EventFd);
}

/// Why a virtio function could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VirtioPciError {
    /// The machine has no interrupts for it.
    #[error("a {kind} device can't have its {vectors} interrupt vectors")]
    Vectors {
        /// Which device.
        kind: &'static str,
        /// How many it wants.
        vectors: u16,
        /// Why not.
        #[source]
        source: MsixError,
    },
    /// The host has no eventfd for it.
    #[error("a {kind} device can't have the eventfd of its queue {queue}")]
    Event {
        /// Which device.
        kind: &'static str,
        /// Which queue.
        queue: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D> {
    device: Arc<D>,
    memory: GuestMemory,
    config: Mutex<ConfigSpace>,
    /// Offset of the capability through which firmware reaches the BAR.
    window: u16,
    signals: Arc<Signals>,
    common: Mutex<Common>,
    doorbells: Vec<EventFd>,
    registrar: Arc<dyn NotifyRegistrar>,
    /// Where the doorbells are registered.
    notify_base: Mutex<Option<u64>>,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Puts `device` on the bus: with a vector for each queue and one for its configuration from
    /// `msi`, with `line` as its INTx pin, and its doorbells at `registrar`.
    ///
    /// # Errors
    /// [`VirtioPciError`] if the host or the machine is out of vectors or eventfds.
    pub fn new(
        device: Arc<D>,
        memory: GuestMemory,
        msi: &dyn MsiProvider,
        line: Arc<dyn InterruptLine>,
        registrar: Arc<dyn NotifyRegistrar>,
    ) -> Result<Arc<Self>, VirtioPciError> {
        let kind = D::KIND;
        let sizes = device.queue_sizes();
        let vectors = sizes.len() as u16 + 1;
        let (mut config, window) = layout::config_space(D::TYPE);
        let mut msix = Msix::new(vectors, msi).map_err(|source| VirtioPciError::Vectors {
            kind,
            vectors,
            source,
        })?;
        msix.add_capability(&mut config, layout::MSIX_BAR, 0, layout::MSIX_PBA);
        let doorbell = |queue| {
            EventFd::new(EFD_NONBLOCK).map_err(|source| VirtioPciError::Event {
                kind,
                queue,
                source,
            })
        };
        let doorbells = (0..sizes.len()).map(doorbell).collect::<Result<_, _>>()?;
        let offered = device.features() | status::TRANSPORT_FEATURES;
        let common = Mutex::new(Common::new(offered, sizes));
        let signals = Arc::new(Signals::new(kind, sizes.len(), msix, line));
        Ok(Arc::new(Self {
            device,
            memory,
            config: Mutex::new(config),
            window,
            signals,
            common,
            doorbells,
            registrar,
            notify_base: Mutex::new(None),
        }))
    }

    /// The device behind the transport.
    #[must_use]
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// The bell of each queue, which does not block. When it rings, the thread that owns the queue
    /// calls [`process_queue`](Self::process_queue).
    #[must_use]
    pub fn queue_events(&self) -> &[EventFd] {
        &self.doorbells
    }

    /// Serves queue `index` after its bell rang, and silences the bell.
    pub fn process_queue(&self, index: u16) {
        if usize::from(index) < self.doorbells.len() {
            self.silence_doorbell(index);
            self.device.process_queue(index);
        }
    }

    /// What the driver makes available from here on rings the bell of queue `index` again.
    pub(crate) fn silence_doorbell(&self, index: u16) {
        if let Some(doorbell) = self.doorbells.get(usize::from(index)) {
            // It may have been silent: a queue may be served without a reason.
            let _ = doorbell.read();
        }
    }

    /// Tells the driver that the device's configuration changed.
    pub fn config_changed(&self) {
        if self.signals.status() & status::DRIVER_OK != 0 {
            self.signals.config_changed();
        }
    }

    /// Stops everything and forgets what the driver set up (2.4).
    fn reset_device(&self, common: &mut Common) {
        for index in 0..common.queues.len() {
            self.stop_queue(common, index as u16);
        }
        self.device.reset();
        self.signals.reset();
        *common = Common::new(common.offered, self.device.queue_sizes());
    }

    fn stop_queue(&self, common: &mut Common, index: u16) {
        let Some(slot) = common.queues.get_mut(usize::from(index)) else {
            return;
        };
        if let Some(queue) = slot.active.take() {
            self.device.stop_queue(index);
            queue.stop();
        }
        slot.setup = QueueSetup::new(slot.max_size);
        self.signals.set_queue_vector(index, signals::NO_VECTOR);
    }

    /// The status machine (3.1).
    fn write_status(&self, common: &mut Common, value: u8) {
        if value == 0 {
            return self.reset_device(common);
        }
        let before = self.signals.status();
        let mut wanted = value & status::DRIVERS & !before;
        if wanted & status::FEATURES_OK != 0 && !acceptable(common) {
            // The driver reads the status back and sees that it does not hold.
            wanted &= !status::FEATURES_OK;
        }
        let after = before | wanted;
        if wanted & status::DRIVER_OK != 0 && after & status::FEATURES_OK == 0 {
            return self.signals.fail(&"DRIVER_OK came before FEATURES_OK");
        }
        self.signals.add_status(wanted);
        if wanted & status::DRIVER_OK != 0 {
            self.activate(common);
        }
    }

    fn activate(&self, common: &mut Common) {
        self.device.activate(common.driver_features);
        for index in 0..common.queues.len() {
            if common.queues[index].setup.enabled {
                self.start_queue(common, index as u16);
            }
        }
    }

    /// Queue `index` as the driver described it, if that holds: size, alignment, and rings in RAM.
    fn check_queue(&self, common: &Common, index: u16) -> Result<SplitRing, BadQueue> {
        let bad = |source| BadQueue { index, source };
        let slot = common.queues.get(usize::from(index));
        // One that does not exist has size 0, as the driver reads it too.
        let slot = slot.ok_or(bad(SplitError::Size(0)))?;
        let event_idx = common.driver_features & status::EVENT_IDX != 0;
        let ring = slot.setup.ring(&self.memory, slot.max_size, event_idx);
        ring.map_err(bad)
    }

    fn enable_queue(&self, common: &mut Common, index: u16) {
        if let Err(bad) = self.check_queue(common, index) {
            return self.signals.fail(&bad);
        }
        if let Some(slot) = common.queues.get_mut(usize::from(index)) {
            slot.setup.enabled = true;
        }
        if self.signals.status() & status::DRIVER_OK != 0 {
            self.start_queue(common, index);
        }
    }

    fn start_queue(&self, common: &mut Common, index: u16) {
        let ring = match self.check_queue(common, index) {
            Ok(ring) => ring,
            Err(bad) => return self.signals.fail(&bad),
        };
        let Some(doorbell) = self.doorbells.get(usize::from(index)) else {
            return;
        };
        let doorbell = match doorbell.try_clone() {
            Ok(doorbell) => doorbell,
            Err(error) => return self.signals.fail(&format_args!("no eventfd: {error}")),
        };
        let queue = Arc::new(Virtqueue::new(
            index,
            ring,
            self.memory.clone(),
            Arc::clone(&self.signals),
            doorbell,
        ));
        if let Some(slot) = common.queues.get_mut(usize::from(index)) {
            slot.active = Some(Arc::clone(&queue));
        }
        self.device.start_queue(Arc::clone(&queue));
        // The driver may have filled it before the device was ready.
        queue.ring();
    }

    fn reset_queue(&self, common: &mut Common, index: u16) {
        if common.driver_features & status::RING_RESET != 0 {
            self.stop_queue(common, index);
        }
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        let mut common = self.common.lock();
        let settled = self.signals.status() & status::FEATURES_OK != 0;
        match common.write(&self.signals, settled, offset, data) {
            Some(Action::Status(value)) => self.write_status(&mut common, value),
            Some(Action::EnableQueue(index)) => self.enable_queue(&mut common, index),
            Some(Action::ResetQueue(index)) => self.reset_queue(&mut common, index),
            None => {}
        }
    }

    fn ring_doorbell(&self, offset: u64) {
        let index = usize::try_from(offset / layout::NOTIFY_MULTIPLIER);
        if let Some(doorbell) = index.ok().and_then(|index| self.doorbells.get(index)) {
            // A full counter means that the bell is ringing already.
            let _ = doorbell.write(1);
        }
    }

    fn register_doorbells(&self, base: Option<u64>) {
        let mut registered = self.notify_base.lock();
        let address = |base: u64, index: usize| {
            base + Region::Notify.offset() + index as u64 * layout::NOTIFY_MULTIPLIER
        };
        if let Some(old) = registered.take() {
            for (index, doorbell) in self.doorbells.iter().enumerate() {
                self.registrar.unregister(address(old, index), doorbell);
            }
        }
        let Some(base) = base else { return };
        for (index, doorbell) in self.doorbells.iter().enumerate() {
            if let Err(error) = self.registrar.register(address(base, index), doorbell) {
                tracing::warn!(device = D::KIND, queue = index, %error, "the queue's notifications are trapped");
                for (index, doorbell) in self.doorbells.iter().enumerate().take(index) {
                    self.registrar.unregister(address(base, index), doorbell);
                }
                return;
            }
        }
        *registered = Some(base);
    }

    /// The BAR, offset and length that the window's registers ask for, if they make sense.
    fn window_target(&self) -> Option<(u8, u64, usize)> {
        let config = self.config.lock();
        let at = usize::from(self.window);
        let bar = config.u16_at(at + usize::from(layout::window::BAR)) as u8;
        let offset = config.u32_at(at + usize::from(layout::window::OFFSET));
        let length = config.u32_at(at + usize::from(layout::window::LENGTH));
        let length = usize::try_from(length).ok()?;
        let sound = matches!(length, 1 | 2 | 4) && (offset as usize).is_multiple_of(length);
        (bar == layout::BAR && sound).then_some((bar, u64::from(offset), length))
    }

    /// Whether an access of the guest is one to the window's data. Whoever changes more than a
    /// register at once restores or resets the space, and looks through no window.
    fn touches_window(&self, offset: u16, len: usize) -> bool {
        let from = usize::from(self.window + layout::window::DATA);
        let start = usize::from(offset);
        self.window != 0 && len <= 8 && start < from + 4 && start + len > from
    }

    fn read_msix(&self, offset: u64, data: &mut [u8]) {
        let msix = self.signals.msix.lock();
        match offset.checked_sub(u64::from(layout::MSIX_PBA)) {
            Some(offset) => msix.read_pba(offset, data),
            None => msix.read_table(offset, data),
        }
    }
}

/// A queue that the driver described wrongly.
#[derive(Debug, thiserror::Error)]
#[error("queue {index} is set up wrongly: {source}")]
struct BadQueue {
    index: u16,
    source: SplitError,
}

/// Whether the driver took only what was offered, and what a modern driver must take.
fn acceptable(common: &Common) -> bool {
    common.driver_features & !common.offered == 0 && common.driver_features & status::VERSION_1 != 0
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config(&self) -> &Mutex<ConfigSpace> {
        &self.config
    }

    fn config_reading(&self, offset: u16, len: usize) {
        if !self.touches_window(offset, len) {
            return;
        }
        if let Some((bar, at, length)) = self.window_target() {
            let mut data = [0; 4];
            self.bar_read(bar, at, &mut data[..length]);
            let to = usize::from(self.window + layout::window::DATA);
            self.config.lock().put(to, &data);
        }
    }

    fn config_written(&self, offset: u16, len: usize) {
        let intx_disabled = {
            let config = self.config.lock();
            self.signals.msix.lock().config_written(&config);
            config.is_intx_disabled()
        };
        self.signals.update_pin(intx_disabled);
        if !self.touches_window(offset, len) {
            return;
        }
        if let Some((bar, at, length)) = self.window_target() {
            let from = usize::from(self.window + layout::window::DATA);
            let data = self.config.lock().u32_at(from).to_le_bytes();
            self.bar_write(bar, at, &data[..length]);
        }
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar == layout::MSIX_BAR {
            return self.read_msix(offset, data);
        }
        match Region::at(offset) {
            Some((Region::Common, at)) if bar == layout::BAR => {
                let image = self.common.lock().image(&self.signals);
                for (target, source) in data.iter_mut().zip(image.iter().skip(at as usize)) {
                    *target = *source;
                }
            }
            Some((Region::Isr, 0)) if bar == layout::BAR => {
                if let Some(first) = data.first_mut() {
                    *first = self.signals.take_isr();
                }
            }
            Some((Region::Device, at)) if bar == layout::BAR => self.device.read_config(at, data),
            _ => {}
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        if bar == layout::MSIX_BAR {
            return self.signals.msix.lock().write_table(offset, data);
        }
        match Region::at(offset) {
            Some((Region::Common, at)) if bar == layout::BAR => self.write_common(at, data),
            Some((Region::Device, at)) if bar == layout::BAR => self.device.write_config(at, data),
            Some((Region::Notify, at)) if bar == layout::BAR => self.ring_doorbell(at),
            _ => {}
        }
    }

    fn bar_moved(&self, bar: u8, base: Option<u64>) {
        if bar == layout::BAR {
            self.register_doorbells(base);
        }
    }
}

impl<D> Drop for VirtioPci<D> {
    fn drop(&mut self) {
        let Some(base) = self.notify_base.lock().take() else {
            return;
        };
        for (index, doorbell) in self.doorbells.iter().enumerate() {
            let at = Region::Notify.offset() + index as u64 * layout::NOTIFY_MULTIPLIER;
            self.registrar.unregister(base + at, doorbell);
        }
    }
}
