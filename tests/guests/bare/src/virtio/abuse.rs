//! Drivers of virtio devices that do what drivers do and what none should, in random order.
//!
//! What they say of the rings and of buffers is mostly true, so that requests are worked on; all that a device may
//! write to is outside of this program.

use core::sync::atomic::{Ordering, fence};

use super::{
    Buffer, FREE, INDIRECT, NEXT, WRITE, any_buffer, balloon, blk, capability, common, console,
    find, input, msix_table, net, rng, status, structure, use_msix, vsock,
};
use crate::busy::{next, ticks_of_a_second};
use crate::cpu::{self, read, wait_until, write};
use crate::ensure;
use crate::failure::{Outcome, Why};
use crate::interrupts;
use crate::pci::Function;
use crate::say;
use crate::start_info::StartInfo;

/// Types of devices that there are.
const TYPES: [u16; 7] = [
    net::TYPE,
    blk::TYPE,
    console::TYPE,
    rng::TYPE,
    balloon::TYPE,
    input::TYPE,
    vsock::TYPE,
];
/// Rings of a device's queues, and then what is in its buffers.
const ARENA: u64 = FREE;
const RINGS_OF_A_QUEUE: u64 = 64 << 10;
const QUEUES: u64 = 16;
const BUFFERS: u64 = ARENA + QUEUES * RINGS_OF_A_QUEUE;
const BUFFER_BYTES: u64 = 8 << 20;
/// Offsets among the rings of a queue.
const AVAILABLE: u64 = 32 << 10;
const USED: u64 = 40 << 10;
const SIZE: u64 = 64;
/// Descriptors of a chain.
const LONGEST: u64 = 4;
/// Bytes of PCI configuration space in which there is anything.
const CONFIG_BYTES: u64 = 256;
/// Interrupts that nobody else asks for.
const VECTORS: core::ops::Range<u64> = 0x80..0xc0;

