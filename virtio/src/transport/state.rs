//! What a snapshot keeps of a virtio function. Its configuration space is the PCI root's to save,
//! and to restore first.

use caraway_devices::pci::MsixState;
use caraway_devices::state::{restore_payload, save_payload};
use caraway_devices::{Lifecycle, Payload, StateError, Stateful};
use serde::{Deserialize, Serialize};

use super::common::QueueSetup;
use super::status;
use super::{Common, VirtioPci};
use crate::device::VirtioDevice;

/// The state of a virtio function and the device `S` behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtioPciState<S> {
    msix: MsixState,
    status: u8,
    isr: u8,
    generation: u8,
    config_vector: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<QueueState>,
    device: S,
}

/// The state of one queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueState {
    setup: QueueSetup,
    vector: u16,
}

impl<D: VirtioDevice> VirtioPci<D> {
    fn save_state(&self) -> VirtioPciState<D::State> {
        // A device may give chains back to its queues, which moves their positions.
        let device = self.device.save();
        let common = self.common.lock();
        let queue = |(index, slot): (usize, &super::common::QueueSlot)| {
            let mut setup = slot.setup.clone();
            if let Some(active) = &slot.active {
                (setup.next_avail, setup.next_used) = active.position();
            }
            let vector = self.signals.queue_vector(index as u16);
            QueueState { setup, vector }
        };
        VirtioPciState {
            msix: self.signals.msix.lock().save(),
            status: self.signals.status(),
            isr: self.signals.isr(),
            generation: self.signals.generation(),
            config_vector: self.signals.config_vector(),
            device_feature_select: common.device_feature_select,
            driver_feature_select: common.driver_feature_select,
            driver_features: common.driver_features,
            queue_select: common.queue_select,
            queues: common.queues.iter().enumerate().map(queue).collect(),
            device,
        }
    }

    fn invalid(what: String) -> StateError {
        StateError::Invalid {
            kind: D::KIND,
            what,
        }
    }

    /// The registers that `state` describes, with every queue that is enabled checked.
    fn checked(&self, state: &VirtioPciState<D::State>) -> Result<Common, StateError> {
        let offered = self.device.features() | status::TRANSPORT_FEATURES;
        let mut common = Common::new(offered, self.device.queue_sizes());
        if state.queues.len() != common.queues.len() {
            let (found, expected) = (state.queues.len(), common.queues.len());
            return Err(Self::invalid(format!("{found} queues, not {expected}")));
        }
        common.device_feature_select = state.device_feature_select;
        common.driver_feature_select = state.driver_feature_select;
        common.driver_features = state.driver_features;
        common.queue_select = state.queue_select;
        let negotiated = state.status & status::FEATURES_OK != 0;
        if state.status & status::DRIVER_OK != 0 && !negotiated {
            let status = state.status;
            let what = format!("status {status:#x}, with DRIVER_OK and without FEATURES_OK");
            return Err(Self::invalid(what));
        }
        if negotiated && state.driver_features & !offered != 0 {
            let features = state.driver_features;
            let what = format!("features {features:#x}, of which {offered:#x} are offered");
            return Err(Self::invalid(what));
        }
        for (slot, saved) in common.queues.iter_mut().zip(&state.queues) {
            if !saved.setup.size.is_power_of_two() || saved.setup.size > slot.max_size {
                let (size, max) = (saved.setup.size, slot.max_size);
                let what = format!("queue size {size}, not a power of two up to {max}");
                return Err(Self::invalid(what));
            }
            slot.setup = saved.setup.clone();
        }
        for index in 0..common.queues.len() {
            if common.queues[index].setup.enabled {
                self.check_queue(&common, index as u16)
                    .map_err(|bad| Self::invalid(bad.to_string()))?;
            }
        }
        Ok(common)
    }

    fn restore_state(&self, state: VirtioPciState<D::State>) -> Result<(), StateError> {
        let restored = self.checked(&state)?;
        let mut common = self.common.lock();
        let device_before = self.device.save();
        self.device.restore(state.device)?;
        if let Err(error) = self.signals.msix.lock().restore(state.msix) {
            self.device.restore(device_before)?;
            return Err(error);
        }
        for index in 0..common.queues.len() {
            self.stop_queue(&mut common, index as u16);
        }
        *common = restored;
        for (index, queue) in state.queues.iter().enumerate() {
            self.signals.set_queue_vector(index as u16, queue.vector);
        }
        self.signals.set_config_vector(state.config_vector);
        self.signals.restore_generation(state.generation);
        self.signals
            .set_status(state.status & (status::DRIVERS | status::NEEDS_RESET));
        self.signals
            .update_pin(self.config.lock().is_intx_disabled());
        self.signals.set_isr(state.isr);
        if state.status & status::DRIVER_OK != 0 {
            self.activate(&mut common);
        }
        Ok(())
    }

    fn power_on(&self) {
        self.reset_device(&mut self.common.lock());
        self.signals.msix.lock().reset();
    }
}

impl<D: VirtioDevice> Stateful for VirtioPci<D> {
    type State = VirtioPciState<D::State>;
    const KIND: &'static str = D::KIND;
    const VERSION: u32 = D::VERSION;

    fn save(&self) -> Self::State {
        self.save_state()
    }

    fn restore(&mut self, state: Self::State) -> Result<(), StateError> {
        self.restore_state(state)
    }

    fn reset(&mut self) {
        self.power_on();
    }
}

/// Lets the shared helpers, which want a device of their own, work on one that many share.
struct Shared<'a, D>(&'a VirtioPci<D>);

impl<D: VirtioDevice> Stateful for Shared<'_, D> {
    type State = VirtioPciState<D::State>;
    const KIND: &'static str = D::KIND;
    const VERSION: u32 = D::VERSION;

    fn save(&self) -> Self::State {
        self.0.save_state()
    }

    fn restore(&mut self, state: Self::State) -> Result<(), StateError> {
        self.0.restore_state(state)
    }

    fn reset(&mut self) {
        self.0.power_on();
    }
}

impl<D: VirtioDevice> Lifecycle for VirtioPci<D> {
    fn kind(&self) -> &'static str {
        D::KIND
    }

    fn reset(&self) {
        self.power_on();
    }

    fn save(&self) -> Result<Payload, StateError> {
        save_payload(&Shared(self))
    }

    fn restore(&self, payload: &Payload) -> Result<(), StateError> {
        restore_payload(&mut Shared(self), payload)
    }
}
