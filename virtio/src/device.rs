//! What a virtio device is to its transport.

use std::sync::Arc;

use caraway_devices::StateError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::queue::Virtqueue;

/// What kind of device the driver finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceType {
    /// The virtio device id (section 5), e.g. 2 for a block device.
    pub id: u16,
    /// The PCI class code: base class, subclass and interface in bits 23:16, 15:8 and 7:0.
    pub pci_class: u32,
}

/// A virtio device without its transport.
///
/// Calls come from vCPU threads (configuration, start, stop) and from whichever thread serves the
/// queues, so a device guards its state itself.
pub trait VirtioDevice: Send + Sync {
    /// What a snapshot keeps of the device, beyond its queues and its PCI function.
    type State: Serialize + DeserializeOwned;
    /// The name under which the device and its transport are saved, e.g. `"virtio-blk"`.
    const KIND: &'static str;
    /// The version of [`State`](Self::State).
    const VERSION: u32;
    /// What it is to the driver.
    const TYPE: DeviceType;

    /// The device's own feature bits (bits 0 to 23, section 5); the transport adds its own.
    fn features(&self) -> u64;

    /// The largest size of each queue, a power of two from 1 to 32768; its length is the number of
    /// queues.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from `offset` of the device's configuration; zeroes where there is none.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Takes what the driver wrote at `offset` of the device's configuration.
    fn write_config(&self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// The driver is ready and both sides agreed on `features`; the queues follow.
    fn activate(&self, features: u64) {
        let _ = features;
    }

    /// From now on `queue` may be served.
    fn start_queue(&self, queue: Arc<Virtqueue>);

    /// Lets go of queue `index`. When this returns, nothing reads or writes its buffers any more.
    fn stop_queue(&self, index: u16);

    /// The driver rang queue `index`: serve it. Called by the thread that owns the queue.
    fn process_queue(&self, index: u16);

    /// As after power-on; the queues are stopped already.
    fn reset(&self);

    /// What a snapshot keeps.
    fn save(&self) -> Self::State;

    /// Takes a saved state on, or changes nothing.
    ///
    /// # Errors
    /// [`StateError::Invalid`] if a field is out of its range.
    fn restore(&self, state: Self::State) -> Result<(), StateError>;
}
