//! The memory balloon as a driver of no good will uses it.
//!
//! Checked: what a sound chain names goes to the host and reads as zeroes; no other memory changes but
//! the rings; the target is the host's; memory is bounded.

#![no_main]

use std::sync::Arc;

use caraway_devices::{FakeClock, FakeTimer, Lifecycle};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::virtio::{BUFFERS, Driver, MEMORY, SIZE};
use caraway_virtio::{Balloon, BalloonConfig};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes of our side that an input may take, two copies of the guest's memory among them.
const MOST_MEMORY: usize = 2 << 20;

const PAGE: u64 = 4096;
/// Pages that come and go.
const FIRST: u64 = BUFFERS / PAGE + 8;
const LAST: u64 = MEMORY / PAGE - 1;
const STATS: u16 = 2;
const REPORTING: u16 = 3;

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn drive(mut dice: Dice<'_>) {
    let config = BalloonConfig {
        memory: MEMORY,
        stats_interval: Some(1_000_000_000),
        deflate_on_oom: true,
        free_page_reporting: true,
    };
    let (clock, timer) = (FakeClock::new(0), FakeTimer::new());
    let device = Arc::new(Balloon::new(config, clock.clone(), timer));
    let features = dice.pick(&[1 << 1 | 1 << 2 | 1 << 5, 1 << 1, 0]);
    let mut driver = Driver::new(Arc::clone(&device), features);
    let reporting = features & 1 << 5 != 0;
    let target = dice.up_to(MEMORY as usize) as u64;
    device.set_target(target);
    while !dice.is_over() {
        match dice.up_to(5) {
            0 | 1 => numbers(&mut driver, &mut dice),
            2 | 3 => pages(&mut driver, &mut dice, reporting),
            4 => {
                let length = dice.bytes(200);
                driver.put(BUFFERS, length);
                if driver.under_way(STATS) < SIZE {
                    driver.submit(&mut dice, STATS, &[(BUFFERS, length.len() as u32, false)]);
                }
                driver.pci.process_queue(STATS);
                clock.advance(dice.number() % 3_000_000_000);
                device.expired();
                while driver.used(STATS).is_some() {}
            }
            _ => {
                let saved = Lifecycle::save(&*driver.pci).expect("it can be saved");
                let restored = Lifecycle::restore(&*driver.pci, &saved);
                // A driver may have given its own rings away.
                if restored.is_err() {
                    driver.set_up();
                }
            }
        }
        driver.recover();
        assert_eq!(device.info().target, target / PAGE * PAGE);
    }
}

/// Marks every page that may go.
fn mark(driver: &Driver<Balloon>) {
    for page in FIRST..=LAST {
        driver.put(page * PAGE, &[7]);
    }
}

/// Looks which pages went, if nothing was wrong.
fn check(driver: &mut Driver<Balloon>, is_sound: bool, gone: impl Fn(u64) -> bool) {
    if !is_sound {
        // Its rings may be gone too.
        return driver.set_up();
    }
    for page in FIRST..=LAST {
        let is_gone = driver.get(page * PAGE, 1) == [0];
        assert_eq!(is_gone, gone(page), "page {page}");
    }
}

/// Puts pages in the balloon, or takes them out.
fn numbers(driver: &mut Driver<Balloon>, dice: &mut Dice<'_>) {
    let queue = dice.up_to(1) as u16;
    let count = dice.up_to(30);
    let mut is_sound = true;
    let numbers: Vec<u32> = (0..count)
        .map(|_| {
            let page = FIRST + dice.up_to((LAST - FIRST) as usize) as u64;
            let number = dice.mostly(page);
            // Others may be those of the rings.
            is_sound &= (FIRST..=LAST).contains(&u64::from(number as u32));
            number as u32
        })
        .collect();
    mark(driver);
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    driver.put(BUFFERS, &bytes);
    let split = 4 * dice.up_to(count);
    let segments = [
        (BUFFERS, split as u32, false),
        (BUFFERS + split as u64, (bytes.len() - split) as u32, false),
    ];
    is_sound &= driver.submit(dice, queue, &segments);
    driver.pci.process_queue(queue);
    is_sound &= driver.used(queue).is_some();
    check(driver, is_sound, |page| {
        queue == 0 && numbers.contains(&(page as u32))
    });
}

/// Reports pages that are not used.
fn pages(driver: &mut Driver<Balloon>, dice: &mut Dice<'_>, is_offered: bool) {
    if !is_offered {
        return;
    }
    mark(driver);
    let start = FIRST * PAGE + dice.up_to(((LAST - FIRST) * PAGE) as usize) as u64;
    let len = dice.up_to((MEMORY - start) as usize) as u64;
    let mut is_sound = driver.submit(dice, REPORTING, &[(start, len as u32, true)]);
    driver.pci.process_queue(REPORTING);
    is_sound &= driver.used(REPORTING).is_some();
    check(driver, is_sound, |page| {
        page * PAGE >= start && (page + 1) * PAGE <= start + len
    });
}
