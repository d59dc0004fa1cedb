//! The rings in the RAM header (`ipc_ring.h`): indices run freely, an index's slot is its
//! remainder, and whoever waits says at which index to be woken.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::command::wire::RingCommand;
use crate::memory::Memory;

const NUM_ITEMS: u64 = 0;
const PROD: u64 = 4;
const NOTIFY_ON_PROD: u64 = 8;
const CONS: u64 = 12;
const NOTIFY_ON_CONS: u64 = 16;
const ITEMS: u64 = 20;

/// Slots of a command or cursor ring.
pub(crate) const COMMANDS: u32 = 32;
/// Slots of the release ring.
pub(crate) const RELEASES: u32 = 8;

/// The guest's indices are impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a ring of {items} items has its producer at {producer} and its consumer at {consumer}")]
pub(crate) struct RingError {
    items: u32,
    producer: u32,
    consumer: u32,
}

/// The head that all rings have.
struct Ring {
    memory: Memory,
    base: u64,
    items: u32,
    /// Stands in for an index that is not there, which can't happen: rings are inside of BAR 0.
    nowhere: AtomicU32,
}

impl Ring {
    fn new(memory: Memory, base: u64, items: u32) -> Self {
        Self {
            memory,
            base,
            items,
            nowhere: AtomicU32::new(0),
        }
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        self.memory.atomic(self.base + at).unwrap_or(&self.nowhere)
    }

    fn load(&self, at: u64) -> u32 {
        self.word(at).load(Ordering::SeqCst)
    }

    fn store(&self, at: u64, value: u32) {
        self.word(at).store(value, Ordering::SeqCst);
    }

    fn reset(&self) {
        self.store(NUM_ITEMS, self.items);
        self.store(PROD, 0);
        self.store(NOTIFY_ON_PROD, 1);
        self.store(CONS, 0);
        self.store(NOTIFY_ON_CONS, 0);
    }

    /// Producer and consumer index, and how many items are in between.
    fn indices(&self) -> Result<(u32, u32, u32), RingError> {
        let (producer, consumer) = (self.load(PROD), self.load(CONS));
        let used = producer.wrapping_sub(consumer);
        if used > self.items {
            return Err(RingError {
                items: self.items,
                producer,
                consumer,
            });
        }
        Ok((producer, consumer, used))
    }

    /// Where the item with `index` is.
    fn item(&self, index: u32, size: u64) -> u64 {
        self.base + ITEMS + u64::from(index % self.items) * size
    }
}

/// The command or the cursor ring: the guest produces.
pub(crate) struct CommandRing(Ring);

impl CommandRing {
    pub(super) fn new(memory: Memory, base: u64) -> Self {
        Self(Ring::new(memory, base, COMMANDS))
    }

    pub(super) fn reset(&self) {
        self.0.reset();
    }

    /// The oldest command, and whether the guest waits for room; `None` if there is no command.
    pub(crate) fn pop(&self) -> Result<Option<(RingCommand, bool)>, RingError> {
        let ring = &self.0;
        let (_, consumer, used) = ring.indices()?;
        if used == 0 {
            return Ok(None);
        }
        let at = ring.item(consumer, size_of::<RingCommand>() as u64);
        let Ok(command) = ring.memory.get(at) else {
            return Ok(None);
        };
        let next = consumer.wrapping_add(1);
        ring.store(CONS, next);
        fence(Ordering::SeqCst);
        Ok(Some((command, ring.load(NOTIFY_ON_CONS) == next)))
    }

    /// Asks to be notified of the next command; `false` if there is one already.
    pub(crate) fn wait(&self) -> Result<bool, RingError> {
        let ring = &self.0;
        let (producer, _, used) = ring.indices()?;
        if used > 0 {
            return Ok(false);
        }
        ring.store(NOTIFY_ON_PROD, producer.wrapping_add(1));
        fence(Ordering::SeqCst);
        Ok(ring.indices()?.2 == 0)
    }
}

/// The release ring: we produce.
pub(crate) struct ReleaseRing(Ring);

impl ReleaseRing {
    pub(super) fn new(memory: Memory, base: u64) -> Self {
        Self(Ring::new(memory, base, RELEASES))
    }

    pub(super) fn reset(&self) {
        self.0.reset();
        let _ = self.0.memory.write(self.0.item(0, 8), &[0; 8]);
    }

    /// Whether an item more would fit, the last slot being left free.
    pub(crate) fn has_room(&self) -> Result<bool, RingError> {
        Ok(self.0.indices()?.2 + 1 < self.0.items)
    }

    /// Gives the guest `id` back; whether it is to be told. There is room.
    ///
    /// It is to be told of the item that it waits for, and of every later one while it has not seen
    /// that: Linux's driver looks for items and says what it waits for in two steps, so one that came in
    /// between was not told of, nor would any be ever after.
    pub(crate) fn push(&self, id: u64) -> Result<bool, RingError> {
        let ring = &self.0;
        let (producer, ..) = ring.indices()?;
        let next = producer.wrapping_add(1);
        // The ring is inside of the BAR; the guest expects the item after the newest to be zero.
        let _ = ring.memory.write(ring.item(producer, 8), &id.to_le_bytes());
        let _ = ring.memory.write(ring.item(next, 8), &[0; 8]);
        fence(Ordering::SeqCst);
        ring.store(PROD, next);
        fence(Ordering::SeqCst);
        let awaited = ring.load(NOTIFY_ON_PROD);
        Ok(awaited == next || awaited == ring.load(CONS).wrapping_add(1))
    }
}
