//! The virtio socket device between a driver of no good will and programs that come and go.
//!
//! Checked: bytes reach the connection that they are for and no other, either way; what a packet says
//! of its length is so; nothing is left of connections after a reset; memory is bounded.

#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use caraway_devices::{FakeClock, FakeTimer, Lifecycle};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::virtio::{BUFFERS, Driver};
use caraway_virtio::Vsock;
use caraway_virtio::vsock::{ConnectionId, Host, HostStream, Readiness};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes of our side: a buffer for each of the few connections that an input can make, and scratch.
const MOST_MEMORY: usize = 8 << 20;

const CID: u64 = 3;
const HEADER: usize = 44;
const RX: u16 = 0;
const TX: u16 = 1;
const EVENT: u16 = 2;
/// Bytes of the buffers for packets to the guest, of which there are 16.
const ROOM: u64 = 4096;
/// Where what the guest sends is.
const SENT: u64 = BUFFERS + 16 * ROOM;
/// Where buffers for events are.
const EVENTS: u64 = SENT + 0x8000;
/// The most data that it sends in a packet.
const MOST_DATA: usize = 20_000;

/// The other end of a stream, all of whose bytes are the same both ways.
#[derive(Default)]
struct End {
    /// The guest's port, from which every byte follows; none until a byte came.
    byte: Option<u8>,
    to_guest: usize,
    room: usize,
    is_ended: bool,
    is_broken: bool,
}

/// All streams, and whether the guest's chains were sound: else its bytes may be any.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<HashMap<ConnectionId, End>>>, Arc<AtomicBool>);

struct Stream(Ends, ConnectionId);

impl Ends {
    fn with<T>(&self, id: ConnectionId, act: impl FnOnce(&mut End) -> T) -> T {
        act(self.0.lock().expect("no panic").entry(id).or_default())
    }

    fn open(&self, id: ConnectionId, byte: Option<u8>) -> Box<dyn HostStream> {
        self.with(id, |end| end.byte = byte);
        Box::new(Stream(self.clone(), id))
    }

    fn has(&self, id: ConnectionId) -> bool {
        self.0.lock().expect("no panic").contains_key(&id)
    }

