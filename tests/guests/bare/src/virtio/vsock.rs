//! virtio-vsock: many connections at a time, of which each echoes what it gets, or asks for echoes.

use super::{Buffer, Device, QUEUE_SIZE, Queue, physical};
use crate::cpu;
use crate::ensure;
use crate::failure::{Outcome, Why, why};
use crate::say;
use crate::start_info::StartInfo;

pub(super) const TYPE: u16 = 19;
const HOST: u64 = 2;
const STREAM: u16 = 1;

/// `VIRTIO_VSOCK_OP_*`.
mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

const SHUTDOWN_SEND: u32 = 2;
const SHUTDOWN_BOTH: u32 = 3;

const HEADER: usize = 44;
/// Bytes that a connection takes before it has sent them back.
const ROOM: usize = 2048;
/// Bytes of a receive buffer.
const PACKET: usize = HEADER + ROOM;
/// Connections at a time.
const MOST: usize = 1024;
/// The guest's ports as a client: these and those above.
const FIRST_PORT: u32 = 10_000;

#[repr(C, align(4096))]
struct Buffers {
    input: [[u8; PACKET]; QUEUE_SIZE],
    output: [u8; PACKET],
    event: [u8; 8],
}

static mut BUFFERS: Buffers = Buffers {
    input: [[0; PACKET]; QUEUE_SIZE],
    output: [0; PACKET],
    event: [0; 8],
};

/// One connection.
#[derive(Clone, Copy)]
struct Connection {
    is_open: bool,
    /// The host said yes.
    is_established: bool,
    guest_port: u32,
    host_port: u32,
    /// Bytes that were sent, the host's room, and how much it took of it.
    sent: u32,
    host_room: u32,
    host_taken: u32,
    /// Bytes that came in and were dealt with.
    taken: u32,
    told_taken: u32,
    /// What waits to be echoed.
    held: [u8; ROOM],
    length: usize,
    /// The host will send no more, and was told so in turn.
    is_ending: bool,
    has_ended: bool,
    /// As a client: bytes that came back.
    returned: u64,
}

const CLOSED: Connection = Connection {
    is_open: false,
    is_established: false,
    guest_port: 0,
    host_port: 0,
    sent: 0,
    host_room: 0,
    host_taken: 0,
    taken: 0,
    told_taken: 0,
    held: [0; ROOM],
    length: 0,
    is_ending: false,
    has_ended: false,
    returned: 0,
};

static mut CONNECTIONS: [Connection; MOST] = [CLOSED; MOST];

/// `virtio_vsock_hdr`, as far as it changes.
#[derive(Clone, Copy, Default)]
struct Packet {
    source: u32,
    target: u32,
    length: u32,
    op: u16,
    flags: u32,
    room: u32,
    taken: u32,
}

struct Driver {
    cid: u64,
    input: Queue,
    output: Queue,
}

impl Driver {
    fn open() -> Result<Self, Why> {
        let (device, [mut input, output, mut event]) =
            Device::open_queues(TYPE, 1, None, [0, 1, 2])?;
        let buffers = &raw const BUFFERS;
        for slot in 0..QUEUE_SIZE {
            input.add(&[slot_of(slot)]);
        }
        input.notify();
        event.add(&[Buffer {
            // SAFETY: an address only.
            address: physical(unsafe { &raw const (*buffers).event }),
            length: 8,
            device_writes: true,
        }]);
        event.notify();
        Ok(Self {
            cid: cpu::read::<u32>(device.config).into(),
            input,
            output,
        })
    }

