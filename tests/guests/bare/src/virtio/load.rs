//! virtio-blk under load: as many requests as there are in a second, and whether all are answered.

use super::{Buffer, Device, QUEUE_SIZE, Queue, physical};
use crate::cpu::{read, ticks};
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

const TYPE: u16 = 2;
const FEATURE_FLUSH: u64 = 1 << 9;
const IN: u32 = 0;
const OUT: u32 = 1;
const SECTOR: usize = 512;
/// Requests under way at most: each takes three descriptors.
const DEPTH: usize = QUEUE_SIZE / 3;
/// The largest request, in bytes.
const LARGEST: usize = 256 << 10;

#[repr(C, align(4096))]
struct Request {
    data: [u8; LARGEST],
    kind: u32,
    reserved: u32,
    sector: u64,
    status: u8,
}

static mut REQUESTS: [Request; DEPTH] = [const {
    Request {
        data: [0; LARGEST],
        kind: 0,
        reserved: 0,
        sector: 0,
        status: 0,
    }
}; DEPTH];

/// Does `count` requests of `bytes` each, `writes=1` for writing, `depth` at a time, at places all
/// over the disk, and says how many ticks of the processor's clock that took.
pub fn test(info: &StartInfo) -> Outcome {
    let (device, mut queue) = Device::open(TYPE, FEATURE_FLUSH, None)?;
    let sectors: u64 = read(device.config);
    let bytes = info.number("bytes", 4096) as usize;
    let depth = info.number("depth", 1) as usize;
    let count = info.number("count", 1000);
    let kind = if info.number("writes", 0) == 0 {
        IN
    } else {
        OUT
    };
    ensure!(
        bytes.is_multiple_of(SECTOR) && bytes <= LARGEST && depth <= DEPTH,
        "no such load"
    );
    let places = sectors * SECTOR as u64 / bytes as u64;
    say!("load begins");
    let begun = ticks();
    let (mut sent, mut answered) = (0, 0);
    // Descriptors are taken in turn, so none is taken again before all before it are free.
    let mut oldest = 0;
    let mut place = 1_u64;
    let mut which = [0; QUEUE_SIZE];
    let mut idle = [true; DEPTH];
    while answered < count {
        while sent < count && sent - oldest < depth as u64 {
            place = place
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let sector = (place >> 33) % places * (bytes / SECTOR) as u64;
            let slot = sent as usize % DEPTH;
            idle[slot] = false;
            let head = send(&mut queue, slot, kind, sector, bytes);
            which[usize::from(head)] = slot;
            sent += 1;
        }
        let (head, _) = queue.wait()?;
        let slot = which[usize::from(head)];
        // SAFETY: the device is done with the request.
        let status = unsafe { (&raw const REQUESTS[slot].status).read_volatile() };
        ensure!(status == 0, "status {status}");
        idle[slot] = true;
        answered += 1;
        while oldest < sent && idle[oldest as usize % DEPTH] {
            oldest += 1;
        }
    }
    say!("load of {answered} took {}", ticks() - begun);
    Ok(())
}

fn send(queue: &mut Queue, slot: usize, kind: u32, sector: u64, bytes: usize) -> u16 {
    // SAFETY: an address only.
    let request = unsafe { &raw mut REQUESTS[slot] };
    // SAFETY: this request is not under way.
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
    let buffer = |address, length, device_writes| Buffer {
        address,
        length,
        device_writes,
    };
    let head = queue.add(&[
        buffer(physical(header), 16, false),
        buffer(physical(data), bytes as u32, kind == IN),
        buffer(physical(status), 1, true),
    ]);
    queue.notify();
    head
}
