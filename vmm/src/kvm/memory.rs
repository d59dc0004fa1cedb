//! Memory slots: what of the guest's physical addresses is memory of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use caraway_devices::GuestMemory;
use caraway_devices::pci::{BarMemory, MappingId, MemoryMapper};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vm_memory::{GuestAddress, GuestMemoryBackend, MmapRegion};

use caraway_arch::AddressRange;

use super::KvmError;

/// The guest's physical address space: RAM, firmware and the memory behind BARs.
pub struct GuestSpace {
    vm: Arc<VmFd>,
    slots: Mutex<BTreeMap<u32, Slot>>,
}

struct Slot {
    base: u64,
    len: u64,
    /// Kept so that the memory outlives the slot.
    _memory: Backing,
}

enum Backing {
    Ram(#[expect(dead_code, reason = "held, never read")] GuestMemory),
    Region(#[expect(dead_code, reason = "held, never read")] Arc<MmapRegion>),
}

impl GuestSpace {
    /// A space without any memory.
    #[must_use]
    pub fn new(vm: Arc<VmFd>) -> Arc<Self> {
        Arc::new(Self {
            vm,
            slots: Mutex::default(),
        })
    }

    /// Makes the `ranges` of `memory` RAM of the VM.
    ///
    /// # Errors
    /// [`KvmError::Call`].
    pub fn add_ram(&self, memory: &GuestMemory, ranges: &[AddressRange]) -> Result<(), KvmError> {
        for range in ranges {
            let (base, len) = (range.start(), range.size());
            let backing = Backing::Ram(memory.clone());
            usize::try_from(len)
                .ok()
                .and_then(|len| memory.get_slice(GuestAddress(base), len).ok())
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))
                .map(|slice| slice.ptr_guard().as_ptr() as u64)
                .and_then(|host| self.insert(base, len, host, false, backing))
                .map_err(|source| KvmError::Call {
                    what: "mapping guest RAM",
                    source,
                })?;
        }
        Ok(())
    }

    fn insert(
        &self,
        base: u64,
        len: u64,
        host: u64,
        read_only: bool,
        memory: Backing,
    ) -> std::io::Result<u32> {
        let mut slots = self.slots.lock();
        let end = base
            .checked_add(len)
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        if slots
            .values()
            .any(|slot| base < slot.base + slot.len && slot.base < end)
        {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        let free = (0..).find(|slot| !slots.contains_key(slot));
        let slot = free.ok_or(std::io::ErrorKind::OutOfMemory)?;
        self.set(slot, base, len, host, read_only)?;
        slots.insert(
            slot,
            Slot {
                base,
                len,
                _memory: memory,
            },
        );
        Ok(slot)
    }

    fn set(&self, slot: u32, base: u64, len: u64, host: u64, ro: bool) -> std::io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: if ro { KVM_MEM_READONLY } else { 0 },
            guest_phys_addr: base,
            memory_size: len,
            userspace_addr: host,
        };
        // SAFETY: `host` is the start of a mapping of `len` bytes that the slot's `Backing` keeps
        // alive until the slot is gone; the guest shares it with us by volatile access only.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(Into::into)
    }
}

impl MemoryMapper for GuestSpace {
    fn map(&self, base: u64, memory: &BarMemory) -> std::io::Result<MappingId> {
        let region = &memory.region;
        let (host, len) = (region.as_ptr() as u64, region.size() as u64);
        let backing = Backing::Region(Arc::clone(region));
        self.insert(base, len, host, memory.read_only, backing)
            .map(MappingId)
    }

    fn unmap(&self, MappingId(slot): MappingId) {
        let mut slots = self.slots.lock();
        let Some(old) = slots.get(&slot) else { return };
        // A length of 0 deletes the slot; only then may the memory go.
        match self.set(slot, old.base, 0, 0, false) {
            Ok(()) => drop(slots.remove(&slot)),
            Err(error) => tracing::error!(slot, %error, "the memory slot could not be removed"),
        }
    }
}
