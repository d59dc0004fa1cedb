//! virtio-net (5.1): a network card whose other end is a [`Backend`] of the host, one for each pair
//! of queues.
//!
//! Frames go straight between the guest's buffers and the host's kernel. Towards the host nothing is
//! dropped because it is slow: the frame stays in the guest's queue until there is room. From the
//! host frames are taken only as fast as the guest has buffers, so what is too much is dropped where
//! it would be on any other card: in the host's queue before it. Work is done in turns of bounded
//! length, so that a flood in one direction holds up neither the other one nor other devices.

mod backend;
mod control;
mod filter;
mod header;
mod limits;
mod pieces;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caraway_devices::{Clock, Nanos, StateError, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::Virtqueue;

pub use backend::{Backend, LONGEST, gather, scatter};
pub use filter::Mac;
pub use header::{Header, Offloads};
pub use limits::Limits;

use filter::Filter;
use limits::Meter;
use receive::Receive;
use transmit::Transmit;

/// As on QEMU.
const QUEUE_SIZE: u16 = 256;
const CONTROL_SIZE: u16 = 64;

/// Feature bits (5.1.3).
mod feature {
    pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
    pub(super) const STATUS: u64 = 1 << 16;
    pub(super) const CTRL_VQ: u64 = 1 << 17;
    pub(super) const CTRL_RX: u64 = 1 << 18;
    pub(super) const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub(super) const MQ: u64 = 1 << 22;
    pub(super) const CTRL_MAC_ADDR: u64 = 1 << 23;
    /// `CSUM`, `HOST_TSO4`, `HOST_TSO6`, `HOST_ECN`: what the guest may leave to us.
    pub(super) const HOST: [u64; 4] = [1 << 0, 1 << 11, 1 << 12, 1 << 13];
    /// `GUEST_CSUM`, `GUEST_TSO4`, `GUEST_TSO6`, `GUEST_ECN`: what we may leave to it.
    pub(super) const GUEST: [u64; 4] = [1 << 1, 1 << 7, 1 << 8, 1 << 9];
    /// All of [`GUEST`].
    pub(super) const GUEST_OFFLOADS: u64 = 1 << 1 | 1 << 7 | 1 << 8 | 1 << 9;
}

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u16 = 1;

fn offloads_of(features: u64, bits: &[u64; 4]) -> Offloads {
    let [checksum, tso4, tso6, ecn] = bits.map(|bit| features & bit != 0);
    Offloads {
        checksum,
        tso4,
        tso6,
        ecn,
    }
}

fn features_of(offloads: Offloads, bits: &[u64; 4]) -> u64 {
    let Offloads {
        checksum,
        tso4,
        tso6,
        ecn,
    } = offloads;
    let wanted = [checksum, tso4, tso6, ecn].into_iter().zip(bits);
    wanted.filter_map(|(on, bit)| on.then_some(bit)).sum()
}

/// What a network card is to be.
pub struct NetConfig {
    /// Its address, until the driver sets another.
    pub mac: Mac,
    /// The longest packet of its network, in bytes, if the driver is to be told.
    pub mtu: Option<u16>,
    /// The host's ends, one for each pair of queues; at least one.
    pub backends: Vec<Box<dyn Backend>>,
    /// Limits of what the guest receives.
    pub receive: Limits,
    /// Limits of what the guest sends.
    pub transmit: Limits,
    /// Time, for the limits.
    pub clock: Arc<dyn Clock>,
    /// Rings when a limit lets something pass again; then call [`Net::expired`].
    pub timer: Arc<dyn Timer>,
    /// Called once a host's end is gone, which [`Net::rejoin`] mends. It must not call the device.
    pub lost: Box<dyn Fn(&io::Error) + Send + Sync>,
}

/// What went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Frames that were thrown away: malformed, refused by the host, too long for the guest's
    /// buffers, or sent while the cable was out.
    pub drops: u64,
}

/// [`Traffic`] as it is counted.
#[derive(Debug, Default)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    drops: AtomicU64,
}

impl Counters {
    /// The numbers as they are.
    #[must_use]
    pub fn read(&self) -> Traffic {
        Traffic {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            drops: self.drops.load(Ordering::Relaxed),
        }
    }

