//! A virtqueue in use: chains out, used buffers in, interrupts and notifications suppressed as the
//! driver asks (section 2.7).

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use caraway_devices::GuestMemory;
use parking_lot::Mutex;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use crate::transport::Signals;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (2.7.6): the driver wants no interrupts. Only without `EVENT_IDX`.
const AVAIL_NO_INTERRUPT: u16 = 1;

/// A piece of guest memory that a descriptor names; all of it is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address of the first byte.
    pub address: GuestAddress,
    /// Length in bytes, not 0.
    pub len: u32,
}

/// A descriptor chain that was checked as a whole: it ends, it is in RAM, and what the device reads
/// comes before what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor, by which the chain is given back.
    pub head: u16,
    /// What the device may read, in order.
    pub readable: Vec<Segment>,
    /// What the device may write, in order.
    pub writable: Vec<Segment>,
}

/// What a driver got wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("the available ring is unusable: {0}")]
    Ring(virtio_queue::Error),
    #[error(
        "descriptor chain {head} loops, is too long, misuses an indirect table or leaves its table"
    )]
    Endless { head: u16 },
    #[error("descriptor chain {head} has a readable descriptor after a writable one")]
    Order { head: u16 },
    #[error("descriptor chain {head} names {len:#x} bytes at {address:#x}, which is not RAM")]
    NotRam { head: u16, address: u64, len: u32 },
}

/// One queue that the driver has enabled. Cheap to share; dead once it is stopped.
pub struct Virtqueue {
    index: u16,
    ring: Mutex<Queue>,
    /// The used index up to which the driver was interrupted, or asked not to be.
    signalled: AtomicU16,
    memory: GuestMemory,
    signals: Arc<Signals>,
    doorbell: EventFd,
}

impl Virtqueue {
    pub(crate) fn new(
        index: u16,
        ring: Queue,
        memory: GuestMemory,
        signals: Arc<Signals>,
        doorbell: EventFd,
    ) -> Self {
        Self {
            index,
            signalled: AtomicU16::new(ring.next_used()),
            ring: Mutex::new(ring),
            memory,
            signals,
            doorbell,
        }
    }

    /// Which queue of the device it is.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many descriptors the driver gave it.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.lock().size()
    }

    /// The memory its chains are in.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The next chain, or `None` if there is none, or the queue is stopped or the driver broke it.
    /// A chain that does not hold together puts the device in need of a reset.
    #[must_use]
    pub fn pop(&self) -> Option<Chain> {
        let mut ring = self.ring.lock();
        if !self.usable(&ring) {
            return None;
        }
        let popped = next_chain(&mut ring, &self.memory);
        drop(ring);
        popped.unwrap_or_else(|error| {
            self.fail(&error);
            None
        })
    }

    /// Takes the last [`pop`](Self::pop) back, whose chain was not completed: it is the next again,
    /// and is what a saved state goes on with.
    pub fn unpop(&self) {
        let mut ring = self.ring.lock();
        if self.usable(&ring) {
            ring.go_to_previous_position();
        }
    }

    /// Whether the driver has made a chain available that was not popped yet.
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.available() > 0
    }

    /// How many chains wait to be popped.
    #[must_use]
    pub fn available(&self) -> u16 {
        let ring = self.ring.lock();
        if !self.usable(&ring) {
            return 0;
        }
        let newest = ring.avail_idx(&self.memory, Ordering::Acquire);
        newest.map_or(0, |index| index.0.wrapping_sub(ring.next_avail()))
    }

    /// Gives the chain that starts at `head` back, with `written` bytes written from the start of
    /// its writable part.
    pub fn complete(&self, head: u16, written: u32) {
        let mut ring = self.ring.lock();
        if !self.usable(&ring) {
            return;
        }
        let added = ring.add_used(&self.memory, head, written);
        drop(ring);
        if let Err(error) = added {
            self.fail(&error);
        }
    }

    /// Gives several chains back that belong together: the driver sees all of them or none. Each is
    /// the number of its first descriptor and the bytes written.
    pub fn complete_together(&self, used: &[(u16, u32)]) {
        let mut ring = self.ring.lock();
        if !self.usable(&ring) {
            return;
        }
        let added = add_together(&mut ring, &self.memory, used);
        drop(ring);
        if let Err(error) = added {
            self.fail(&error);
        }
    }

    /// Interrupts the driver, unless it wants no interrupt for what was completed since the last
    /// call.
    pub fn interrupt(&self) {
        let ring = self.ring.lock();
        if !self.usable(&ring) {
            return;
        }
        let before = self.signalled.swap(ring.next_used(), Ordering::Relaxed);
        let wanted = wants_interrupt(&ring, &self.memory, before);
        drop(ring);
        match wanted {
            Ok(true) => self.signals.used_buffers(self.index),
            Ok(false) => {}
            Err(error) => self.fail(&error),
        }
    }

    /// Asks the driver to ring for the next chain. `true` if one came in the meantime, for which
    /// it will not ring.
    #[must_use]
    pub fn want_doorbell(&self) -> bool {
        let mut ring = self.ring.lock();
        if !self.usable(&ring) {
            return false;
        }
        let more = ring.enable_notification(&self.memory);
        drop(ring);
        more.unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    /// Tells the driver that ringing is not needed for now.
    pub fn refuse_doorbell(&self) {
        let mut ring = self.ring.lock();
        if self.usable(&ring) && ring.disable_notification(&self.memory).is_err() {
            drop(ring);
            self.fail(&"the used ring is not writable");
        }
    }

    /// Rings the queue's own bell, so that whoever serves it comes again.
    pub fn ring(&self) {
        // A full counter means that the bell is ringing already.
        let _ = self.doorbell.write(1);
    }

    /// Hands every available chain to `serve` until it breaks off; the driver rings for what comes
    /// later. Takes at most as many chains as the queue is long, then rings itself, so that a
    /// driver that never stops cannot hold the thread.
    pub fn serve(&self, mut serve: impl FnMut(Chain) -> ControlFlow<()>) {
        let mut budget = self.size();
        loop {
            self.refuse_doorbell();
            while let Some(chain) = self.pop() {
                if serve(chain).is_break() {
                    return;
                }
                budget = budget.saturating_sub(1);
                if budget == 0 {
                    self.ring();
                    let _ = self.want_doorbell();
                    return;
                }
            }
            if !self.want_doorbell() {
                return;
            }
        }
    }

    /// Puts the device in need of a reset, for `reason`.
    pub fn fail(&self, reason: &dyn fmt::Display) {
        self.signals
            .fail(&format_args!("queue {}: {reason}", self.index));
    }

    /// No one pops or completes anything from here on.
    pub(crate) fn stop(&self) {
        self.ring.lock().set_ready(false);
    }

    /// Where device and driver are: the next available index and the next used index.
    pub(crate) fn position(&self) -> (u16, u16) {
        let ring = self.ring.lock();
        (ring.next_avail(), ring.next_used())
    }

    fn usable(&self, ring: &Queue) -> bool {
        ring.ready() && !self.signals.needs_reset()
    }
}

