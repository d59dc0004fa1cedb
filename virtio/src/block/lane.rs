//! The requests of one queue on their way: from the queue to the image and back.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use caraway_devices::{GuestMemory, Nanos};
use smallvec::SmallVec;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

use super::QUEUE_SIZE;
use super::at_once::AtOnce;
use super::config::OnError;
use super::image::Work;
use super::plain::{self, Direction};
use super::raw::allocation;
use super::request::{self, Disk, Request, Status};
use super::ring::{Operation, Ring};
use super::shared::Shared;
use crate::chain::host_slices;
use crate::queue::{Chain, Segment, Segments, Virtqueue};

/// Pieces of this process's memory, as the kernel takes them.
type Buffers = SmallVec<[libc::iovec; 4]>;

/// A request that is being worked on.
struct Slot {
    queue: Arc<Virtqueue>,
    head: u16,
    status: GuestAddress,
    work: Work,
    /// Where the bytes are in this process. Does not change while the kernel has it.
    buffers: Buffers,
    /// How many bytes it moves or zeroes.
    len: u64,
}

// SAFETY: the pointers in `buffers` go into guest memory that `queue` keeps mapped; whoever has the
// slot may use them from any thread.
unsafe impl Send for Slot {}

/// What a look at a queue and at its completions found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Something, which is done.
    Work,
    /// Nothing; the driver may have the next request soon.
    Nothing,
    /// Nothing, and what comes next is not the driver's: the kernel has requests, the limits or a
    /// pause hold them.
    Elsewhere,
}

/// A queue, the ring, and what is under way between them and the image.
pub(crate) struct Lane {
    /// Dropped first: it waits for the kernel to leave the slots alone.
    ring: Option<Ring>,
    slots: Vec<Option<Slot>>,
    /// Which slots are free.
    free: Vec<usize>,
    pub(crate) queue: Option<Arc<Virtqueue>>,
    /// What failed and is tried again when the machine goes on, oldest first.
    parked: VecDeque<Slot>,
    /// The machine went on, and what is parked was not tried since.
    goes_on: bool,
    /// For how long the limits allow no request.
    wait: Option<Nanos>,
    pub(crate) at_once: AtOnce,
    shared: Arc<Shared>,
}

impl Lane {
    pub(crate) fn new(shared: Arc<Shared>, ring: Option<Ring>) -> Self {
        Self {
            ring,
            slots: (0..QUEUE_SIZE).map(|_| None).collect(),
            free: (0..usize::from(QUEUE_SIZE)).rev().collect(),
            queue: None,
            parked: VecDeque::new(),
            goes_on: false,
            wait: None,
            at_once: AtOnce::new(),
            shared,
        }
    }

    pub(crate) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// Whether nothing is under way. What is parked waits for the machine to go on.
    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// For how long the limits allow no request; `None` if none waits for them.
    pub(crate) fn wait(&self) -> Option<Nanos> {
        self.wait
    }

    /// Lets go of the queue and of what is parked of it.
    pub(crate) fn release(&mut self) {
        self.queue = None;
        self.parked.clear();
        self.wait = None;
    }

    /// Answers what the kernel has done and takes what the driver made available, as far as there is
    /// room and the limits allow. The driver rings for what comes later only after
    /// [`want_doorbell`](Self::want_doorbell).
    pub(crate) fn look(&mut self) -> Look {
        let answered = self.take_completions();
        let taken = self.take_requests();
        match answered || taken {
            true => Look::Work,
            false if self.may_take() && self.is_idle() => Look::Nothing,
            false => Look::Elsewhere,
        }
    }

    /// Asks the driver to ring for its next request, unless that could not be taken. `true` if one
    /// came in the meantime, for which it will not ring.
    pub(crate) fn want_doorbell(&self) -> bool {
        let queue = self.queue.as_ref().filter(|_| self.may_take());
        queue.is_some_and(|queue| queue.want_doorbell())
    }

    /// Whether a request could be taken. Where not, a completion, the end of a wait or the machine's
    /// going on comes back to look.
    fn may_take(&self) -> bool {
        let has_room = !self.free.is_empty() && self.parked.is_empty();
        let is_held = self.wait.is_some() || self.shared.is_paused();
        self.queue.is_some() && has_room && !is_held
    }

    /// Takes at most as many requests as a queue has; whether there were any.
    fn take_requests(&mut self) -> bool {
        self.wait = None;
        let Some(queue) = self.queue.clone() else {
            return false;
        };
        let mut worked = false;
        if !self.shared.is_paused() && std::mem::take(&mut self.goes_on) {
            for slot in std::mem::take(&mut self.parked) {
                self.start(slot);
                worked = true;
            }
        }
        for taken in 0..QUEUE_SIZE {
            if !self.may_take() {
                break;
            }
            let Some(chain) = queue.pop() else { break };
            if taken == 0 {
                queue.refuse_doorbell();
            }
            let wait = self.shared.throttled();
            if wait > 0 {
                queue.unpop();
                self.wait = Some(wait);
                self.shared.count_throttled();
                break;
            }
            self.begin(&queue, chain);
            worked = true;
        }
        self.submit();
        if worked {
            queue.interrupt();
        }
        worked
    }