/// For `seconds` (2), with the dice of `seed` (1), abuses each virtio device that there is. At its end all of them
/// begin anew when they are asked to.
pub fn test(info: &StartInfo) -> Outcome {
    let second = ticks_of_a_second();
    let mut random = info.number("seed", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let devices = TYPES.iter().filter(|kind| find(**kind).is_some()).count() as u64;
    ensure!(devices > 0, "there is no device");
    let time = info.number("seconds", 2) * second / devices;
    interrupts::enable();
    for kind in TYPES {
        let Some(function) = find(kind) else {
            continue;
        };
        let victim = Victim::new(kind, function)?;
        use_msix(function, true)?;
        let (end, mut acts, mut starts, mut answers) = (cpu::ticks() + time, 0_u64, 0_u64, 0_u64);
        fill(BUFFERS, BUFFER_BYTES, &mut random);
        while cpu::ticks() < end {
            starts += u64::from(victim.start(&mut random));
            for _ in 0..next(&mut random) % 400 {
                victim.act(&mut random);
                acts += 1;
                // For a while one may go on with what is broken.
                if victim.is_broken() && one_in(16, &mut random) {
                    break;
                }
            }
            answers += answered();
        }
        victim.reset()?;
        use_msix(function, false)?;
        say!("abuse type {kind}: {starts} starts, {acts} acts, {answers} answers");
        ensure!(
            answers > starts,
            "a device of type {kind} answers {answers} times in {starts} starts"
        );
    }
    say!("abuse devices {devices}");
    Ok(())
}

/// Writes anything over memory, but no number of a page that there is: a balloon would take it from this program.
fn fill(start: u64, bytes: u64, random: &mut u64) {
    for at in (start..start + bytes).step_by(8) {
        write(at, next(random) | 0x8000_0000_8000_0000);
    }
}

struct Victim {
    kind: u16,
    function: Function,
    interrupts: u64,
    common: u64,
    config: u64,
    notify: u64,
    multiplier: u64,
    queues: u64,
}

impl Victim {
    fn new(kind: u16, function: Function) -> Result<Self, Why> {
        let notify = capability(function, 2)?;
        let common = structure(function, 1)?;
        let queues: u16 = read(common + common::NUM_QUEUES);
        Ok(Self {
            kind,
            function,
            interrupts: msix_table(function)?,
            common,
            queues: queues.into(),
            config: structure(function, 4)?,
            notify: structure(function, 2)?,
            multiplier: function.config(notify + 16).into(),
        })
    }

    fn reset(&self) -> Outcome {
        write(self.common + common::STATUS, 0_u8);
        let ended = wait_until(|| read::<u8>(self.common + common::STATUS) == 0);
        ensure!(ended, "the reset of type {} never ends", self.kind);
        Ok(())
    }

    fn is_broken(&self) -> bool {
        let status: u8 = read(self.common + common::STATUS);
        status & status::NEEDS_RESET != 0 || status & status::DRIVER_OK == 0
    }

    /// Brings it up as a driver does, with some of its features; whether it agrees.
    fn start(&self, random: &mut u64) -> bool {
        let common = self.common;
        if self.reset().is_err() {
            return false;
        }
        let mut bits = status::ACKNOWLEDGE | status::DRIVER;
        write(common + common::STATUS, bits);
        for half in 0..2_u32 {
            write(common + common::DEVICE_FEATURE_SELECT, half);
            let offered: u32 = read(common + common::DEVICE_FEATURE);
            // Version 1 always, and of the others all, some or few.
            let some = (next(random) | next(random)) as u32 | half;
            write(common + common::DRIVER_FEATURE_SELECT, half);
            write(common + common::DRIVER_FEATURE, offered & some);
        }
        bits |= status::FEATURES_OK;
        write(common + common::STATUS, bits);
        let agreed = read::<u8>(common + common::STATUS) & status::FEATURES_OK != 0;
        for queue in 0..QUEUES {
            self.set_up(queue as u16);
        }
        write(common + common::STATUS, bits | status::DRIVER_OK);
        agreed
    }

    fn set_up(&self, queue: u16) {
        let rings = rings(queue);
        for at in (rings + AVAILABLE..rings + RINGS_OF_A_QUEUE).step_by(8) {
            write(at, 0_u64);
        }
        write(self.common + common::QUEUE_SELECT, queue);
        let most: u16 = read(self.common + common::QUEUE_SIZE);
        write(self.common + common::QUEUE_SIZE, most.min(SIZE as u16));
        write(self.common + common::QUEUE_MSIX_VECTOR, queue + 1);
        self.place(common::QUEUE_DESC, rings);
        self.place(common::QUEUE_DRIVER, rings + AVAILABLE);
        self.place(common::QUEUE_DEVICE, rings + USED);
        write(self.common + common::QUEUE_ENABLE, 1_u16);
    }

    fn place(&self, register: u64, address: u64) {
        write(self.common + register, address as u32);
        write(self.common + register + 4, (address >> 32) as u32);
    }

    /// Anything, mostly a request.
    fn act(&self, random: &mut u64) {
        let dice = next(random);
        // Mostly one that there is.
        let queues = if dice & 0xf0 == 0 {
            QUEUES
        } else {
            self.queues
        };
        let queue = ((dice >> 8) % queues) as u16;
        let common = self.common;
        match dice >> 48 & 1023 {
            0 => write(common + common::STATUS, (dice >> 16) as u8),
            1 => write(common + common::STATUS, 0x0f_u8),
            2 => {
                write(
                    common + common::DRIVER_FEATURE_SELECT,
                    (dice >> 16) as u32 & 3,
                );
                write(common + common::DRIVER_FEATURE, next(random) as u32);
            }
            3 => {
                write(common + common::QUEUE_SELECT, queue);
                write(common + common::QUEUE_SIZE, (dice >> 16) as u16);
            }
            4 => {
                write(common + common::QUEUE_SELECT, queue);
                let register = [
                    common::QUEUE_DESC,
                    common::QUEUE_DRIVER,
                    common::QUEUE_DEVICE,
                ];
                let address = any_buffer(random).address;
                self.place(register[(dice >> 16) as usize % 3], address);
                write(common + common::QUEUE_ENABLE, 1_u16);
            }
            5 => {
                write(common + common::QUEUE_SELECT, queue);
                write(common + common::QUEUE_RESET, 1_u16);
                wait_until(|| read::<u16>(common + common::QUEUE_RESET) == 0);
                self.set_up(queue);
            }
            6 => {
                write(common + common::QUEUE_SELECT, queue);
                write(common + common::QUEUE_MSIX_VECTOR, (dice >> 16) as u16);
                write(common + common::CONFIG_MSIX_VECTOR, (dice >> 32) as u16);
            }
            7 => write(self.config + (dice >> 16) % 64, (dice >> 32) as u8),
            8 => write(self.config + (dice >> 16) % 16 * 4, (dice >> 32) as u32),
            9 => {
                let _ = read::<u32>(self.config + (dice >> 16) % 16 * 4);
                let _ = read::<u32>(common + (dice >> 24) % 16 * 4);
            }
            10 => write(self.notify + (dice >> 16) % 64 * 2, (dice >> 32) as u16),
            11 => fill(rings(queue), SIZE * 16, random),
            12 => {
                // The index jumps.
                let index = rings(queue) + AVAILABLE + 2;
                write(index, (dice >> 16) as u16);
                self.tell(queue);
            }
            13..=16 => self.configure(queue, random),
            17..=20 => self.interrupt(random),
            _ => {
                self.request(queue, random);
                self.tell(queue);
            }
        }
    }

    /// Has anything in a register of PCI configuration space for a while: a BAR that is elsewhere, or none.
    fn configure(&self, queue: u16, random: &mut u64) {
        let dice = next(random);
        let register = (dice % (CONFIG_BYTES / 4) * 4) as u16;
        let before = self.function.config(register);
        let some = next(random) as u32;
        let value = if one_in(2, random) {
            some
        } else {
            before ^ some & some.rotate_left(7)
        };
        self.function.set_config(register, value);
        self.tell(queue);
        // Where a BAR is now, whatever else is there.
        let _ = read::<u32>(u64::from(value & !0xf));
        let _ = read::<u8>(self.common + common::STATUS);
        self.function.set_config(register, before);
    }

    /// Sends the interrupts of a vector elsewhere, here or nowhere, or masks it.
    fn interrupt(&self, random: &mut u64) {
        let dice = next(random);
        let entry = self.interrupts + (dice >> 8) % (self.queues + 1) * 16;
        let vector = VECTORS.start + (dice >> 16) % (VECTORS.end - VECTORS.start);
        match dice % 4 {
            0 => write(entry, interrupts::MSI_ADDRESS as u32),
            // To a processor that there is not, of those that fit.
            1 => write(entry, (dice >> 32) as u32 & !0xc | 0x0080_0000),
            2 => write(entry + 4, (dice >> 32) as u32 >> (dice >> 24 & 31)),
            _ => {}
        }
        // Fixed interrupts only: others stop or reset the processor, as they should.
        write(entry + 8, (dice >> 32) as u32 & !0x7ff | vector as u32);
        write(entry + 12, (dice >> 30) as u32 & 1);
    }

    fn tell(&self, queue: u16) {
        fence(Ordering::SeqCst);
        write(self.notify + u64::from(queue) * self.multiplier, queue);
    }

    /// Makes a chain available: mostly one that this kind of device can do something with.
    fn request(&self, queue: u16, random: &mut u64) {
        let rings = rings(queue);
        let available: u16 = read(rings + AVAILABLE + 2);
        let under_way = available.wrapping_sub(read(rings + USED + 2));
        if u64::from(under_way) * LONGEST >= SIZE && !one_in(128, random) {
            return;
        }
        let head = u64::from(available) * LONGEST % SIZE;
        let mut chain = [near(random); LONGEST as usize];
        let length = self.plan(queue, &mut chain, random);
        for (place, buffer) in (0..).zip(&chain[..length]) {
            let at = head + place;
            let more = if place + 1 < length as u64 { NEXT } else { 0 };
            let flags = more | if buffer.device_writes { WRITE } else { 0 };
            write_descriptor(rings + 16 * at, buffer, flags, at + 1);
        }
        if one_in(128, random) {
            damage(rings + 16 * (head + next(random) % length as u64), random);
        }
        let slot = u64::from(available) % SIZE;
        write(rings + AVAILABLE + 4 + 2 * slot, head as u16);
        fence(Ordering::SeqCst);
        write(rings + AVAILABLE + 2, available.wrapping_add(1));
    }

    /// Writes what is in a request, and how many of the buffers it takes.
    fn plan(&self, queue: u16, chain: &mut [Buffer], random: &mut u64) -> usize {
        let dice = next(random);
        let few = |shift: u32, end: u64| (dice >> shift) % end;
        let length = 1 + few(40, LONGEST) as usize;
        let at = chain[0].address;
        match (self.kind, queue) {
            // Type and sector, data, and what became of it.
            (blk::TYPE, _) => {
                let kind = [0, 0, 1, 1, 4, 8, 11, 13][few(0, 8) as usize];
                write(at, kind as u32);
                write(at + 8, few(16, 2100));
                chain[0].length = 16;
                for buffer in &mut chain[1..] {
                    buffer.length = (buffer.length & 0xe00) + 512;
                    buffer.device_writes = kind == 0 || kind == 8;
                }
                if kind == 11 || kind == 13 {
                    write(chain[1].address, few(16, 2100));
                    write(chain[1].address + 8, few(32, 64));
                    chain[1].length = 16;
                }
                let last = if kind == 4 { 1 } else { length.clamp(2, 3) };
                chain[last].length = 1;
                chain[last].device_writes = true;
                return last + 1;
            }
            // Port, event and value.
            (console::TYPE, 3) => {
                write(at, few(0, 4) as u32);
                write(at + 4, few(16, 9) as u16);
                write(at + 6, few(32, 3) as u16);
                chain[0].length = 8;
                return 1;
            }
            (balloon::TYPE, 0 | 1) => {
                for place in 0..16 {
                    let page = (BUFFERS >> 12) + next(random) % (BUFFER_BYTES >> 12);
                    write(at + 4 * place, page as u32);
                }
                chain[0].length = 4 * few(8, 17) as u32;
                return 1;
            }
            // Guest and host, ports, length, type, operation and flags.
            (vsock::TYPE, 1) => {
                write(at, 42_u64);
                write(at + 8, 2_u64);
                write(at + 16, few(0, 4) as u32 + 1024);
                write(at + 20, few(8, 4) as u32 + 1024);
                write(at + 24, chain[1].length);
                write(at + 28, 1_u16);
                write(at + 30, few(24, 9) as u16);
                write(at + 32, few(32, 4) as u32);
                chain[0].length = 44;
                return 2;
            }
            _ => {}
        }
        // Where the device says something: the first queue, but of a balloon, and a console's even ones.
        let listens = match self.kind {
            console::TYPE => queue.is_multiple_of(2),
            balloon::TYPE => false,
            // And where it tells of events.
            vsock::TYPE => true,
            _ => queue == 0,
        };
        for buffer in &mut *chain {
            buffer.device_writes = listens;
        }
        length
    }
}

/// Has a descriptor say something else.
fn damage(descriptor: u64, random: &mut u64) {
    let dice = next(random);
    match dice % 6 {
        0 => write(descriptor, any_buffer(random).address),
        1 => write(descriptor + 8, any_buffer(random).length),
        2 => write(descriptor + 12, (dice >> 8) as u16),
        3 => write(descriptor + 12, read::<u16>(descriptor + 12) ^ WRITE),
        4 => write(descriptor + 14, (dice >> 8) as u16),
        _ => write_table(descriptor, random),
    }
}

/// Has a descriptor refer to a table of two, mostly with a length that there is.
fn write_table(descriptor: u64, random: &mut u64) {
    let table = near(random).address;
    let flags = read::<u16>(descriptor + 12) & WRITE;
    write_descriptor(table, &near(random), NEXT | flags, 1);
    write_descriptor(table + 16, &near(random), flags, 0);
    let odd = u32::from(one_in(8, random));
    let buffer = Buffer {
        address: table,
        length: 32 + odd,
        device_writes: false,
    };
    write_descriptor(descriptor, &buffer, INDIRECT, 0);
}

fn write_descriptor(at: u64, buffer: &Buffer, flags: u16, following: u64) {
    write(at, buffer.address);
    write(at + 8, buffer.length);
    write(at + 12, flags);
    write(at + 14, following as u16);
}

fn one_in(times: u64, random: &mut u64) -> bool {
    next(random).is_multiple_of(times)
}

/// Chains that came back by the rings of all queues.
fn answered() -> u64 {
    let index = |queue| u64::from(read::<u16>(rings(queue) + USED + 2));
    (0..QUEUES as u16).map(index).sum()
}

fn rings(queue: u16) -> u64 {
    ARENA + u64::from(queue) % QUEUES * RINGS_OF_A_QUEUE
}

/// A buffer that is there.
fn near(random: &mut u64) -> Buffer {
    let dice = next(random);
    Buffer {
        address: BUFFERS + (dice >> 16) % (BUFFER_BYTES / 16 - 512) * 16,
        length: (dice & 0xfff) as u32 >> (dice >> 12 & 7),
        device_writes: false,
    }
}