    fn ids(&self) -> Vec<ConnectionId> {
        let ends = self.0.lock().expect("no panic");
        let mut ids: Vec<_> = ends.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.with(self.1, |end| {
            let Some(byte) = end.byte.filter(|_| end.to_guest > 0) else {
                return match (end.is_broken, end.is_ended) {
                    (true, _) => Err(ErrorKind::ConnectionReset.into()),
                    (_, true) => Ok(0),
                    _ => Err(ErrorKind::WouldBlock.into()),
                };
            };
            let count = end.to_guest.min(buffer.len());
            end.to_guest -= count;
            buffer[..count].fill(byte);
            Ok(count)
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_wild = self.0.1.load(Ordering::Relaxed);
        self.0.with(self.1, |end| {
            if end.is_broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let count = end.room.min(bytes.len());
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            end.room -= count;
            let wanted = *end.byte.get_or_insert(bytes[0]);
            let foreign = bytes[..count].iter().find(|byte| **byte != wanted);
            assert!(
                is_wild || foreign.is_none(),
                "{foreign:?} of another connection, not {wanted}"
            );
            Ok(count)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HostStream for Stream {
    fn accepted(&mut self, _: u32) -> io::Result<()> {
        match self.0.with(self.1, |end| end.is_broken) {
            true => Err(ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    fn shutdown(&mut self, _: Shutdown) {}
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.0.lock().expect("no panic").remove(&self.1);
    }
}

impl Host for Ends {
    fn connect(&mut self, port: u32, id: ConnectionId) -> io::Result<Box<dyn HostStream>> {
        match port {
            0 => Err(ErrorKind::ConnectionRefused.into()),
            _ => Ok(self.open(id, None)),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

struct Guest {
    driver: Driver<Vsock>,
    device: Arc<Vsock>,
    ends: Ends,
    clock: Arc<FakeClock>,
    /// The host's ports of its own connections, by the guest's.
    asked: BTreeMap<u32, u32>,
    /// Buffers in the order in which they were given.
    given: u64,
}

fn drive(mut dice: Dice<'_>) {
    let (ends, clock) = (Ends::default(), FakeClock::new(0));
    let vsock = Vsock::new(CID as u32, ends.clone(), clock.clone(), FakeTimer::new());
    let device = Arc::new(vsock);
    let mut guest = Guest {
        driver: Driver::new(Arc::clone(&device), 1),
        device,
        ends,
        clock,
        asked: BTreeMap::new(),
        given: 0,
    };
    while !dice.is_over() {
        match dice.up_to(9) {
            0..4 => guest.send(&mut dice),
            4 | 5 => guest.listen(&mut dice),
            6 | 7 => guest.stir(&mut dice),
            8 => guest.connect(&mut dice),
            _ => guest.disturb(&mut dice),
        }
        if guest.driver.recover() {
            guest.given = 0;
        }
    }
    guest.driver.set_up();
    assert!(guest.ends.ids().is_empty(), "a stream survives a reset");
    assert_eq!(guest.device.counts().connections, 0);
}

/// The byte of all data of a connection of this port of the guest's.
fn byte_of(port: u32) -> u8 {
    port as u8
}

impl Guest {
    /// Sends a packet, mostly a sound one of a connection that there is.
    fn send(&mut self, dice: &mut Dice<'_>) {
        let guest_port = dice.up_to(5) as u32;
        let host_port = match self.asked.get(&guest_port) {
            Some(port) if dice.flip() => *port,
            _ => dice.up_to(3) as u32,
        };
        let op = dice.pick(&[1, 5, 5, 5, 2, 4, 6, 7, 3]);
        let length = match op {
            5 => dice.up_to(MOST_DATA),
            _ => 0,
        };
        let flags = dice.up_to(3) as u64;
        let room = dice.pick(&[1 << 16, 100, 0, u64::from(u32::MAX)]);
        let taken = dice.field();
        let mut header = Vec::new();
        for (value, size) in [
            (dice.mostly(CID), 8),
            (dice.mostly(2), 8),
            (guest_port.into(), 4),
            (host_port.into(), 4),
            (dice.mostly(length as u64), 4),
            (dice.mostly(1), 2),
            (dice.mostly(op), 2),
            (flags, 4),
            (room, 4),
            (taken, 4),
        ] {
            header.extend(&value.to_le_bytes()[..size]);
        }
        self.driver.put(SENT, &header);
        // More than is sent, for a length that is wrong.
        let data = vec![byte_of(guest_port); MOST_DATA + 256];
        self.driver.put(SENT + HEADER as u64, &data);
        let split = dice.up_to(length) as u32;
        let rest = SENT + HEADER as u64 + u64::from(split);
        let segments = [
            (SENT, HEADER as u32 + split, false),
            (rest, length as u32 - split, false),
        ];
        if self.driver.under_way(TX) < 8 {
            let is_sound = self.driver.submit(dice, TX, &segments);
            self.ends.1.store(!is_sound, Ordering::Relaxed);
        }
        self.driver.pci.process_queue(TX);
        if self.ends.1.load(Ordering::Relaxed) {
            return self.start_again();
        }
        while self.driver.used(TX).is_some() {}
    }

    /// Gives buffers, and looks at what came in those given before.
    fn listen(&mut self, dice: &mut Dice<'_>) {
        let mut sound = true;
        for _ in 0..dice.up_to(8) {
            if self.driver.under_way(RX) < 16 {
                let at = BUFFERS + ROOM * (self.given % 16);
                sound &= self.driver.submit(dice, RX, &[(at, ROOM as u32, true)]);
                self.given += 1;
            }
        }
        self.driver.pci.process_queue(RX);
        if !sound {
            return self.start_again();
        }
        while let Some((head, len)) = self.driver.used(RX) {
            let at = BUFFERS + ROOM * u64::from(head % 16);
            let packet = self.driver.get(at, len as usize);
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| packet[at + n]));
            assert_eq!(word(24) as usize + HEADER, packet.len());
            let (host_port, guest_port) = (word(16), word(20));
            if word(28) >> 16 == 1 {
                self.asked.insert(guest_port, host_port);
            }
            let wanted = byte_of(guest_port);
            let foreign = packet[HEADER..].iter().find(|byte| **byte != wanted);
            assert_eq!(foreign, None, "a byte of another connection, not {wanted}");
        }
    }

    /// Sets the device up again: what was damaged may be anywhere.
    fn start_again(&mut self) {
        self.driver.set_up();
        self.given = 0;
        self.ends.1.store(false, Ordering::Relaxed);
    }

    /// Has the host's ends do something.
    fn stir(&mut self, dice: &mut Dice<'_>) {
        for id in self.ends.ids() {
            // What the others were told may have ended it.
            if !self.ends.has(id) {
                continue;
            }
            self.ends.with(id, |end| {
                end.room += dice.up_to(40_000);
                end.to_guest = (end.to_guest + dice.up_to(40_000)).min(1 << 20);
                end.is_ended |= dice.rarely();
                end.is_broken |= dice.rarely();
            });
            let ready = Readiness {
                readable: dice.flip(),
                writable: dice.flip(),
                hung_up: dice.rarely(),
            };
            self.device.ready([(id, ready)]);
        }
    }

    fn connect(&mut self, dice: &mut Dice<'_>) {
        let port = dice.up_to(5) as u32;
        let ends = self.ends.clone();
        let made = self
            .device
            .connect(port, |id| Ok(ends.open(id, Some(byte_of(port)))));
        assert!(made.is_ok(), "{made:?}");
    }

    /// Lets time pass, takes a snapshot and goes on from it, or gives a buffer for events.
    fn disturb(&mut self, dice: &mut Dice<'_>) {
        match dice.up_to(2) {
            0 => {
                self.clock.advance(dice.number() % 10_000_000_000);
                self.device.expired();
            }
            1 => {
                let saved = Lifecycle::save(&*self.driver.pci).expect("it can be saved");
                Lifecycle::restore(&*self.driver.pci, &saved).expect("its own state is sound");
                assert!(self.ends.ids().is_empty(), "a stream survives a snapshot");
                self.driver.pci.process_queue(EVENT);
            }
            _ => {
                let mut is_sound = true;
                if self.driver.under_way(EVENT) < 16 {
                    is_sound = self.driver.submit(dice, EVENT, &[(EVENTS, 8, true)]);
                }
                self.driver.pci.process_queue(EVENT);
                if !is_sound {
                    return self.start_again();
                }
                while self.driver.used(EVENT).is_some() {}
            }
        }
    }
}
