//! Memory slots: how a guest's address becomes a place in a BAR.

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

use crate::memory::{Memory, OutOfRange};

/// Slots a guest may use: 1 to 7, as the ROM says; the numbers are those of the address's top byte.
pub(crate) const SLOTS: usize = 8;

/// An address as the guest writes it (`QXLPHYSICAL`): slot in bits 63:56, generation in 55:48,
/// offset from the slot's start below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuestAddress(pub(crate) u64);

impl GuestAddress {
    /// The address `bytes` further on. Leaving the slot is found when it is resolved.
    pub(crate) const fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    const fn slot(self) -> usize {
        (self.0 >> 56) as usize
    }

    const fn generation(self) -> u8 {
        (self.0 >> 48) as u8
    }

    const fn offset(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

/// Why an address leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// The slot is not there.
    #[error("address {0:#x} is in a memory slot that is not active")]
    NoSlot(u64),
    /// The slot has another generation than the address; all of ours have 0.
    #[error("address {0:#x} has generation {1}, its memory slot has 0")]
    Generation(u64, u8),
    /// The range leaves the slot.
    #[error("{len:#x} bytes at address {address:#x} leave their memory slot of {size:#x} bytes")]
    Outside {
        /// The address.
        address: u64,
        /// How many bytes from there.
        len: u64,
        /// The slot's size in bytes.
        size: u64,
    },
    /// The range leaves the BAR, which no active slot allows.
    #[error(transparent)]
    Memory(#[from] OutOfRange),
}

/// Why a slot was neither made nor taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotError {
    /// The number is not one of a slot.
    #[error("memory slot {0} is not one of 0 to 7")]
    Number(u8),
    /// The slot is there already.
    #[error("memory slot {0} is active already")]
    Active(u8),
    /// The range is empty or not inside of one BAR.
    #[error("memory slot {slot} from {start:#x} to {end:#x} is not inside of a BAR")]
    Range {
        /// Number of the slot.
        slot: u8,
        /// Guest-physical address of its first byte.
        start: u64,
        /// Guest-physical address after its last byte.
        end: u64,
    },
}

/// A part of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// Number of the BAR.
    pub(crate) bar: u8,
    /// First byte of the slot in it.
    pub(crate) start: u64,
    /// Size in bytes.
    pub(crate) len: u64,
    /// What an address of the first byte has as its offset: 0, but in the compatibility modes, whose
    /// drivers write guest-physical addresses.
    #[serde(default)]
    pub(crate) base: u64,
}

/// A BAR that slots may be in, where the guest has put it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedBar {
    pub(crate) bar: u8,
    pub(crate) base: u64,
    pub(crate) size: u64,
}

/// A range of guest memory that was there when it was resolved.
#[derive(Clone)]
pub(crate) struct Place {
    memory: Memory,
    offset: u64,
}

impl Place {
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) -> Result<(), AddressError> {
        Ok(self.memory.read(self.offset.saturating_add(at), data)?)
    }

    pub(crate) fn write(&self, at: u64, data: &[u8]) -> Result<(), AddressError> {
        Ok(self.memory.write(self.offset.saturating_add(at), data)?)
    }
}

/// The BARs' memories and the active slots in them.
pub(crate) struct Slots {
    memories: Vec<(u8, Memory)>,
    slots: [Option<Slot>; SLOTS],
}

impl Slots {
    /// No active slot; `memories` are the BARs that slots may be in.
    pub(crate) fn new(memories: Vec<(u8, Memory)>) -> Self {
        let slots = [None; SLOTS];
        Self { memories, slots }
    }

    /// Makes slot `number` of the guest-physical range from `start` to `end`.
    pub(crate) fn add(
        &mut self,
        number: u8,
        start: u64,
        end: u64,
        bars: &[PlacedBar],
    ) -> Result<(), SlotError> {
        let slot = self.slots.get_mut(usize::from(number));
        let slot = slot.ok_or(SlotError::Number(number))?;
        if slot.is_some() {
            return Err(SlotError::Active(number));
        }
        let inside = |bar: &PlacedBar| {
            let offset = start.checked_sub(bar.base)?;
            let len = end.checked_sub(start).filter(|len| *len > 0)?;
            let fits = offset.checked_add(len)? <= bar.size;
            fits.then_some(Slot {
                bar: bar.bar,
                start: offset,
                len,
                base: 0,
            })
        };
        let slot_error = SlotError::Range {
            slot: number,
            start,
            end,
        };
        *slot = Some(bars.iter().find_map(inside).ok_or(slot_error)?);
        Ok(())
    }

    /// Makes slot 0 of all of `bar`, with guest-physical addresses.
    pub(crate) fn add_physical(&mut self, bar: &PlacedBar) {
        self.slots[0] = Some(Slot {
            bar: bar.bar,
            start: 0,
            len: bar.size,
            base: bar.base,
        });
    }

    /// Takes slot `number` away if it is there.
    pub(crate) fn remove(&mut self, number: u8) -> Result<(), SlotError> {
        let slot = self.slots.get_mut(usize::from(number));
        *slot.ok_or(SlotError::Number(number))? = None;
        Ok(())
    }

