//! virtio-balloon (5.5): memory that the guest gives back, because it is asked to or because it does
//! not use it.

mod pages;
mod stats;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use caraway_devices::{Clock, Nanos, StateError, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::device::{DeviceType, VirtioDevice};
use crate::queue::{Chain, Virtqueue};

use pages::{PAGE, Range};
pub use stats::Stats;

/// `VIRTIO_BALLOON_F_STATS_VQ`, `_DEFLATE_ON_OOM` and `_PAGE_REPORTING`.
const STATS: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

/// Of the configuration: pages that the balloon is to have, and pages that the guest says it has.
const ACTUAL: u64 = 4;
const CONFIG_SIZE: usize = 8;
/// As on QEMU.
const QUEUE_SIZE: u16 = 128;
/// Page numbers in a chain; what is more is passed over. Linux sends 256, Windows 1024.
const MOST_NUMBERS: usize = 4096;
/// Ranges that are given back, each by a system call, before others get their turn.
const TURN: usize = 4096;

/// What a balloon is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalloonConfig {
    /// Bytes of the guest's memory.
    pub memory: u64,
    /// How often the guest is asked for its [`Stats`], in nanoseconds; only at its start if `None`.
    pub stats_interval: Option<Nanos>,
    /// Whether the guest may take pages out of the balloon before it runs out of memory.
    pub deflate_on_oom: bool,
    /// Whether the guest tells which pages it does not use.
    pub free_page_reporting: bool,
}

/// What a balloon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BalloonInfo {
    /// Whether the guest has a driver for it.
    pub is_active: bool,
    /// Bytes that the balloon is to have.
    pub target: u64,
    /// Bytes that it has, as the guest says.
    pub actual: u64,
    /// Bytes given back by way of the balloon since the device was made.
    pub inflated: u64,
    /// Bytes given back because the guest did not use them, since the device was made.
    pub reported: u64,
    /// What the guest last said of its memory.
    pub stats: Option<Stats>,
    /// When it said so, by the machine's clock.
    pub stats_at: Nanos,
}

/// What a queue is for, which depends on what the driver agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Reporting,
}

/// The device.
pub struct Balloon {
    config: BalloonConfig,
    queue_sizes: Vec<u16>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: BalloonState,
    roles: Vec<Role>,
    queues: Vec<Option<Arc<Virtqueue>>>,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
    info: BalloonInfo,
    /// Whether the host has been told to leave holes alone.
    keeps_holes: bool,
    scratch: Vec<u8>,
}

/// What a snapshot keeps of a balloon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonState {
    /// Pages that it is to have. It is the host's wish, and outlives a reset.
    target: u32,
    /// Pages that it has.
    actual: u32,
}

impl Balloon {
    /// An empty balloon. Whoever waits for `timer`, which goes by `clock`, calls
    /// [`expired`](Self::expired).
    #[must_use]
    pub fn new(config: BalloonConfig, clock: Arc<dyn Clock>, timer: Arc<dyn Timer>) -> Self {
        let mut queues = vec![QUEUE_SIZE; 3];
        queues.extend(config.free_page_reporting.then_some(QUEUE_SIZE));
        Self {
            config,
            inner: Mutex::new(Inner {
                state: BalloonState::default(),
                roles: Vec::new(),
                queues: vec![None; queues.len()],
                clock,
                timer,
                info: BalloonInfo::default(),
                keeps_holes: false,
                scratch: Vec::new(),
            }),
            queue_sizes: queues,
        }
    }

    /// Asks the guest for so many bytes in all, to the page; no more than it has. Afterwards the
    /// driver has to be told that the configuration changed, by
    /// [`VirtioPci::config_changed`](crate::VirtioPci::config_changed).
    pub fn set_target(&self, bytes: u64) {
        let pages = bytes.min(self.config.memory) / PAGE;
        self.inner.lock().state.target = u32::try_from(pages).unwrap_or(u32::MAX);
    }

    /// What it does.
    #[must_use]
    pub fn info(&self) -> BalloonInfo {
        let inner = self.inner.lock();
        BalloonInfo {
            is_active: inner.queues.iter().any(Option::is_some),
            target: u64::from(inner.state.target) * PAGE,
            actual: u64::from(inner.state.actual) * PAGE,
            ..inner.info
        }
    }

    /// The timer rang: asks the guest for its statistics.
    pub fn expired(&self) {
        let inner = self.inner.lock();
        inner.ask_for_stats();
        inner.set_timer(self.config.stats_interval);
    }
}

impl Inner {
    fn queue(&self, role: Role) -> Option<Arc<Virtqueue>> {
        let index = self.roles.iter().position(|other| *other == role)?;
        self.queues.get(index).cloned().flatten()
    }

