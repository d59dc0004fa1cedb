//! A network card between a driver of no good will and hosts that come and go.
//!
//! Checked: each frame that arrives, either way, is one that was sent, whole and in its turn; neither
//! side is asked for work that was not agreed on; a sound driver never breaks the device; whatever
//! happened, a reset and a cable make it work again; memory is bounded.

#![no_main]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use caraway_devices::{FakeClock, FakeTimer, Lifecycle, Rate};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::virtio::{BUFFERS, Driver, Segment};
use caraway_virtio::net::{Backend, Header, LONGEST, Limits, Offloads, gather, scatter};
use caraway_virtio::{Net, NetConfig, VirtioDevice};
use libfuzzer_sys::fuzz_target;
use vm_memory::VolatileSlice;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes of our side that an input may take: scratch for the longest frames of two pairs, and what the
/// hosts hold.
const MOST_MEMORY: usize = 2 << 20;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];
/// Bytes of the header before each frame, of a buffer's place, and of the places of a queue.
const HEADER: usize = 12;
const PLACE: u64 = 0x1000;
const PLACES: u64 = 8 * PLACE;
/// Where commands are.
const COMMAND: u64 = BUFFERS + 4 * PLACES;
/// Frames that wait at a host.
const WAITING: usize = 6;
/// Chains under way in a queue: each has three descriptors at most.
const UNDER_WAY: u16 = 5;

mod feature {
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const MQ: u64 = 1 << 22;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const HOST_CSUM: u64 = 1 << 0;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
}

/// What a frame is made from.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    target: [u8; 6],
    length: usize,
}

impl Recipe {
    /// The frame number `number` of its direction.
    fn frame(self, number: usize) -> Vec<u8> {
        let rest = (0..).map(|at: usize| (at * 7 + number * 31) as u8);
        let bytes = self.target.into_iter();
        let bytes = bytes.chain((number as u32).to_le_bytes()).chain(rest);
        bytes.take(self.length).collect()
    }
}

/// Frames of one direction as they were sent, of which some may be lost and none comes twice.
#[derive(Default)]
struct Flow {
    sent: Vec<Recipe>,
    arrived: usize,
}

impl Flow {
    fn send(&mut self, recipe: Recipe) -> Vec<u8> {
        self.sent.push(recipe);
        recipe.frame(self.sent.len() - 1)
    }

    fn arrive(&mut self, frame: &[u8]) {
        let number = frame[6..10].try_into().map(u32::from_le_bytes);
        let number = number.expect("four bytes") as usize;
        assert!(number >= self.arrived, "frame {number} comes late or twice");
        let recipe = self.sent.get(number).copied();
        let wanted = recipe.map(|recipe| recipe.frame(number));
        assert!(
            wanted.as_deref() == Some(frame),
            "frame {number} is another"
        );
        self.arrived = number + 1;
    }
}

/// The host's end of a pair.
#[derive(Default)]
struct Host {
    coming: VecDeque<Vec<u8>>,
    went: Vec<(Header, Vec<u8>)>,
    /// Frames that it has room for.
    room: usize,
    is_gone: bool,
    refuses: bool,
    /// It begins what it has no room for, and can take no other frame until there is.
    unfinished: bool,
}

struct End(Arc<Mutex<Host>>, Offloads);

impl End {
    fn host(&self) -> io::Result<MutexGuard<'_, Host>> {
        let host = self.0.lock().expect("no panic");
        match (host.is_gone, host.refuses) {
            (true, _) => Err(ErrorKind::ConnectionReset.into()),
            (_, true) => Err(ErrorKind::InvalidInput.into()),
            _ => Ok(host),
        }
    }
}

impl Backend for End {
    fn offloads(&self) -> Offloads {
        self.1
    }
    fn set_offloads(&mut self, _: Offloads) {}
    fn set_used(&mut self, _: bool) {}

    fn flush(&mut self) -> io::Result<()> {
        let mut host = self.host()?;
        if host.unfinished && host.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        host.unfinished = false;
        Ok(())
    }

    fn send(&mut self, header: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        let length = frame.iter().map(VolatileSlice::len).sum::<usize>();
        assert!(length <= LONGEST, "a frame of {length} bytes");
        let mut host = self.host()?;
        if host.unfinished {
            return Err(ErrorKind::WouldBlock.into());
        }
        host.room = host.room.checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        host.unfinished = host.room == 0;
        host.went.push((header, gather(frame)));
        Ok(())
    }

    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)> {
        let mut host = self.host()?;
        let frame = host.coming.pop_front().ok_or(ErrorKind::WouldBlock)?;
        scatter(&frame, room, spill);
        // Its checksums are good.
        let header = Header::from_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        Ok((header, frame.len()))
    }
}

