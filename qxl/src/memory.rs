//! Memory that the guest writes while we look: bytes are copied in and out, never borrowed.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use vm_memory::{MmapRegion, VolatileMemory};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::config::QxlError;

/// An access reaches outside of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len:#x} bytes at {offset:#x} are outside of a memory of {size:#x} bytes")]
pub(crate) struct OutOfRange {
    /// First byte.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) len: usize,
    /// Size of the memory.
    pub(crate) size: u64,
}

/// The memory behind a BAR. Host pages are used only for what somebody has written.
#[derive(Clone)]
pub(crate) struct Memory(Arc<MmapRegion>);

impl Memory {
    /// `size` zero bytes, of which none takes host memory yet.
    pub(crate) fn new(what: &'static str, size: u64) -> Result<Self, QxlError> {
        let failed = |source| QxlError::Memory { what, size, source };
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(Self(Arc::new(MmapRegion::new(bytes).map_err(failed)?)))
    }

    pub(crate) fn region(&self) -> Arc<MmapRegion> {
        Arc::clone(&self.0)
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.0.size() as u64
    }

    fn out_of_range(&self, offset: u64, len: usize) -> OutOfRange {
        let size = self.len();
        OutOfRange { offset, len, size }
    }

    /// Copies the bytes at `offset` into `data`.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), OutOfRange> {
        let refused = |_| self.out_of_range(offset, data.len());
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let slice = self.0.get_slice(at, data.len()).map_err(refused)?;
        slice.copy_to(data);
        Ok(())
    }

    /// Copies `data` to `offset`.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), OutOfRange> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let slice = self.0.get_slice(at, data.len());
        slice
            .map_err(|_| self.out_of_range(offset, data.len()))?
            .copy_from(data);
        Ok(())
    }

    /// The byte at `offset`; all ones outside of the memory.
    pub(crate) fn byte(&self, offset: u64) -> u8 {
        let mut data = [0xff];
        // Outside of the memory nothing is copied and the byte keeps its ones.
        let _ = self.read(offset, &mut data);
        data[0]
    }

    /// Copies one structure out.
    pub(crate) fn get<T: FromBytes + IntoBytes>(&self, offset: u64) -> Result<T, OutOfRange> {
        let mut value = T::new_zeroed();
        self.read(offset, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies one structure in.
    pub(crate) fn put<T>(&self, offset: u64, value: &T) -> Result<(), OutOfRange>
    where
        T: IntoBytes + Immutable,
    {
        self.write(offset, value.as_bytes())
    }

    /// Zeroes `len` bytes, leaving pages alone that are zero already.
    pub(crate) fn zero(&self, offset: u64, len: u64) {
        const STEP: usize = 4096;
        let mut page = [0; STEP];
        let end = offset.saturating_add(len).min(self.len());
        let mut at = offset;
        while at < end {
            let step = STEP.min((end - at) as usize);
            let used = self.read(at, &mut page[..step]).is_ok() && page != [0; STEP];
            if used {
                page = [0; STEP];
                let _ = self.write(at, &page[..step]);
            }
            at += step as u64;
        }
    }

    /// The word at `offset`, which both sides change; `None` if out of range or misaligned.
    pub(crate) fn atomic(&self, offset: u64) -> Option<&AtomicU32> {
        let at = usize::try_from(offset).ok()?;
        self.0.get_atomic_ref(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_past_the_end_are_refused() {
        let memory = Memory::new("test", 4096).unwrap();

        let result = memory.read(4090, &mut [0; 8]);

        let refused = OutOfRange {
            offset: 4090,
            len: 8,
            size: 4096,
        };
        assert_eq!(result, Err(refused));
        assert!(memory.write(u64::MAX, &[0]).is_err());
    }

    #[test]
    fn zeroing_ends_where_it_was_told_to() {
        let memory = Memory::new("test", 16384).unwrap();
        memory.write(0, &[7; 16384]).unwrap();

        memory.zero(10, 5000);

        assert_eq!([9, 10, 5009, 5010].map(|at| memory.byte(at)), [7, 0, 0, 7]);
    }
}
