//! The loop of a disk's own threads, one a queue.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Block;
use crate::transport::VirtioPci;

/// What wakes the worker.
const QUEUE: u64 = 0;
const COMPLETION: u64 = 1;
const STOP: u64 = 2;

/// Serves one queue of a disk until it is told to stop. The machine owns the thread:
/// `thread::spawn(move || worker.run())`.
pub struct BlockWorker {
    pci: Arc<VirtioPci<Block>>,
    index: u16,
    epoll: Epoll,
    stop: EventFd,
}

/// Stops a [`BlockWorker`].
pub struct WorkerStop(EventFd);

impl WorkerStop {
    /// Makes [`BlockWorker::run`] return, once what is under way is answered.
    pub fn stop(&self) {
        // A full counter means that it was told already.
        let _ = self.0.write(1);
    }
}

impl BlockWorker {
    /// A worker for queue `index` of `pci`, and the means to stop it. [`Block::pause`] and
    /// [`Block::resume`] work from any thread, with and without a worker.
    ///
    /// # Errors
    /// If the host has no more descriptors.
    pub fn new(pci: Arc<VirtioPci<Block>>, index: u16) -> io::Result<(Self, WorkerStop)> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        let watch = |event: &EventFd, token| {
            let what = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), what)
        };
        watch(&stop, STOP)?;
        if let Some(event) = pci.queue_events().get(usize::from(index)) {
            watch(event, QUEUE)?;
        }
        if let Some(event) = pci.device().completion_event(index) {
            watch(event, COMPLETION)?;
        }
        let stopper = WorkerStop(stop.try_clone()?);
        let worker = Self {
            pci,
            index,
            epoll,
            stop,
        };
        Ok((worker, stopper))
    }

    /// Serves the queue until it is stopped, and leaves the disk paused.
    ///
    /// # Errors
    /// If the host can't wait for events, which leaves the queue unserved.
    pub fn run(self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 3];
        loop {
            let patience = self.pci.device().wait(self.index).map_or(-1, milliseconds);
            let count = match self.epoll.wait(patience, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if count == 0 {
                self.pci.process_queue(self.index);
            }
            for event in events.iter().take(count) {
                match event.data() {
                    QUEUE => self.pci.process_queue(self.index),
                    COMPLETION => self.pci.device().process_completions(self.index),
                    _ => {
                        self.pci.device().pause();
                        let _ = self.stop.read();
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Rounded up, so that waiting once is enough.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}