    /// Sends a packet and waits until the device has it.
    fn send(&mut self, packet: Packet, data: &[u8]) -> Outcome {
        let mut header = [0; HEADER];
        let fields: [(usize, &[u8]); 10] = [
            (0, &self.cid.to_le_bytes()),
            (8, &HOST.to_le_bytes()),
            (16, &packet.source.to_le_bytes()),
            (20, &packet.target.to_le_bytes()),
            (24, &(data.len() as u32).to_le_bytes()),
            (28, &STREAM.to_le_bytes()),
            (30, &packet.op.to_le_bytes()),
            (32, &packet.flags.to_le_bytes()),
            (36, &(ROOM as u32).to_le_bytes()),
            (40, &packet.taken.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            header[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let buffers = &raw mut BUFFERS;
        // SAFETY: nothing is under way, and there is room for a header and ROOM bytes.
        let output = unsafe { &mut (*buffers).output };
        output[..HEADER].copy_from_slice(&header);
        output[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.output.add(&[Buffer {
            address: physical(output),
            length: (HEADER + data.len()) as u32,
            device_writes: false,
        }]);
        self.output.notify();
        self.output.wait()?;
        Ok(())
    }

    /// The next packet and its data, if there is one.
    fn receive(&mut self) -> Result<Option<(Packet, [u8; ROOM])>, Why> {
        let Some((slot, length)) = self.input.take() else {
            return Ok(None);
        };
        // SAFETY: the device is done with it.
        let bytes = unsafe { (&raw const BUFFERS.input[usize::from(slot)]).read_volatile() };
        let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|n| bytes[at + n]));
        let packet = Packet {
            source: word(16),
            target: word(20),
            length: word(24),
            op: (word(28) >> 16) as u16,
            flags: word(32),
            room: word(36),
            taken: word(40),
        };
        ensure!(
            length as usize == HEADER + packet.length as usize,
            "a packet of {length} bytes says that it has {} of data",
            packet.length
        );
        ensure!(
            (word(0), word(8)) == (HOST as u32, self.cid as u32),
            "a packet from {} for {}",
            word(0),
            word(8)
        );
        let mut data = [0; ROOM];
        data.copy_from_slice(&bytes[HEADER..]);
        self.input.add(&[slot_of(usize::from(slot))]);
        self.input.notify();
        Ok(Some((packet, data)))
    }
}

fn slot_of(slot: usize) -> Buffer {
    Buffer {
        address: physical(&raw const BUFFERS) + (slot * PACKET) as u64,
        length: PACKET as u32,
        device_writes: true,
    }
}

fn connections() -> &'static mut [Connection; MOST] {
    let connections = &raw mut CONNECTIONS;
    // SAFETY: one processor runs this, and asks anew at each step.
    unsafe { &mut *connections }
}

fn find(packet: &Packet) -> Option<usize> {
    connections().iter().position(|connection| {
        connection.is_open
            && (connection.guest_port, connection.host_port) == (packet.target, packet.source)
    })
}

impl Connection {
    fn packet(&mut self, op: u16, flags: u32) -> Packet {
        self.told_taken = self.taken;
        Packet {
            source: self.guest_port,
            target: self.host_port,
            op,
            flags,
            taken: self.taken,
            ..Packet::default()
        }
    }

    fn credit(&self) -> usize {
        let under_way = self.sent.wrapping_sub(self.host_taken);
        self.host_room.saturating_sub(under_way) as usize
    }

