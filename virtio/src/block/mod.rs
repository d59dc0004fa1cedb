//! virtio-blk (5.2): a disk that is a raw, qcow2 or vmdk image, or a block device of the host.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caraway_devices::{Clock, StateError};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::Virtqueue;

mod at_once;
mod buffers;
mod config;
mod image;
mod lane;
mod layer;
mod layered;
mod limit;
mod lock;
mod open;
mod plain;
mod qcow2;
mod raw;
mod request;
mod ring;
mod shared;
#[cfg(test)]
mod tests;
mod vmdk;
mod worker;

pub use config::{
    BlockConfig, CacheMode, ErrorPolicy, ImageConfig, ImageFormat, MAX_QUEUES, OnError,
};
pub use limit::Limits;
pub use lock::Holder;
pub use open::BlockError;
pub use qcow2::Qcow2Error;
pub use shared::{BlockCounts, BlockEvents, BlockFailure};
pub use vmdk::DescriptorError;
pub use worker::{BlockWorker, WorkerStop};

use lane::{Lane, Look};
use raw::SECTOR;
use ring::Ring;
use shared::Shared;

/// Descriptors of a queue, and so requests under way at most.
const QUEUE_SIZE: u16 = 256;

/// Feature bits (5.2.3).
mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const MQ: u64 = 1 << 12;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Bytes of `struct virtio_blk_config` as far as our features need it (5.2.4).
const CONFIG_SIZE: usize = 60;
/// Bytes of its `capacity`, which may change.
const CAPACITY: usize = 8;

/// A virtio block device.
///
/// A [`BlockWorker`] serves each of its queues in a thread of its own; without them,
/// [`VirtioPci::process_queue`](crate::VirtioPci::process_queue) is to be called also when there are
/// [`completions`](Self::completions), and after [`wait`](Self::wait).
pub struct Block {
    shared: Arc<Shared>,
    lanes: Vec<Place>,
    queue_sizes: Vec<u16>,
    config: [u8; CONFIG_SIZE],
    features: u64,
    /// Held while the size changes.
    growing: Mutex<()>,
}

/// A lane and how one waits for it.
struct Place {
    lane: Mutex<Lane>,
    drained: Condvar,
    /// Readable when the ring has any.
    completions: Option<OwnedFd>,
}

/// What a snapshot keeps of a disk: nothing but the proof that it is the same size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockState {
    sectors: u64,
}

/// Why a disk has not got another size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// It is not a whole number of sectors.
    #[error("{0} bytes are not a whole number of 512-byte sectors")]
    NotWhole(u64),
    /// The guest would lose what is at the end.
    #[error("the disk has {now} bytes; it can only grow")]
    Shrinks {
        /// Its size in bytes.
        now: u64,
    },
    /// The host can't do it.
    #[error("the disk can't grow")]
    Host(#[from] std::io::Error),
}

impl Block {
    /// Opens and locks the image and all under it, and sets io_uring up where it is of use and the
    /// host allows it. `clock` is what the limits go by.
    ///
    /// # Errors
    /// [`BlockError`] if an image can't be opened, is no disk, or is in use.
    pub fn open(config: &BlockConfig, clock: Arc<dyn Clock>) -> Result<Self, BlockError> {
        let image = open::open(config)?;
        let rings = image.raw().is_some() && !config.synchronous;
        let shared = Arc::new(Shared::new(image, config, clock));
        let queues = config.queues.clamp(1, MAX_QUEUES);
        let lanes = (0..queues).map(|_| {
            let ring = rings.then(|| {
                let ring = Ring::new(u32::from(QUEUE_SIZE))?;
                Ok((ring.completions().try_clone_to_owned()?, ring))
            });
            let say = |error: &std::io::Error| {
                tracing::info!(
                    path = %config.image.path.display(), %error,
                    "io_uring is not to be had; the disk uses plain system calls"
                );
            };
            let ring = ring.and_then(|ring| ring.inspect_err(say).ok());
            let (completions, ring) = ring.unzip();
            Place {
                lane: Mutex::new(Lane::new(Arc::clone(&shared), ring)),
                drained: Condvar::new(),
                completions,
            }
        });
        let lanes = lanes.collect();
        let mut features =
            feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        if queues > 1 {
            features |= feature::MQ;
        }
        if config.read_only {
            features |= feature::RO;
        } else {
            features |= feature::WRITE_ZEROES;
            if config.discard {
                features |= feature::DISCARD;
            }
        }
        Ok(Self {
            shared,
            lanes,
            queue_sizes: vec![QUEUE_SIZE; usize::from(queues)],
            config: config_space(queues),
            features,
            growing: Mutex::new(()),
        })
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.sectors() * SECTOR
    }

    /// Whether requests go through io_uring.
    #[must_use]
    pub fn uses_io_uring(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|place| place.lane.lock().ring().is_some())
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> BlockCounts {
        self.shared.counts()
    }

    /// Who hears of failures from now on.
    pub fn report_to(&self, events: Arc<dyn BlockEvents>) {
        self.shared.report_to(events);
    }

    /// From now on these limits hold.
    pub fn limit(&self, limits: Limits) {
        self.shared.limit(limits);
        for place in &self.lanes {
            place.lane.lock().ring_bell();
        }
    }