    fn passed(&self, bytes: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn dropped(&self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// The device.
pub struct Net {
    inner: Mutex<Inner>,
    config: NetFixed,
    received: Arc<Counters>,
    transmitted: Arc<Counters>,
}

/// What never changes.
struct NetFixed {
    mac: Mac,
    mtu: Option<u16>,
    features: u64,
    queue_sizes: Vec<u16>,
    lost: Box<dyn Fn(&io::Error) + Send + Sync>,
}

struct Inner {
    pairs: Vec<Pair>,
    control: Option<Arc<Virtqueue>>,
    /// What was agreed on.
    features: u64,
    state: NetState,
    paused: bool,
    receive: Meter,
    transmit: Meter,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    /// What the timer is set to.
    deadline: Option<Nanos>,
}

struct Pair {
    backend: Box<dyn Backend>,
    /// The host's end is gone.
    is_lost: bool,
    receive: Receive,
    transmit: Transmit,
}

/// What a snapshot keeps of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    mac: Mac,
    /// The cable is in; a reset does not change that.
    link: bool,
    /// Pairs of queues that the driver uses.
    pairs: u16,
    /// What the driver set by command; what was agreed on if `None`.
    offloads: Option<Offloads>,
    filter: Filter,
}

impl NetState {
    fn new(mac: Mac, link: bool) -> Self {
        Self {
            mac,
            link,
            pairs: 1,
            offloads: None,
            filter: Filter::default(),
        }
    }
}

/// How a turn at a queue ended.
enum Served {
    /// Nothing more to do, or somebody will ring.
    Done,
    /// A limit lets the next frame pass then.
    Until(Nanos),
    /// The host's end is gone.
    Lost(io::Error),
}

/// What may be moved before others get their turn.
struct Turn(usize);

impl Turn {
    const BYTES: usize = 256 << 10;
    /// What a frame costs beside its bytes.
    const FRAME: usize = 4 << 10;

    fn new() -> Self {
        Self(Self::BYTES)
    }

    fn pass(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes + Self::FRAME);
    }

    fn is_over(&self) -> bool {
        self.0 == 0
    }
}

/// The terms on which one direction of one pair is served.
struct Terms<'a> {
    mergeable: bool,
    /// What the guest may leave undone, and what may be left to it.
    host: Offloads,
    guest: Offloads,
    link_up: bool,
    mac: Mac,
    filter: &'a Filter,
    meter: &'a mut Meter,
    clock: &'a dyn Clock,
    counters: &'a Counters,
}

impl Terms<'_> {
    /// When the next frame may pass; `None` if it may now.
    fn wait(&self) -> Option<Nanos> {
        self.meter.wait(self.clock)
    }

    fn passed(&mut self, bytes: usize) {
        self.meter.passed(bytes, self.clock);
        self.counters.passed(bytes);
    }
}

/// Which queue of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Receive,
    Transmit,
}

/// What a queue is for.
enum Role {
    Pair(usize, Direction),
    Control,
    Nothing,
}

