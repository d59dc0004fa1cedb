//! Address decoding: which device answers an access to a port or a physical address.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

/// Something that answers accesses to a range of ports or of physical addresses.
///
/// Accesses come from any vCPU thread at any time, so a device that has state guards it itself; one
/// that is plain registers implements [`Registers`] and sits in a [`Mutex`].
pub trait BusDevice: Send + Sync {
    /// Fills `data` (1, 2, 4 or 8 bytes) from `offset`, counted from the start of the range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` (1, 2, 4 or 8 bytes) written at `offset`, counted from the start of the range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A [`BusDevice`] that one lock guards as a whole.
pub trait Registers: Send {
    /// As [`BusDevice::read`].
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// As [`BusDevice::write`].
    fn write(&mut self, offset: u64, data: &[u8]);
}

impl<R: Registers> BusDevice for Mutex<R> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock().read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.lock().write(offset, data);
    }
}

/// Why a range could not be put on a [`Bus`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or wraps around the end of the address space.
    #[error("the range at {base:#x} of {len:#x} bytes is empty or wraps")]
    BadRange {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Some of the range is taken.
    #[error("the range at {base:#x} of {len:#x} bytes overlaps the one at {other:#x}")]
    Overlap {
        /// First address of the refused range.
        base: u64,
        /// Its length in bytes.
        len: u64,
        /// First address of the range that is there already.
        other: u64,
    },
}

struct Entry {
    len: u64,
    device: Arc<dyn BusDevice>,
}

/// An address space of non-overlapping ranges, each with the device that decodes it.
#[derive(Default)]
pub struct Bus {
    ranges: RwLock<BTreeMap<u64, Entry>>,
}

impl Bus {
    /// An address space in which nobody decodes anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `device` decode `len` addresses from `base`.
    ///
    /// # Errors
    /// [`BusError`] if the range is empty, wraps or overlaps another one.
    pub fn insert(&self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last = len.checked_sub(1).and_then(|n| base.checked_add(n));
        let Some(last) = last else {
            return Err(BusError::BadRange { base, len });
        };
        let mut ranges = self.ranges.write();
        if let Some((&other, entry)) = ranges.range(..=last).next_back()
            && other + (entry.len - 1) >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        ranges.insert(base, Entry { len, device });
        Ok(())
    }

    /// Takes the range that starts at `base` away; nothing happens if there is none.
    pub fn remove(&self, base: u64) {
        self.ranges.write().remove(&base);
    }

    /// Reads from whoever decodes `address`. Where nobody does, `data` is all ones, as on a real
    /// bus, and the answer is `false`.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        match self.find(address) {
            Some((offset, device)) => {
                device.read(offset, data);
                true
            }
            None => false,
        }
    }

    /// Writes to whoever decodes `address`; `false` if nobody does.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        match self.find(address) {
            Some((offset, device)) => {
                device.write(offset, data);
                true
            }
            None => false,
        }
    }

    /// The device is cloned out so that it may itself change the bus (a BAR that moves).
    fn find(&self, address: u64) -> Option<(u64, Arc<dyn BusDevice>)> {
        let ranges = self.ranges.read();
        let (base, entry) = ranges.range(..=address).next_back()?;
        let offset = address - base;
        (offset < entry.len).then(|| (offset, Arc::clone(&entry.device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl Registers for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(offset as u8));
        }

        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    fn bus_with(base: u64, len: u64) -> Bus {
        let bus = Bus::new();
        bus.insert(base, len, Arc::new(Mutex::new(Echo(1))))
            .unwrap();
        bus
    }

    #[test]
    fn read_gives_the_offset_in_the_range() {
        let bus = bus_with(0x60, 5);
        let mut data = [0];

        assert!(bus.read(0x64, &mut data));

        assert_eq!(data, [5]);
    }

    #[test]
    fn addresses_nobody_decodes_read_as_ones() {
        let bus = bus_with(0x60, 5);
        let mut data = [0; 4];

        assert!(!bus.read(0x65, &mut data));

        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn overlapping_ranges_are_refused() {
        let bus = bus_with(0x60, 5);

        let result = bus.insert(0x5f, 2, Arc::new(Mutex::new(Echo(0))));

        assert_eq!(
            result,
            Err(BusError::Overlap {
                base: 0x5f,
                len: 2,
                other: 0x60
            })
        );
    }

    #[test]
    fn wrapping_ranges_are_refused() {
        let result = Bus::new().insert(u64::MAX, 2, Arc::new(Mutex::new(Echo(0))));

        assert_eq!(
            result,
            Err(BusError::BadRange {
                base: u64::MAX,
                len: 2
            })
        );
    }

    #[test]
    fn removed_ranges_are_free_again() {
        let bus = bus_with(0x60, 5);

        bus.remove(0x60);

        assert!(bus.insert(0x5f, 2, Arc::new(Mutex::new(Echo(0)))).is_ok());
    }
}