    fn hear(&mut self, packet: &Packet) {
        self.host_room = packet.room;
        self.host_taken = packet.taken;
    }
}

/// As a server: takes every connection and sends back what comes, until `connections` (1) have come
/// and gone. Says how many there were at a time.
pub fn test_server(info: &StartInfo) -> Outcome {
    let wanted = info.number("connections", 1);
    let mut driver = Driver::open()?;
    say!("vsock cid {}", driver.cid);
    let (mut open, mut most, mut gone) = (0_u64, 0, 0);
    while gone < wanted {
        let Some((packet, data)) = driver.receive()? else {
            core::hint::spin_loop();
            continue;
        };
        let found = find(&packet);
        let index = match (packet.op, found) {
            (op::REQUEST, None) => {
                let free = connections()
                    .iter()
                    .position(|connection| !connection.is_open);
                let index = free.ok_or_else(|| why(format_args!("too many connections")))?;
                connections()[index] = Connection {
                    is_open: true,
                    is_established: true,
                    guest_port: packet.target,
                    host_port: packet.source,
                    ..CLOSED
                };
                open += 1;
                most = most.max(open);
                index
            }
            (op::RST, None) => continue,
            (_, Some(index)) => index,
            (op, None) => return Err(why(format_args!("packet {op} of no connection"))),
        };
        let connection = &mut connections()[index];
        connection.hear(&packet);
        match packet.op {
            op::REQUEST => {
                let response = connection.packet(op::RESPONSE, 0);
                driver.send(response, b"")?;
            }
            op::RST => {
                connection.is_open = false;
                open -= 1;
                gone += 1;
                continue;
            }
            op::SHUTDOWN => connection.is_ending |= packet.flags & SHUTDOWN_SEND != 0,
            op::CREDIT_REQUEST => {
                let update = connection.packet(op::CREDIT_UPDATE, 0);
                driver.send(update, b"")?;
            }
            op::RW => {
                let length = packet.length as usize;
                ensure!(
                    connection.length + length <= ROOM,
                    "more bytes than there is room for"
                );
                connection.held[connection.length..][..length].copy_from_slice(&data[..length]);
                connection.length += length;
            }
            _ => {}
        }
        echo(&mut driver, connection)?;
    }
    say!("vsock had {most} connections at a time");
    Ok(())
}

/// Sends back what is held, as far as the host has room, and then the end.
fn echo(driver: &mut Driver, connection: &mut Connection) -> Outcome {
    let length = connection.length.min(connection.credit());
    if length > 0 {
        let held = connection.held;
        connection.taken = connection.taken.wrapping_add(length as u32);
        connection.sent = connection.sent.wrapping_add(length as u32);
        let packet = connection.packet(op::RW, 0);
        driver.send(packet, &held[..length])?;
        connection.held.copy_within(length.., 0);
        connection.length -= length;
    }
    if connection.is_ending && connection.length == 0 && !connection.has_ended {
        connection.has_ended = true;
        let packet = connection.packet(op::SHUTDOWN, SHUTDOWN_BOTH);
        driver.send(packet, b"")?;
    }
    Ok(())
}

/// As a client: opens `connections` (1) to `port` (1234) of the host's, all of them at a time, sends
/// `bytes` (1000) on each, 2048 at most, and looks whether they come back.
pub fn test_client(info: &StartInfo) -> Outcome {
    let wanted = (info.number("connections", 1) as usize).min(MOST);
    let bytes = (info.number("bytes", 1000) as usize).min(ROOM);
    let port = info.number("port", 1234) as u32;
    let mut driver = Driver::open()?;
    for index in 0..wanted {
        let connection = &mut connections()[index];
        *connection = Connection {
            is_open: true,
            guest_port: FIRST_PORT + index as u32,
            host_port: port,
            ..CLOSED
        };
        let request = connection.packet(op::REQUEST, 0);
        driver.send(request, b"")?;
        listen(&mut driver, bytes)?;
    }
    wait_for(
        &mut driver,
        bytes,
        "established",
        |connection| connection.is_established,
        wanted,
    )?;
    say!("vsock established {wanted}");
    for index in 0..wanted {
        let connection = &mut connections()[index];
        ensure!(connection.credit() >= bytes, "no credit for {bytes} bytes");
        let data: [u8; ROOM] = core::array::from_fn(|at| pattern(index, at));
        connection.sent = bytes as u32;
        let packet = connection.packet(op::RW, 0);
        driver.send(packet, &data[..bytes])?;
        listen(&mut driver, bytes)?;
    }
    wait_for(
        &mut driver,
        bytes,
        "returned",
        |connection| connection.returned == bytes as u64,
        wanted,
    )?;
    for index in 0..wanted {
        let packet = connections()[index].packet(op::SHUTDOWN, SHUTDOWN_BOTH);
        driver.send(packet, b"")?;
        listen(&mut driver, bytes)?;
    }
    wait_for(
        &mut driver,
        bytes,
        "closed",
        |connection| !connection.is_open,
        wanted,
    )
}

/// What is sent at this place of this connection.
fn pattern(connection: usize, at: usize) -> u8 {
    (connection * 31 + at * 7 + (at >> 8)) as u8
}

fn wait_for(
    driver: &mut Driver,
    bytes: usize,
    what: &str,
    is_so: impl Fn(&Connection) -> bool,
    wanted: usize,
) -> Outcome {
    let mut failed = Ok(());
    let count = || {
        connections()[..wanted]
            .iter()
            .filter(|it| is_so(it))
            .count()
    };
    let done = cpu::wait_until(|| {
        failed = listen(driver, bytes);
        failed.is_err() || count() == wanted
    });
    failed?;
    ensure!(done, "only {} of {wanted} are {what}", count());
    Ok(())
}

/// Takes every packet that is there.
fn listen(driver: &mut Driver, bytes: usize) -> Outcome {
    while let Some((packet, data)) = driver.receive()? {
        let Some(index) = find(&packet) else {
            ensure!(
                packet.op == op::RST,
                "packet {} of no connection",
                packet.op
            );
            continue;
        };
        let connection = &mut connections()[index];
        connection.hear(&packet);
        match packet.op {
            op::RESPONSE => connection.is_established = true,
            op::RST => {
                let over = connection.returned == bytes as u64;
                ensure!(over, "connection {index} is refused or cut off");
                connection.is_open = false;
            }
            op::RW => {
                for (n, byte) in data[..packet.length as usize].iter().enumerate() {
                    let at = connection.returned as usize + n;
                    let wanted = pattern(index, at);
                    ensure!(
                        *byte == wanted,
                        "byte {at} of connection {index} is {byte:#x}"
                    );
                }
                connection.returned += u64::from(packet.length);
                connection.taken = connection.taken.wrapping_add(packet.length);
            }
            op::CREDIT_REQUEST => {
                let update = connection.packet(op::CREDIT_UPDATE, 0);
                driver.send(update, b"")?;
            }
            _ => {}
        }
    }
    Ok(())
}
