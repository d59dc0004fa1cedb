//! The VM generation id (Microsoft, "Virtual Machine Generation ID"): a page of the guest's address
//! space with a UUID that is another one whenever the guest goes on from a copy of itself.
//!
//! It has no state to save: what a snapshot would bring back is exactly what must not come back.
//! Whoever restores one calls [`Generation::renew`], and the guest is told.

use std::sync::Arc;

use caraway_arch::layout::{VMGENID_SIZE, VMGENID_START};
use caraway_devices::AcpiPm;
use caraway_devices::pci::{BarMemory, MemoryMapper};
use caraway_firmware::acpi::VMGENID_GPE;
use parking_lot::Mutex;
use uuid::Uuid;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use crate::exit::{Exit, Failure};

/// The id and its page.
pub(super) struct Generation {
    id: Mutex<Uuid>,
    page: Arc<MmapRegion>,
    acpi_pm: Arc<Mutex<AcpiPm>>,
}

impl Generation {
    /// Maps the page, with `id` in it.
    ///
    /// # Errors
    /// The host has no memory for it, or KVM no slot.
    pub(super) fn new(
        id: Uuid,
        space: &dyn MemoryMapper,
        acpi_pm: Arc<Mutex<AcpiPm>>,
    ) -> Result<Self, Failure> {
        let failed =
            |error: &dyn std::error::Error| Failure::of(Exit::Internal, error).context("vmgenid");
        let page = MmapRegion::new(VMGENID_SIZE as usize).map_err(|error| failed(&error))?;
        let generation = Self {
            id: Mutex::new(id),
            page: Arc::new(page),
            acpi_pm,
        };
        generation.show(id);
        let memory = BarMemory {
            region: Arc::clone(&generation.page),
            read_only: true,
        };
        space
            .map(VMGENID_START, &memory)
            .map_err(|error| failed(&error))?;
        Ok(generation)
    }

    /// The id as it is.
    pub(super) fn id(&self) -> Uuid {
        *self.id.lock()
    }

    /// Gives the guest another id, and tells it.
    pub(super) fn renew(&self, id: Uuid) {
        *self.id.lock() = id;
        self.show(id);
        self.acpi_pm.lock().general_event(VMGENID_GPE);
    }

    fn show(&self, id: Uuid) {
        // The page has room for it.
        let _ = self
            .page
            .as_volatile_slice()
            .write_slice(&id.to_bytes_le(), 0);
    }
}
