//! virtio-blk under load: as many requests as there are in a second, and whether all are answered.

use super::{Buffer, Device, LARGEST_QUEUE, Queue, physical};
use crate::busy::ticks_of;
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
/// Requests under way at most.
const DEPTH: usize = 16;
const _: () = assert!(3 * DEPTH <= LARGEST_QUEUE, "each takes three descriptors");
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

/// For `ms` milliseconds, does requests of `bytes` each, `writes=1` for writing, `depth` at a time, at places
/// all over the disk; says how many, and how many ticks of the processor's clock that took.
pub fn test(info: &StartInfo) -> Outcome {
    let (device, [mut queue]) = Device::open_sized(TYPE, FEATURE_FLUSH, None, [0], LARGEST_QUEUE)?;
    queue.refuse_interrupts();
    let sectors: u64 = read(device.config);
    let bytes = info.number("bytes", 4096) as usize;
    let depth = info.number("depth", 1) as usize;
    let time = ticks_of(info.number("ms", 1000));
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
    let mut which = [0; LARGEST_QUEUE];
    let mut idle = [true; DEPTH];
    while answered < sent || ticks() - begun < time {
        while ticks() - begun < time && sent - oldest < depth as u64 {
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
        if answered == sent {
            break;
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
    queue.notify_if_wanted();
    head
}
