//! virtio-input: says every event, `events` (1) of them.

use super::{Buffer, Device, QUEUE_SIZE, physical};
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 18;
const EVENT: usize = 8;

static mut EVENTS: [[u8; EVENT]; QUEUE_SIZE] = [[0; EVENT]; QUEUE_SIZE];

/// Waits for events and prints them as `event TYPE CODE VALUE`, until so many EV_SYN came.
pub fn test(info: &StartInfo) -> Outcome {
    let wanted = info.number("events", 1);
    let (_, mut queue) = Device::open(TYPE, 0, None)?;
    for slot in 0..QUEUE_SIZE {
        queue.add(&[buffer(slot)]);
    }
    queue.notify();
    say!("input ready");
    let mut groups = 0;
    while groups < wanted {
        let Some((slot, _)) = queue.take() else {
            core::hint::spin_loop();
            continue;
        };
        // SAFETY: `take` says that the device is done with it.
        let event = unsafe { (&raw const EVENTS[usize::from(slot)]).read_volatile() };
        let kind = u16::from_le_bytes([event[0], event[1]]);
        let code = u16::from_le_bytes([event[2], event[3]]);
        let value = i32::from_le_bytes([event[4], event[5], event[6], event[7]]);
        say!("event {kind} {code} {value}");
        groups += u64::from(kind == 0);
        queue.add(&[buffer(usize::from(slot))]);
        queue.notify();
    }
    Ok(())
}

fn buffer(slot: usize) -> Buffer {
    let address = physical(&raw const EVENTS) + (slot * EVENT) as u64;
    Buffer {
        address,
        length: EVENT as u32,
        device_writes: true,
    }
}
