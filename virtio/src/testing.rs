//! A guest for tests: memory, a driver that sets a device up as Linux does, and its rings.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeLine, FakeMsi, GuestMemory};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::device::VirtioDevice;
use crate::transport::{NotifyRegistrar, VirtioPci};

pub(crate) use crate::transport::EVENT_IDX;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 4 << 20;
/// Where tests put their buffers.
pub(crate) const BUFFERS: u64 = 1 << 20;

/// The registers of the common configuration (4.1.4.3).
pub(crate) mod reg {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(crate) const DEVICE_FEATURE: u64 = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(crate) const DRIVER_FEATURE: u64 = 0x0c;
    pub(crate) const CONFIG_VECTOR: u64 = 0x10;
    pub(crate) const NUM_QUEUES: u64 = 0x12;
    pub(crate) const STATUS: u64 = 0x14;
    pub(crate) const GENERATION: u64 = 0x15;
    pub(crate) const QUEUE_SELECT: u64 = 0x16;
    pub(crate) const QUEUE_SIZE: u64 = 0x18;
    pub(crate) const QUEUE_VECTOR: u64 = 0x1a;
    pub(crate) const QUEUE_ENABLE: u64 = 0x1c;
    pub(crate) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(crate) const QUEUE_DESC: u64 = 0x20;
    pub(crate) const QUEUE_DRIVER: u64 = 0x28;
    pub(crate) const QUEUE_DEVICE: u64 = 0x30;
    pub(crate) const QUEUE_RESET: u64 = 0x3a;
    pub(crate) const ISR: u64 = 0x1000;
    pub(crate) const DEVICE: u64 = 0x2000;
    pub(crate) const NOTIFY: u64 = 0x3000;
}

/// Remembers which addresses ring.
#[derive(Default)]
pub(crate) struct FakeRegistrar {
    pub(crate) addresses: Mutex<Vec<u64>>,
    pub(crate) refuses: bool,
}

impl NotifyRegistrar for FakeRegistrar {
    fn register(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        if self.refuses {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.addresses.lock().push(address);
        Ok(())
    }

    fn unregister(&self, address: u64, _event: &EventFd) {
        self.addresses.lock().retain(|&known| known != address);
    }
}

/// A descriptor as the driver writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desc {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Desc {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// What the device may read, or write.
pub(crate) fn readable(address: u64, len: u32) -> (u64, u32, bool) {
    (address, len, false)
}

/// What the device may write.
pub(crate) fn writable(address: u64, len: u32) -> (u64, u32, bool) {
    (address, len, true)
}

/// The driver's side of one queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DriverQueue {
    pub(crate) size: u16,
    next_desc: u16,
    pub(crate) next_avail: u16,
    next_used: u16,
}

pub(crate) fn desc_table(queue: u16) -> u64 {
    0x1_0000 * (u64::from(queue) + 1)
}

pub(crate) fn avail_ring(queue: u16) -> u64 {
    desc_table(queue) + 0x2000
}

pub(crate) fn used_ring(queue: u16) -> u64 {
    desc_table(queue) + 0x4000
}

/// A device on its bus, with a guest around it.
pub(crate) struct Machine<D: VirtioDevice> {
    pub(crate) pci: Arc<VirtioPci<D>>,
    pub(crate) memory: GuestMemory,
    pub(crate) line: Arc<FakeLine>,
    pub(crate) msi: FakeMsi,
    pub(crate) registrar: Arc<FakeRegistrar>,
    pub(crate) queues: Vec<DriverQueue>,
}

impl<D: VirtioDevice> Machine<D> {
    pub(crate) fn new(device: D) -> Self {
        Self::with_registrar(device, FakeRegistrar::default())
    }