    fn serve(&mut self, role: Role) {
        let Some(queue) = self.queue(role) else {
            return;
        };
        if role == Role::Stats {
            return self.hear_stats(&queue);
        }
        let mut turn = TURN;
        queue.serve(|chain| {
            let ranges = match role {
                Role::Inflate => self.inflate(&queue, &chain),
                Role::Reporting => self.report(&queue, &chain),
                // A page that the guest takes back is there as soon as it is touched.
                Role::Deflate | Role::Stats => 0,
            };
            queue.complete(chain.head, 0);
            turn = turn.saturating_sub(ranges);
            match turn {
                0 => {
                    queue.ring();
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        });
        queue.interrupt();
    }

    /// Gives the pages back whose numbers the guest names; how many ranges they make.
    fn inflate(&mut self, queue: &Virtqueue, chain: &Chain) -> usize {
        self.scratch.clear();
        let read = chain.read(queue.memory(), 0, 4 * MOST_NUMBERS, &mut self.scratch);
        if let Err(error) = read {
            queue.fail(&error);
            return 0;
        }
        if !std::mem::replace(&mut self.keeps_holes, true) {
            pages::keep_holes(queue.memory());
        }
        let (numbers, _) = self.scratch.as_chunks();
        let mut numbers: Vec<u32> = numbers.iter().map(|n| u32::from_le_bytes(*n)).collect();
        let ranges = pages::ranges(&mut numbers);
        for range in &ranges {
            self.info.inflated += pages::release(queue.memory(), *range);
        }
        ranges.len()
    }

    /// Gives the pages back that the chain itself is made of; how many ranges they are.
    fn report(&mut self, queue: &Virtqueue, chain: &Chain) -> usize {
        for segment in &chain.writable {
            if let Some(range) = Range::inside(segment.address.0, segment.len.into()) {
                self.info.reported += pages::release(queue.memory(), range);
            }
        }
        chain.writable.len()
    }

    /// Takes the guest's statistics. Their buffer stays in the queue: giving it back asks for the
    /// next ones.
    fn hear_stats(&mut self, queue: &Virtqueue) {
        let Some(chain) = queue.pop() else {
            if queue.want_doorbell() {
                queue.ring();
            }
            return;
        };
        self.scratch.clear();
        let read = chain.read(queue.memory(), 0, stats::MOST_BYTES, &mut self.scratch);
        queue.unpop();
        match read {
            Ok(()) => {
                self.info.stats = Some(Stats::parse(&self.scratch));
                self.info.stats_at = self.clock.now();
            }
            Err(error) => queue.fail(&error),
        }
    }

    fn ask_for_stats(&self) {
        let Some(queue) = self.queue(Role::Stats) else {
            return;
        };
        if let Some(chain) = queue.pop() {
            queue.complete(chain.head, 0);
            queue.interrupt();
            if queue.want_doorbell() {
                queue.ring();
            }
        }
    }

    fn set_timer(&self, interval: Option<Nanos>) {
        let listens = self.queue(Role::Stats).is_some();
        let next = interval.filter(|_| listens);
        let next = next.map(|interval| self.clock.now().saturating_add(interval));
        self.timer.arm(next);
    }
}

impl VirtioDevice for Balloon {
    type State = BalloonState;
    const KIND: &'static str = "virtio-balloon";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 5,
        // What has no class of its own, as on QEMU.
        pci_class: 0xff_0000,
    };

    fn features(&self) -> u64 {
        let flag = |is_on, bit| if is_on { bit } else { 0 };
        STATS
            | flag(self.config.deflate_on_oom, DEFLATE_ON_OOM)
            | flag(self.config.free_page_reporting, REPORTING)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let BalloonState { target, actual } = self.inner.lock().state;
        let mut config = [0; CONFIG_SIZE];
        config[..4].copy_from_slice(&target.to_le_bytes());
        config[4..].copy_from_slice(&actual.to_le_bytes());
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        data.fill(0);
        for (target, source) in data.iter_mut().zip(config.iter().skip(from)) {
            *target = *source;
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let mut inner = self.inner.lock();
        let mut actual = inner.state.actual.to_le_bytes();
        for (at, byte) in (offset..).zip(data) {
            let place = at
                .checked_sub(ACTUAL)
                .and_then(|at| usize::try_from(at).ok());
            if let Some(place) = place.and_then(|at| actual.get_mut(at)) {
                *place = *byte;
            }
        }
        inner.state.actual = u32::from_le_bytes(actual);
    }

    fn activate(&self, features: u64) {
        let mut roles = vec![Role::Inflate, Role::Deflate];
        // A queue that is not agreed on is not there, and the next has its number (5.5.2).
        roles.extend((features & STATS != 0).then_some(Role::Stats));
        roles.extend((features & REPORTING != 0).then_some(Role::Reporting));
        self.inner.lock().roles = roles;
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.queues.get_mut(usize::from(queue.index())) {
            *place = Some(queue);
        }
        inner.set_timer(self.config.stats_interval);
    }

    fn stop_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.queues.get_mut(usize::from(index)) {
            *place = None;
        }
        inner.set_timer(self.config.stats_interval);
    }

    fn process_queue(&self, index: u16) {
        let mut inner = self.inner.lock();
        let role = inner.roles.get(usize::from(index)).copied();
        if let Some(role) = role {
            inner.serve(role);
        }
    }

    fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.state.actual = 0;
        inner.roles.clear();
        inner.info.stats = None;
    }

    fn save(&self) -> Self::State {
        self.inner.lock().state
    }

    fn restore(&self, state: Self::State) -> Result<(), StateError> {
        let most = self.config.memory / PAGE;
        if u64::from(state.target) > most {
            let what = format!("a target of {} pages; the guest has {most}", state.target);
            return Err(StateError::Invalid {
                kind: Self::KIND,
                what,
            });
        }
        self.inner.lock().state = state;
        Ok(())
    }
}
