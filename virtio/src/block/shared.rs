//! What the queues of a disk share.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caraway_devices::{Clock, Nanos, Rate, RateLimit};
use parking_lot::{Mutex, RwLock};

use super::config::{BlockConfig, CacheMode, ErrorPolicy, OnError};
use super::image::{Image, Work};
use super::limit::{Limits, Throttle};
use super::plain::Direction;
use super::raw::SECTOR;

/// Bytes of a serial number (5.2.6).
pub(crate) const SERIAL: usize = 20;
/// How many errors are told at once, and then in a second; the rest is only counted.
const LOUD: Rate = Rate {
    per_second: NonZeroU64::MIN,
    burst: match NonZeroU64::new(10) {
        Some(burst) => burst,
        None => NonZeroU64::MIN,
    },
};

/// Hears what a disk's owner should know. Called by the disk's threads; must not wait.
pub trait BlockEvents: Send + Sync {
    /// The host could not do what the guest asked.
    fn failed(&self, failure: BlockFailure);
}

/// A request that the host could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFailure {
    /// What it was: a read, a write, a flush, a discard, a write of zeroes.
    pub operation: &'static str,
    /// The first byte it was for.
    pub offset: Option<u64>,
    /// What the host said.
    pub error: String,
    /// Whether the host has no room left.
    pub no_space: bool,
    /// Whether the request waits for [`Block::resume`](super::Block::resume), for which the
    /// machine should stop; else the guest was told.
    pub stopped: bool,
}

impl fmt::Display for BlockFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.operation)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, " failed: {}", self.error)
    }
}

/// What a disk has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockCounts {
    /// Reads answered.
    pub reads: u64,
    /// Bytes that they gave.
    pub read_bytes: u64,
    /// Writes answered, those of zeroes among them.
    pub writes: u64,
    /// Bytes that they took.
    pub written_bytes: u64,
    /// Flushes answered.
    pub flushes: u64,
    /// Discards answered.
    pub discards: u64,
    /// Requests that the host could not do.
    pub errors: u64,
    /// How often requests had to wait for the limits.
    pub throttled: u64,
}

/// The image and what goes for all queues.
pub(crate) struct Shared {
    pub(crate) image: Image,
    pub(crate) read_only: bool,
    pub(crate) serial: [u8; SERIAL],
    cache: CacheMode,
    /// Whether the driver said that it flushes.
    flushes: AtomicBool,
    pub(crate) paused: AtomicBool,
    policy: ErrorPolicy,
    /// Spares those without limits the lock.
    limited: AtomicBool,
    throttle: Mutex<Throttle>,
    loud: Mutex<RateLimit>,
    clock: Arc<dyn Clock>,
    events: RwLock<Option<Arc<dyn BlockEvents>>>,
    counts: Counters,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    errors: AtomicU64,
    throttled: AtomicU64,
}

impl Shared {
    pub(crate) fn new(image: Image, config: &BlockConfig, clock: Arc<dyn Clock>) -> Self {
        let mut serial = [0; SERIAL];
        for (target, source) in serial.iter_mut().zip(config.serial.bytes()) {
            *target = source;
        }
        let now = clock.now();
        Self {
            image,
            read_only: config.read_only,
            serial,
            cache: config.cache,
            flushes: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            policy: config.on_error,
            limited: AtomicBool::new(config.limits != Limits::default()),
            throttle: Mutex::new(Throttle::new(config.limits, now)),
            loud: Mutex::new(RateLimit::new(LOUD, now)),
            clock,
            events: RwLock::default(),
            counts: Counters::default(),
        }
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.image.size() / SECTOR
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// "If VIRTIO_BLK_F_FLUSH was not negotiated, the device is write-through" (5.2.6.2).
    pub(crate) fn driver_flushes(&self, flushes: bool) {
        self.flushes.store(flushes, Ordering::Release);
    }

    /// Whether a write is only done when it is durable.
    pub(crate) fn is_write_through(&self) -> bool {
        self.cache.is_write_through()
            || (self.cache != CacheMode::Unsafe && !self.flushes.load(Ordering::Acquire))
    }

    /// Whether a flush does anything.
    pub(crate) fn flush_counts(&self) -> bool {
        self.cache != CacheMode::Unsafe
    }

    pub(crate) fn report_to(&self, events: Arc<dyn BlockEvents>) {
        *self.events.write() = Some(events);
    }

    /// From now on these limits hold.
    pub(crate) fn limit(&self, limits: Limits) {
        let mut throttle = self.throttle.lock();
        throttle.set(limits, self.clock.now());
        self.limited
            .store(limits != Limits::default(), Ordering::Release);
    }

    /// Nanoseconds until the next request may begin.
    pub(crate) fn throttled(&self) -> Nanos {
        if !self.limited.load(Ordering::Acquire) {
            return 0;
        }
        self.throttle.lock().wait(self.clock.now())
    }

    /// Says that a request waits for the limits.
    pub(crate) fn count_throttled(&self) {
        self.counts.throttled.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request over `bytes` against the limits.
    pub(crate) fn charge(&self, bytes: u64) {
        if self.limited.load(Ordering::Acquire) {
            self.throttle.lock().take(bytes, self.clock.now());
        }
    }

    /// Counts work that is done, over `bytes`.
    pub(crate) fn count(&self, work: Work, bytes: u64) {
        let add = |counter: &AtomicU64, value| counter.fetch_add(value, Ordering::Relaxed);
        let counts = &self.counts;
        match work {
            Work::Transfer {
                direction: Direction::Read,
                ..
            } => {
                add(&counts.reads, 1);
                add(&counts.read_bytes, bytes);
            }
            Work::Transfer { .. } | Work::Zero { .. } => {
                add(&counts.writes, 1);
                add(&counts.written_bytes, bytes);
            }
            Work::Flush => drop(add(&counts.flushes, 1)),
            Work::Discard { .. } => drop(add(&counts.discards, 1)),
        }
    }

    pub(crate) fn counts(&self) -> BlockCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlockCounts {
            reads: get(&self.counts.reads),
            read_bytes: get(&self.counts.read_bytes),
            writes: get(&self.counts.writes),
            written_bytes: get(&self.counts.written_bytes),
            flushes: get(&self.counts.flushes),
            discards: get(&self.counts.discards),
            errors: get(&self.counts.errors),
            throttled: get(&self.counts.throttled),
        }
    }

    /// Tells that `work` failed; whether it is to be tried again later.
    pub(crate) fn failed(&self, work: Work, error: &io::Error) -> OnError {
        self.counts.errors.fetch_add(1, Ordering::Relaxed);
        let no_space = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
        let decision = if no_space {
            self.policy.no_space
        } else {
            self.policy.io
        };
        let stopped = decision == OnError::Pause;
        let now = self.clock.now();
        let mut loud = self.loud.lock();
        // Whoever stops the machine must be told, however often that was.
        let told = loud.try_take(1, now).is_ok() || stopped;
        drop(loud);
        if told {
            let failure = BlockFailure {
                operation: work.word(),
                offset: work.offset(),
                error: error.to_string(),
                no_space,
                stopped,
            };
            tracing::warn!(stopped, "{failure}");
            if let Some(events) = &*self.events.read() {
                events.failed(failure);
            }
        }
        decision
    }
}
