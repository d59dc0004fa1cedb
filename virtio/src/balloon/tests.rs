use caraway_devices::{FakeClock, FakeTimer, Lifecycle, state_tests};
use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS_QUEUE: u16 = 2;
const REPORTING_QUEUE: u16 = 3;
const SECOND: Nanos = 1_000_000_000;
/// Pages that tests give away: above their buffers, below the end of memory.
const FIRST: u32 = 0x200;

fn config() -> BalloonConfig {
    BalloonConfig {
        memory: MEMORY as u64,
        stats_interval: Some(SECOND),
        deflate_on_oom: true,
        free_page_reporting: true,
    }
}

struct Guest {
    machine: Machine<Balloon>,
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
}

impl Guest {
    fn new() -> Self {
        Self::with(config(), u64::MAX)
    }

    fn with(config: BalloonConfig, features: u64) -> Self {
        let (clock, timer) = (FakeClock::new(0), FakeTimer::new());
        let mut machine = Machine::new(Balloon::new(config, clock.clone(), timer.clone()));
        machine.probe(features);
        Self {
            machine,
            clock,
            timer,
        }
    }

    fn info(&self) -> BalloonInfo {
        self.machine.device().info()
    }

    /// Sends page numbers.
    fn send(&mut self, queue: u16, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.machine.put(BUFFERS, &bytes);
        self.machine
            .submit(queue, &[readable(BUFFERS, bytes.len() as u32)]);
        self.machine.notify(queue);
    }

    /// Gives the device statistics with so much free memory.
    fn tell_free(&mut self, free: u64) {
        let entry = [&4_u16.to_le_bytes()[..], &free.to_le_bytes()[..]].concat();
        self.machine.put(BUFFERS, &entry);
        self.machine.submit(STATS_QUEUE, &[readable(BUFFERS, 10)]);
        self.machine.notify(STATS_QUEUE);
    }

    fn mark(&self, page: u32) {
        self.machine.put(u64::from(page) * PAGE, &[7]);
    }

    fn byte(&self, page: u32) -> u8 {
        let [byte] = self.machine.get(u64::from(page) * PAGE);
        byte
    }
}

fn fresh() -> VirtioPci<Balloon> {
    let balloon = Balloon::new(config(), FakeClock::new(0), FakeTimer::new());
    Arc::into_inner(Machine::new(balloon).pci).unwrap()
}

state_tests!(state, fresh(), |pci: &mut VirtioPci<Balloon>| {
    pci.device().write_config(ACTUAL, &[5, 1, 0, 0]);
});

#[test]
fn a_target_is_read_as_pages_and_answered() {
    let guest = Guest::new();

    guest.machine.device().set_target(1 << 20);
    assert_eq!(guest.machine.read32(reg::DEVICE), 256);
    guest.machine.write32(reg::DEVICE + 4, 200);

    let info = guest.info();
    assert_eq!((info.target, info.actual), (1 << 20, 200 * PAGE));
    assert!(info.is_active);
}

#[test]
fn a_target_is_no_more_than_the_guest_has_and_outlives_a_reset() {
    let guest = Guest::new();
    guest.machine.device().set_target(u64::MAX);

    guest.machine.write8(reg::STATUS, 0);

    assert_eq!(guest.info().target, MEMORY as u64);
    assert_eq!(guest.info().actual, 0);
}

#[test]
fn pages_that_the_guest_gives_are_the_host_s() {
    let mut guest = Guest::new();
    let pages = [FIRST + 2, FIRST + 1, FIRST + 5];
    for page in FIRST..FIRST + 6 {
        guest.mark(page);
    }

    guest.send(INFLATE, &pages);

    let left: Vec<u32> = (FIRST..FIRST + 6)
        .filter(|page| guest.byte(*page) != 0)
        .collect();
    assert_eq!(left, [FIRST, FIRST + 3, FIRST + 4]);
    assert_eq!(guest.info().inflated, 3 * PAGE);
    assert_eq!(guest.machine.used(INFLATE).len(), 1);
}

#[test]
fn the_host_makes_no_huge_pages_over_holes() {
    let mut guest = Guest::new();
    let before = flags_of_mapping(&guest, FIRST);

    guest.send(INFLATE, &[FIRST]);

    let after = flags_of_mapping(&guest, FIRST);
    let has_huge_pages = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert!(!before.contains(&"nh".to_owned()), "{before:?}");
    assert_eq!(
        after.contains(&"nh".to_owned()),
        has_huge_pages,
        "{after:?}"
    );
}

/// The `VmFlags` (proc(5)) of what the host has mapped for this page.
fn flags_of_mapping(guest: &Guest, page: u32) -> Vec<String> {
    let place = GuestAddress(u64::from(page) * PAGE);
    let address = guest.machine.memory.get_host_address(place).unwrap() as usize;
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let holds = |line: &&str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        Some((start..end).contains(&address))
    };
    let mut lines = maps.lines().skip_while(|line| holds(line) != Some(true));
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags: "));
    flags
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn pages_that_the_guest_takes_back_come_back_at_once() {
    let mut guest = Guest::new();
    guest.mark(FIRST);

    guest.send(DEFLATE, &[FIRST]);

    assert_eq!(guest.byte(FIRST), 7);
    assert_eq!(guest.machine.used(DEFLATE).len(), 1);
}