/// A pair of queues from the driver's side.
struct Pair {
    host: Arc<Mutex<Host>>,
    receive: u16,
    transmit: u16,
    to_guest: Flow,
    to_host: Flow,
    /// Pieces of the buffers under way, by their chain's head.
    given: [Vec<Segment>; 16],
    /// Buffers and frames of the driver, so far.
    buffers: u64,
    frames: u64,
}

struct Guest {
    driver: Driver<Net>,
    device: Arc<Net>,
    clock: Arc<FakeClock>,
    offloads: Offloads,
    features: u64,
    pairs: Vec<Pair>,
    control: u16,
    /// Ends that were told as gone, and those that were.
    told: Arc<AtomicUsize>,
    gone: usize,
}

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn drive(mut dice: Dice<'_>) {
    let mut guest = Guest::new(&mut dice);
    while !dice.is_over() {
        let pair = dice.up_to(guest.pairs.len() - 1);
        let is_sound = match dice.up_to(9) {
            0..3 => guest.give(&mut dice, pair),
            3..5 => guest.come(&mut dice, pair),
            5..8 => guest.send(&mut dice, pair),
            8 => guest.command(&mut dice),
            _ => guest.disturb(&mut dice, pair),
        };
        guest.look(is_sound);
    }
    guest.finish();
}

