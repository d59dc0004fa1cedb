//! The requests of a disk on their way: from the queue to the image and back.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::QUEUE_SIZE;
use super::image::Image;
use super::plain::{self, Direction};
use super::request::{self, Request, Status};
use super::ring::{Operation, Ring};
use crate::queue::{Chain, Segment, Virtqueue};

/// Bytes of an answer to [`Request::Identify`] (5.2.6).
pub(crate) const SERIAL: usize = 20;
/// How many errors of the host are told before they are only whispered.
const LOUD_ERRORS: u32 = 16;

/// A request that is being worked on.
struct Slot {
    queue: Arc<Virtqueue>,
    head: u16,
    status: GuestAddress,
    work: Work,
    /// Where the bytes are in this process. Does not change while the kernel has it.
    buffers: Vec<libc::iovec>,
    /// How many bytes they have together.
    len: u64,
}

// SAFETY: the pointers in `buffers` go into guest memory that `queue` keeps mapped; whoever has the
// slot may use them from any thread.
unsafe impl Send for Slot {}

/// What is done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Transfer { direction: Direction, offset: u64 },
    Flush,
    Discard { offset: u64, len: u64 },
    Zero { offset: u64, len: u64, unmap: bool },
}

impl Work {
    /// The mode of `fallocate` and its range, for work that is one.
    fn allocation(self) -> Option<(i32, u64, u64)> {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        match self {
            Self::Discard { offset, len } => Some((PUNCH, offset, len)),
            Self::Zero { offset, len, unmap } => {
                Some((if unmap { PUNCH } else { ZERO }, offset, len))
            }
            _ => None,
        }
    }
}

/// The image, the ring, and what is under way between them.
pub(crate) struct Disk {
    /// Dropped first: it waits for the kernel to leave the slots alone.
    ring: Option<Ring>,
    slots: Vec<Option<Slot>>,
    /// Which slots are free.
    free: Vec<usize>,
    image: Image,
    serial: [u8; SERIAL],
    pub(crate) queue: Option<Arc<Virtqueue>>,
    pub(crate) paused: bool,
    /// Whether a write is only done when it is durable, because the driver will not flush.
    pub(crate) write_through: bool,
    errors: u32,
}

impl Disk {
    pub(crate) fn new(image: Image, serial: &str, ring: Option<Ring>) -> Self {
        let mut padded = [0; SERIAL];
        for (target, source) in padded.iter_mut().zip(serial.bytes()) {
            *target = source;
        }
        Self {
            ring,
            slots: (0..QUEUE_SIZE).map(|_| None).collect(),
            free: (0..usize::from(QUEUE_SIZE)).rev().collect(),
            image,
            serial: padded,
            queue: None,
            paused: false,
            write_through: true,
            errors: 0,
        }
    }

