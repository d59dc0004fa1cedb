//! A [`MemoryMapper`] that maps nothing, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{BarMemory, MappingId, MemoryMapper};

/// A mapper that remembers what is mapped where, and refuses overlaps as a host does.
#[derive(Default)]
pub struct FakeMapper {
    mappings: Mutex<BTreeMap<u64, (u64, MappingId)>>,
    next: Mutex<u32>,
}

impl FakeMapper {
    /// A mapper of an empty address space.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Base and length in bytes of every mapping, in the order of addresses.
    #[must_use]
    pub fn mappings(&self) -> Vec<(u64, u64)> {
        let mappings = self.mappings.lock();
        mappings
            .iter()
            .map(|(&base, &(len, _))| (base, len))
            .collect()
    }
}

impl MemoryMapper for FakeMapper {
    fn map(&self, base: u64, memory: &BarMemory) -> std::io::Result<MappingId> {
        let len = memory.region.size() as u64;
        let end = base
            .checked_add(len)
            .ok_or_else(|| std::io::Error::other(format!("{base:#x}+{len:#x} wraps")))?;
        let mut mappings = self.mappings.lock();
        if let Some((&other, &(other_len, _))) = mappings.range(..end).next_back()
            && other.saturating_add(other_len) > base
        {
            return Err(std::io::Error::other(format!(
                "{base:#x} overlaps {other:#x}"
            )));
        }
        let mut next = self.next.lock();
        *next = next.wrapping_add(1);
        let id = MappingId(*next);
        mappings.insert(base, (len, id));
        Ok(id)
    }

    fn unmap(&self, id: MappingId) {
        self.mappings.lock().retain(|_, (_, other)| *other != id);
    }
}