#[test]
fn pages_that_are_not_there_are_passed_over() {
    let mut guest = Guest::new();

    guest.send(INFLATE, &[u32::MAX, (MEMORY as u64 / PAGE) as u32, FIRST]);

    assert_eq!(guest.info().inflated, PAGE);
    assert_eq!(guest.machine.used(INFLATE).len(), 1);
}

#[test]
fn unused_pages_are_given_back_whole() {
    let mut guest = Guest::new();
    for page in FIRST..FIRST + 4 {
        guest.mark(page);
    }

    let start = u64::from(FIRST) * PAGE;
    let segments = [writable(start, 4096), writable(start + 8000, 8288)];
    guest.machine.submit(REPORTING_QUEUE, &segments);
    guest.machine.notify(REPORTING_QUEUE);

    let bytes: Vec<u8> = (FIRST..FIRST + 4).map(|page| guest.byte(page)).collect();
    assert_eq!(bytes, [0, 7, 0, 7]);
    assert_eq!(guest.info().reported, 2 * PAGE);
}

#[test]
fn the_guest_is_asked_for_its_statistics_again_and_again() {
    let mut guest = Guest::new();
    guest.tell_free(1000);
    assert_eq!(guest.info().stats.unwrap().free, Some(1000));
    assert_eq!(guest.machine.used(STATS_QUEUE), []);
    assert_eq!(guest.timer.deadline(), Some(SECOND));

    guest.clock.advance(SECOND);
    guest.machine.device().expired();
    assert_eq!(guest.machine.used(STATS_QUEUE).len(), 1);
    guest.tell_free(2000);

    let info = guest.info();
    assert_eq!(info.stats.unwrap().free, Some(2000));
    assert_eq!(info.stats_at, SECOND);
    assert_eq!(guest.timer.deadline(), Some(2 * SECOND));
}

#[test]
fn the_buffer_of_statistics_survives_a_snapshot() {
    let mut guest = Guest::new();
    guest.tell_free(1000);

    let saved = Lifecycle::save(&*guest.machine.pci).unwrap();
    Lifecycle::restore(&*guest.machine.pci, &saved).unwrap();
    guest.machine.device().expired();

    assert_eq!(guest.machine.used(STATS_QUEUE).len(), 1);
}

#[test]
fn a_balloon_that_asks_for_nothing_sets_no_timer() {
    let stats_interval = None;
    let mut guest = Guest::with(
        BalloonConfig {
            stats_interval,
            ..config()
        },
        u64::MAX,
    );

    guest.tell_free(1000);

    assert_eq!(guest.timer.deadline(), None);
    assert_eq!(guest.info().stats.unwrap().free, Some(1000));
}

#[test]
fn what_is_not_configured_is_not_offered() {
    let plain = BalloonConfig {
        deflate_on_oom: false,
        free_page_reporting: false,
        ..config()
    };

    let guest = Guest::with(plain, u64::MAX);

    let own = guest.machine.offered() & 0xff_ffff;
    assert_eq!(own, STATS);
    assert_eq!(guest.machine.queues.len(), 3);
}

#[test]
fn without_statistics_the_third_queue_is_for_unused_pages() {
    let mut guest = Guest::with(config(), !STATS);
    guest.mark(FIRST);

    let start = u64::from(FIRST) * PAGE;
    guest.machine.submit(2, &[writable(start, 4096)]);
    guest.machine.notify(2);

    assert_eq!(guest.byte(FIRST), 0);
}

#[test]
fn a_state_with_more_than_the_guest_s_memory_is_refused() {
    let guest = Guest::new();
    let state = BalloonState {
        target: u32::MAX,
        actual: 0,
    };

    let refused = guest.machine.device().restore(state);

    assert!(matches!(refused, Err(StateError::Invalid { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_driver_loses_only_its_own_memory(
        steps in prop::collection::vec(
            (0u16..4, 0u64..(MEMORY as u64 + 4096), 0u32..90_000, any::<bool>(), any::<[u32; 4]>()),
            0..40,
        )
    ) {
        let mut guest = Guest::new();
        for (queue, address, len, write, numbers) in steps {
            let pages: Vec<u8> = numbers.iter().flat_map(|n| (n % 2000).to_le_bytes()).collect();
            guest.machine.put(BUFFERS, &pages);
            guest.machine.submit(queue, &[(address, len, write), (BUFFERS, 16, write)]);
            guest.machine.notify(queue);
            guest.clock.advance(SECOND);
            guest.machine.device().expired();
            // It may have given its own rings away.
            guest.machine.probe(u64::MAX);
        }
        prop_assert_eq!(guest.info().target, 0);
    }
}