    /// Makes the disk `bytes` long. May take as long as the host does; the owner then calls
    /// [`config_changed`](crate::VirtioPci::config_changed).
    ///
    /// # Errors
    /// [`ResizeError`]; nothing has changed then.
    pub fn grow(&self, bytes: u64) -> Result<(), ResizeError> {
        let _one = self.growing.lock();
        let now = self.shared.image.size();
        if self.shared.read_only {
            return Err(ResizeError::ReadOnly);
        }
        if !bytes.is_multiple_of(SECTOR) {
            return Err(ResizeError::NotWhole(bytes));
        }
        if bytes < now {
            return Err(ResizeError::Shrinks { now });
        }
        if bytes > now {
            self.shared.image.grow(bytes)?;
        }
        Ok(())
    }

    /// What becomes readable when requests of queue `index` are done, for which
    /// [`process_queue`](VirtioDevice::process_queue) is to be called; `None` if every request is
    /// done at once.
    #[must_use]
    pub fn completions(&self, index: u16) -> Option<BorrowedFd<'_>> {
        let place = self.lanes.get(usize::from(index))?;
        place.completions.as_ref().map(AsFd::as_fd)
    }

    /// Serves queue `index` as far as there is something to do now. The driver does not ring for
    /// what comes later until [`want_doorbell`](Self::want_doorbell).
    pub(crate) fn look(&self, index: u16) -> Look {
        let Some(place) = self.lanes.get(usize::from(index)) else {
            return Look::Elsewhere;
        };
        let mut lane = place.lane.lock();
        let look = lane.look();
        if look == Look::Work && lane.is_idle() {
            place.drained.notify_all();
        }
        look
    }

    /// Asks the driver of queue `index` to ring; `true` if there is something to do already.
    pub(crate) fn want_doorbell(&self, index: u16) -> bool {
        let place = self.lanes.get(usize::from(index));
        place.is_some_and(|place| place.lane.lock().want_doorbell())
    }

    /// After how long queue `index` must be served again, though nothing rings, because its
    /// requests wait for the limits.
    #[must_use]
    pub fn wait(&self, index: u16) -> Option<Duration> {
        let place = self.lanes.get(usize::from(index))?;
        let wait = place.lane.lock().wait();
        wait.map(Duration::from_nanos)
    }

    /// Takes no more requests and waits until those under way are answered. What is saved from then
    /// on holds.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Release);
        for place in &self.lanes {
            place.drain(&mut place.lane.lock());
        }
        if let Err(error) = self.shared.image.settle() {
            tracing::error!(%error, "what a disk image says of itself can't be written");
        }
    }

    /// Takes requests again after [`pause`](Self::pause), those that failed first.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
        for place in &self.lanes {
            place.lane.lock().resume();
        }
    }
}

impl Place {
    /// Waits until nothing is under way. Takes completions itself, so that it needs no worker.
    fn drain(&self, lane: &mut MutexGuard<'_, Lane>) {
        loop {
            lane.take_completions();
            if lane.is_idle() {
                return;
            }
            self.drained.wait_for(lane, Duration::from_millis(1));
        }
    }
}

/// The configuration, but for the capacity.
fn config_space(queues: u16) -> [u8; CONFIG_SIZE] {
    let mut config = [0; CONFIG_SIZE];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    // seg_max: header and status take a descriptor each.
    put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    // Topology: physical blocks of 2^3 sectors, none misaligned, I/O best in whole ones.
    put(24, &[3, 0]);
    put(26, &8u16.to_le_bytes());
    put(34, &queues.to_le_bytes());
    // Discard and write zeroes: sectors at most, ranges at most, alignment or may-unmap.
    put(36, &request::MAX_DISCARD.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    put(44, &8u32.to_le_bytes());
    put(48, &request::MAX_WRITE_ZEROES.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &[1]);
    config
}

impl VirtioDevice for Block {
    type State = BlockState;
    const KIND: &'static str = "virtio-blk";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 2,
        pci_class: 0x01_00_00,
    };

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let capacity: [u8; CAPACITY] = self.shared.sectors().to_le_bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let config = capacity.iter().chain(&self.config[CAPACITY..]);
        for (target, source) in data.iter_mut().zip(config.skip(from)) {
            *target = *source;
        }
    }

    fn activate(&self, features: u64) {
        self.shared.driver_flushes(features & feature::FLUSH != 0);
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        if let Some(place) = self.lanes.get(usize::from(queue.index())) {
            place.lane.lock().queue = Some(queue);
        }
    }

    fn stop_queue(&self, index: u16) {
        if let Some(place) = self.lanes.get(usize::from(index)) {
            let mut lane = place.lane.lock();
            lane.queue = None;
            place.drain(&mut lane);
            lane.release();
        }
    }

    fn process_queue(&self, index: u16) {
        if let Some(place) = self.lanes.get(usize::from(index)) {
            let mut lane = place.lane.lock();
            lane.look();
            if lane.want_doorbell() {
                lane.ring_bell();
            }
        }
    }

    fn reset(&self) {
        self.shared.driver_flushes(false);
    }

    fn save(&self) -> BlockState {
        let sectors = self.shared.sectors();
        BlockState { sectors }
    }

    fn restore(&self, state: BlockState) -> Result<(), StateError> {
        let sectors = self.shared.sectors();
        if state.sectors == sectors {
            return Ok(());
        }
        Err(StateError::Invalid {
            kind: Self::KIND,
            what: format!("its disk has {} sectors, this one {sectors}", state.sectors),
        })
    }
}