impl Net {
    /// A card with its cable in.
    #[must_use]
    pub fn new(config: NetConfig) -> Self {
        let NetConfig {
            mac,
            mtu,
            backends,
            receive,
            transmit,
            clock,
            timer,
            lost,
        } = config;
        let offloads = backends.first().map_or(Offloads::NONE, |b| b.offloads());
        let mut features = feature::MAC
            | feature::STATUS
            | feature::MRG_RXBUF
            | feature::CTRL_VQ
            | feature::CTRL_RX
            | feature::CTRL_RX_EXTRA
            | feature::CTRL_MAC_ADDR
            | features_of(offloads, &feature::HOST)
            | features_of(offloads, &feature::GUEST);
        if offloads.checksum {
            features |= feature::CTRL_GUEST_OFFLOADS;
        }
        if mtu.is_some() {
            features |= feature::MTU;
        }
        if backends.len() > 1 {
            features |= feature::MQ;
        }
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * backends.len()];
        queue_sizes.push(CONTROL_SIZE);
        let now = clock.now();
        let pair = |backend| Pair {
            backend,
            is_lost: false,
            receive: Receive::new(),
            transmit: Transmit::default(),
        };
        let mut inner = Inner {
            pairs: backends.into_iter().map(pair).collect(),
            control: None,
            features: 0,
            state: NetState::new(mac, true),
            paused: false,
            receive: Meter::new(receive, now),
            transmit: Meter::new(transmit, now),
            clock,
            timer,
            deadline: None,
        };
        inner.settle_backends();
        Self {
            inner: Mutex::new(inner),
            config: NetFixed {
                mac,
                mtu,
                features,
                queue_sizes,
                lost,
            },
            received: Arc::default(),
            transmitted: Arc::default(),
        }
    }

    /// The host's end of pair `index` has frames, or room, or is gone.
    pub fn serve_pair(&self, index: usize) {
        let mut inner = self.inner.lock();
        self.serve(&mut inner, index, Direction::Receive);
        self.serve(&mut inner, index, Direction::Transmit);
    }

    /// The timer rang.
    pub fn expired(&self) {
        let mut inner = self.inner.lock();
        inner.deadline = None;
        for index in 0..inner.pairs.len() {
            self.serve(&mut inner, index, Direction::Receive);
            self.serve(&mut inner, index, Direction::Transmit);
        }
    }

    /// Joins pair `index` to another host's end, which can do what the one that is gone could. The driver
    /// is to be told, see [`VirtioPci::config_changed`](crate::VirtioPci::config_changed).
    pub fn rejoin(&self, index: usize, backend: Box<dyn Backend>) {
        let mut inner = self.inner.lock();
        let up = inner.state.link;
        let Some(pair) = inner.pairs.get_mut(index) else {
            return;
        };
        pair.backend = backend;
        pair.backend.set_link(up);
        pair.is_lost = false;
        inner.settle_backends();
        inner.ring_all();
    }

    /// Moves no frame until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.inner.lock().paused = true;
    }

    /// Goes on.
    pub fn resume(&self) {
        let mut inner = self.inner.lock();
        inner.paused = false;
        inner.ring_all();
    }

    /// Puts the cable in or pulls it; whether that changes anything. If so, the driver is to be
    /// told, see [`VirtioPci::config_changed`](crate::VirtioPci::config_changed).
    pub fn set_link(&self, up: bool) -> bool {
        let mut inner = self.inner.lock();
        let changed = inner.state.link != up;
        if changed {
            inner.state.link = up;
            inner.pairs.iter_mut().for_each(|p| p.backend.set_link(up));
            inner.ring_all();
        }
        changed
    }

    /// Whether the cable is in, and both of its ends are there.
    #[must_use]
    pub fn is_link_up(&self) -> bool {
        self.inner.lock().is_link_up()
    }

    /// The address that the driver uses.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.inner.lock().state.mac
    }

    /// The limits of what the guest receives and of what it sends.
    #[must_use]
    pub fn limits(&self) -> (Limits, Limits) {
        let inner = self.inner.lock();
        (inner.receive.limits(), inner.transmit.limits())
    }

    /// Holds to other limits from now on.
    pub fn set_limits(&self, receive: Limits, transmit: Limits) {
        let mut inner = self.inner.lock();
        let now = inner.clock.now();
        inner.receive.set(receive, now);
        inner.transmit.set(transmit, now);
        inner.ring_all();
    }

    /// What the guest received, and what it sent.
    #[must_use]
    pub fn counters(&self) -> (&Arc<Counters>, &Arc<Counters>) {
        (&self.received, &self.transmitted)
    }

    fn serve(&self, inner: &mut Inner, index: usize, direction: Direction) {
        let link_up = inner.is_link_up();
        let (host, guest) = (inner.host_offloads(), inner.guest_offloads());
        let in_use = index < usize::from(inner.state.pairs);
        let Some(pair) = inner.pairs.get_mut(index) else {
            return;
        };
        if inner.paused || !in_use {
            return;
        }
        let (meter, counters) = match direction {
            Direction::Receive => (&mut inner.receive, &*self.received),
            Direction::Transmit => (&mut inner.transmit, &*self.transmitted),
        };
        let mut terms = Terms {
            mergeable: inner.features & feature::MRG_RXBUF != 0,
            host,
            guest,
            link_up,
            mac: inner.state.mac,
            filter: &inner.state.filter,
            meter,
            clock: &*inner.clock,
            counters,
        };
        let backend = &mut *pair.backend;
        let served = match direction {
            Direction::Receive if pair.is_lost => return,
            Direction::Receive => pair.receive.serve(backend, &mut terms),
            Direction::Transmit => pair.transmit.serve(backend, &mut terms),
        };
        match served {
            Served::Done => {}
            Served::Until(at) => inner.wake_at(at),
            Served::Lost(error) => {
                if !std::mem::replace(&mut pair.is_lost, true) {
                    (self.config.lost)(&error);
                }
                // What was to be sent meanwhile goes where all goes without a cable.
                pair.transmit.ring();
            }
        }
    }

    fn config_space(&self) -> [u8; 12] {
        let inner = self.inner.lock();
        let [a, b, c, d, e, f] = inner.state.mac;
        let [s0, s1] = if inner.is_link_up() { LINK_UP } else { 0 }.to_le_bytes();
        let [p0, p1] = (inner.pairs.len() as u16).to_le_bytes();
        let [m0, m1] = self.config.mtu.unwrap_or(0).to_le_bytes();
        [a, b, c, d, e, f, s0, s1, p0, p1, m0, m1]
    }
}