    pub(crate) fn with_registrar(device: D, registrar: FakeRegistrar) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let (line, msi, registrar) = (FakeLine::new(), FakeMsi::default(), Arc::new(registrar));
        let pci = VirtioPci::new(
            Arc::new(device),
            memory.clone(),
            &msi,
            line.clone(),
            registrar.clone(),
        )
        .unwrap();
        let queues = vec![DriverQueue::default(); pci.queue_events().len()];
        Self {
            pci,
            memory,
            line,
            msi,
            registrar,
            queues,
        }
    }

    /// A device that `probe` has set up with every feature it offers.
    pub(crate) fn ready(device: D) -> Self {
        let mut machine = Self::new(device);
        machine.probe(u64::MAX);
        machine
    }

    pub(crate) fn device(&self) -> &D {
        self.pci.device()
    }

    pub(crate) fn read8(&self, offset: u64) -> u8 {
        let mut data = [0];
        self.pci.bar_read(4, offset, &mut data);
        data[0]
    }

    pub(crate) fn read16(&self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.pci.bar_read(4, offset, &mut data);
        u16::from_le_bytes(data)
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.pci.bar_read(4, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write8(&self, offset: u64, value: u8) {
        self.pci.bar_write(4, offset, &[value]);
    }

    pub(crate) fn write16(&self, offset: u64, value: u16) {
        self.pci.bar_write(4, offset, &value.to_le_bytes());
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.pci.bar_write(4, offset, &value.to_le_bytes());
    }

    /// A 64-bit register, by halves as the specification wants it.
    pub(crate) fn write64(&self, offset: u64, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }

    pub(crate) fn offered(&self) -> u64 {
        (0..2).rev().fold(0, |features, half| {
            self.write32(reg::DEVICE_FEATURE_SELECT, half);
            features << 32 | u64::from(self.read32(reg::DEVICE_FEATURE))
        })
    }

    pub(crate) fn accept(&self, features: u64) {
        for half in 0..2 {
            self.write32(reg::DRIVER_FEATURE_SELECT, half);
            self.write32(reg::DRIVER_FEATURE, (features >> (32 * half)) as u32);
        }
    }

    /// The order of Linux' `virtio_pci_modern` and `virtio_dev_probe`, taking of the offered
    /// features those in `wanted`.
    pub(crate) fn probe(&mut self, wanted: u64) {
        self.negotiate(wanted);
        self.write16(reg::CONFIG_VECTOR, 0);
        for queue in 0..self.read16(reg::NUM_QUEUES) {
            self.enable_queue(queue);
        }
        self.write8(reg::STATUS, 0x0f);
    }

    /// The part of the probe up to `FEATURES_OK`.
    pub(crate) fn negotiate(&mut self, wanted: u64) {
        self.write8(reg::STATUS, 0);
        self.write8(reg::STATUS, 0x01);
        self.write8(reg::STATUS, 0x03);
        let features = self.offered() & wanted;
        self.accept(features);
        self.write8(reg::STATUS, 0x0b);
    }

    pub(crate) fn enable_queue(&mut self, queue: u16) {
        self.write16(reg::QUEUE_SELECT, queue);
        let size = self.read16(reg::QUEUE_SIZE);
        self.clear_rings(queue);
        self.queues[usize::from(queue)] = DriverQueue {
            size,
            ..DriverQueue::default()
        };
        self.write16(reg::QUEUE_SIZE, size);
        self.write64(reg::QUEUE_DESC, desc_table(queue));
        self.write64(reg::QUEUE_DRIVER, avail_ring(queue));
        self.write64(reg::QUEUE_DEVICE, used_ring(queue));
        self.write16(reg::QUEUE_VECTOR, queue + 1);
        self.write16(reg::QUEUE_ENABLE, 1);
    }

    fn clear_rings(&self, queue: u16) {
        self.memory
            .write_slice(&[0; 0x6000], GuestAddress(desc_table(queue)))
            .unwrap();
    }

    /// Switches MSI-X on, with message data 100 + n for vector n.
    pub(crate) fn enable_msix(&self) {
        for vector in 0..=self.queues.len() as u64 {
            for (at, value) in [
                (0, 0xfee0_0000u32),
                (4, 0),
                (8, 100 + vector as u32),
                (12, 0),
            ] {
                let offset = vector * 16 + at;
                self.pci.bar_write(1, offset, &value.to_le_bytes());
            }
        }
        let capability = self.capability(0x11);
        self.config_write(capability + 2, &0x8000u16.to_le_bytes());
    }

    /// The message data sent by vector `vector` so far.
    pub(crate) fn messages(&self, vector: usize) -> usize {
        self.msi.vectors.lock()[vector].sent().len()
    }

    pub(crate) fn config_read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.pci.config_reading(offset, N);
        self.pci.config().lock().read(offset, &mut data);
        data
    }

    pub(crate) fn config_write(&self, offset: u16, data: &[u8]) {
        self.pci.config().lock().write(offset, data);
        self.pci.config_written(offset, data.len());
    }

    /// Offsets and ids of the capabilities, in order.
    pub(crate) fn capabilities(&self) -> Vec<(u16, u8)> {
        let [mut at] = self.config_read(0x34);
        let mut found = Vec::new();
        while at != 0 {
            let [id, next] = self.config_read(u16::from(at));
            found.push((u16::from(at), id));
            at = next;
        }
        found
    }

    pub(crate) fn capability(&self, id: u8) -> u16 {
        let all = self.capabilities();
        all.iter().find(|(_, found)| *found == id).unwrap().0
    }

    pub(crate) fn write_desc(&self, queue: u16, index: u16, desc: Desc) {
        let at = desc_table(queue) + u64::from(index) * 16;
        let bytes = desc.to_bytes();
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Writes an indirect table at `at`.
    pub(crate) fn write_table(&self, at: u64, table: &[Desc]) {
        for (index, desc) in table.iter().enumerate() {
            let at = GuestAddress(at + index as u64 * 16);
            self.memory.write_slice(&desc.to_bytes(), at).unwrap();
        }
    }

    /// Makes the chain that starts at `head` available.
    pub(crate) fn make_available(&mut self, queue: u16, head: u16) {
        let state = &mut self.queues[usize::from(queue)];
        let slot = avail_ring(queue) + 4 + 2 * u64::from(state.next_avail % state.size);
        state.next_avail = state.next_avail.wrapping_add(1);
        let index = state.next_avail;
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        let at = GuestAddress(avail_ring(queue) + 2);
        self.memory.write_obj(index, at).unwrap();
    }

    /// Makes a chain of `segments` available and says which descriptor it starts at.
    pub(crate) fn submit(&mut self, queue: u16, segments: &[(u64, u32, bool)]) -> u16 {
        let state = &mut self.queues[usize::from(queue)];
        let (head, size) = (state.next_desc, state.size);
        state.next_desc = (head + segments.len() as u16) % size;
        for (n, &(address, len, write)) in segments.iter().enumerate() {
            let index = (head + n as u16) % size;
            let last = n + 1 == segments.len();
            let flags = if write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            let next = (index + 1) % size;
            let desc = Desc {
                address,
                len,
                flags,
                next,
            };
            self.write_desc(queue, index, desc);
        }
        self.make_available(queue, head);
        head
    }

    /// Up to which used index the driver wants no interrupt.
    pub(crate) fn set_used_event(&self, queue: u16, index: u16) {
        let size = self.queues[usize::from(queue)].size;
        let at = avail_ring(queue) + 4 + 2 * u64::from(size);
        self.memory.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// Rings the queue's bell by a trapped write, and serves it if it rang.
    pub(crate) fn notify(&self, queue: u16) {
        self.write16(reg::NOTIFY + 4 * u64::from(queue), queue);
        self.pci.process_queue(queue);
    }

    /// Rings the queue's bell after a chain was made available, if the device asks for that by
    /// `EVENT_IDX` (2.7.10). Whoever serves the queue does so elsewhere.
    pub(crate) fn notify_if_wanted(&self, queue: u16) {
        fence(Ordering::SeqCst);
        let state = &self.queues[usize::from(queue)];
        let at = used_ring(queue) + 4 + 8 * u64::from(state.size);
        let event: u16 = self.memory.read_obj(GuestAddress(at)).unwrap();
        if event == state.next_avail.wrapping_sub(1) {
            self.write16(reg::NOTIFY + 4 * u64::from(queue), queue);
        }
    }

    /// What came back since the last call: head and length of each chain.
    pub(crate) fn used(&mut self, queue: u16) -> Vec<(u32, u32)> {
        let state = &mut self.queues[usize::from(queue)];
        let at = GuestAddress(used_ring(queue) + 2);
        let newest: u16 = self.memory.read_obj(at).unwrap();
        let mut found = Vec::new();
        while state.next_used != newest {
            let slot = used_ring(queue) + 4 + 8 * u64::from(state.next_used % state.size);
            let head = self.memory.read_obj(GuestAddress(slot)).unwrap();
            let len = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
            found.push((head, len));
            state.next_used = state.next_used.wrapping_add(1);
        }
        found
    }

    pub(crate) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    pub(crate) fn get<const N: usize>(&self, address: u64) -> [u8; N] {
        self.bytes(address, N).try_into().unwrap()
    }

    pub(crate) fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }
}
