//! The driver's side of virtio over PCI, version 1.2.

pub mod abuse;
pub mod balloon;
pub mod blk;
pub mod console;
pub mod disk;
pub mod input;
pub mod load;
pub mod net;
pub mod net_load;
pub mod plan;
pub mod relay;
pub mod rng;
pub mod vsock;

use core::sync::atomic::{Ordering, fence};

use crate::busy::next;
use crate::cpu::{read, wait_until, write};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::interrupts;
use crate::pci::Function;

const VENDOR: u16 = 0x1af4;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;

mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}

/// Offsets in the common configuration structure.
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_RESET: u64 = 0x3a;
}

const FEATURE_VERSION_1: u64 = 1 << 32;

/// Entries in each ring: few, so that it comes round often.
pub const QUEUE_SIZE: usize = 16;
/// Entries where what counts is how much is under way.
pub const LARGEST_QUEUE: usize = 256;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Flags of the rings.
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[repr(C, align(4096))]
struct Rings {
    descriptors: [Descriptor; LARGEST_QUEUE],
    available: [u16; 2 + LARGEST_QUEUE + 1],
    _gap: u16,
    used: [u32; 1 + 2 * LARGEST_QUEUE + 1],
}

/// Queues in use at a time.
const QUEUES: usize = 6;

static mut RINGS: [Rings; QUEUES] = [const { EMPTY }; QUEUES];

const EMPTY: Rings = Rings {
    descriptors: [Descriptor {
        address: 0,
        length: 0,
        flags: 0,
        next: 0,
    }; LARGEST_QUEUE],
    available: [0; 2 + LARGEST_QUEUE + 1],
    _gap: 0,
    used: [0; 1 + 2 * LARGEST_QUEUE + 1],
};

/// A piece of memory handed to the device.
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Its physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// The device writes it.
    pub device_writes: bool,
}

/// A device that is ready.
pub struct Device {
    function: Function,
    common: u64,
    /// The device's own configuration.
    pub config: u64,
    /// The features agreed on.
    pub features: u64,
}

/// A queue that is ready.
pub struct Queue {
    number: u16,
    size: usize,
    rings: *mut Rings,
    notify: u64,
    next_descriptor: usize,
    available: u16,
    used: u16,
}

/// The physical address of a static.
pub fn physical<T>(place: *const T) -> u64 {
    place.addr() as u64
}

impl Device {
    /// Brings up the first device of virtio type `kind` with its queue 0, agreeing to those of
    /// `features` that it offers, with MSI-X `vector` for the queue if given.
    pub fn open(kind: u16, features: u64, vector: Option<u8>) -> Result<(Self, Queue), Why> {
        let (device, [queue]) = Self::open_queues(kind, features, vector, [0])?;
        Ok((device, queue))
    }

    /// The same with the queues of these numbers, at most [`QUEUES`].
    pub fn open_queues<const N: usize>(
        kind: u16,
        features: u64,
        vector: Option<u8>,
        numbers: [u16; N],
    ) -> Result<(Self, [Queue; N]), Why> {
        Self::open_sized(kind, features, vector, numbers, QUEUE_SIZE)
    }

    /// The same with rings of `size` entries, at most [`LARGEST_QUEUE`].
    pub fn open_sized<const N: usize>(
        kind: u16,
        features: u64,
        vector: Option<u8>,
        numbers: [u16; N],
        size: usize,
    ) -> Result<(Self, [Queue; N]), Why> {
        const { assert!(N <= QUEUES) };
        let function =
            find(kind).ok_or_else(|| why(format_args!("no virtio device of type {kind}")))?;
        let mut device = Self {
            function,
            common: structure(function, 1)?,
            config: structure(function, 4)?,
            features: 0,
        };
        device.negotiate(features)?;
        if let Some(vector) = vector {
            device.use_msix(vector)?;
        }
        let mut queues = [const { None }; N];
        for (index, number) in numbers.into_iter().enumerate() {
            queues[index] = Some(device.set_up_queue(index, number, size)?);
        }
        device.add_status(status::DRIVER_OK);
        match queues.each_mut().map(Option::take) {
            all if all.iter().all(Option::is_some) => {
                Ok((device, all.map(|queue| queue.expect("all are there"))))
            }
            _ => Err(why(format_args!("a queue is missing"))),
        }
    }

    fn add_status(&self, bits: u8) {
        let status: u8 = read(self.common + common::STATUS);
        write(self.common + common::STATUS, status | bits);
    }