impl Guest {
    fn new(dice: &mut Dice<'_>) -> Self {
        let offloads = dice.pick(&[Offloads::ALL, Offloads::NONE]);
        let count = dice.pick(&[1, 2]);
        let features = dice.pick(&[
            u64::MAX,
            !feature::MRG_RXBUF,
            !feature::MQ,
            feature::MRG_RXBUF,
            !(feature::HOST_TSO4 | feature::HOST_ECN | feature::GUEST_CSUM),
            0,
        ]);
        let limits = |dice: &mut Dice<'_>| {
            let rate = NonZeroU64::new(50_000).zip(NonZeroU64::new(5000));
            let rate = rate.map(|(per_second, burst)| Rate { per_second, burst });
            Limits {
                bytes: rate.filter(|_| dice.rarely()),
                packets: rate.filter(|_| dice.rarely()),
            }
        };
        let (receive, transmit) = (limits(dice), limits(dice));
        let hosts: Vec<_> = (0..count).map(|_| host()).collect();
        let ends = hosts.iter().map(|host| {
            let host = Arc::clone(host);
            Box::new(End(host, offloads)) as Box<dyn Backend>
        });
        let (clock, timer) = (FakeClock::new(0), FakeTimer::new());
        let told = Arc::<AtomicUsize>::default();
        let heard = Arc::clone(&told);
        let device = Arc::new(Net::new(NetConfig {
            mac: MAC,
            mtu: Some(1500).filter(|_| dice.flip()),
            backends: ends.collect(),
            receive,
            transmit,
            clock: clock.clone(),
            timer,
            lost: Box::new(move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            }),
        }));
        let features = features & device.features();
        let driver = Driver::new(Arc::clone(&device), features);
        let pairs = hosts.into_iter().zip(0..).map(|(host, index)| Pair {
            host,
            receive: 2 * index,
            transmit: 2 * index + 1,
            to_guest: Flow::default(),
            to_host: Flow::default(),
            given: Default::default(),
            buffers: 0,
            frames: 0,
        });
        // Without the agreement to several pairs, the queues of others are none.
        let usable = if features & feature::MQ == 0 {
            1
        } else {
            count
        };
        Self {
            driver,
            device,
            clock,
            offloads,
            features,
            pairs: pairs.take(usable).collect(),
            control: 2 * usable as u16,
            told,
            gone: 0,
        }
    }

    /// Gives buffers for frames; whether they are sound.
    fn give(&mut self, dice: &mut Dice<'_>, pair: usize) -> bool {
        let pair = &mut self.pairs[pair];
        let mut is_sound = true;
        for _ in 0..=dice.up_to(3) {
            if self.driver.under_way(pair.receive) >= UNDER_WAY {
                break;
            }
            let at = place(pair.receive, pair.buffers);
            pair.buffers += 1;
            let length = dice.pick(&[2048, 64, 300, 1526, 4096, 24]);
            let first = dice.up_to(length).min(length - 1);
            let both = [
                (at, first as u32, true),
                (at + first as u64, (length - first) as u32, true),
            ];
            // The device calls for no empty pieces.
            let segments = if first == 0 { &both[1..] } else { &both[..] };
            let head = usize::from(self.driver.next_head(pair.receive));
            is_sound &= self.driver.submit(dice, pair.receive, segments);
            pair.given[head] = segments.to_vec();
        }
        self.driver.pci.process_queue(pair.receive);
        is_sound
    }

    /// Frames come to the host.
    fn come(&mut self, dice: &mut Dice<'_>, index: usize) -> bool {
        let pair = &mut self.pairs[index];
        for _ in 0..=dice.up_to(2) {
            let mut host = pair.host.lock().expect("no panic");
            if host.coming.len() >= WAITING {
                break;
            }
            let recipe = Recipe {
                target: dice.pick(&[MAC, EVERYBODY, [4; 6], [1, 0, 0x5e, 0, 0, 1]]),
                length: match dice.rarely() {
                    true => dice.pick(&[10, LONGEST, 20_000]),
                    false => 10 + dice.up_to(2000),
                },
            };
            host.coming.push_back(pair.to_guest.send(recipe));
        }
        self.device.serve_pair(index);
        true
    }

    /// Sends frames; whether their chains are sound.
    fn send(&mut self, dice: &mut Dice<'_>, index: usize) -> bool {
        let pair = &mut self.pairs[index];
        let mut is_sound = true;
        for _ in 0..=dice.up_to(2) {
            if self.driver.under_way(pair.transmit) >= UNDER_WAY {
                break;
            }
            let at = place(pair.transmit, pair.frames);
            pair.frames += 1;
            let mut header = [0; HEADER];
            if dice.rarely() {
                (header[0], header[1]) = (dice.pick(&[1, 0, 0xff]), dice.pick(&[1, 4, 0x81, 3]));
            }
            let recipe = Recipe {
                target: EVERYBODY,
                length: 10 + dice.up_to(3000),
            };
            let frame = pair.to_host.send(recipe);
            self.driver.put(at, &[&header[..], &frame].concat());
            let total = HEADER + frame.len();
            let first = dice.up_to(total);
            let second = dice.up_to(total - first);
            let mut from = at;
            let pieces = [first, second, total - first - second].map(|length| {
                let start = from;
                from += length as u64;
                (start, length as u32, false)
            });
            let pieces: Vec<_> = pieces.into_iter().filter(|piece| piece.1 > 0).collect();
            is_sound &= self.driver.submit(dice, pair.transmit, &pieces);
        }
        self.driver.pci.process_queue(pair.transmit);
        is_sound
    }

    /// Gives a command; whether its chain is sound.
    fn command(&mut self, dice: &mut Dice<'_>) -> bool {
        let mut command = dice
            .pick(&[
                &[0_u8, 0, 0][..],
                &[0, 1, 1],
                &[0, 4, 1],
                &[1, 0, 1, 0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0],
                &[1, 1, 4, 4, 4, 4, 4, 4],
                &[4, 0, 2, 0],
                &[4, 0, 1, 0],
                &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
                &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ])
            .to_vec();
        if dice.rarely() {
            let at = dice.up_to(command.len() - 1);
            command[at] = dice.byte();
        }
        self.driver.put(COMMAND, &command);
        let answer = COMMAND + 0x100;
        self.driver.put(answer, &[0xee]);
        let chain = [(COMMAND, command.len() as u32, false), (answer, 1, true)];
        let is_sound = self.driver.submit(dice, self.control, &chain);
        self.driver.pci.process_queue(self.control);
        if is_sound {
            let done = self.driver.used(self.control).map(|(_, written)| written);
            assert_eq!(done, Some(1), "{command:?} is not answered");
            let answer = self.driver.get(answer, 1)[0];
            assert!(answer <= 1, "{command:?} is answered by {answer}");
        }
        is_sound
    }

    /// Something happens to the host, the cable, the machine or a queue.
    fn disturb(&mut self, dice: &mut Dice<'_>, index: usize) -> bool {
        let pair = &mut self.pairs[index];
        match dice.up_to(8) {
            0 => pair.host().room = dice.up_to(20),
            1 => pair.host().refuses = dice.flip(),
            2 => {
                let was_gone = std::mem::replace(&mut pair.host().is_gone, true);
                self.gone += usize::from(!was_gone);
            }
            3 => {
                pair.host = host();
                let end = End(Arc::clone(&pair.host), self.offloads);
                self.device.rejoin(index, Box::new(end));
            }
            4 => {
                self.device.set_link(dice.flip());
            }
            5 => match dice.flip() {
                true => self.device.pause(),
                false => self.device.resume(),
            },
            6 => {
                let saved = Lifecycle::save(&*self.driver.pci).expect("it can be saved");
                let restored = Lifecycle::restore(&*self.driver.pci, &saved);
                restored.expect("its own state is sound");
            }
            7 => {
                let queue = dice.pick(&[pair.receive, pair.transmit]);
                self.driver.restart_queue(queue);
                if queue == pair.receive {
                    pair.given = Default::default();
                }
            }
            _ => {
                self.clock.advance(dice.number() % 1_000_000_000);
                self.device.expired();
            }
        }
        self.device.serve_pair(index);
        true
    }

    /// Looks at what arrived on either side, if nothing was wrong with what was asked for.
    fn look(&mut self, is_sound: bool) {
        assert!(self.told.load(Ordering::Relaxed) <= self.gone);
        if !is_sound {
            return self.set_up();
        }
        assert!(!self.driver.recover(), "a sound driver broke the device");
        for pair in &mut self.pairs {
            let went = std::mem::take(&mut pair.host().went);
            for (header, frame) in went {
                assert_agreed(header, self.offloads, self.features);
                pair.to_host.arrive(&frame);
            }
            while self.driver.used(pair.transmit).is_some() {}
            while let Some(first) = self.driver.used(pair.receive) {
                let mut bytes = pair.take(&self.driver, first);
                let count = u16::from_le_bytes([bytes[10], bytes[11]]);
                let is_merging = self.features & feature::MRG_RXBUF != 0;
                assert!(count == 1 || count > 1 && is_merging, "{count} buffers");
                for _ in 1..count {
                    let next = self.driver.used(pair.receive);
                    let next = next.expect("all buffers of a frame at once");
                    bytes.extend(pair.take(&self.driver, next));
                }
                let is_told = bytes[0] != 0;
                assert!(!is_told || self.features & feature::GUEST_CSUM != 0);
                pair.to_guest.arrive(&bytes[HEADER..]);
            }
        }
    }

    fn set_up(&mut self) {
        self.driver.set_up();
        for pair in &mut self.pairs {
            pair.host().went.clear();
            pair.given = Default::default();
        }
    }

    /// Whatever happened, with hosts, a cable and a sound driver there is a network.
    fn finish(&mut self) {
        self.set_up();
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            pair.host = host();
            let end = End(Arc::clone(&pair.host), self.offloads);
            self.device.rejoin(index, Box::new(end));
        }
        self.device.set_link(true);
        self.device.resume();
        // What a limit has held back may pass by now.
        self.clock.advance(100_000_000_000);
        self.device.expired();
        let mut none = Dice::new(&[]);
        let pair = &self.pairs[0];
        let before = (pair.to_guest.arrived, pair.to_host.arrived);
        for _ in 0..2 {
            let is_sound = self.give(&mut none, 0);
            self.look(is_sound);
        }
        self.come(&mut none, 0);
        self.look(true);
        self.send(&mut none, 0);
        self.look(true);
        let pair = &self.pairs[0];
        assert!(pair.to_guest.arrived > before.0, "nothing comes");
        assert!(pair.to_host.arrived > before.1, "nothing goes");
    }
}

