//! virtio-rng: asks for `bytes` (1024) random bytes, 64 at a time, and says the first of them.

use super::{Buffer, Device, QUEUE_SIZE, physical};
use crate::ensure;
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 4;
const ROOM: usize = 64;

static mut BYTES: [[u8; ROOM]; QUEUE_SIZE] = [[0; ROOM]; QUEUE_SIZE];

/// Every buffer must come back full, and no two of them, one after the other, with the same bytes.
pub fn test(info: &StartInfo) -> Outcome {
    let wanted = info.number("bytes", 1024) as usize;
    let (_, mut queue) = Device::open(TYPE, 0, None)?;
    let (mut asked, mut given, mut last) = (0, 0, [0; ROOM]);
    while given < wanted {
        while asked < wanted && asked - given < ROOM * QUEUE_SIZE {
            queue.add(&[buffer(asked / ROOM % QUEUE_SIZE)]);
            asked += ROOM;
        }
        queue.notify();
        let (slot, length) = queue.wait()?;
        ensure!(length as usize == ROOM, "{length} bytes instead of {ROOM}");
        // SAFETY: `wait` says that the device is done with it.
        let bytes = unsafe { (&raw const BYTES[usize::from(slot)]).read_volatile() };
        ensure!(bytes != last, "the same bytes twice: {bytes:x?}");
        if given == 0 {
            say!(
                "rng {:016x}",
                u64::from_be_bytes(core::array::from_fn(|at| bytes[at]))
            );
        }
        last = bytes;
        given += ROOM;
    }
    Ok(())
}

fn buffer(slot: usize) -> Buffer {
    Buffer {
        address: physical(&raw const BYTES) + (slot * ROOM) as u64,
        length: ROOM as u32,
        device_writes: true,
    }
}
