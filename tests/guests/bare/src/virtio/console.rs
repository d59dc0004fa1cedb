//! virtio-console with several ports: takes port 1 on, and sends back `bytes` (5) that come in.

use super::{Buffer, Device, QUEUE_SIZE, Queue, physical};
use crate::cpu::wait_until;
use crate::ensure;
use crate::failure::{Outcome, why};
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 3;
const FEATURE_MULTIPORT: u64 = 1 << 1;
/// The queues of control messages and of port 1, to the driver and from it.
const NUMBERS: [u16; 4] = [2, 3, 4, 5];

/// `VIRTIO_CONSOLE_*`.
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const DEVICE_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

const PORT: u32 = 1;
/// Bytes of each buffer.
const ROOM: usize = 64;

#[repr(C, align(4096))]
struct Buffers {
    told: [[u8; ROOM]; QUEUE_SIZE],
    input: [[u8; ROOM]; QUEUE_SIZE],
    output: [u8; ROOM],
}

static mut BUFFERS: Buffers = Buffers {
    told: [[0; ROOM]; QUEUE_SIZE],
    input: [[0; ROOM]; QUEUE_SIZE],
    output: [0; ROOM],
};

/// A control message, and what stands behind it.
struct Told {
    port: u32,
    event: u16,
    value: u16,
    rest: [u8; ROOM],
    length: usize,
}

/// Says the port's name, waits for the host's end, and echoes.
pub fn test(info: &StartInfo) -> Outcome {
    let wanted = info.number("bytes", 5);
    let (_, [mut told, mut say_to, mut input, mut output]) =
        Device::open_queues(TYPE, FEATURE_MULTIPORT, None, NUMBERS)?;
    for slot in 0..QUEUE_SIZE {
        told.add(&[slot_of(slot, 0)]);
        input.add(&[slot_of(slot, 1)]);
    }
    told.notify();
    input.notify();

    tell(&mut say_to, 0, event::DEVICE_READY)?;
    expect(&mut told, event::DEVICE_ADD)?;
    tell(&mut say_to, PORT, event::PORT_READY)?;
    let name = expect(&mut told, event::PORT_NAME)?;
    let text = core::str::from_utf8(&name.rest[..name.length]).unwrap_or("?");
    say!("console port {text}");
    tell(&mut say_to, PORT, event::PORT_OPEN)?;
    let open = expect(&mut told, event::PORT_OPEN)?;
    ensure!(open.value == 1, "the host's end is closed");
    say!("console open");

    let mut echoed = 0;
    while echoed < wanted {
        let Some((slot, length)) = input.take() else {
            core::hint::spin_loop();
            continue;
        };
        let length = (length as usize).min(ROOM);
        // SAFETY: the device is done with the input, and `put` waited for the output.
        let bytes = unsafe { (&raw const BUFFERS.input[usize::from(slot)]).read_volatile() };
        put(&mut output, &bytes[..length])?;
        input.add(&[slot_of(usize::from(slot), 1)]);
        input.notify();
        echoed += length as u64;
    }
    Ok(())
}

/// Where a buffer for the device to write is: of control messages (0) or of input (1).
fn slot_of(slot: usize, which: usize) -> Buffer {
    let start = physical(&raw const BUFFERS) + (which * QUEUE_SIZE * ROOM) as u64;
    Buffer {
        address: start + (slot * ROOM) as u64,
        length: ROOM as u32,
        device_writes: true,
    }
}

/// Sends bytes and waits until the device has taken them.
fn put(queue: &mut Queue, bytes: &[u8]) -> Outcome {
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: nothing is under way, and there are at most ROOM bytes.
        unsafe { (&raw mut BUFFERS.output[at]).write_volatile(*byte) };
    }
    let address = physical(&raw const BUFFERS) + (2 * QUEUE_SIZE * ROOM) as u64;
    queue.add(&[Buffer {
        address,
        length: bytes.len() as u32,
        device_writes: false,
    }]);
    queue.notify();
    queue.wait()?;
    Ok(())
}

fn tell(queue: &mut Queue, port: u32, event: u16) -> Outcome {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&port.to_le_bytes());
    message[4..6].copy_from_slice(&event.to_le_bytes());
    message[6..].copy_from_slice(&1_u16.to_le_bytes());
    put(queue, &message)
}

/// Waits for a control message of this kind for the port; those of other ports are passed over.
fn expect(queue: &mut Queue, event: u16) -> Result<Told, crate::failure::Why> {
    let mut found = None;
    wait_until(|| {
        let Some((slot, length)) = queue.take() else {
            return false;
        };
        // SAFETY: the device is done with it.
        let bytes = unsafe { (&raw const BUFFERS.told[usize::from(slot)]).read_volatile() };
        let mut rest = [0; ROOM];
        rest[..ROOM - 8].copy_from_slice(&bytes[8..]);
        let told = Told {
            port: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            event: u16::from_le_bytes([bytes[4], bytes[5]]),
            value: u16::from_le_bytes([bytes[6], bytes[7]]),
            rest,
            length: (length as usize).clamp(8, ROOM) - 8,
        };
        queue.add(&[slot_of(usize::from(slot), 0)]);
        queue.notify();
        let wanted = told.port == PORT && told.event == event;
        found = wanted.then_some(told);
        wanted
    });
    found.ok_or_else(|| why(format_args!("no control message {event} for the port")))
}