    pub(crate) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Takes what the driver made available, as far as there is room.
    pub(crate) fn take_requests(&mut self) {
        let Some(queue) = self.queue.clone() else {
            return;
        };
        if self.paused || self.free.is_empty() {
            return;
        }
        queue.serve(|chain| {
            self.begin(&queue, chain);
            if self.free.is_empty() {
                // A completion comes back here.
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.submit();
        queue.interrupt();
    }

    /// Answers what the kernel has done.
    pub(crate) fn take_completions(&mut self) {
        let mut queue = None;
        while let Some((token, result)) = self.ring.as_mut().and_then(Ring::next_completion) {
            let index = token as usize;
            let slot = self.slots.get_mut(index).and_then(Option::take);
            let Some(mut slot) = slot else { continue };
            self.free.push(index);
            let result = self.settle(&mut slot, result);
            self.finish(&slot, result);
            queue = Some(slot.queue);
        }
        if let Some(queue) = queue {
            queue.interrupt();
        }
        self.submit();
    }

    fn submit(&mut self) {
        if let Some(ring) = &mut self.ring
            && ring.has_unsubmitted()
            && let Err(error) = ring.submit()
        {
            // The kernel is out of something; what it did not take goes next time, for which the
            // queue's bell sees.
            tracing::debug!(%error, "the kernel takes no disk requests for now");
            if let Some(queue) = &self.queue {
                queue.ring();
            }
        }
    }

    fn begin(&mut self, queue: &Arc<Virtqueue>, chain: Chain) {
        let head = chain.head;
        let memory = queue.memory();
        let (sectors, read_only) = (self.image.sectors, self.image.read_only);
        let parsed = match request::parse(memory, chain, sectors, read_only) {
            Ok(parsed) => parsed,
            Err(error) => return queue.fail(&error),
        };
        let answer = |status, written| answer(queue, head, parsed.status, status, written);
        let direction = Direction::Write {
            durable: self.write_through,
        };
        let (work, data) = match parsed.request {
            Request::Refused(status) => return answer(status, 0),
            Request::Identify { data } => {
                let written = scatter(memory, &data, &self.serial);
                return answer(Status::Ok, written);
            }
            Request::Read { offset, data } => {
                let direction = Direction::Read;
                (Work::Transfer { direction, offset }, data)
            }
            Request::Write { offset, data } => (Work::Transfer { direction, offset }, data),
            Request::Flush => (Work::Flush, Vec::new()),
            Request::Discard { offset, len } => (Work::Discard { offset, len }, Vec::new()),
            Request::WriteZeroes { offset, len, unmap } => {
                (Work::Zero { offset, len, unmap }, Vec::new())
            }
        };
        let Some(buffers) = host_buffers(memory, &data) else {
            return queue.fail(&"a request's buffer is not in RAM");
        };
        let slot = Slot {
            queue: Arc::clone(queue),
            head,
            status: parsed.status,
            work,
            len: request::total(&data),
            buffers,
        };
        self.start(slot);
    }

    fn start(&mut self, mut slot: Slot) {
        if self.ring.is_some() && slot.buffers.len() <= plain::MAX_BUFFERS {
            match self.push(slot) {
                None => return,
                Some(refused) => slot = refused,
            }
        }
        let result = self.perform(&mut slot);
        self.finish(&slot, result);
    }

    /// Gives `slot` to the ring, or back if there is no room for it.
    fn push(&mut self, slot: Slot) -> Option<Slot> {
        let Some(ring) = &mut self.ring else {
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
                self.image.file_for(offset, &slot.buffers),
            ),
            work => {
                let allocate = |(mode, offset, len)| Operation::Allocate { mode, offset, len };
                let operation = work.allocation().map_or(Operation::Flush, allocate);
                (operation, &self.image.file)
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

    /// Does the work of `slot` at once.
    fn perform(&self, slot: &mut Slot) -> io::Result<()> {
        let file = &self.image.file;
        match slot.work {
            Work::Transfer { direction, offset } => {
                let file = self.image.file_for(offset, &slot.buffers);
                // SAFETY: the buffers are guest memory that the slot's queue keeps mapped.
                unsafe { plain::transfer(file, direction, offset, &mut slot.buffers) }
            }
            Work::Flush => file.sync_data(),
            work => {
                let Some((mode, offset, len)) = work.allocation() else {
                    return Ok(());
                };
                let done = plain::allocate(file, mode, offset, len);
                self.or_write_zeroes(work, done)
            }
        }
    }

    /// Turns what the kernel says of a request into what became of it, and does what it left.
    fn settle(&self, slot: &mut Slot, result: io::Result<usize>) -> io::Result<()> {
        match slot.work {
            Work::Transfer { direction, offset } => {
                let moved = match result {
                    Ok(moved) => moved,
                    Err(error) if is_passing(&error) => 0,
                    Err(error) => return Err(error),
                };
                if moved as u64 == slot.len {
                    return Ok(());
                }
                let offset = offset.saturating_add(moved as u64);
                let rest = plain::advance(&mut slot.buffers, moved);
                let file = self.image.file_for(offset, rest);
                // SAFETY: the buffers are guest memory that the slot's queue keeps mapped.
                unsafe { plain::transfer(file, direction, offset, rest) }
            }
            Work::Flush => result.map(drop),
            work => self.or_write_zeroes(work, result.map(drop)),
        }
    }

    /// Writes the zeroes one by one where the file system can't make them, and makes them durable
    /// if every write must be.
    fn or_write_zeroes(&self, work: Work, done: io::Result<()>) -> io::Result<()> {
        let Work::Zero { offset, len, .. } = work else {
            return done;
        };
        match done {
            Err(error) if is_unsupported(&error) => {
                plain::write_zeroes(self.image.file_for_range(offset, len), offset, len)?;
            }
            done => done?,
        }
        if self.write_through {
            self.image.file.sync_data()?;
        }
        Ok(())
    }

    fn finish(&mut self, slot: &Slot, result: io::Result<()>) {
        let status = match &result {
            Ok(()) => Status::Ok,
            Err(error) if is_unsupported(error) => Status::Unsupported,
            Err(_) => Status::IoError,
        };
        if let (Status::IoError, Err(error)) = (status, result) {
            self.errors = self.errors.saturating_add(1);
            if self.errors <= LOUD_ERRORS {
                tracing::warn!(%error, work = ?slot.work, "a disk request failed");
            } else {
                tracing::debug!(%error, work = ?slot.work, "a disk request failed");
            }
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

/// Errors that go away when one asks again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED)
    )
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
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
fn host_buffers(memory: &GuestMemory, segments: &[Segment]) -> Option<Vec<libc::iovec>> {
    let mut buffers = Vec::with_capacity(segments.len());
    for segment in segments {
        let slices = GuestMemoryBackend::get_slices(memory, segment.address, segment.len as usize);
        for slice in slices {
            let slice = slice.ok()?;
            buffers.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
    }
    Some(buffers)
}
