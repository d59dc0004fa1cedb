//! virtio-rng (5.4): random bytes of the host's, as many as a limit lets pass.

#[cfg(test)]
mod tests;

use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::{Clock, Nanos, Rate, RateLimit, StateError, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::{Chain, Virtqueue};

/// Linux has one buffer under way.
const QUEUE_SIZES: [u16; 1] = [64];
/// Bytes that a buffer gets at most: it need not be filled (5.4.6.2).
const PIECE: usize = 4096;
/// When to ask a source again that had nothing yet, and one that failed.
const SOON: Nanos = 10_000_000;
const LATER: Nanos = 1_000_000_000;

/// What went to the guest since the device was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RngCounts {
    /// Random bytes.
    pub bytes: u64,
    /// How often the guest had to wait for its limit.
    pub limited: u64,
}

/// The device.
pub struct Rng {
    inner: Mutex<Inner>,
}

struct Inner {
    source: Box<dyn Read + Send>,
    limit: Option<RateLimit>,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    queue: Option<Arc<Virtqueue>>,
    /// The source's failure was told.
    failed: bool,
    counts: RngCounts,
}

/// What a snapshot keeps of the device: nothing, as it has only its queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngState {}

impl Rng {
    /// A device that gives what it reads from `source`, which must not block. Whoever waits for
    /// `timer`, which goes by `clock`, calls [`expired`](Self::expired).
    #[must_use]
    pub fn new(
        source: impl Read + Send + 'static,
        limit: Option<Rate>,
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
    ) -> Self {
        let now = clock.now();
        Self {
            inner: Mutex::new(Inner {
                source: Box::new(source),
                limit: limit.map(|rate| RateLimit::new(rate, now)),
                clock,
                timer,
                queue: None,
                failed: false,
                counts: RngCounts::default(),
            }),
        }
    }

    /// The timer rang: goes on where it had to wait.
    pub fn expired(&self) {
        self.inner.lock().serve();
    }

    /// What went to the guest.
    #[must_use]
    pub fn counts(&self) -> RngCounts {
        self.inner.lock().counts
    }
}

impl Inner {
    fn serve(&mut self) {
        let Some(queue) = self.queue.clone() else {
            return;
        };
        let mut given = false;
        queue.serve(|chain| match self.fill(&queue, &chain) {
            Ok(count) => {
                queue.complete(chain.head, count);
                given = true;
                ControlFlow::Continue(())
            }
            Err(at) => {
                queue.unpop();
                self.timer.arm(Some(at));
                ControlFlow::Break(())
            }
        });
        if given {
            queue.interrupt();
        }
    }

    /// Fills a chain, at least in part; how many bytes, or when to try again.
    fn fill(&mut self, queue: &Virtqueue, chain: &Chain) -> Result<u32, Nanos> {
        let mut buffer = [0; PIECE];
        let mut room = usize::try_from(chain.writable_len())
            .unwrap_or(PIECE)
            .min(PIECE);
        if room == 0 {
            return Ok(0);
        }
        let now = self.clock.now();
        if let Some(limit) = &mut self.limit {
            let burst = limit.rate().burst.get();
            room = room.min(usize::try_from(burst).unwrap_or(room));
            limit
                .try_take(room as u64, now)
                .inspect_err(|_| self.counts.limited += 1)?;
        }
        let count = self.draw(&mut buffer[..room]);
        if let Some(limit) = &mut self.limit {
            limit.put_back((room - *count.as_ref().unwrap_or(&0)) as u64);
        }
        let count = count.map_err(|wait| now.saturating_add(wait))?;
        match chain.write(queue.memory(), 0, &buffer[..count]) {
            Ok(written) => {
                self.counts.bytes += written as u64;
                Ok(written as u32)
            }
            Err(error) => {
                queue.fail(&error);
                Ok(0)
            }
        }
    }

    /// Reads from the source, at least one byte; or how long to wait before it is asked again.
    fn draw(&mut self, buffer: &mut [u8]) -> Result<usize, Nanos> {
        let error = match self.source.read(buffer) {
            Ok(0) => ErrorKind::UnexpectedEof.into(),
            Ok(count) => {
                self.failed = false;
                return Ok(count);
            }
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            return Err(SOON);
        }
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(%error, "the source of random numbers fails; the guest waits for it");
        }
        Err(LATER)
    }
}

impl VirtioDevice for Rng {
    type State = RngState;
    const KIND: &'static str = "virtio-rng";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 4,
        // What has no class of its own, as on QEMU.
        pci_class: 0xff_0000,
    };

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        self.inner.lock().queue = Some(queue);
    }

    fn stop_queue(&self, _index: u16) {
        let mut inner = self.inner.lock();
        inner.queue = None;
        inner.timer.arm(None);
    }

    fn process_queue(&self, _index: u16) {
        self.inner.lock().serve();
    }

    fn reset(&self) {}

    fn save(&self) -> Self::State {
        RngState {}
    }

    fn restore(&self, _state: Self::State) -> Result<(), StateError> {
        Ok(())
    }
}
