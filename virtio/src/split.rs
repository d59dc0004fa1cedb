//! The three areas of a split virtqueue (2.7), where they lie in this process.
//!
//! They are looked up once, when the driver enables the queue. From then on a look at the available ring
//! is one load, and the index there is loaded only once all chains up to it are taken: the driver writes to
//! that cache line.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use caraway_devices::GuestMemory;
use vm_memory::{
    ByteValued, GuestAddress, GuestMemoryBackend, VolatileArrayRef, VolatileMemory, VolatileSlice,
};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6): the driver wants no interrupts. Only without `EVENT_IDX`.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY` (2.7.8): the driver need not ring. Only without `EVENT_IDX`.
const USED_NO_NOTIFY: u16 = 1;

/// Both rings begin with flags and an index, and end with the index at which to tell the other side.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ELEMENTS: usize = 4;

/// A descriptor (2.7.5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) address: GuestAddress,
    pub(crate) len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// Bytes of one.
    pub(crate) const SIZE: u32 = 16;

    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;

    /// The number of the descriptor that follows it.
    pub(crate) fn next(self) -> Option<u16> {
        (self.flags & Self::NEXT != 0).then_some(self.next)
    }

    /// Whether the device writes what it names.
    pub(crate) fn is_writable(self) -> bool {
        self.flags & Self::WRITE != 0
    }

    /// Whether it names a table of descriptors.
    pub(crate) fn is_indirect(self) -> bool {
        self.flags & Self::INDIRECT != 0
    }
}

/// Descriptors one after the other: the queue's own, or those that one of them names (2.7.5.3).
#[derive(Clone, Copy)]
pub(crate) struct Table<'a>(VolatileArrayRef<'a, u128>);

impl<'a> Table<'a> {
    /// The `count` descriptors at `address`; `None` if they are not in one piece of RAM.
    pub(crate) fn at(memory: &'a GuestMemory, address: GuestAddress, count: u16) -> Option<Self> {
        let bytes = usize::from(count) * Descriptor::SIZE as usize;
        array(memory.get_slice(address, bytes).ok()?, 0, count).map(Self)
    }

    /// Descriptor `index`, copied once.
    pub(crate) fn get(self, index: u16) -> Option<Descriptor> {
        let index = usize::from(index);
        let bits = (index < self.0.len()).then(|| u128::from_le(self.0.load(index)))?;
        Some(Descriptor {
            address: GuestAddress(bits as u64),
            len: (bits >> 64) as u32,
            flags: (bits >> 96) as u16,
            next: (bits >> 112) as u16,
        })
    }
}

/// `count` values at `offset` of `slice`.
fn array<T: ByteValued>(
    slice: VolatileSlice<'_>,
    offset: usize,
    count: u16,
) -> Option<VolatileArrayRef<'_, T>> {
    let count = usize::from(count);
    let first = slice.get_array_ref::<T>(offset, count).ok()?;
    let first = first.ptr_guard_mut().as_ptr();
    // SAFETY: all of it is in `slice`, by which it is there for as long.
    Some(unsafe { VolatileArrayRef::new(first, count) })
}

/// The value at `offset` of `slice`.
fn cell(slice: VolatileSlice<'_>, offset: usize) -> Option<&AtomicU16> {
    let cell: *const AtomicU16 = slice.get_atomic_ref(offset).ok()?;
    // SAFETY: it is in `slice` and aligned, and there for as long.
    Some(unsafe { &*cell })
}

/// What the driver told about the areas of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SplitConfig {
    /// Number of descriptors, and how many the device allows.
    pub(crate) size: u16,
    pub(crate) max_size: u16,
    /// Where the descriptor table is, the available ring and the used ring.
    pub(crate) table: GuestAddress,
    pub(crate) available: GuestAddress,
    pub(crate) used: GuestAddress,
    /// The next available index to take and the next used index to fill.
    pub(crate) next_available: u16,
    pub(crate) next_used: u16,
    /// Whether the sides tell each other when to be told (`EVENT_IDX`).
    pub(crate) event_idx: bool,
}

/// Why a driver's description of a queue does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("its size of {0} is no power of two, or too large")]
    Size(u16),
    #[error("its available ring has no address")]
    NoAvailableRing,
    #[error("its {area} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        area: &'static str,
        address: u64,
        alignment: u64,
    },
    #[error("its {area} of {len:#x} bytes at {address:#x} is not in RAM")]
    NotRam {
        area: &'static str,
        address: u64,
        len: usize,
    },
}

/// The driver's available index is further ahead than the queue is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the available index {index} is more than {size} past {next}")]
pub(crate) struct BadIndex {
    index: u16,
    next: u16,
    size: u16,
}

/// The areas in use.
pub(crate) struct SplitRing {
    config: SplitConfig,
    /// The available index as it was loaded last.
    seen: u16,
    table: Table<'static>,
    available: Ring<u16>,
    used: Ring<u64>,
    /// Keeps all of them mapped.
    _memory: GuestMemory,
}

/// One of the two rings.
struct Ring<T: 'static> {
    flags: &'static AtomicU16,
    index: &'static AtomicU16,
    elements: VolatileArrayRef<'static, T>,
    /// The index at which its reader wants to be told.
    event: &'static AtomicU16,
}

impl<T: ByteValued> Ring<T> {
    const fn bytes(size: u16) -> usize {
        ELEMENTS + size as usize * size_of::<T>() + size_of::<u16>()
    }

    fn in_slice(slice: VolatileSlice<'static>, size: u16) -> Option<Self> {
        let event = Self::bytes(size) - size_of::<u16>();
        Some(Self {
            flags: cell(slice, FLAGS)?,
            index: cell(slice, INDEX)?,
            elements: array(slice, ELEMENTS, size)?,
            event: cell(slice, event)?,
        })
    }
}

// SAFETY: what it points to is guest memory that `_memory` keeps mapped, from whichever thread.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// The areas that `config` describes.
    ///
    /// # Errors
    /// What of it does not hold.
    pub(crate) fn new(memory: &GuestMemory, config: SplitConfig) -> Result<Self, SplitError> {
        let size = config.size;
        if !size.is_power_of_two() || size > config.max_size {
            return Err(SplitError::Size(size));
        }
        if config.available == GuestAddress(0) {
            return Err(SplitError::NoAvailableRing);
        }
        let memory = memory.clone();
        let area = |area, address: GuestAddress, alignment, len| {
            let address = address.0;
            if !address.is_multiple_of(alignment) {
                return Err(SplitError::Alignment {
                    area,
                    address,
                    alignment,
                });
            }
            let bad = SplitError::NotRam { area, address, len };
            let slice = memory.get_slice(GuestAddress(address), len);
            let slice = slice.map_err(|_| bad)?;
            // SAFETY: the ring has `memory` too, which keeps the slice mapped for as long as the ring is.
            let slice =
                unsafe { std::mem::transmute::<VolatileSlice<'_>, VolatileSlice<'static>>(slice) };
            Ok((slice, bad))
        };
        let bytes = usize::from(size) * Descriptor::SIZE as usize;
        let (table, bad) = area("descriptor table", config.table, 16, bytes)?;
        let table = array(table, 0, size).map(Table).ok_or(bad)?;
        let bytes = Ring::<u16>::bytes(size);
        let (available, bad) = area("available ring", config.available, 2, bytes)?;
        let available = Ring::in_slice(available, size).ok_or(bad)?;
        let (used, bad) = area("used ring", config.used, 4, Ring::<u64>::bytes(size))?;
        let used = Ring::in_slice(used, size).ok_or(bad)?;
        Ok(Self {
            config,
            seen: config.next_available,
            table,
            available,
            used,
            _memory: memory,
        })
    }

    pub(crate) fn size(&self) -> u16 {
        self.config.size
    }

    /// Descriptors of the longest chain that the driver may make (2.7.4).
    pub(crate) fn longest_chain(&self) -> u16 {
        self.config.max_size
    }

    /// The queue's own descriptors.
    pub(crate) fn table(&self) -> Table<'_> {
        self.table
    }

    /// The next available index to take.
    pub(crate) fn next_available(&self) -> u16 {
        self.config.next_available
    }

    /// The next used index to fill.
    pub(crate) fn next_used(&self) -> u16 {
        self.config.next_used
    }

    /// How many chains wait to be taken.
    ///
    /// # Errors
    /// If that can't be.
    pub(crate) fn available(&mut self) -> Result<u16, BadIndex> {
        let index = u16::from_le(self.available.index.load(Ordering::Acquire));
        let SplitConfig {
            size,
            next_available: next,
            ..
        } = self.config;
        let count = index.wrapping_sub(next);
        if count > size {
            return Err(BadIndex { index, next, size });
        }
        self.seen = index;
        Ok(count)
    }

    /// The number of the first descriptor of the next chain.
    ///
    /// # Errors
    /// If the driver's index can't be.
    pub(crate) fn take(&mut self) -> Result<Option<u16>, BadIndex> {
        let next = self.config.next_available;
        if self.seen == next && self.available()? == 0 {
            return Ok(None);
        }
        let slot = usize::from(next & (self.config.size - 1));
        self.config.next_available = next.wrapping_add(1);
        Ok(Some(u16::from_le(self.available.elements.load(slot))))
    }

    /// Takes the last [`take`](Self::take) back.
    pub(crate) fn untake(&mut self) {
        self.config.next_available = self.config.next_available.wrapping_sub(1);
    }

    /// Gives chains back, each the number of its first descriptor and the bytes written: the driver sees
    /// all of them or none.
    pub(crate) fn put(&mut self, used: &[(u16, u32)]) {
        let mut next = self.config.next_used;
        for &(head, written) in used {
            let slot = usize::from(next & (self.config.size - 1));
            let element = u64::from(head) | u64::from(written) << 32;
            self.used.elements.store(slot, element.to_le());
            next = next.wrapping_add(1);
        }
        self.config.next_used = next;
        self.used.index.store(next.to_le(), Ordering::Release);
    }

    /// Whether the driver wants to hear of what was used since the index was `before` (2.7.7).
    pub(crate) fn wants_interrupt(&self, before: u16) -> bool {
        // What was used is there before the driver's wish is read: it looks the other way round.
        fence(Ordering::SeqCst);
        if !self.config.event_idx {
            let flags = u16::from_le(self.available.flags.load(Ordering::Relaxed));
            return flags & AVAIL_NO_INTERRUPT == 0;
        }
        let event = u16::from_le(self.available.event.load(Ordering::Relaxed));
        let now = self.config.next_used;
        now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
    }

    /// Asks the driver to ring for the next chain (2.7.10); whether one came in the meantime.
    ///
    /// # Errors
    /// If the driver's index can't be.
    pub(crate) fn want_doorbell(&mut self) -> Result<bool, BadIndex> {
        match self.config.event_idx {
            true => {
                let next = self.config.next_available.to_le();
                self.used.event.store(next, Ordering::Relaxed);
            }
            false => self.used.flags.store(0, Ordering::Relaxed),
        }
        // The wish is there before the index is looked at: the driver looks the other way round.
        fence(Ordering::SeqCst);
        self.available().map(|count| count > 0)
    }

    /// Tells the driver that it need not ring. With `EVENT_IDX` it does not, once it has rung.
    pub(crate) fn refuse_doorbell(&mut self) {
        if !self.config.event_idx {
            let flags = USED_NO_NOTIFY.to_le();
            self.used.flags.store(flags, Ordering::Relaxed);
        }
    }
}
