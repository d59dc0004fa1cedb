//! The common configuration: status, features and the setup of queues (4.1.4.3).

use std::sync::Arc;

use caraway_devices::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::layout::COMMON_SIZE;
use super::signals::Signals;
use crate::queue::Virtqueue;
use crate::split::{SplitConfig, SplitError, SplitRing};

/// Offsets of the registers in `struct virtio_pci_common_cfg`.
mod register {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_VECTOR: u64 = 0x10;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const CONFIG_GENERATION: u64 = 0x15;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(super) const QUEUE_DESC: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    pub(super) const QUEUE_NOTIFY_DATA: u64 = 0x38;
    pub(super) const QUEUE_RESET: u64 = 0x3a;
}

/// What the driver told about one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSetup {
    /// Number of descriptors.
    pub(crate) size: u16,
    /// Whether the driver enabled it.
    pub(crate) enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub(crate) desc: u64,
    /// Guest-physical address of the available ring.
    pub(crate) driver: u64,
    /// Guest-physical address of the used ring.
    pub(crate) device: u64,
    /// The next available index to take.
    pub(crate) next_avail: u16,
    /// The next used index to fill.
    pub(crate) next_used: u16,
}

impl QueueSetup {
    pub(crate) fn new(size: u16) -> Self {
        Self {
            size,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
            next_avail: 0,
            next_used: 0,
        }
    }

    /// The ring as the driver described it, of at most `max_size` descriptors, with `EVENT_IDX` or without.
    ///
    /// # Errors
    /// Whatever of size, alignment and place is wrong.
    pub(crate) fn ring(
        &self,
        memory: &GuestMemory,
        max_size: u16,
        event_idx: bool,
    ) -> Result<SplitRing, SplitError> {
        let config = SplitConfig {
            size: self.size,
            max_size,
            table: GuestAddress(self.desc),
            available: GuestAddress(self.driver),
            used: GuestAddress(self.device),
            next_available: self.next_avail,
            next_used: self.next_used,
            event_idx,
        };
        SplitRing::new(memory, config)
    }
}

/// A queue of the device, enabled or not.
pub(crate) struct QueueSlot {
    pub(crate) max_size: u16,
    pub(crate) setup: QueueSetup,
    pub(crate) active: Option<Arc<Virtqueue>>,
}

/// The registers, apart from those in [`Signals`].
pub(crate) struct Common {
    pub(crate) offered: u64,
    pub(crate) device_feature_select: u32,
    pub(crate) driver_feature_select: u32,
    pub(crate) driver_features: u64,
    pub(crate) queue_select: u16,
    pub(crate) queues: Vec<QueueSlot>,
}

/// What a write asks for that takes more than a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The status was written.
    Status(u8),
    /// The selected queue is to be enabled.
    EnableQueue(u16),
    /// The selected queue is to be reset.
    ResetQueue(u16),
}

impl Common {
    pub(crate) fn new(offered: u64, sizes: &[u16]) -> Self {
        let slot = |&max_size: &u16| QueueSlot {
            max_size,
            setup: QueueSetup::new(max_size),
            active: None,
        };
        Self {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: sizes.iter().map(slot).collect(),
        }
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The selected queue, if its setup may still change.
    fn changeable(&mut self) -> Option<&mut QueueSetup> {
        let slot = self.queues.get_mut(usize::from(self.queue_select))?;
        (!slot.setup.enabled).then_some(&mut slot.setup)
    }

    /// Every register as the driver sees it now; reading has no side effect.
    pub(crate) fn image(&self, signals: &Signals) -> [u8; COMMON_SIZE] {
        use register as r;
        let mut image = [0; COMMON_SIZE];
        let mut put = |offset: u64, bytes: &[u8]| {
            let at = offset as usize;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        put(
            r::DEVICE_FEATURE_SELECT,
            &self.device_feature_select.to_le_bytes(),
        );
        put(
            r::DEVICE_FEATURE,
            &half(self.offered, self.device_feature_select).to_le_bytes(),
        );
        put(
            r::DRIVER_FEATURE_SELECT,
            &self.driver_feature_select.to_le_bytes(),
        );
        put(
            r::DRIVER_FEATURE,
            &half(self.driver_features, self.driver_feature_select).to_le_bytes(),
        );
        put(r::CONFIG_VECTOR, &signals.config_vector().to_le_bytes());
        put(r::NUM_QUEUES, &(self.queues.len() as u16).to_le_bytes());
        put(r::STATUS, &[signals.status()]);
        put(r::CONFIG_GENERATION, &[signals.generation()]);
        put(r::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        let vector = signals.queue_vector(self.queue_select);
        put(r::QUEUE_VECTOR, &vector.to_le_bytes());
        // A queue that does not exist has size 0, by which the driver knows.
        if let Some(QueueSlot { setup, .. }) = self.selected() {
            put(r::QUEUE_SIZE, &setup.size.to_le_bytes());
            put(r::QUEUE_ENABLE, &u16::from(setup.enabled).to_le_bytes());
            put(r::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(r::QUEUE_NOTIFY_DATA, &self.queue_select.to_le_bytes());
            put(r::QUEUE_DESC, &setup.desc.to_le_bytes());
            put(r::QUEUE_DRIVER, &setup.driver.to_le_bytes());
            put(r::QUEUE_DEVICE, &setup.device.to_le_bytes());
        }
        image
    }

    /// Takes a write of a whole register, or of a half of a 64-bit one; others are ignored.
    /// `settled` says that the features are agreed and fixed.
    pub(crate) fn write(
        &mut self,
        signals: &Signals,
        settled: bool,
        offset: u64,
        data: &[u8],
    ) -> Option<Action> {
        use register as r;
        let value = data
            .iter()
            .rev()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        match (offset, data.len()) {
            (r::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value as u32,
            (r::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value as u32,
            (r::DRIVER_FEATURE, 4) if !settled => {
                let shift = match self.driver_feature_select {
                    0 => 0,
                    1 => 32,
                    _ => return None,
                };
                let mask = u64::from(u32::MAX) << shift;
                self.driver_features = self.driver_features & !mask | value << shift;
            }
            (r::CONFIG_VECTOR, 2) => signals.set_config_vector(value as u16),
            (r::STATUS, 1) => return Some(Action::Status(value as u8)),
            (r::QUEUE_SELECT, 2) => self.queue_select = value as u16,
            (r::QUEUE_SIZE, 2) => {
                let max = self.selected()?.max_size;
                let size = value as u16;
                if size.is_power_of_two() && size <= max {
                    self.changeable()?.size = size;
                }
            }
            (r::QUEUE_VECTOR, 2) => signals.set_queue_vector(self.queue_select, value as u16),
            (r::QUEUE_ENABLE, 2) if value == 1 => {
                self.changeable()?;
                return Some(Action::EnableQueue(self.queue_select));
            }
            (r::QUEUE_RESET, 2) if value == 1 => {
                self.selected()?;
                return Some(Action::ResetQueue(self.queue_select));
            }
            (r::QUEUE_DESC..r::QUEUE_NOTIFY_DATA, 4 | 8) => {
                let setup = self.changeable()?;
                let target = match offset & !7 {
                    r::QUEUE_DESC => &mut setup.desc,
                    r::QUEUE_DRIVER => &mut setup.driver,
                    _ => &mut setup.device,
                };
                *target = match (offset & 7, data.len()) {
                    (0, 8) => value,
                    (0, 4) => *target & !u64::from(u32::MAX) | value,
                    (4, 4) => *target & u64::from(u32::MAX) | value << 32,
                    _ => return None,
                };
            }
            _ => {}
        }
        None
    }
}
