//! virtio-net: a station that answers ARP, pings and datagrams.

use super::{Buffer, Device, QUEUE_SIZE, Queue, any_buffer, physical};
use crate::busy::{next, ticks_of_a_second};
use crate::cpu::{self, read};
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 1;
pub(super) const FEATURE_CSUM: u64 = 1 << 0;
pub(super) const FEATURE_MAC: u64 = 1 << 5;
pub(super) const FEATURE_MRG_RXBUF: u64 = 1 << 15;
const FEATURE_STATUS: u64 = 1 << 16;
const FEATURE_CTRL_VQ: u64 = 1 << 17;

pub(super) const RECEIVE: u16 = 0;
pub(super) const TRANSMIT: u16 = 1;
const CONTROL: u16 = 2;

/// Bytes of the device's header, and of Ethernet's and IPv4's.
pub(super) const HEADER: usize = 12;
pub(super) const ETHERNET: usize = 14;
pub(super) const IP: usize = 20;
/// Bytes of a receive buffer: few, so that a frame takes several.
const PIECE: usize = 256;
const FRAME: usize = 1600;

/// The station's address.
pub(super) const ADDRESS: [u8; 4] = [10, 9, 0, 2];
pub(super) const ECHO_PORT: u16 = 7;
/// A datagram that begins so ends the test.
const QUIT: &[u8] = b"quit";

static mut PIECES: [[u8; PIECE]; QUEUE_SIZE] = [[0; PIECE]; QUEUE_SIZE];
static mut OUT: [u8; HEADER + FRAME] = [0; HEADER + FRAME];
static mut COMMAND: [u8; 64] = [0; 64];

/// A network card that is ready.
struct Card {
    receive: Queue,
    transmit: Queue,
    mac: [u8; 6],
    /// It fills checksums in.
    checksums: bool,
}

/// Answers until it is told to quit.
pub fn test(_: &StartInfo) -> Outcome {
    let (mut card, _) = open()?;
    say!("net ready");
    let answered = card.answer()?;
    say!("net answered {answered}");
    Ok(())
}

/// For `seconds` (2), gives the card what no driver should, then [`test`]s it.
pub fn test_hostile(info: &StartInfo) -> Outcome {
    let end = cpu::ticks() + info.number("seconds", 2) * ticks_of_a_second();
    let mut random = info.number("seed", 1) | 1 << 40;
    let (mut sent, mut resets) = (0_u64, 0_u64);
    while cpu::ticks() < end {
        let (mut card, mut control) = open()?;
        resets += 1;
        while cpu::ticks() < end {
            let dice = next(&mut random);
            let alive = match dice % 64 {
                0..8 => abuse_control(&mut control, &mut random),
                8 => {
                    // Buffers anywhere, of any length, on any queue.
                    let queue = match dice >> 8 & 3 {
                        0 => &mut card.receive,
                        1 => &mut control,
                        _ => &mut card.transmit,
                    };
                    queue.add(&[any_buffer(&mut random), any_buffer(&mut random)]);
                    queue.notify();
                    false
                }
                _ => {
                    sent += 1;
                    abuse_transmit(&mut card, &mut random)
                }
            };
            if !alive {
                break;
            }
        }
    }
    say!("net sent {sent} and reset {resets} times");
    ensure!(sent > 0, "nothing was ever sent");
    test(info)
}

/// A frame whose header says anything; whether the device took it.
fn abuse_transmit(card: &mut Card, random: &mut u64) -> bool {
    let mut out = [0; HEADER + 64];
    for byte in &mut out {
        *byte = next(random) as u8;
    }
    // Mostly kinds of work that there are.
    out[0] &= 1;
    out[1] &= 0x85;
    let length = next(random) as usize % (out.len() + 1);
    card.put(&out[..length]);
    let split = next(random) as usize % (length + 1);
    card.transmit
        .add(&[piece(0, split), piece(split, length - split)]);
    card.transmit.notify();
    card.transmit.wait().is_ok()
}

fn abuse_control(control: &mut Queue, random: &mut u64) -> bool {
    let mut command = [0_u8; 32];
    for byte in &mut command {
        *byte = next(random) as u8 & 7;
    }
    // SAFETY: the device has no command.
    unsafe {
        (&raw mut COMMAND)
            .cast::<[u8; 32]>()
            .write_volatile(command)
    };
    let start = physical(&raw const COMMAND);
    let length = next(random) as u32 % 33;
    let buffer = |address, length, device_writes| Buffer {
        address,
        length,
        device_writes,
    };
    control.add(&[buffer(start, length, false), buffer(start + 32, 1, true)]);
    control.notify();
    control.wait().is_ok()
}

/// Part of what is to be sent.
fn piece(start: usize, length: usize) -> Buffer {
    Buffer {
        address: physical(&raw const OUT) + start as u64,
        length: length as u32,
        device_writes: false,
    }
}

fn open() -> Result<(Card, Queue), Why> {
    let wanted = FEATURE_CSUM | FEATURE_MAC | FEATURE_MRG_RXBUF | FEATURE_STATUS | FEATURE_CTRL_VQ;
    let numbers = [RECEIVE, TRANSMIT, CONTROL];
    let (device, [receive, transmit, control]) = Device::open_queues(TYPE, wanted, None, numbers)?;
    ensure!(
        device.features & FEATURE_MRG_RXBUF != 0,
        "no mergeable buffers"
    );
    let mut mac = [0; 6];
    for (index, byte) in (0..).zip(&mut mac) {
        *byte = read(device.config + index);
    }
    let mut card = Card {
        receive,
        transmit,
        mac,
        checksums: device.features & FEATURE_CSUM != 0,
    };
    for slot in 0..QUEUE_SIZE {
        card.receive.add(&[receive_buffer(slot)]);
    }
    card.receive.notify();
    Ok((card, control))
}

