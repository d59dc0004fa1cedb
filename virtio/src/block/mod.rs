//! virtio-blk (5.2): a disk that is a raw file or a block device of the host.

use std::sync::Arc;
use std::time::Duration;

use caraway_devices::StateError;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::Virtqueue;

mod disk;
mod image;
mod lock;
mod plain;
mod request;
mod ring;
#[cfg(test)]
mod tests;
mod worker;

pub use image::{BlockConfig, BlockError};
pub use lock::Holder;
pub use worker::{BlockWorker, WorkerStop};

use disk::Disk;
use image::Image;
use ring::Ring;

/// Descriptors of the only queue, and so requests under way at most.
const QUEUE_SIZE: u16 = 256;

/// Feature bits (5.2.3).
mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Bytes of `struct virtio_blk_config` as far as our features need it (5.2.4).
const CONFIG_SIZE: usize = 60;

/// A virtio block device.
///
/// [`BlockWorker`] serves it in a thread of its own; without one, whoever calls
/// [`VirtioPci::process_queue`](crate::VirtioPci::process_queue) also calls
/// [`process_completions`](Self::process_completions) when
/// [`completion_event`](Self::completion_event) rings.
pub struct Block {
    disk: Mutex<Disk>,
    drained: Condvar,
    completed: Option<EventFd>,
    config: [u8; CONFIG_SIZE],
    features: u64,
    sectors: u64,
}

/// What a snapshot keeps of a disk: nothing but the proof that it is the same size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockState {
    sectors: u64,
}

impl Block {
    /// Opens and locks the image, and sets io_uring up if the host allows it.
    ///
    /// # Errors
    /// [`BlockError`] if the image can't be opened, is no disk, or is in use.
    pub fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        let image = Image::open(config)?;
        let (sectors, read_only) = (image.sectors, image.read_only);
        let mut ring = None;
        if !config.synchronous {
            match Ring::new(u32::from(QUEUE_SIZE)) {
                Ok(made) => ring = Some(made),
                Err(error) => tracing::info!(
                    path = %config.path.display(), %error,
                    "io_uring is not to be had; the disk uses plain system calls"
                ),
            }
        }
        let completed = ring.as_ref().and_then(|r| r.completed().try_clone().ok());
        let mut features =
            feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | feature::TOPOLOGY;
        features |= if read_only {
            feature::RO
        } else {
            feature::DISCARD | feature::WRITE_ZEROES
        };
        Ok(Self {
            disk: Mutex::new(Disk::new(image, &config.serial, ring)),
            drained: Condvar::new(),
            completed,
            config: config_space(sectors),
            features,
            sectors,
        })
    }

    /// The size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.sectors * image::SECTOR
    }

    /// Whether requests go through io_uring.
    #[must_use]
    pub fn uses_io_uring(&self) -> bool {
        self.disk.lock().ring().is_some()
    }

    /// Rings when [`process_completions`](Self::process_completions) has something to do; `None` if
    /// every request is done at once.
    #[must_use]
    pub fn completion_event(&self) -> Option<&EventFd> {
        self.completed.as_ref()
    }

    /// Answers the requests that are done, and takes new ones in their place.
    pub fn process_completions(&self) {
        if let Some(completed) = &self.completed {
            // It may have been silent.
            let _ = completed.read();
        }
        let mut disk = self.disk.lock();
        disk.take_completions();
        disk.take_requests();
        if disk.is_idle() {
            self.drained.notify_all();
        }
    }

    /// Takes no more requests and waits until those under way are answered. What is saved from then
    /// on holds.
    pub fn pause(&self) {
        let mut disk = self.disk.lock();
        disk.paused = true;
        self.drain(&mut disk);
    }

    /// Takes requests again after [`pause`](Self::pause).
    pub fn resume(&self) {
        let mut disk = self.disk.lock();
        disk.paused = false;
        if let Some(queue) = &disk.queue {
            queue.ring();
        }
    }

    /// Waits until nothing is under way. Takes completions itself, so that it needs no worker.
    fn drain(&self, disk: &mut parking_lot::MutexGuard<'_, Disk>) {
        loop {
            disk.take_completions();
            if disk.is_idle() {
                return;
            }
            self.drained.wait_for(disk, Duration::from_millis(1));
        }
    }
}

fn config_space(sectors: u64) -> [u8; CONFIG_SIZE] {
    let mut config = [0; CONFIG_SIZE];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &sectors.to_le_bytes());
    // seg_max: header and status take a descriptor each.
    put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes());
    put(20, &(image::SECTOR as u32).to_le_bytes());
    // Topology: physical blocks of 2^3 sectors, none misaligned, I/O best in whole ones.
    put(24, &[3, 0]);
    put(26, &8u16.to_le_bytes());
    put(34, &1u16.to_le_bytes());
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
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (target, source) in data.iter_mut().zip(self.config.iter().skip(from)) {
            *target = *source;
        }
    }

    fn activate(&self, features: u64) {
        // "If VIRTIO_BLK_F_FLUSH was not negotiated, the device is write-through" (5.2.6.2).
        self.disk.lock().write_through = features & feature::FLUSH == 0;
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        self.disk.lock().queue = Some(queue);
    }

    fn stop_queue(&self, _index: u16) {
        let mut disk = self.disk.lock();
        disk.queue = None;
        self.drain(&mut disk);
    }

    fn process_queue(&self, _index: u16) {
        let mut disk = self.disk.lock();
        disk.take_completions();
        disk.take_requests();
    }

    fn reset(&self) {
        self.disk.lock().write_through = true;
    }

    fn save(&self) -> BlockState {
        let sectors = self.sectors;
        BlockState { sectors }
    }

    fn restore(&self, state: BlockState) -> Result<(), StateError> {
        if state.sectors == self.sectors {
            return Ok(());
        }
        Err(StateError::Invalid {
            kind: Self::KIND,
            what: format!(
                "its disk has {} sectors, this one {}",
                state.sectors, self.sectors
            ),
        })
    }
}
