//! The loop of a disk's own threads, one a queue.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Block;
use super::lane::Look;
use crate::poll::PollWindow;
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
    stop: Arc<Stop>,
}

/// Stops a [`BlockWorker`].
pub struct WorkerStop(Arc<Stop>);

/// The word to stop: a worker that is awake sees it, one that sleeps hears it.
struct Stop {
    told: AtomicBool,
    bell: EventFd,
}

impl WorkerStop {
    /// Makes [`BlockWorker::run`] return, once what is under way is answered.
    pub fn stop(&self) {
        self.0.told.store(true, Ordering::Release);
        // A full counter means that it was told already.
        let _ = self.0.bell.write(1);
    }
}

impl BlockWorker {
    /// A worker for queue `index` of `pci`, and the means to stop it. [`Block::pause`] and
    /// [`Block::resume`] work from any thread, with and without a worker.
    ///
    /// # Errors
    /// If the host has no more descriptors.
    pub fn new(pci: Arc<VirtioPci<Block>>, index: u16) -> io::Result<(Self, WorkerStop)> {
        let stop = Arc::new(Stop {
            told: AtomicBool::new(false),
            bell: EventFd::new(EFD_NONBLOCK)?,
        });
        let epoll = Epoll::new()?;
        let watch = |fd: RawFd, token| {
            let what = EpollEvent::new(EventSet::IN, token);
            epoll.ctl(ControlOperation::Add, fd, what)
        };
        watch(stop.bell.as_raw_fd(), STOP)?;
        if let Some(doorbell) = pci.queue_events().get(usize::from(index)) {
            watch(doorbell.as_raw_fd(), QUEUE)?;
        }
        if let Some(completions) = pci.device().completions(index) {
            watch(completions.as_raw_fd(), COMPLETION)?;
        }
        let stopper = WorkerStop(Arc::clone(&stop));
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
        let disk = self.pci.device();
        let mut events = [EpollEvent::default(); 3];
        let mut window = PollWindow::of_this_host();
        while !self.stop.told.load(Ordering::Acquire) {
            let (look, since) = self.work(window.length());
            if disk.want_doorbell(self.index) {
                continue;
            }
            let patience = disk.wait(self.index).map_or(-1, milliseconds);
            let count = match self.epoll.wait(patience, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if events.iter().take(count).any(|event| event.data() == QUEUE) {
                self.pci.silence_doorbell(self.index);
                if look == Look::Nothing {
                    window.waited(since.elapsed());
                }
            }
        }
        disk.pause();
        Ok(())
    }

    /// Serves the queue until there was nothing to do for as long as `window`, or looking is of no
    /// use; what the last look found, and since when it is so.
    fn work(&self, window: Duration) -> (Look, Instant) {
        let mut since = Instant::now();
        loop {
            let look = self.pci.device().look(self.index);
            let stopped = self.stop.told.load(Ordering::Relaxed);
            match look {
                Look::Work if !stopped => since = Instant::now(),
                Look::Nothing if !stopped && since.elapsed() < window => std::hint::spin_loop(),
                look => return (look, since),
            }
        }
    }
}

/// Rounded up, so that waiting once is enough.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}
