use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;

use caraway_devices::{FakeClock, FakeTimer, Lifecycle, state_tests};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

const QUEUE: u16 = 0;
const NOTHING: [u32; 0] = [];

/// Gives what a test has put in: so many bytes, or an error; then as many as it is asked for.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<VecDeque<io::Result<usize>>>>);

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let next = self.0.lock().pop_front();
        let count = next.unwrap_or(Ok(buffer.len()))?.min(buffer.len());
        buffer[..count].fill(0x5a);
        Ok(count)
    }
}

struct Guest {
    machine: Machine<Rng>,
    source: Source,
    clock: Arc<FakeClock>,
    timer: Arc<FakeTimer>,
}

impl Guest {
    fn new(limit: Option<(u64, u64)>) -> Self {
        let (source, clock, timer) = (Source::default(), FakeClock::new(0), FakeTimer::new());
        let rate = limit.map(|(per_second, burst)| Rate {
            per_second: NonZeroU64::new(per_second).unwrap(),
            burst: NonZeroU64::new(burst).unwrap(),
        });
        let rng = Rng::new(source.clone(), rate, clock.clone(), timer.clone());
        Self {
            machine: Machine::ready(rng),
            source,
            clock,
            timer,
        }
    }

    /// Asks for so many bytes; the lengths of what came back.
    fn ask(&mut self, len: u32) -> Vec<u32> {
        self.machine.submit(QUEUE, &[writable(BUFFERS, len)]);
        self.machine.notify(QUEUE);
        self.given()
    }

    fn given(&mut self) -> Vec<u32> {
        let used = self.machine.used(QUEUE);
        used.into_iter().map(|(_, len)| len).collect()
    }

    /// Turns the clock to when the timer rings.
    fn wait(&mut self) -> Vec<u32> {
        let at = self.timer.deadline().expect("a timer");
        self.clock.advance(at.saturating_sub(self.clock.now()));
        self.machine.device().expired();
        self.given()
    }
}

fn fresh() -> VirtioPci<Rng> {
    let rng = Rng::new(io::empty(), None, FakeClock::new(0), FakeTimer::new());
    Arc::into_inner(Machine::new(rng).pci).unwrap()
}

state_tests!(state, fresh(), |pci: &mut VirtioPci<Rng>| {
    use caraway_devices::pci::PciFunction;
    pci.bar_write(4, reg::STATUS, &[3]);
});

#[test]
fn a_buffer_is_filled() {
    let mut guest = Guest::new(None);

    assert_eq!(guest.ask(64), [64]);

    assert_eq!(guest.machine.get(BUFFERS + 56), [0x5a; 8]);
    assert_eq!(guest.machine.device().counts().bytes, 64);
}

#[test]
fn a_large_buffer_is_filled_in_part() {
    let mut guest = Guest::new(None);

    assert_eq!(guest.ask(1 << 20), [PIECE as u32]);
}

#[test]
fn the_limit_makes_the_guest_wait_as_long_as_it_says() {
    let mut guest = Guest::new(Some((1000, 100)));

    assert_eq!(guest.ask(100), [100]);
    assert_eq!(guest.ask(50), NOTHING);
    assert_eq!(guest.timer.deadline(), Some(50_000_000));

    assert_eq!(guest.wait(), [50]);
    assert_eq!(guest.machine.device().counts().limited, 1);
}

#[test]
fn a_buffer_larger_than_the_burst_gets_the_burst() {
    let mut guest = Guest::new(Some((1000, 100)));

    assert_eq!(guest.ask(4000), [100]);
}

#[test]
fn a_source_that_has_nothing_yet_is_asked_again_and_costs_nothing_of_the_limit() {
    let mut guest = Guest::new(Some((1, 64)));
    let nothing = || Err(ErrorKind::WouldBlock.into());
    guest.source.0.lock().extend([nothing(), nothing(), Ok(10)]);

    assert_eq!(guest.ask(64), NOTHING);
    assert_eq!(guest.wait(), NOTHING);

    assert_eq!(guest.wait(), [10]);
    assert_eq!(guest.timer.deadline(), Some(2 * SOON));
}

#[test]
fn a_source_that_ends_is_asked_again_a_second_later() {
    let mut guest = Guest::new(None);
    guest.source.0.lock().push_back(Ok(0));

    assert_eq!(guest.ask(64), NOTHING);
    assert_eq!(guest.timer.deadline(), Some(LATER));

    assert_eq!(guest.wait(), [64]);
}

#[test]
fn a_buffer_without_room_comes_back_empty() {
    let mut guest = Guest::new(None);
    guest.machine.submit(QUEUE, &[readable(BUFFERS, 64)]);

    guest.machine.notify(QUEUE);

    assert_eq!(guest.given(), [0]);
}

#[test]
fn a_buffer_that_waits_is_filled_after_a_restore() {
    let mut guest = Guest::new(Some((1000, 100)));
    guest.ask(100);
    guest.ask(50);

    let saved = Lifecycle::save(&*guest.machine.pci).unwrap();
    Lifecycle::restore(&*guest.machine.pci, &saved).unwrap();
    guest.clock.advance(1_000_000_000);
    guest.machine.pci.process_queue(QUEUE);

    assert_eq!(guest.given(), [50]);
}

#[test]
fn a_reset_ends_the_waiting() {
    let mut guest = Guest::new(Some((1000, 100)));
    guest.ask(100);
    guest.ask(50);

    guest.machine.write8(reg::STATUS, 0);

    assert_eq!(guest.timer.deadline(), None);
    guest.machine.device().expired();
    assert_eq!(guest.given(), NOTHING);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_driver_gets_no_more_than_its_limit(
        steps in prop::collection::vec(
            (0u64..(MEMORY as u64 + 4096), 0u32..9000, any::<bool>(), 0u64..100_000_000), 0..60,
        )
    ) {
        let mut guest = Guest::new(Some((10_000, 500)));
        for (address, len, write, wait) in steps {
            guest.machine.submit(QUEUE, &[(address, len, write), (BUFFERS, 8, true)]);
            guest.machine.notify(QUEUE);
            guest.clock.advance(wait);
            guest.machine.device().expired();
            if guest.machine.read8(reg::STATUS) & 0x40 != 0 {
                guest.machine.probe(u64::MAX);
            }
        }
        let earned = guest.clock.now() / 100_000;
        prop_assert!(guest.machine.device().counts().bytes <= 500 + earned);
    }
}
