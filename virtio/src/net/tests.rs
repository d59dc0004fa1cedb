mod control;
mod limits;
mod link;
mod receiving;
mod sending;
mod survival;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::num::NonZeroU64;

use caraway_devices::{FakeClock, FakeTimer, Lifecycle, Rate, state_tests};
use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

/// Queues of a card with one pair.
const RX: u16 = 0;
const TX: u16 = 1;
const CONTROL: u16 = 2;

const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const SECOND: Nanos = 1_000_000_000;

/// A host's end that a test turns by hand.
#[derive(Default)]
struct Host {
    coming: VecDeque<(Header, Vec<u8>)>,
    sent: Vec<(Header, Vec<u8>)>,
    room: usize,
    fails: Option<ErrorKind>,
    guest: Offloads,
    used: bool,
    link: Vec<bool>,
    /// A part of the last frame has had no room.
    unfinished: bool,
}

impl Host {
    fn frames(&self) -> Vec<Vec<u8>> {
        self.sent.iter().map(|(_, frame)| frame.clone()).collect()
    }
}

struct End {
    host: Arc<Mutex<Host>>,
    offloads: Offloads,
}

impl Backend for End {
    fn offloads(&self) -> Offloads {
        self.offloads
    }
    fn set_offloads(&mut self, guest: Offloads) {
        self.host.lock().guest = guest;
    }
    fn set_used(&mut self, used: bool) {
        self.host.lock().used = used;
    }
    fn set_link(&mut self, up: bool) {
        self.host.lock().link.push(up);
    }
    fn flush(&mut self) -> io::Result<()> {
        let mut host = self.host.lock();
        if host.unfinished && host.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        host.unfinished = false;
        Ok(())
    }
    fn send(&mut self, header: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let mut host = self.host.lock();
        if let Some(kind) = host.fails {
            return Err(kind.into());
        }
        host.room = host.room.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        host.sent.push((header, gather(frame)));
        Ok(())
    }
    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)> {
        let mut host = self.host.lock();
        if let Some(kind) = host.fails {
            return Err(kind.into());
        }
        let (header, frame) = host.coming.pop_front().ok_or(ErrorKind::WouldBlock)?;
        scatter(&frame, room, spill);
        Ok((header, frame.len()))
    }
}

/// A card with its host's ends, and time.
struct Bench {
    hosts: Vec<Arc<Mutex<Host>>>,
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
    lost: Arc<Mutex<Vec<ErrorKind>>>,
}

fn bench_with(pairs: usize, offloads: Offloads, limits: [Limits; 2]) -> (Net, Bench) {
    let bench = Bench {
        hosts: (0..pairs).map(|_| Arc::default()).collect(),
        clock: FakeClock::new(0),
        timer: FakeTimer::new(),
        lost: Arc::default(),
    };
    let end = |host: &Arc<Mutex<Host>>| {
        host.lock().room = usize::MAX;
        let host = host.clone();
        Box::new(End { host, offloads }) as Box<dyn Backend>
    };
    let lost = bench.lost.clone();
    let [receive, transmit] = limits;
    let net = Net::new(NetConfig {
        mac: MAC,
        mtu: Some(1400),
        backends: bench.hosts.iter().map(end).collect(),
        receive,
        transmit,
        clock: bench.clock.clone(),
        timer: bench.timer.clone(),
        lost: Box::new(move |error| lost.lock().push(error.kind())),
    });
    (net, bench)
}

fn net(pairs: usize) -> Net {
    bench_with(pairs, Offloads::ALL, [Limits::default(); 2]).0
}

/// A card that a driver with these features has set up.
fn ready_for(wanted: u64) -> (Machine<Net>, Bench) {
    let (net, bench) = bench_with(1, Offloads::ALL, [Limits::default(); 2]);
    let mut machine = Machine::new(net);
    machine.probe(wanted);
    (machine, bench)
}

fn ready() -> (Machine<Net>, Bench) {
    ready_for(u64::MAX)
}

