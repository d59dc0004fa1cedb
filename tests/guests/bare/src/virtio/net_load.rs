//! virtio-net under load: how long many frames take, either way, and whether all of them pass.

use super::net::{
    ADDRESS, ECHO_PORT, ETHERNET, FEATURE_CSUM, FEATURE_MAC, FEATURE_MRG_RXBUF, HEADER, IP,
    RECEIVE, TRANSMIT, TYPE, checksum,
};
use super::{Buffer, Device, LARGEST_QUEUE, Queue, physical};
use crate::busy::ticks_of;
use crate::cpu::{read, ticks, wait_until};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::say;
use crate::start_info::StartInfo;

const FEATURE_GUEST_CSUM: u64 = 1 << 1;
const FEATURE_GUEST_TSO4: u64 = 1 << 7;
const FEATURE_HOST_TSO4: u64 = 1 << 11;

/// The longest frame, in bytes.
const LONGEST: usize = 65_550;
/// Bytes of each of the receive buffers.
const ROOM: usize = 2048;
/// Buffers that are given back together.
const BATCH: u64 = 32;
const UDP: u8 = 17;
const TCP: u8 = 6;
/// The host, and the port at which it hears how many frames came.
const HOST: [u8; 4] = [10, 9, 0, 1];
const CREDIT_PORT: u16 = 7000;
/// Somebody who is not there.
const NOBODY: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 0x99], [10, 9, 0, 99]);
const EVERYBODY: [u8; 6] = [0xff; 6];

static mut RECEIVED: [[u8; ROOM]; LARGEST_QUEUE] = [[0; ROOM]; LARGEST_QUEUE];
static mut SENT: [u8; HEADER + LONGEST] = [0; HEADER + LONGEST];

/// For `ms` milliseconds, sends frames of `bytes` each to nobody, to be cut into segments of `segment` bytes
/// if that is given; says how many, and how many ticks of the processor's clock that took.
pub fn test_send(info: &StartInfo) -> Outcome {
    let (bytes, time) = (
        info.number("bytes", 1514),
        ticks_of(info.number("ms", 1000)),
    );
    let segment = info.number("segment", 0) as u16;
    let wanted = FEATURE_CSUM | FEATURE_HOST_TSO4 | FEATURE_MAC | FEATURE_MRG_RXBUF;
    let (device, [mut queue]) = Device::open_sized(TYPE, wanted, None, [TRANSMIT], LARGEST_QUEUE)?;
    ensure!(
        device.features & wanted == wanted,
        "the device offers {:#x}",
        device.features
    );
    queue.refuse_interrupts();
    let frame = write_frame(&device, NOBODY, bytes as usize, segment)?;
    say!("load begins");
    let begun = ticks();
    let (mut sent, mut done) = (0, 0);
    while ticks() - begun < time {
        for _ in 0..LARGEST_QUEUE as u64 - (sent - done) {
            queue.add(&[frame]);
            sent += 1;
        }
        queue.notify_if_wanted();
        queue.wait()?;
        done += 1;
        while queue.take().is_some() {
            done += 1;
        }
    }
    say!("load of {done} took {}", ticks() - begun);
    Ok(())
}

/// For `ms` milliseconds, receives frames of `bytes` each, and tells the host after each `credit` of them;
/// says the same.
pub fn test_receive(info: &StartInfo) -> Outcome {
    let (bytes, time) = (
        info.number("bytes", 1514),
        ticks_of(info.number("ms", 1000)),
    );
    let credit = info.number("credit", 1);
    let wanted = FEATURE_MAC | FEATURE_MRG_RXBUF | FEATURE_GUEST_CSUM | FEATURE_GUEST_TSO4;
    let (device, [mut receive, mut transmit]) =
        Device::open_sized(TYPE, wanted, None, [RECEIVE, TRANSMIT], LARGEST_QUEUE)?;
    ensure!(
        device.features & wanted == wanted,
        "the device offers {:#x}",
        device.features
    );
    receive.refuse_interrupts();
    transmit.refuse_interrupts();
    let told = write_frame(&device, (EVERYBODY, HOST), 60, 0)?;
    for slot in 0..LARGEST_QUEUE {
        receive.add(&[buffer_of(slot)]);
    }
    receive.notify();
    say!("load begins");
    let mut begun = 0;
    let (mut frames, mut given) = (0, 0);
    while begun == 0 || ticks() - begun < time {
        let (is_ours, length) = next_frame(&mut receive, &mut given)?;
        if given >= BATCH {
            receive.notify_if_wanted();
            given = 0;
        }
        if !is_ours {
            continue;
        }
        if frames == 0 {
            begun = ticks();
        }
        ensure!(length as u64 == bytes, "a frame of {length} bytes");
        frames += 1;
        if frames % credit == 0 {
            while transmit.take().is_some() {}
            transmit.add(&[told]);
            transmit.notify_if_wanted();
        }
    }
    say!("load of {frames} took {}", ticks() - begun);
    Ok(())
}

