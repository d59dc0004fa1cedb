//! virtio-blk: what is written is what is read.

use super::{Buffer, Device, Queue, physical};
use crate::cpu::read;
use crate::ensure;
use crate::failure::Outcome;
use crate::interrupts;
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 2;
const FEATURE_FLUSH: u64 = 1 << 9;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const SECTOR: usize = 512;
/// Sectors in one request.
const RUN: usize = 16;

#[repr(C, align(4096))]
struct Request {
    data: [u8; SECTOR * RUN],
    kind: u32,
    reserved: u32,
    sector: u64,
    status: u8,
}

static mut REQUEST: Request = Request {
    data: [0; SECTOR * RUN],
    kind: 0,
    reserved: 0,
    sector: 0,
    status: 0,
};

/// Writes a pattern to the first and the last sectors, flushes, reads it back; a request beyond the
/// end is refused. Says the size.
pub fn test(_: &StartInfo) -> Outcome {
    run(None)
}

/// The same, and each answer comes with an interrupt.
pub fn test_interrupts(_: &StartInfo) -> Outcome {
    const VECTOR: u8 = 0x50;
    let before = interrupts::count(VECTOR);
    run(Some(VECTOR))?;
    let came = interrupts::count(VECTOR) - before;
    say!("blk interrupts {came}");
    ensure!(came >= 5, "{came} interrupts for at least 5 requests");
    Ok(())
}

fn run(vector: Option<u8>) -> Outcome {
    let (device, mut queue) = Device::open(TYPE, FEATURE_FLUSH, vector)?;
    let sectors: u64 = read(device.config);
    say!("blk sectors {sectors}");
    ensure!(
        sectors >= 2 * RUN as u64,
        "the disk is too small for the test"
    );
    let last = sectors - RUN as u64;
    for start in [0, last] {
        fill(|index| pattern(start, index));
        transfer(&mut queue, OUT, start, OK, vector)?;
    }
    if device.features & FEATURE_FLUSH != 0 {
        transfer(&mut queue, FLUSH, 0, OK, vector)?;
    }
    for start in [0, last] {
        fill(|_| 0);
        transfer(&mut queue, IN, start, OK, vector)?;
        for index in 0..SECTOR * RUN {
            // SAFETY: the device is done with the request.
            let found = unsafe { (&raw const REQUEST.data[index]).read_volatile() };
            let wanted = pattern(start, index);
            ensure!(
                found == wanted,
                "sector {start}, byte {index}: {found:#x}, not {wanted:#x}"
            );
        }
    }
    transfer(&mut queue, IN, sectors, IO_ERROR, vector)
}

/// A byte that tells where it is.
fn pattern(start: u64, index: usize) -> u8 {
    let sector = start as usize + index / SECTOR;
    (sector.wrapping_mul(31) ^ index.wrapping_mul(7) ^ index >> 8) as u8
}

fn fill(byte: impl Fn(usize) -> u8) {
    for index in 0..SECTOR * RUN {
        // SAFETY: no request is under way.
        unsafe { (&raw mut REQUEST.data[index]).write_volatile(byte(index)) };
    }
}

fn transfer(queue: &mut Queue, kind: u32, sector: u64, wanted: u8, vector: Option<u8>) -> Outcome {
    let request = &raw mut REQUEST;
    let interrupts = vector.map_or(0, interrupts::count);
    // SAFETY: no request is under way.
    let (header, data, status) = unsafe {
        (&raw mut (*request).kind).write_volatile(kind);
        (&raw mut (*request).sector).write_volatile(sector);
        (&raw mut (*request).status).write_volatile(0xff);
        (
            &raw const (*request).kind,
            &raw const (*request).data,
            &raw const (*request).status,
        )
    };
    let head = Buffer {
        address: physical(header),
        length: 16,
        device_writes: false,
    };
    let body = Buffer {
        address: physical(data),
        length: (SECTOR * RUN) as u32,
        device_writes: kind == IN,
    };
    let tail = Buffer {
        address: physical(status),
        length: 1,
        device_writes: true,
    };
    if kind == FLUSH {
        queue.add(&[head, tail]);
    } else {
        queue.add(&[head, body, tail]);
    }
    queue.notify();
    queue.wait()?;
    if let Some(vector) = vector {
        let came = crate::cpu::wait_until(|| interrupts::count(vector) > interrupts);
        ensure!(came, "no interrupt for a request of type {kind}");
    }
    // SAFETY: the device is done with the request.
    let found = unsafe { status.read_volatile() };
    ensure!(
        found == wanted,
        "type {kind}, sector {sector}: status {found}, not {wanted}"
    );
    Ok(())
}