const NO_MERGING: u64 = !feature::MRG_RXBUF;

/// A frame to `target` of `length` bytes.
fn frame(target: Mac, length: usize) -> Vec<u8> {
    let rest = (6..length).map(|at| (at % 251) as u8);
    target.into_iter().chain(rest).collect()
}

fn comes(bench: &Bench, frame: Vec<u8>) {
    let frame = (Header::default(), frame);
    bench.hosts[0].lock().coming.push_back(frame);
}

/// Gives the device `count` buffers of `length` bytes each, one after the other.
fn give(machine: &mut Machine<Net>, count: u64, length: u32) {
    for _ in 0..count {
        let next = u64::from(machine.queues[0].next_avail);
        let at = BUFFERS + next * u64::from(length);
        machine.submit(RX, &[writable(at, length)]);
    }
    machine.notify(RX);
}

/// What the driver received: the number of buffers that each header tells, and the frame.
fn received(machine: &mut Machine<Net>, length: u32) -> Vec<(u16, Vec<u8>)> {
    let mut used = machine.used(RX).into_iter();
    let mut frames = Vec::new();
    while let Some((head, written)) = used.next() {
        let read = |head: u32, written: u32| {
            let mut bytes = vec![0; written as usize];
            let at = BUFFERS + u64::from(head * length);
            vm_memory::Bytes::read_slice(&machine.memory, &mut bytes, vm_memory::GuestAddress(at))
                .unwrap();
            bytes
        };
        let mut bytes = read(head, written);
        let count = u16::from_le_bytes([bytes[10], bytes[11]]);
        for _ in 1..count {
            let (head, written) = used.next().expect("the rest of a frame");
            bytes.extend(read(head, written));
        }
        frames.push((count, bytes[Header::SIZE..].to_vec()));
    }
    frames
}

/// Has the driver send a frame with this header, in pieces.
fn send(machine: &mut Machine<Net>, header: [u8; 12], frame: &[u8], pieces: usize) {
    let at = BUFFERS + 0x8_0000 + 0x800 * u64::from(machine.queues[1].next_avail % 64);
    machine.put(at, &[&header[..], frame].concat());
    let total = 12 + frame.len();
    let piece = total.div_ceil(pieces);
    let chain: Vec<_> = (0..total)
        .step_by(piece)
        .map(|start| readable(at + start as u64, piece.min(total - start) as u32))
        .collect();
    machine.submit(TX, &chain);
}

fn command(machine: &mut Machine<Net>, bytes: &[u8]) -> u8 {
    let at = BUFFERS + 0x10_0000;
    machine.put(at, bytes);
    machine.put(at + 0x1000, &[0xee]);
    let chain = [readable(at, bytes.len() as u32), writable(at + 0x1000, 1)];
    machine.submit(CONTROL, &chain);
    machine.notify(CONTROL);
    machine.used(CONTROL);
    machine.get::<1>(at + 0x1000)[0]
}

state_tests!(
    state,
    Arc::into_inner(Machine::new(net(2)).pci).unwrap(),
    |pci: &mut VirtioPci<Net>| {
        let net = pci.device();
        let mut state = net.save();
        state.mac = [2; 6];
        state.pairs = 2;
        state.offloads = Some(Offloads::NONE);
        state.filter.set_mode(0, false);
        net.restore(state).unwrap();
    }
);

#[test]
fn a_driver_reads_address_link_pairs_and_mtu() {
    let machine = Machine::ready(net(2));

    let space: Vec<u8> = (0..12).map(|at| machine.read8(reg::DEVICE + at)).collect();

    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 2, 0, 0x78, 5]);
}

#[test]
fn a_host_that_can_do_nothing_offers_nothing() {
    let (net, _) = bench_with(1, Offloads::NONE, [Limits::default(); 2]);

    let offered = net.features();

    let all = features_of(Offloads::ALL, &feature::HOST) | feature::GUEST_OFFLOADS;
    assert_eq!(offered & (all | feature::CTRL_GUEST_OFFLOADS), 0);
}
