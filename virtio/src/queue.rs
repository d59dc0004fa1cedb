//! A virtqueue in use: chains out, used buffers in, interrupts and notifications suppressed as the
//! driver asks (section 2.7).

use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::GuestMemory;
use parking_lot::Mutex;
use smallvec::SmallVec;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::chain::host_slices;
use crate::split::{BadIndex, Descriptor, SplitRing, Table};
use crate::transport::Signals;

/// A piece of guest memory that a descriptor names; all of it is RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address of the first byte.
    pub address: GuestAddress,
    /// Length in bytes, not 0.
    pub len: u32,
}

/// Some of them; on the heap only if there are more than most drivers give.
pub type Segments = SmallVec<[Segment; 4]>;

/// A descriptor chain that was checked as a whole: it ends, it is in RAM, and what the device reads
/// comes before what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor, by which the chain is given back.
    pub head: u16,
    /// What the device may read, in order.
    pub readable: Segments,
    /// What the device may write, in order.
    pub writable: Segments,
}

/// What a driver got wrong.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum ChainError {
    #[error(transparent)]
    Index(#[from] BadIndex),
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
    state: Mutex<State>,
    memory: GuestMemory,
    signals: Arc<Signals>,
    doorbell: EventFd,
}

struct State {
    ring: SplitRing,
    is_stopped: bool,
    /// The used index up to which the driver was interrupted, or asked not to be.
    signalled: u16,
}

impl Virtqueue {
    pub(crate) fn new(
        index: u16,
        ring: SplitRing,
        memory: GuestMemory,
        signals: Arc<Signals>,
        doorbell: EventFd,
    ) -> Self {
        let state = State {
            signalled: ring.next_used(),
            ring,
            is_stopped: false,
        };
        Self {
            index,
            state: Mutex::new(state),
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
        self.state.lock().ring.size()
    }

    /// The memory its chains are in.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What `work` makes of the queue in use; nothing if it is stopped or the driver broke it, as what
    /// `work` fails of breaks it.
    fn work<T: Default, E: fmt::Display>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> T {
        let mut state = self.state.lock();
        if state.is_stopped || self.signals.needs_reset() {
            return T::default();
        }
        let worked = work(&mut state);
        drop(state);
        worked.unwrap_or_else(|error| {
            self.fail(&error);
            T::default()
        })
    }

    /// As [`work`](Self::work), for what can't fail.
    fn always<T: Default>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        self.work(|state| Ok::<_, Infallible>(work(state)))
    }

    /// The next chain, or `None` if there is none, or the queue is stopped or the driver broke it.
    /// A chain that does not hold together puts the device in need of a reset.
    #[must_use]
    pub fn pop(&self) -> Option<Chain> {
        self.work(|state| {
            let Some(head) = state.ring.take()? else {
                return Ok(None);
            };
            let limit = state.ring.longest_chain();
            let chain = read_chain(state.ring.table(), head, limit, &self.memory);
            chain.map(Some)
        })
    }

    /// Takes the last [`pop`](Self::pop) back, whose chain was not completed: it is the next again,
    /// and is what a saved state goes on with.
    pub fn unpop(&self) {
        self.always(|state| state.ring.untake());
    }

    /// Whether the driver has made a chain available that was not popped yet.
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.available() > 0
    }

    /// How many chains wait to be popped.
    #[must_use]
    pub fn available(&self) -> u16 {
        self.work(|state| state.ring.available())
    }

    /// Gives the chain that starts at `head` back, with `written` bytes written from the start of
    /// its writable part.
    pub fn complete(&self, head: u16, written: u32) {
        self.complete_together(&[(head, written)]);
    }

    /// Gives several chains back that belong together: the driver sees all of them or none. Each is
    /// the number of its first descriptor and the bytes written.
    pub fn complete_together(&self, used: &[(u16, u32)]) {
        self.always(|state| state.ring.put(used));
    }

    /// Interrupts the driver, unless it wants no interrupt for what was completed since the last
    /// call.
    pub fn interrupt(&self) {
        let wanted = self.always(|state| {
            let now = state.ring.next_used();
            let before = std::mem::replace(&mut state.signalled, now);
            state.ring.wants_interrupt(before)
        });
        if wanted {
            self.signals.used_buffers(self.index);
        }
    }

    /// Asks the driver to ring for the next chain. `true` if one came in the meantime, for which
    /// it will not ring.
    #[must_use]
    pub fn want_doorbell(&self) -> bool {
        self.work(|state| state.ring.want_doorbell())
    }

    /// Tells the driver that ringing is not needed for now.
    pub fn refuse_doorbell(&self) {
        self.always(|state| state.ring.refuse_doorbell());
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
        self.state.lock().is_stopped = true;
    }

    /// Where device and driver are: the next available index and the next used index.
    pub(crate) fn position(&self) -> (u16, u16) {
        let state = self.state.lock();
        (state.ring.next_available(), state.ring.next_used())
    }
}

/// Follows the chain that starts at descriptor `head` of `table`, whose last may name a table in its place
/// (2.7.5.3). No more than `limit` of them are looked at.
fn read_chain(
    table: Table<'_>,
    head: u16,
    limit: u16,
    memory: &GuestMemory,
) -> Result<Chain, ChainError> {
    let endless = ChainError::Endless { head };
    let mut chain = Chain {
        head,
        readable: Segments::new(),
        writable: Segments::new(),
    };
    let (mut table, mut is_indirect) = (table, false);
    let (mut index, mut total) = (head, 0_u32);
    for _ in 0..limit {
        let mut descriptor = table.get(index).ok_or(endless)?;
        if descriptor.is_indirect() {
            let count = descriptor.len / Descriptor::SIZE;
            let is_whole = descriptor.len.is_multiple_of(Descriptor::SIZE);
            let count = u16::try_from(count)
                .ok()
                .filter(|_| is_whole && !is_indirect);
            let named = count.and_then(|count| Table::at(memory, descriptor.address, count));
            (table, is_indirect) = (named.ok_or(endless)?, true);
            descriptor = table
                .get(0)
                .filter(|first| !first.is_indirect())
                .ok_or(endless)?;
        }
        let (address, len) = (descriptor.address, descriptor.len);
        // "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in total" (2.7.5.2).
        total = total.checked_add(len).ok_or(endless)?;
        if len > 0 {
            if host_slices(memory, address, len as usize, drop).is_err() {
                let address = address.0;
                return Err(ChainError::NotRam { head, address, len });
            }
            match descriptor.is_writable() {
                true => chain.writable.push(Segment { address, len }),
                false if chain.writable.is_empty() => chain.readable.push(Segment { address, len }),
                false => return Err(ChainError::Order { head }),
            }
        }
        match descriptor.next() {
            Some(next) => index = next,
            None => return Ok(chain),
        }
    }
    Err(endless)
}
