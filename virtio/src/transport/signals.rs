//! Everything the device says to the driver without being asked: interrupts and a broken status.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

use caraway_devices::InterruptLine;
use caraway_devices::pci::Msix;
use parking_lot::Mutex;

use super::status;

/// No vector is assigned (`VIRTIO_MSI_NO_VECTOR`, 4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// How many times a driver is heard to break the device before it is only whispered.
const LOUD_FAILURES: u32 = 16;

/// ISR status bit 0: a queue has used buffers (4.1.4.5).
const ISR_QUEUE: u8 = 1 << 0;
/// ISR status bit 1: the configuration changed.
const ISR_CONFIG: u8 = 1 << 1;

/// The device's side of the function: shared by the transport and every queue.
pub(crate) struct Signals {
    kind: &'static str,
    status: AtomicU8,
    generation: AtomicU8,
    failures: AtomicU32,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    pub(crate) msix: Mutex<Msix>,
    pin: Mutex<Pin>,
}

/// The INTx pin, and the ISR status that drives it.
struct Pin {
    line: Arc<dyn InterruptLine>,
    isr: u8,
    disabled: bool,
}

impl Pin {
    fn update(&self, msix_enabled: bool) {
        self.line
            .set(self.isr != 0 && !self.disabled && !msix_enabled);
    }
}

impl Signals {
    pub(crate) fn new(
        kind: &'static str,
        queues: usize,
        msix: Msix,
        line: Arc<dyn InterruptLine>,
    ) -> Self {
        Self {
            kind,
            status: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            msix: Mutex::new(msix),
            pin: Mutex::new(Pin {
                line,
                isr: 0,
                disabled: false,
            }),
        }
    }

    pub(crate) fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.status.store(status, Ordering::Release);
    }

    pub(crate) fn add_status(&self, bits: u8) {
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(crate) fn queue_vector(&self, queue: u16) -> u16 {
        self.queue_vectors
            .get(usize::from(queue))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Assigns a vector; one that does not exist becomes [`NO_VECTOR`], by which the driver sees it.
    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.config_vector
            .store(self.existing(vector), Ordering::Release);
    }

    /// As [`set_config_vector`](Self::set_config_vector), for a queue.
    pub(crate) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(target) = self.queue_vectors.get(usize::from(queue)) {
            target.store(self.existing(vector), Ordering::Release);
        }
    }

    fn existing(&self, vector: u16) -> u16 {
        if vector <= self.queue_vectors.len() as u16 {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// Queue `queue` has used buffers.
    pub(crate) fn used_buffers(&self, queue: u16) {
        self.interrupt(ISR_QUEUE, self.queue_vector(queue));
    }

    /// The device's configuration changed.
    pub(crate) fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.interrupt(ISR_CONFIG, self.config_vector());
    }

    fn interrupt(&self, cause: u8, vector: u16) {
        let mut msix = self.msix.lock();
        if msix.is_enabled() {
            return msix.trigger(vector);
        }
        drop(msix);
        let mut pin = self.pin.lock();
        pin.isr |= cause;
        pin.update(false);
    }

    /// The driver did what it must not: the device stops until it is reset (2.1.2). The first
    /// reason is logged, what follows from it is not.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) {
        let before = self.status.fetch_or(status::NEEDS_RESET, Ordering::AcqRel);
        if before & status::NEEDS_RESET != 0 {
            return;
        }
        let device = self.kind;
        if self.failures.fetch_add(1, Ordering::Relaxed) < LOUD_FAILURES {
            tracing::warn!(device, %reason, "the driver broke the device; it needs a reset");
        } else {
            tracing::debug!(device, %reason, "the driver broke the device; it needs a reset");
        }
        if before & status::DRIVER_OK != 0 {
            self.config_changed();
        }
    }

    /// Reads the ISR status, which clears it and lowers the pin.
    pub(crate) fn take_isr(&self) -> u8 {
        let msix_enabled = self.msix.lock().is_enabled();
        let mut pin = self.pin.lock();
        let isr = std::mem::take(&mut pin.isr);
        pin.update(msix_enabled);
        isr
    }

    pub(crate) fn isr(&self) -> u8 {
        self.pin.lock().isr
    }

    pub(crate) fn set_isr(&self, isr: u8) {
        let msix_enabled = self.msix.lock().is_enabled();
        let mut pin = self.pin.lock();
        pin.isr = isr & (ISR_QUEUE | ISR_CONFIG);
        pin.update(msix_enabled);
    }

    pub(crate) fn restore_generation(&self, generation: u8) {
        self.generation.store(generation, Ordering::Release);
    }

    /// The command register or the MSI-X control may have changed.
    pub(crate) fn update_pin(&self, disabled: bool) {
        let msix_enabled = self.msix.lock().is_enabled();
        let mut pin = self.pin.lock();
        pin.disabled = disabled;
        pin.update(msix_enabled);
    }

    /// What a device reset clears; MSI-X is the function's and stays.
    pub(crate) fn reset(&self) {
        self.set_status(0);
        self.generation.store(0, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        self.set_isr(0);
    }
}