fn receive_buffer(slot: usize) -> Buffer {
    Buffer {
        address: physical(&raw const PIECES) + (slot * PIECE) as u64,
        length: PIECE as u32,
        device_writes: true,
    }
}

impl Card {
    /// Answers frames until one says to quit; how many.
    fn answer(&mut self) -> Result<u64, Why> {
        let mut frame = [0; FRAME];
        let mut answered = 0;
        loop {
            let Some(length) = self.receive(&mut frame)? else {
                core::hint::spin_loop();
                continue;
            };
            let frame = &mut frame[..length];
            if frame.len() >= ETHERNET + 28 && frame[12..14] == [8, 6] {
                if frame[20..22] == [0, 1] && frame[38..42] == ADDRESS {
                    self.answer_arp(frame)?;
                }
            } else if frame.len() >= ETHERNET + IP + 8
                && frame[12..15] == [8, 0, 0x45]
                && frame[30..34] == ADDRESS
            {
                let quit = frame[23] == 17 && frame[42..].starts_with(QUIT);
                answered += u64::from(self.answer_ip(frame)?);
                if quit {
                    return Ok(answered);
                }
            }
        }
    }

    /// The next frame, put together from its pieces; its length.
    fn receive(&mut self, frame: &mut [u8; FRAME]) -> Result<Option<usize>, Why> {
        let Some(mut done) = self.receive.take() else {
            return Ok(None);
        };
        let (mut filled, mut pieces, mut skip) = (0, 1, HEADER);
        let mut seen = 0;
        loop {
            let (slot, length) = (usize::from(done.0), done.1 as usize);
            // SAFETY: the device is done with it, and `slot` is one of ours.
            let bytes = unsafe { (&raw const PIECES[slot]).read_volatile() };
            if seen == 0 {
                pieces = u16::from_le_bytes([bytes[10], bytes[11]]);
                ensure!(pieces > 0, "a frame of no buffers");
            }
            ensure!(length <= PIECE, "{length} bytes in a buffer of {PIECE}");
            for &byte in &bytes[skip..length.max(skip)] {
                if filled < FRAME {
                    frame[filled] = byte;
                    filled += 1;
                }
            }
            self.receive.add(&[receive_buffer(slot)]);
            (skip, seen) = (0, seen + 1);
            if seen == pieces {
                break;
            }
            // All of them are there at once.
            done = self
                .receive
                .take()
                .ok_or_else(|| why(format_args!("piece {seen} of {pieces} is missing")))?;
        }
        self.receive.notify();
        Ok(Some(filled))
    }

    /// Writes what is to be sent next.
    fn put(&mut self, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: the caller's bytes fit, and the device has nothing of it.
            unsafe { (&raw mut OUT[index]).write_volatile(*byte) };
        }
    }

    fn send(&mut self, header: [u8; HEADER], frame: &[u8]) -> Outcome {
        self.put(&header);
        for (index, byte) in frame.iter().enumerate() {
            // SAFETY: a frame fits behind the header, and the device has nothing of it.
            unsafe { (&raw mut OUT[HEADER + index]).write_volatile(*byte) };
        }
        let rest = frame.len() - ETHERNET;
        self.transmit.add(&[
            piece(0, HEADER),
            piece(HEADER, ETHERNET),
            piece(HEADER + ETHERNET, rest),
        ]);
        self.transmit.notify();
        self.transmit.wait().map(|_| ())
    }

    fn turn_around(&self, frame: &mut [u8]) {
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&self.mac);
    }

    fn answer_arp(&mut self, frame: &mut [u8]) -> Outcome {
        self.turn_around(frame);
        frame[21] = 2;
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&self.mac);
        frame[28..32].copy_from_slice(&ADDRESS);
        self.send([0; HEADER], &frame[..ETHERNET + 28])
    }

    /// Whether it was something to be answered.
    fn answer_ip(&mut self, frame: &mut [u8]) -> Result<bool, Why> {
        let port = u16::from_be_bytes([frame[36], frame[37]]);
        let mut header = [0; HEADER];
        match (frame[23], frame[34]) {
            (1, 8) => {
                frame[34] = 0;
                frame[36..38].fill(0);
                let length = usize::from(u16::from_be_bytes([frame[16], frame[17]])) + ETHERNET;
                let sum = checksum(&frame[34..length.min(frame.len())], 0);
                frame[36..38].copy_from_slice(&sum.to_be_bytes());
            }
            (17, _) if port == ECHO_PORT => {
                let [a, b, c, d] = [frame[34], frame[35], frame[36], frame[37]];
                frame[34..38].copy_from_slice(&[c, d, a, b]);
                if self.checksums {
                    // The sum of what goes before the datagram is left there for the device.
                    let length = u16::from_be_bytes([frame[38], frame[39]]);
                    let partial = !checksum(&frame[26..34], u32::from(length) + 17);
                    frame[40..42].copy_from_slice(&partial.to_be_bytes());
                    header[0] = 1;
                    header[6] = (ETHERNET + IP) as u8;
                    header[8] = 6;
                }
            }
            _ => return Ok(false),
        }
        self.turn_around(frame);
        frame.copy_within(26..30, 30);
        frame[26..30].copy_from_slice(&ADDRESS);
        self.send(header, frame)?;
        Ok(true)
    }
}

/// The Internet's checksum of `bytes` and of what was summed up before.
pub(super) fn checksum(bytes: &[u8], before: u32) -> u16 {
    let mut sum = before;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