    /// Answers what the kernel has done; whether that was anything.
    pub(crate) fn take_completions(&mut self) -> bool {
        let mut queue = None;
        while let Some((token, result)) = self.ring.as_mut().and_then(Ring::next_completion) {
            let index = token as usize;
            let slot = self.slots.get_mut(index).and_then(Option::take);
            let Some(slot) = slot else { continue };
            self.free.push(index);
            let result = self.settle(&slot, result);
            queue = Some(Arc::clone(&slot.queue));
            self.finish(slot, result);
        }
        if let Some(queue) = &queue {
            queue.interrupt();
        }
        self.submit();
        queue.is_some()
    }

    fn submit(&mut self) {
        if let Some(ring) = &mut self.ring
            && ring.has_unsubmitted()
            && let Err(error) = ring.submit()
        {
            // The kernel is out of something; what it did not take goes next time, for which the
            // queue's bell sees.
            tracing::debug!(%error, "the kernel takes no disk requests for now");
            self.ring_bell();
        }
    }

    /// The machine goes on: has whoever serves the queue try again what failed.
    pub(crate) fn resume(&mut self) {
        self.goes_on = true;
        self.ring_bell();
    }

    /// Has whoever serves the queue come again.
    pub(crate) fn ring_bell(&self) {
        self.queue.iter().for_each(|queue| queue.ring());
    }

    fn begin(&mut self, queue: &Arc<Virtqueue>, chain: Chain) {
        let head = chain.head;
        let memory = queue.memory();
        let disk = Disk {
            sectors: self.shared.sectors(),
            read_only: self.shared.read_only,
        };
        let parsed = match request::parse(memory, chain, disk) {
            Ok(parsed) => parsed,
            Err(error) => return queue.fail(&error),
        };
        let answer = |status, written| answer(queue, head, parsed.status, status, written);
        let durable = self.shared.is_write_through();
        let (work, data, len) = match parsed.request {
            Request::Refused(status) => {
                self.shared.charge(0);
                return answer(status, 0);
            }
            Request::Identify { data } => {
                self.shared.charge(0);
                let written = scatter(memory, &data, &self.shared.serial);
                return answer(Status::Ok, written);
            }
            Request::Flush if !self.shared.flush_counts() => {
                self.shared.charge(0);
                return answer(Status::Ok, 0);
            }
            Request::Read { offset, data } => {
                let direction = Direction::Read;
                let len = request::total(&data);
                (Work::Transfer { direction, offset }, data, len)
            }
            Request::Write { offset, data } => {
                let direction = Direction::Write { durable };
                let len = request::total(&data);
                (Work::Transfer { direction, offset }, data, len)
            }
            Request::Flush => (Work::Flush, Segments::new(), 0),
            Request::Discard { offset, len } => (Work::Discard { offset, len }, Segments::new(), 0),
            Request::WriteZeroes { offset, len, unmap } => {
                let work = Work::Zero {
                    offset,
                    len,
                    unmap,
                    durable,
                };
                (work, Segments::new(), len)
            }
        };
        let Some(buffers) = host_buffers(memory, &data) else {
            return queue.fail(&"a request's buffer is not in RAM");
        };
        self.shared.charge(len);
        self.start(Slot {
            queue: Arc::clone(queue),
            head,
            status: parsed.status,
            work,
            len,
            buffers,
        });
    }

    fn start(&mut self, mut slot: Slot) {
        if self.ring.is_some() && slot.buffers.len() <= plain::MAX_BUFFERS {
            if let Some(result) = self.try_at_once(&slot) {
                return self.finish(slot, result);
            }
            match self.push(slot) {
                None => return,
                Some(refused) => slot = refused,
            }
        }
        let result = self.perform(&slot);
        self.finish(slot, result);
    }

    /// Does the slot's work, and returns when it is done.
    fn perform(&self, slot: &Slot) -> io::Result<()> {
        // SAFETY: the buffers are guest memory that the slot's queue keeps mapped.
        unsafe { self.shared.image.perform(slot.work, &slot.buffers) }
    }

