//! A driver of a virtio device: rings, and chains that are mostly sound.

use std::sync::Arc;

use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeLine, FakeMsi, GuestMemory};
use caraway_virtio::{NotifyRegistrar, VirtioDevice, VirtioPci};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::Dice;

/// Bytes of guest memory.
pub const MEMORY: u64 = 256 << 10;
/// Entries of each ring.
pub const SIZE: u16 = 16;
/// Where a target may put its buffers; rings are below.
pub const BUFFERS: u64 = 0x1_0000;

/// Of each queue's page.
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;

/// Registers of the common configuration (4.1.4.3) in BAR 4.
mod reg {
    pub const FEATURE_SELECT: u64 = 0x08;
    pub const FEATURE: u64 = 0x0c;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_RESET: u64 = 0x3a;
}

const NEXT: u64 = 1;
const WRITE: u64 = 2;
const NEEDS_RESET: u8 = 0x40;
const VERSION_1: u64 = 1 << 32;
const RING_RESET: u64 = 1 << 40;

/// A bell that nobody hears.
struct Deaf;

impl NotifyRegistrar for Deaf {
    fn register(&self, _: u64, _: &EventFd) -> std::io::Result<()> {
        Ok(())
    }
    fn unregister(&self, _: u64, _: &EventFd) {}
}

/// A piece of a chain: address, length, and whether the device may write it.
pub type Segment = (u64, u32, bool);

/// The driver's side.
pub struct Driver<D: VirtioDevice> {
    /// The device.
    pub pci: Arc<VirtioPci<D>>,
    /// What it may read and write.
    pub memory: GuestMemory,
    features: u64,
    queues: Vec<Ring>,
}

#[derive(Clone, Copy, Default)]
struct Ring {
    next: u16,
    available: u16,
    used: u16,
}

fn page(queue: u16) -> u64 {
    0x1000 * (u64::from(queue) + 1)
}