fn next_chain(ring: &mut Queue, memory: &GuestMemory) -> Result<Option<Chain>, ChainError> {
    // "Drivers MUST NOT create a descriptor chain longer than the Queue Size of the device."
    let limit = usize::from(ring.max_size());
    let mut heads = ring.iter(memory).map_err(ChainError::Ring)?;
    let Some(descriptors) = heads.next() else {
        return Ok(None);
    };
    let head = descriptors.head_index();
    let mut chain = Chain {
        head,
        readable: Vec::new(),
        writable: Vec::new(),
    };
    let mut ended = false;
    for descriptor in descriptors.take(limit) {
        let (address, len) = (descriptor.addr(), descriptor.len());
        // The iterator stops silently where it must not go on: the last one then has a next.
        ended = !descriptor.has_next();
        if len == 0 {
            continue;
        }
        if !memory.check_range(address, len as usize) {
            let address = address.0;
            return Err(ChainError::NotRam { head, address, len });
        }
        if descriptor.is_write_only() {
            chain.writable.push(Segment { address, len });
        } else if chain.writable.is_empty() {
            chain.readable.push(Segment { address, len });
        } else {
            return Err(ChainError::Order { head });
        }
    }
    if ended {
        Ok(Some(chain))
    } else {
        Err(ChainError::Endless { head })
    }
}

/// The used ring (2.7.8): flags and index, then elements of a descriptor's number and a length.
const USED_INDEX: u64 = 2;
const USED_ELEMENTS: u64 = 4;
const USED_ELEMENT: u64 = 8;
/// The available ring (2.7.6): flags and index, then numbers of descriptors, then `used_event`.
const AVAIL_ELEMENTS: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;

/// Fills the elements of `used`, and only then moves the index over all of them.
fn add_together(
    ring: &mut Queue,
    memory: &GuestMemory,
    used: &[(u16, u32)],
) -> Result<(), virtio_queue::Error> {
    let mut next = ring.next_used();
    for &(head, written) in used {
        let slot = u64::from(next % ring.size());
        let at = GuestAddress(ring.used_ring() + USED_ELEMENTS + USED_ELEMENT * slot);
        let element = u64::from(head) | u64::from(written) << 32;
        memory
            .write_obj(element.to_le(), at)
            .map_err(virtio_queue::Error::GuestMemory)?;
        next = next.wrapping_add(1);
    }
    ring.set_next_used(next);
    let index = GuestAddress(ring.used_ring() + USED_INDEX);
    memory
        .store(next.to_le(), index, Ordering::Release)
        .map_err(virtio_queue::Error::GuestMemory)
}

/// Whether the driver wants to hear of what was used since the index was `before` (2.7.7).
fn wants_interrupt(
    ring: &Queue,
    memory: &GuestMemory,
    before: u16,
) -> Result<bool, virtio_queue::Error> {
    // What was used is there before the driver's wish is read: it looks the other way round.
    fence(Ordering::SeqCst);
    let load = |offset: u64| {
        let at = GuestAddress(ring.avail_ring() + offset);
        let value = memory.load(at, Ordering::Relaxed).map(u16::from_le);
        value.map_err(virtio_queue::Error::GuestMemory)
    };
    if ring.event_idx_enabled() {
        let event = load(AVAIL_ELEMENTS + AVAIL_ELEMENT * u64::from(ring.size()))?;
        let now = ring.next_used();
        return Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before));
    }
    Ok(load(0)? & AVAIL_NO_INTERRUPT == 0)
}