impl Pair {
    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().expect("no panic")
    }

    /// What the device wrote to a buffer.
    fn take(&mut self, driver: &Driver<Net>, (head, written): (u32, u32)) -> Vec<u8> {
        let pieces = std::mem::take(&mut self.given[head as usize]);
        let room: u32 = pieces.iter().map(|piece| piece.1).sum();
        assert!(written <= room, "{written} bytes in a buffer of {room}");
        let pieces = pieces.iter();
        let pieces = pieces.flat_map(|&(at, length, _)| driver.get(at, length as usize));
        pieces.take(written as usize).collect()
    }
}

fn host() -> Arc<Mutex<Host>> {
    let host = Host {
        room: 20,
        ..Host::default()
    };
    Arc::new(Mutex::new(host))
}

/// The place of a queue's buffer number `number`.
fn place(queue: u16, number: u64) -> u64 {
    BUFFERS + PLACES * u64::from(queue) + PLACE * (number % 8)
}

fn assert_agreed(header: Header, offered: Offloads, features: u64) {
    let [flags, kind, ..] = header.to_bytes(0);
    let agreed = |is_offered: bool, feature: u64| is_offered && features & feature != 0;
    assert!(flags == 0 || flags == 1 && agreed(offered.checksum, feature::HOST_CSUM));
    let is_marked = kind & 0x80 != 0;
    assert!(!is_marked || agreed(offered.ecn, feature::HOST_ECN));
    assert!(match kind & 0x7f {
        0 => !is_marked,
        1 => agreed(offered.tso4, feature::HOST_TSO4),
        4 => agreed(offered.tso6, feature::HOST_TSO6),
        _ => false,
    });
}