    fn negotiate(&mut self, wanted: u64) -> Outcome {
        let common = self.common;
        write(common + common::STATUS, 0_u8);
        ensure!(
            wait_until(|| read::<u8>(common + common::STATUS) == 0),
            "the reset never ends"
        );
        self.add_status(status::ACKNOWLEDGE | status::DRIVER);
        let mut offered = 0;
        for half in 0..2_u32 {
            write(common + common::DEVICE_FEATURE_SELECT, half);
            offered |= u64::from(read::<u32>(common + common::DEVICE_FEATURE)) << (32 * half);
        }
        ensure!(
            offered & FEATURE_VERSION_1 != 0,
            "VERSION_1 is not among {offered:#x}"
        );
        self.features = offered & wanted | FEATURE_VERSION_1;
        for half in 0..2_u32 {
            write(common + common::DRIVER_FEATURE_SELECT, half);
            write(
                common + common::DRIVER_FEATURE,
                (self.features >> (32 * half)) as u32,
            );
        }
        self.add_status(status::FEATURES_OK);
        let status: u8 = read(common + common::STATUS);
        ensure!(
            status & status::FEATURES_OK != 0,
            "features {:#x} are refused",
            self.features
        );
        Ok(())
    }

    fn use_msix(&self, vector: u8) -> Outcome {
        let table = msix_table(self.function)?;
        for entry in 0..2 {
            write(table + 16 * entry, interrupts::MSI_ADDRESS as u32);
            write(table + 16 * entry + 4, 0_u32);
            write(table + 16 * entry + 8, u32::from(vector) + entry as u32);
            write(table + 16 * entry + 12, 0_u32);
        }
        use_msix(self.function, true)?;
        interrupts::enable();
        write(self.common + common::CONFIG_MSIX_VECTOR, 1_u16);
        Ok(())
    }

    fn set_up_queue(&mut self, index: usize, number: u16, size: usize) -> Result<Queue, Why> {
        let common = self.common;
        // SAFETY: an address only; `index` is below QUEUES.
        let rings = unsafe { &raw mut RINGS[index] };
        // SAFETY: the device was reset, so nobody else looks at the rings.
        unsafe {
            (*rings).available = EMPTY.available;
            (*rings).used = EMPTY.used;
        }
        write(common + common::QUEUE_SELECT, number);
        let most: u16 = read(common + common::QUEUE_SIZE);
        ensure!(
            usize::from(most) >= size && size <= LARGEST_QUEUE,
            "queue {number} has {most} entries"
        );
        write(common + common::QUEUE_SIZE, size as u16);
        let msix = msix(self.function);
        if msix.is_ok_and(|capability| self.function.config(capability) & 1 << 31 != 0) {
            write(common + common::QUEUE_MSIX_VECTOR, 0_u16);
            let taken: u16 = read(common + common::QUEUE_MSIX_VECTOR);
            ensure!(taken == 0, "queue {number} refuses its interrupt vector");
        }
        // SAFETY: addresses of fields only.
        let (descriptors, available, used) = unsafe {
            (
                &raw const (*rings).descriptors,
                &raw const (*rings).available,
                &raw const (*rings).used,
            )
        };
        for (register, address) in [
            (common::QUEUE_DESC, physical(descriptors)),
            (common::QUEUE_DRIVER, physical(available)),
            (common::QUEUE_DEVICE, physical(used)),
        ] {
            write(common + register, address as u32);
            write(common + register + 4, (address >> 32) as u32);
        }
        let notify = capability(self.function, 2)?;
        let multiplier = self.function.config(notify + 16);
        let offset: u16 = read(common + common::QUEUE_NOTIFY_OFF);
        let notify = structure(self.function, 2)? + u64::from(offset) * u64::from(multiplier);
        write(common + common::QUEUE_ENABLE, 1_u16);
        Ok(Queue {
            number,
            size,
            rings,
            notify,
            next_descriptor: 0,
            available: 0,
            used: 0,
        })
    }
}