impl Inner {
    fn is_link_up(&self) -> bool {
        self.state.link && !self.pairs.iter().any(|pair| pair.is_lost)
    }

    fn host_offloads(&self) -> Offloads {
        offloads_of(self.features, &feature::HOST)
    }

    fn guest_offloads(&self) -> Offloads {
        let agreed = offloads_of(self.features, &feature::GUEST);
        self.state.offloads.unwrap_or(agreed)
    }

    /// Tells the host's ends what the driver takes and which of them it uses.
    fn settle_backends(&mut self) {
        let guest = self.guest_offloads();
        for (index, pair) in (0..).zip(&mut self.pairs) {
            pair.backend.set_offloads(guest);
            pair.backend.set_used(index < self.state.pairs);
        }
    }

    /// Has every queue served.
    fn ring_all(&self) {
        for pair in &self.pairs {
            pair.receive.ring();
            pair.transmit.ring();
        }
    }

    fn wake_at(&mut self, at: Nanos) {
        if self.deadline.is_none_or(|set| at < set) {
            self.deadline = Some(at);
            self.timer.arm(Some(at));
        }
    }

    /// What queue `index` is for: with one pair the third is for control, whatever else is offered
    /// (5.1.2).
    fn role(&self, index: u16) -> Role {
        let pairs = match self.features & feature::MQ {
            0 => 1,
            _ => self.pairs.len(),
        };
        let direction = match index % 2 {
            0 => Direction::Receive,
            _ => Direction::Transmit,
        };
        match usize::from(index / 2) {
            pair if pair < pairs => Role::Pair(pair, direction),
            pair if pair == pairs && direction == Direction::Receive => Role::Control,
            _ => Role::Nothing,
        }
    }

    fn set_queue(&mut self, index: u16, queue: Option<Arc<Virtqueue>>) {
        match self.role(index) {
            Role::Control => self.control = queue,
            Role::Nothing => {}
            Role::Pair(pair, direction) => {
                let Some(pair) = self.pairs.get_mut(pair) else {
                    return;
                };
                match direction {
                    Direction::Receive => pair.receive.set_queue(queue),
                    Direction::Transmit => pair.transmit.set_queue(queue),
                }
            }
        }
    }
}

impl VirtioDevice for Net {
    type State = NetState;
    const KIND: &'static str = "virtio-net";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 1,
        pci_class: 0x02_00_00,
    };

    fn features(&self) -> u64 {
        self.config.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.config.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config_space();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (target, source) in data.iter_mut().zip(config.iter().skip(from)) {
            *target = *source;
        }
    }

    fn activate(&self, features: u64) {
        let mut inner = self.inner.lock();
        inner.features = features;
        inner.settle_backends();
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        self.inner.lock().set_queue(queue.index(), Some(queue));
    }

    fn stop_queue(&self, index: u16) {
        self.inner.lock().set_queue(index, None);
    }

    fn process_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        match inner.role(index) {
            Role::Pair(pair, direction) => self.serve(&mut inner, pair, direction),
            Role::Control => {
                if let Some(queue) = inner.control.clone() {
                    control::serve(&mut inner, &queue);
                }
            }
            Role::Nothing => {}
        }
    }

    fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.features = 0;
        inner.state = NetState::new(self.config.mac, inner.state.link);
        inner.settle_backends();
    }

    fn save(&self) -> NetState {
        let mut inner = self.inner.lock();
        for pair in &mut inner.pairs {
            if pair.receive.give_back() {
                self.received.dropped();
            }
        }
        inner.state.clone()
    }

    fn restore(&self, state: NetState) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        let invalid = |what: String| StateError::Invalid {
            kind: Self::KIND,
            what,
        };
        let most = inner.pairs.len();
        if !(1..=most).contains(&usize::from(state.pairs)) {
            let what = format!("{} pairs of queues in use, not 1 to {most}", state.pairs);
            return Err(invalid(what));
        }
        if !state.filter.is_sound() {
            return Err(invalid("a table of addresses is too long".to_owned()));
        }
        let link = state.link;
        inner.state = state;
        inner
            .pairs
            .iter_mut()
            .for_each(|p| p.backend.set_link(link));
        inner.settle_backends();
        Ok(())
    }
}
