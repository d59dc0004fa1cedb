//! virtio-console with two ports: what comes in at either goes out at the other, for ever. So a
//! program of the host's at one of them is the guest's program to whoever is at the other.

use super::{Buffer, Device, QUEUE_SIZE, Queue, physical};
use crate::failure::Outcome;
use crate::say;
use crate::start_info::StartInfo;

const TYPE: u16 = 3;
const FEATURE_MULTIPORT: u64 = 1 << 1;
/// The queues of control messages and of ports 1 and 2, to the driver and from it.
const NUMBERS: [u16; 6] = [2, 3, 4, 5, 6, 7];
/// `VIRTIO_CONSOLE_*`.
const DEVICE_READY: u16 = 0;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

/// Bytes of each buffer.
const ROOM: usize = 256;

#[repr(C, align(4096))]
struct Buffers {
    told: [[u8; ROOM]; QUEUE_SIZE],
    input: [[[u8; ROOM]; QUEUE_SIZE]; 2],
    output: [u8; ROOM],
}

static mut BUFFERS: Buffers = Buffers {
    told: [[0; ROOM]; QUEUE_SIZE],
    input: [[[0; ROOM]; QUEUE_SIZE]; 2],
    output: [0; ROOM],
};

/// Never ends.
pub fn test(_info: &StartInfo) -> Outcome {
    let (
        _,
        [
            mut told,
            mut say_to,
            first_in,
            mut first_out,
            second_in,
            mut second_out,
        ],
    ) = Device::open_queues(TYPE, FEATURE_MULTIPORT, None, NUMBERS)?;
    let mut inputs = [first_in, second_in];
    for slot in 0..QUEUE_SIZE {
        told.add(&[buffer_of(slot)]);
        for (port, input) in inputs.iter_mut().enumerate() {
            input.add(&[buffer_of(QUEUE_SIZE * (1 + port) + slot)]);
        }
    }
    told.notify();
    inputs.iter().for_each(Queue::notify);
    tell(&mut say_to, 0, DEVICE_READY)?;
    for port in [1, 2] {
        tell(&mut say_to, port, PORT_READY)?;
        tell(&mut say_to, port, PORT_OPEN)?;
    }
    say!("relay ready");
    loop {
        // What the device tells of the ports is of no interest.
        if let Some((slot, _)) = told.take() {
            told.add(&[buffer_of(usize::from(slot))]);
            told.notify();
        }
        for (port, output) in [&mut second_out, &mut first_out].into_iter().enumerate() {
            let input = &mut inputs[port];
            let Some((slot, length)) = input.take() else {
                continue;
            };
            // SAFETY: the device is done with it.
            let bytes =
                unsafe { (&raw const BUFFERS.input[port][usize::from(slot)]).read_volatile() };
            put(output, &bytes[..(length as usize).min(ROOM)])?;
            input.add(&[buffer_of(QUEUE_SIZE * (1 + port) + usize::from(slot))]);
            input.notify();
        }
    }
}

/// A buffer by its place among all of them.
fn buffer_of(place: usize) -> Buffer {
    Buffer {
        address: physical(&raw const BUFFERS) + (place * ROOM) as u64,
        length: ROOM as u32,
        device_writes: true,
    }
}

fn tell(queue: &mut Queue, port: u32, event: u16) -> Outcome {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&port.to_le_bytes());
    message[4..6].copy_from_slice(&event.to_le_bytes());
    message[6..].copy_from_slice(&1_u16.to_le_bytes());
    put(queue, &message)
}

/// Sends bytes and waits for as long as it takes.
fn put(queue: &mut Queue, bytes: &[u8]) -> Outcome {
    let output = &raw mut BUFFERS;
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: nothing is under way, and there are at most ROOM bytes.
        unsafe { (&raw mut (*output).output[at]).write_volatile(*byte) };
    }
    queue.add(&[Buffer {
        // SAFETY: an address only.
        address: physical(unsafe { &raw const (*output).output }),
        length: bytes.len() as u32,
        device_writes: false,
    }]);
    queue.notify();
    while queue.take().is_none() {
        core::hint::spin_loop();
    }
    Ok(())
}