impl<D: VirtioDevice> Driver<D> {
    /// A driver that has set `device` up with these features and every queue.
    ///
    /// # Panics
    /// If there is no memory.
    pub fn new(device: Arc<D>, features: u64) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)])
            .expect("there is memory");
        let (msi, line) = (FakeMsi::default(), FakeLine::new());
        let pci = VirtioPci::new(device, memory.clone(), &msi, line, Arc::new(Deaf))
            .expect("a device can be made");
        let queues = vec![Ring::default(); pci.queue_events().len()];
        let mut driver = Self {
            pci,
            memory,
            features: features | VERSION_1 | RING_RESET,
            queues,
        };
        driver.set_up();
        driver
    }

    /// Resets the device and sets it up again.
    pub fn set_up(&mut self) {
        for status in [0_u8, 1, 3] {
            self.set(reg::STATUS, &[status]);
        }
        for half in 0..2_u32 {
            self.set(reg::FEATURE_SELECT, &half.to_le_bytes());
            let bits = (self.features >> (32 * half)) as u32;
            self.set(reg::FEATURE, &bits.to_le_bytes());
        }
        self.set(reg::STATUS, &[0xb]);
        for queue in 0..self.queues.len() as u16 {
            self.start_queue(queue);
        }
        self.set(reg::STATUS, &[0xf]);
    }

    /// Resets this queue alone and sets it up again.
    pub fn restart_queue(&mut self, queue: u16) {
        self.set(reg::QUEUE_SELECT, &queue.to_le_bytes());
        self.set(reg::QUEUE_RESET, &[1, 0]);
        self.start_queue(queue);
    }

    fn start_queue(&mut self, queue: u16) {
        self.queues[usize::from(queue)] = Ring::default();
        self.put(page(queue), &[0; 0x1000]);
        self.set(reg::QUEUE_SELECT, &queue.to_le_bytes());
        self.set(reg::QUEUE_SIZE, &SIZE.to_le_bytes());
        for (register, address) in [
            (reg::QUEUE_DESC, page(queue)),
            (reg::QUEUE_DRIVER, page(queue) + AVAILABLE),
            (reg::QUEUE_DEVICE, page(queue) + USED),
        ] {
            self.set(register, &(address as u32).to_le_bytes());
            self.set(register + 4, &[0; 4]);
        }
        self.set(reg::QUEUE_ENABLE, &[1, 0]);
    }

    /// Sets the device up again if it has given up on its driver; whether it had.
    pub fn recover(&mut self) -> bool {
        let mut status = [0];
        self.pci.bar_read(4, reg::STATUS, &mut status);
        let failed = status[0] & NEEDS_RESET != 0;
        if failed {
            self.set_up();
        }
        failed
    }

    fn set(&self, register: u64, value: &[u8]) {
        self.pci.bar_write(4, register, value);
    }

    /// Writes to the driver's memory.
    ///
    /// # Panics
    /// If it is not there.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(at))
            .expect("the driver writes to its memory");
    }

    /// Reads the driver's memory.
    ///
    /// # Panics
    /// If it is not there.
    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("the driver reads its memory");
        bytes
    }

    /// The head of the chain that is submitted next.
    pub fn next_head(&self, queue: u16) -> u16 {
        self.queues[usize::from(queue)].next
    }

    /// Makes a chain available, rarely with something wrong about it; whether it is sound.
    pub fn submit(&mut self, dice: &mut Dice<'_>, queue: u16, segments: &[Segment]) -> bool {
        let mut is_sound = true;
        let mut mostly = |dice: &mut Dice<'_>, value: u64| {
            let got = dice.mostly(value);
            is_sound &= got == value;
            got
        };
        let damaged = dice.rarely();
        let head = self.queues[usize::from(queue)].next;
        for (index, &(address, len, write)) in (0_u16..).zip(segments) {
            let here = (head + index) % SIZE;
            let next = if usize::from(index) + 1 < segments.len() {
                NEXT
            } else {
                0
            };
            let flags = next | if write { WRITE } else { 0 };
            let mut fields = [
                address,
                len.into(),
                flags,
                u64::from((here + 1) % SIZE) * next,
            ];
            if damaged {
                for field in &mut fields {
                    *field = mostly(dice, *field);
                }
            }
            let mut bytes = fields[0].to_le_bytes().to_vec();
            bytes.extend((fields[1] as u32).to_le_bytes());
            bytes.extend((fields[2] as u16).to_le_bytes());
            bytes.extend((fields[3] as u16).to_le_bytes());
            self.put(page(queue) + 16 * u64::from(here), &bytes);
        }
        let ring = &mut self.queues[usize::from(queue)];
        ring.next = (head + segments.len() as u16) % SIZE;
        let slot = u64::from(ring.available % SIZE);
        ring.available = ring.available.wrapping_add(1);
        let available = ring.available;
        let at = page(queue) + AVAILABLE;
        self.put(at + 4 + 2 * slot, &head.to_le_bytes());
        self.put(at + 2, &available.to_le_bytes());
        is_sound
    }

    /// The next chain that came back, and how many bytes were written to it.
    pub fn used(&mut self, queue: u16) -> Option<(u32, u32)> {
        let at = page(queue) + USED;
        let newest = self.get(at + 2, 2);
        let newest = u16::from_le_bytes([newest[0], newest[1]]);
        let ring = &mut self.queues[usize::from(queue)];
        if ring.used == newest {
            return None;
        }
        let slot = u64::from(ring.used % SIZE);
        ring.used = ring.used.wrapping_add(1);
        let entry = self.get(at + 4 + 8 * slot, 8);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| entry[at + n]));
        Some((word(0), word(4)))
    }

    /// Chains that are under way.
    pub fn under_way(&self, queue: u16) -> u16 {
        let ring = &self.queues[usize::from(queue)];
        ring.available.wrapping_sub(ring.used)
    }
}
