//! Requests by io_uring.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

use super::plain::Direction;

/// One request to the kernel.
pub(crate) enum Operation<'a> {
    /// Move `buffers` at `offset`.
    Transfer {
        direction: Direction,
        offset: u64,
        buffers: &'a [libc::iovec],
    },
    /// Make everything that is written durable.
    Flush,
    /// Change the allocation of `len` bytes from `offset`.
    Allocate { mode: i32, offset: u64, len: u64 },
}

/// An io_uring for the requests of one queue.
pub(crate) struct Ring {
    ring: IoUring,
    in_flight: usize,
}

impl Ring {
    /// A ring for `depth` requests at once.
    pub(crate) fn new(depth: u32) -> io::Result<Self> {
        let ring = IoUring::new(depth)?;
        Ok(Self { ring, in_flight: 0 })
    }

    /// Readable while requests are done that [`next_completion`](Self::next_completion) did not
    /// give yet.
    pub(crate) fn completions(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Puts a request on the ring; [`submit`](Self::submit) hands it to the kernel. Its completion
    /// comes with `token`.
    ///
    /// # Errors
    /// If more requests are on the way than the ring was made for.
    ///
    /// # Safety
    /// `file` stays open, and the iovecs and what they point to stay where they are, until the
    /// completion is taken or the ring is dropped.
    pub(crate) unsafe fn push(
        &mut self,
        file: &File,
        operation: &Operation<'_>,
        token: u64,
    ) -> io::Result<()> {
        let entry = entry(types::Fd(file.as_raw_fd()), operation).user_data(token);
        // SAFETY: what the entry points to lives long enough, by the caller's word.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        self.in_flight += 1;
        Ok(())
    }

    /// Hands what was pushed to the kernel.
    ///
    /// # Errors
    /// Whatever the kernel says; what it did not take goes with the next call.
    pub(crate) fn submit(&self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether something was pushed that the kernel has not taken yet.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// The next completion: its token, and the bytes moved.
    pub(crate) fn next_completion(&mut self) -> Option<(u64, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        let result = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(entry.result().wrapping_neg()));
        Some((entry.user_data(), result))
    }
}

impl Drop for Ring {
    /// The kernel may still write to the guest's memory: waits until it has finished.
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if let Err(error) = self.ring.submit_and_wait(1)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "disk requests can't be waited for");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            while self.next_completion().is_some() {}
        }
    }
}

fn entry(fd: types::Fd, operation: &Operation<'_>) -> squeue::Entry {
    match *operation {
        Operation::Transfer {
            direction,
            offset,
            buffers,
        } => {
            let (first, count) = (buffers.as_ptr(), buffers.len() as u32);
            match direction {
                Direction::Read => opcode::Readv::new(fd, first, count).offset(offset).build(),
                Direction::Write { .. } => opcode::Writev::new(fd, first, count)
                    .offset(offset)
                    .rw_flags(direction.flags())
                    .build(),
            }
        }
        Operation::Flush => opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
        Operation::Allocate { mode, offset, len } => opcode::Fallocate::new(fd, len)
            .offset(offset)
            .mode(mode)
            .build(),
    }
}