    /// Takes every slot away.
    pub(crate) fn clear(&mut self) {
        self.slots = [None; SLOTS];
    }

    pub(crate) const fn active(&self) -> [Option<Slot>; SLOTS] {
        self.slots
    }

    /// Whether `slots` are all inside of their BARs.
    pub(crate) fn possible(&self, slots: &[Option<Slot>; SLOTS]) -> bool {
        slots.iter().flatten().all(|slot| {
            let memory = self.memories.iter().find(|(bar, _)| *bar == slot.bar);
            let end = slot.start.checked_add(slot.len);
            memory.is_some_and(|(_, memory)| end.is_some_and(|end| end <= memory.len()))
        })
    }

    /// Takes saved slots on, which are [`possible`](Self::possible).
    pub(crate) fn set(&mut self, slots: [Option<Slot>; SLOTS]) {
        self.slots = slots;
    }

    /// The `len` bytes at `address`.
    pub(crate) fn resolve(&self, address: GuestAddress, len: u64) -> Result<Place, AddressError> {
        let slot = self.slots.get(address.slot()).copied().flatten();
        let slot = slot.ok_or(AddressError::NoSlot(address.0))?;
        if address.generation() != 0 {
            return Err(AddressError::Generation(address.0, address.generation()));
        }
        let offset = address.offset().checked_sub(slot.base);
        let end = offset.and_then(|offset| offset.checked_add(len));
        let Some(offset) = offset.filter(|_| end.is_some_and(|end| end <= slot.len)) else {
            return Err(AddressError::Outside {
                address: address.0,
                len,
                size: slot.len,
            });
        };
        let memory = self.memories.iter().find(|(bar, _)| *bar == slot.bar);
        let (_, memory) = memory.ok_or(AddressError::NoSlot(address.0))?;
        Ok(Place {
            memory: memory.clone(),
            offset: slot.start + offset,
        })
    }

    /// Bytes of the largest BAR that slots may be in.
    pub(crate) fn room(&self) -> u64 {
        let sizes = self.memories.iter().map(|(_, memory)| memory.len());
        sizes.max().unwrap_or(0)
    }

    /// Copies one structure out of guest memory.
    pub(crate) fn get<T: FromBytes + IntoBytes>(
        &self,
        address: GuestAddress,
    ) -> Result<T, AddressError> {
        let mut value = T::new_zeroed();
        let place = self.resolve(address, size_of::<T>() as u64)?;
        place.read(0, value.as_mut_bytes())?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: PlacedBar = PlacedBar {
        bar: 0,
        base: 0xf000_0000,
        size: 0x10000,
    };

    fn slots() -> Slots {
        Slots::new(vec![(0, Memory::new("test", 0x10000).unwrap())])
    }

    #[test]
    fn addresses_are_offsets_from_the_start_of_their_slot() {
        let mut slots = slots();
        slots.add(1, 0xf000_1000, 0xf000_3000, &[BAR]).unwrap();
        slots.memories[0].1.write(0x1010, &[0xab]).unwrap();
        let mut byte = [0];

        let place = slots.resolve(GuestAddress(1 << 56 | 0x10), 1).unwrap();
        place.read(0, &mut byte).unwrap();

        assert_eq!(byte, [0xab]);
    }

    #[test]
    fn ranges_that_leave_the_slot_are_refused() {
        let mut slots = slots();
        slots.add(1, 0xf000_1000, 0xf000_3000, &[BAR]).unwrap();
        let refused = |address, len| slots.resolve(GuestAddress(address), len).is_err();

        assert!(!refused(1 << 56 | 0x1fff, 1));
        assert!(refused(1 << 56 | 0x1fff, 2));
        assert!(refused(1 << 56, u64::MAX));
        assert!(refused(2 << 56, 1));
        assert!(refused(0xff << 56, 1));
        assert!(refused(1 << 56 | 1 << 48, 1));
    }

    #[test]
    fn physical_addresses_are_those_of_the_bar() {
        let mut slots = slots();
        slots.add_physical(&BAR);
        slots.memories[0].1.write(0x1010, &[0xab]).unwrap();
        let mut byte = [0];

        let place = slots.resolve(GuestAddress(0xf000_1010), 1).unwrap();
        place.read(0, &mut byte).unwrap();

        assert_eq!(byte, [0xab]);
        for (address, len) in [(0xefff_ffff, 1), (0, 1), (0xf000_ffff, 2), (0xf001_0000, 1)] {
            assert!(slots.resolve(GuestAddress(address), len).is_err());
        }
    }

    #[test]
    fn slots_outside_of_the_bars_are_refused() {
        let mut slots = slots();

        for (start, end) in [
            (0xefff_ffff, 0xf000_1000),
            (0xf000_0000, 0xf001_0001),
            (0xf000_1000, 0xf000_1000),
            (u64::MAX, 5),
        ] {
            assert!(slots.add(1, start, end, &[BAR]).is_err(), "{start:#x}");
        }
        assert_eq!(slots.add(8, 0, 1, &[BAR]), Err(SlotError::Number(8)));
    }
}
