//! What is changed while a disk runs, and what happens when the host fails.

use std::sync::atomic::AtomicUsize;

use caraway_devices::Rate;

use super::*;

const MS: u64 = 1_000_000;

/// A disk on a clock that is turned by hand.
fn timed(change: impl FnOnce(&mut BlockConfig)) -> (Rig, Arc<FakeClock>) {
    let image = image();
    let mut config = config(image.path());
    config.synchronous = true;
    change(&mut config);
    let clock = FakeClock::new(0);
    let block = Block::open(&config, clock.clone()).unwrap();
    let machine = Machine::ready(block);
    (Rig { machine, image }, clock)
}

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate {
        per_second: per_second.try_into().unwrap(),
        burst: burst.try_into().unwrap(),
    })
}

impl Rig {
    /// Makes `count` flushes available.
    fn queue_flushes(&mut self, count: usize) {
        self.header(FLUSH, 0);
        for _ in 0..count {
            self.machine
                .submit(0, &[readable(HEADER, 16), writable(STATUS, 1)]);
        }
        self.machine.notify(0);
    }
}

#[test]
fn requests_wait_for_the_limits_and_say_how_long() {
    let (mut rig, clock) = timed(|config| config.limits.operations = rate(100, 2));
    rig.queue_flushes(4);
    let at_once = rig.machine.used(0).len();
    let wait = rig.machine.device().wait(0).unwrap();

    clock.advance(wait.as_nanos() as u64);
    rig.machine.pci.process_queue(0);

    assert_eq!((at_once, wait.as_millis()), (2, 10));
    assert_eq!(rig.machine.used(0).len(), 1);
    assert_eq!(rig.machine.device().counts().throttled, 2);
}

#[test]
fn limits_that_are_lifted_let_everything_pass() {
    let (mut rig, _) = timed(|config| config.limits.operations = rate(1, 1));
    rig.queue_flushes(4);
    rig.machine.device().limit(Limits::default());
    rig.machine.pci.process_queue(0);

    assert_eq!(rig.machine.used(0).len(), 4);
    assert_eq!(rig.machine.device().wait(0), None);
}

#[test]
fn limits_in_bytes_count_what_is_moved() {
    let (mut rig, clock) = timed(|config| config.limits.bytes = rate(1 << 20, 512));
    rig.request(IN, 0, &[writable(DATA, 64 << 10)]);
    rig.submit(0, FLUSH, 0, &[]);
    rig.machine.notify(0);
    let before = rig.machine.used(0).len();
    clock.advance(62 * MS);
    rig.machine.pci.process_queue(0);
    let early = rig.machine.used(0).len();
    clock.advance(MS);
    rig.machine.pci.process_queue(0);

    assert_eq!((before, early, rig.machine.used(0).len()), (0, 0, 1));
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    let (mut rig, _) = timed(|_| {});
    let past = rig.request(IN, SECTORS, &[writable(DATA, 512)]).0;
    let generation = rig.machine.read8(0x15);

    rig.machine.device().grow(SECTORS * 1024).unwrap();
    rig.machine.pci.config_changed();

    assert_ne!(rig.machine.read8(0x15), generation);
    assert_eq!(rig.machine.read32(reg::DEVICE), 2 * SECTORS as u32);
    assert_eq!(past, IO_ERROR);
    assert_eq!(rig.request(IN, SECTORS, &[writable(DATA, 512)]).0, OK);
}

#[test]
fn a_disk_takes_no_size_that_makes_no_sense() {
    let (rig, _) = timed(|_| {});
    let disk = rig.machine.device();
    let (reader, _) = timed(|config| config.read_only = true);

    assert!(matches!(disk.grow(512), Err(ResizeError::Shrinks { .. })));
    assert!(matches!(
        disk.grow(1_000_001),
        Err(ResizeError::NotWhole(_))
    ));
    assert!(matches!(
        reader.machine.device().grow(1 << 20),
        Err(ResizeError::ReadOnly)
    ));
}

/// Counts failures.
#[derive(Default)]
struct Ears {
    stopped: AtomicUsize,
    told: AtomicUsize,
}