    /// What becomes of the slot's work if the page cache does it, which takes less than giving it to
    /// the ring; `None` if the ring should have it.
    fn try_at_once(&mut self, slot: &Slot) -> Option<io::Result<()>> {
        let Work::Transfer { direction, offset } = slot.work else {
            return None;
        };
        let file = self.shared.image.raw()?.cached()?;
        match direction {
            Direction::Read if self.at_once.reads => {
                // SAFETY: the buffers are guest memory that the slot's queue keeps mapped.
                let moved = unsafe { plain::read_cached(file, offset, &slot.buffers) };
                match moved {
                    Ok(moved) if moved as u64 == slot.len => return Some(Ok(())),
                    Err(error) if plain::is_unsupported(&error) => self.at_once.reads = false,
                    _ => {}
                }
                None
            }
            Direction::Write { durable: false } if self.is_idle() => {
                let began = Instant::now();
                if !self.at_once.may_write(slot.len, began) {
                    return None;
                }
                let result = self.perform(slot);
                self.at_once.wrote(began, Instant::now());
                Some(result)
            }
            _ => None,
        }
    }

    /// Gives `slot` to the ring, or back if there is no room for it.
    fn push(&mut self, slot: Slot) -> Option<Slot> {
        let (Some(ring), Some(image)) = (&mut self.ring, self.shared.image.raw()) else {
            return Some(slot);
        };
        let Some(index) = self.free.pop() else {
            return Some(slot);
        };
        let slot = self.slots[index].insert(slot);
        let (operation, file) = match slot.work {
            Work::Transfer { direction, offset } => (
                Operation::Transfer {
                    direction,
                    offset,
                    buffers: &slot.buffers,
                },
                image.file_for(offset, &slot.buffers),
            ),
            work => {
                let allocate = |(mode, offset, len)| Operation::Allocate { mode, offset, len };
                let operation = allocation(work).map_or(Operation::Flush, allocate);
                (operation, &image.file)
            }
        };
        // SAFETY: the slot keeps iovecs and guest memory until its completion is taken; ring, slots
        // and image are dropped in this order, and the ring waits for the kernel when dropped.
        match unsafe { ring.push(file, &operation, index as u64) } {
            Ok(()) => None,
            Err(_) => {
                self.free.push(index);
                self.slots[index].take()
            }
        }
    }

    /// Turns what the kernel says of a request into what became of it, and does what it left.
    fn settle(&self, slot: &Slot, result: io::Result<usize>) -> io::Result<()> {
        let Some(image) = self.shared.image.raw() else {
            return result.map(drop);
        };
        match slot.work {
            Work::Transfer { direction, offset } => {
                let moved = match result {
                    Ok(moved) => moved,
                    Err(error) if plain::is_passing(&error) => 0,
                    Err(error) => return Err(error),
                };
                if moved as u64 == slot.len {
                    return Ok(());
                }
                let offset = offset.saturating_add(moved as u64);
                let rest = plain::after(&slot.buffers, moved);
                let file = image.file_for(offset, &rest);
                // SAFETY: the buffers are guest memory that the slot's queue keeps mapped.
                unsafe { plain::transfer(file, direction, offset, &rest) }
            }
            Work::Flush => result.map(drop),
            work => image.finish_allocation(work, result.map(drop)),
        }
    }

    fn finish(&mut self, slot: Slot, result: io::Result<()>) {
        let status = match &result {
            Ok(()) => Status::Ok,
            Err(error) if plain::is_unsupported(error) => Status::Unsupported,
            Err(_) => Status::IoError,
        };
        if let (Status::IoError, Err(error)) = (status, &result)
            && self.shared.failed(slot.work, error) == OnError::Pause
        {
            self.parked.push_back(slot);
            return;
        }
        if status == Status::Ok {
            self.shared.count(slot.work, slot.len);
        }
        let read = matches!(
            slot.work,
            Work::Transfer {
                direction: Direction::Read,
                ..
            }
        );
        let written = match status {
            Status::Ok if read => u32::try_from(slot.len).unwrap_or(u32::MAX - 1),
            _ => 0,
        };
        answer(&slot.queue, slot.head, slot.status, status, written);
    }
}

/// Gives a chain back with its status, after `written` bytes of data.
fn answer(queue: &Virtqueue, head: u16, to: GuestAddress, status: Status, written: u32) {
    if queue.memory().write_obj(status as u8, to).is_err() {
        return queue.fail(&"a request's status byte is not in RAM");
    }
    queue.complete(head, written.saturating_add(1));
}

/// Writes `bytes` to `segments`, as many as fit, and says how many did.
fn scatter(memory: &GuestMemory, segments: &[Segment], bytes: &[u8]) -> u32 {
    let mut rest = bytes;
    for segment in segments {
        let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
        if memory.write_slice(now, segment.address).is_err() {
            break;
        }
        rest = later;
    }
    (bytes.len() - rest.len()) as u32
}

/// Where `segments` are in this process; `None` if one is not in RAM.
fn host_buffers(memory: &GuestMemory, segments: &[Segment]) -> Option<Buffers> {
    let mut buffers = Buffers::with_capacity(segments.len());
    for segment in segments {
        let push = |slice: VolatileSlice<'_>| {
            buffers.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        };
        host_slices(memory, segment.address, segment.len as usize, push).ok()?;
    }
    Some(buffers)
}