/// Waits for a frame and gives its buffers, which are added to `given`, back; whether it is of the load,
/// and its length.
fn next_frame(receive: &mut Queue, given: &mut u64) -> Result<(bool, usize), Why> {
    let Some((mut slot, mut length)) = take_or_wait(receive, given) else {
        return Err(why(format_args!("no frame comes")));
    };
    ensure!(usize::from(slot) < LARGEST_QUEUE, "buffer {slot}");
    let first = (&raw const RECEIVED).cast::<[u8; ROOM]>();
    // SAFETY: the device is done with it, and `slot` is one of ours.
    let begin: [u8; HEADER + ETHERNET + IP] = unsafe {
        first
            .add(usize::from(slot))
            .cast::<[u8; _]>()
            .read_volatile()
    };
    let pieces = u16::from_le_bytes([begin[10], begin[11]]);
    let is_ours = begin[24..26] == [8, 0] && matches!(begin[35], UDP | TCP);
    let mut total = 0;
    for piece in 0..pieces {
        if piece > 0 {
            // All of them are there at once.
            let next = receive.take();
            (slot, length) =
                next.ok_or_else(|| why(format_args!("piece {piece} of {pieces} is missing")))?;
        }
        total += length as usize;
        receive.add(&[buffer_of(usize::from(slot))]);
        *given += 1;
    }
    Ok((is_ours, total - HEADER))
}

/// The next buffer; those that were taken are given back before there is anything to wait for.
fn take_or_wait(receive: &mut Queue, given: &mut u64) -> Option<(u16, u32)> {
    let mut done = receive.take();
    if done.is_none() {
        if *given > 0 {
            receive.notify_if_wanted();
            *given = 0;
        }
        wait_until(|| {
            done = receive.take();
            done.is_some()
        });
    }
    done
}

fn buffer_of(slot: usize) -> Buffer {
    Buffer {
        address: physical(&raw const RECEIVED) + (slot * ROOM) as u64,
        length: ROOM as u32,
        device_writes: true,
    }
}

/// Writes a frame of `bytes` with its header, a datagram or what is to be cut into segments of TCP.
fn write_frame(
    device: &Device,
    (mac, address): ([u8; 6], [u8; 4]),
    bytes: usize,
    segment: u16,
) -> Result<Buffer, Why> {
    ensure!(
        (60..=LONGEST).contains(&bytes),
        "there are no frames of {bytes} bytes"
    );
    let mut start = [0; HEADER + ETHERNET + IP + 20];
    let (header, frame) = start.split_at_mut(HEADER);
    frame[..6].copy_from_slice(&mac);
    for (index, byte) in (0..).zip(&mut frame[6..12]) {
        *byte = read(device.config + index);
    }
    let total = ((bytes - ETHERNET) as u16).to_be_bytes();
    let rest = ((bytes - ETHERNET - IP) as u16).to_be_bytes();
    let protocol = if segment == 0 { UDP } else { TCP };
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&total);
    (frame[22], frame[23]) = (64, protocol);
    frame[26..30].copy_from_slice(&ADDRESS);
    frame[30..34].copy_from_slice(&address);
    let sum = checksum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&ECHO_PORT.to_be_bytes());
    frame[36..38].copy_from_slice(&CREDIT_PORT.to_be_bytes());
    if segment == 0 {
        // Without a checksum, as a datagram may be.
        frame[38..40].copy_from_slice(&rest);
    } else {
        // An acknowledgement, of twenty bytes and data.
        (frame[46], frame[47]) = (5 << 4, 0x10);
        let partial = !checksum(&frame[26..34], u32::from(TCP) + bytes as u32 - 34);
        frame[50..52].copy_from_slice(&partial.to_be_bytes());
        let [low, high] = segment.to_le_bytes();
        let headers = (ETHERNET + IP + 20) as u8;
        let fields = [1, 1, headers, 0, low, high, (ETHERNET + IP) as u8, 0, 16];
        header[..9].copy_from_slice(&fields);
    }
    // SAFETY: the place is the device's only once it is told.
    unsafe {
        (&raw mut SENT)
            .cast::<[u8; HEADER + ETHERNET + IP + 20]>()
            .write_volatile(start);
    }
    Ok(Buffer {
        address: physical(&raw const SENT),
        length: (HEADER + bytes) as u32,
        device_writes: false,
    })
}