impl BlockEvents for Ears {
    fn failed(&self, failure: BlockFailure) {
        let counter = if failure.stopped {
            &self.stopped
        } else {
            &self.told
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_request_that_failed_waits_and_is_tried_again() {
    for synchronous in [true, false] {
        let (mut rig, _) = timed(|config| {
            config.on_error.io = OnError::Pause;
            config.synchronous = synchronous;
        });
        let ears = Arc::new(Ears::default());
        rig.machine.device().report_to(ears.clone());
        let file = OpenOptions::new().write(true).open(rig.image.path());
        let file = file.unwrap();
        file.set_len(512).unwrap();
        rig.submit(0, IN, 0, &[writable(DATA, 1024)]);
        rig.machine.notify(0);
        rig.machine.device().pause();
        let answered = rig.machine.used(0).len();

        file.set_len(SECTORS * 512).unwrap();
        rig.machine.device().resume();
        rig.machine.pci.process_queue(0);
        rig.settle();

        assert_eq!((answered, ears.stopped.load(Ordering::Relaxed)), (0, 1));
        assert_eq!(rig.machine.used(0).len(), 1);
        assert_eq!(rig.machine.get::<1>(STATUS), [OK]);
        assert_eq!(rig.machine.get::<512>(DATA + 512), [0; 512]);
    }
}

#[test]
fn a_request_that_failed_is_not_tried_again_before_the_machine_goes_on() {
    let (mut rig, _) = timed(|config| {
        config.on_error.io = OnError::Pause;
        config.synchronous = false;
    });
    let ears = Arc::new(Ears::default());
    rig.machine.device().report_to(ears.clone());
    let file = OpenOptions::new().write(true).open(rig.image.path());
    file.unwrap().set_len(512).unwrap();
    rig.submit(0, IN, 8, &[writable(DATA, 512)]);
    for _ in 0..10 {
        rig.machine.notify(0);
    }
    rig.machine.device().pause();
    let told = ears.stopped.load(Ordering::Relaxed);
    rig.machine.device().resume();
    rig.machine.pci.process_queue(0);
    rig.settle();

    assert_eq!((told, ears.stopped.load(Ordering::Relaxed)), (1, 2));
}

#[test]
fn errors_without_end_are_told_a_few_times_only() {
    let (mut rig, _) = timed(|_| {});
    let ears = Arc::new(Ears::default());
    rig.machine.device().report_to(ears.clone());
    let file = OpenOptions::new().write(true).open(rig.image.path());
    file.unwrap().set_len(512).unwrap();

    for _ in 0..30 {
        rig.request(IN, 8, &[writable(DATA, 512)]);
    }

    assert_eq!(ears.told.load(Ordering::Relaxed), 10);
    assert_eq!(rig.machine.device().counts().errors, 30);
}

#[test]
fn a_reset_forgets_what_waited_to_be_tried_again() {
    let (mut rig, _) = timed(|config| config.on_error.io = OnError::Pause);
    let file = OpenOptions::new().write(true).open(rig.image.path());
    file.unwrap().set_len(512).unwrap();
    rig.submit(0, IN, 8, &[writable(DATA, 512)]);
    rig.machine.notify(0);

    rig.machine.write8(reg::STATUS, 0);
    rig.machine.probe(u64::MAX);

    assert_eq!(rig.request(IN, 0, &[writable(DATA, 512)]).0, OK);
}

#[test]
fn each_queue_is_served_by_itself() {
    let (mut rig, _) = timed(|config| config.queues = 3);
    rig.submit(2, IN, 5, &[writable(DATA, 512)]);
    rig.machine.notify(2);

    assert_eq!(rig.machine.used(2).len(), 1);
    assert_eq!(rig.machine.get::<512>(DATA), [5; 512]);
    assert_eq!(rig.machine.read16(reg::DEVICE + 34), 3);
    assert_ne!(rig.machine.offered() & feature::MQ, 0);
}

#[test]
fn a_disk_that_keeps_its_blocks_offers_no_discard() {
    let (rig, _) = timed(|config| config.discard = false);

    assert_eq!(rig.machine.offered() & feature::DISCARD, 0);
}
