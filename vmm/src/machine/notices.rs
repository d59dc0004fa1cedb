//! What happens on the machine's own threads and concerns the control loop.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use caraway_devices::pci::{PciAddress, SlotAnswer};
use caraway_devices::{SystemControl, SystemEvent};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::vcpu::Stop;

/// More than this many at once can only be a guest that wants to fill our memory.
const MOST: usize = 64;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The guest did something that concerns the whole machine.
    System(SystemEvent),
    /// What the display shows has another size.
    Display,
    /// A viewer was the last one, and has gone.
    NoViewers,
    /// The guest set its clock.
    ClockSet,
    /// A disk waits for the host, and the guest shall not run meanwhile.
    DiskStopped,
    /// The guest did something about the device in a hot-plug slot.
    Slot {
        /// The slot's root port.
        port: PciAddress,
        /// What it did.
        answer: SlotAnswer,
    },
    /// The host's end of a network card is gone.
    NetLost {
        /// Which card, see [`NetCard::number`](super::NetCard::number).
        number: usize,
        /// Why.
        reason: String,
    },
    /// A network card has a host's end again.
    NetJoined {
        /// Which card, see [`NetCard::number`](super::NetCard::number).
        number: usize,
    },
    /// A vCPU can't go on.
    Stopped {
        /// Which.
        vcpu: usize,
        /// Why.
        stop: Stop,
    },
}

/// Takes notices from any thread, for the control loop.
pub struct Notices {
    waiting: Mutex<Vec<Notice>>,
    bell: EventFd,
}

impl Notices {
    /// No notice yet.
    ///
    /// # Errors
    /// The system's, if it has no eventfd to give.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let bell = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Arc::new(Self {
            waiting: Mutex::default(),
            bell,
        }))
    }

    /// Leaves a notice; one that says what the last one said adds nothing.
    pub fn post(&self, notice: Notice) {
        let mut waiting = self.waiting.lock();
        if waiting.last() == Some(&notice) || waiting.len() >= MOST {
            return;
        }
        waiting.push(notice);
        drop(waiting);
        // The counter can't overflow: it is written once a notice and there are few.
        let _ = self.bell.write(1);
    }

    /// Takes all notices, oldest first.
    pub fn take(&self) -> Vec<Notice> {
        // Not having rung is no error.
        let _ = self.bell.read();
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl AsRawFd for Notices {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

impl SystemControl for Notices {
    fn raise(&self, event: SystemEvent) {
        self.post(Notice::System(event));
    }
}