impl Queue {
    /// Makes `buffers` available as one chain, without telling the device; its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let rings = self.rings;
        let head = self.next_descriptor;
        for (index, buffer) in buffers.iter().enumerate() {
            let here = (head + index) % self.size;
            let next = (here + 1) % self.size;
            let more = if index + 1 < buffers.len() { NEXT } else { 0 };
            let flags = more | if buffer.device_writes { WRITE } else { 0 };
            let descriptor = Descriptor {
                address: buffer.address,
                length: buffer.length,
                flags,
                next: next as u16,
            };
            // SAFETY: the index is below the ring's size, and the device does not own this descriptor:
            // no more than there are, are ever under way.
            unsafe { (&raw mut (*rings).descriptors[here]).write_volatile(descriptor) };
        }
        self.next_descriptor = (head + buffers.len()) % self.size;
        let slot = 2 + usize::from(self.available) % self.size;
        self.available = self.available.wrapping_add(1);
        // SAFETY: `slot` is inside the array; the entry before the index, as the device reads them.
        unsafe { (&raw mut (*rings).available[slot]).write_volatile(head as u16) };
        fence(Ordering::SeqCst);
        // SAFETY: the index field of the ring.
        unsafe { (&raw mut (*rings).available[1]).write_volatile(self.available) };
        fence(Ordering::SeqCst);
        head as u16
    }

    /// Tells the device that there is something in the queue.
    pub fn notify(&self) {
        write(self.notify, self.number);
    }

    /// Tells the device unless it has said that it looks anyway.
    pub fn notify_if_wanted(&self) {
        // SAFETY: flags and index share the first word.
        let flags = unsafe { (&raw const (*self.rings).used[0]).read_volatile() } as u16;
        if flags & NO_NOTIFY == 0 {
            self.notify();
        }
    }

    /// Asks for no interrupts, for one who looks all the time.
    pub fn refuse_interrupts(&mut self) {
        // SAFETY: the flags of the ring, which the device reads only.
        unsafe { (&raw mut (*self.rings).available[0]).write_volatile(NO_INTERRUPT) };
    }

    /// The next chain that the device is done with, and how many bytes it wrote, if there is one.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        let rings = self.rings;
        // SAFETY: flags and index share the first word.
        let index = (unsafe { (&raw const (*rings).used[0]).read_volatile() } >> 16) as u16;
        if index == self.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = 1 + 2 * (usize::from(self.used) % self.size);
        // SAFETY: `slot + 1` is inside the array.
        let (id, length) = unsafe {
            (
                (&raw const (*rings).used[slot]).read_volatile(),
                (&raw const (*rings).used[slot + 1]).read_volatile(),
            )
        };
        self.used = self.used.wrapping_add(1);
        Some((id as u16, length))
    }

    /// Waits for [`Self::take`].
    pub fn wait(&mut self) -> Result<(u16, u32), Why> {
        let mut done = None;
        wait_until(|| {
            done = self.take();
            done.is_some()
        });
        done.ok_or_else(|| why(format_args!("the device does not answer")))
    }
}

/// Where memory begins that this program is not in, as the device may well write there.
const FREE: u64 = 64 << 20;

/// A buffer anywhere from [`FREE`] on, whether there is memory or not, of any length.
fn any_buffer(random: &mut u64) -> Buffer {
    let dice = next(random);
    Buffer {
        address: FREE + (dice >> 8) % (1 << (20 + dice % 24)),
        length: next(random) as u32 >> (dice >> 4 & 31),
        device_writes: dice & 2 != 0,
    }
}

/// The first device of a type.
fn find(kind: u16) -> Option<Function> {
    Function::find(VENDOR, 0x1040 + kind).or_else(|| Function::find(VENDOR, legacy_id(kind)?))
}

/// The ids of devices that can do virtio 0.9 as well.
fn legacy_id(kind: u16) -> Option<u16> {
    match kind {
        1 => Some(0x1000),
        2 => Some(0x1001),
        _ => None,
    }
}

/// The capability of message-signalled interrupts.
fn msix(function: Function) -> Result<u16, Why> {
    let mut capabilities = function.capabilities(CAPABILITY_MSIX);
    (capabilities.next()).ok_or_else(|| why(format_args!("no MSI-X")))
}

/// Switches them on or off.
fn use_msix(function: Function, on: bool) -> Outcome {
    let capability = msix(function)?;
    let others = function.config(capability) & !(1 << 31);
    function.set_config(capability, others | u32::from(on) << 31);
    Ok(())
}

/// The address of their table.
fn msix_table(function: Function) -> Result<u64, Why> {
    let place = function.config(msix(function)? + 4);
    let bar = (function.bar((place & 7) as u16))
        .ok_or_else(|| why(format_args!("the MSI-X table's BAR is not there")))?;
    Ok(bar.start + u64::from(place & !7))
}

/// The capability for the structure of this type.
fn capability(function: Function, kind: u8) -> Result<u16, Why> {
    function
        .capabilities(CAPABILITY_VENDOR)
        .find(|&offset| (function.config(offset) >> 24) as u8 == kind)
        .ok_or_else(|| why(format_args!("no virtio structure of type {kind}")))
}

/// The address of the structure of this type.
fn structure(function: Function, kind: u8) -> Result<u64, Why> {
    let offset = capability(function, kind)?;
    let index = function.config(offset + 4) as u8;
    let bar = function
        .bar(u16::from(index))
        .ok_or_else(|| why(format_args!("BAR {index} is not there")))?;
    Ok(bar.start + u64::from(function.config(offset + 8)))
}
