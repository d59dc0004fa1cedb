//! The source of random numbers as a driver of no good will uses it.
//!
//! Checked: what comes back was asked for and is from the source; no more passes than the limit lets;
//! memory is bounded.

#![no_main]

use std::io::{self, ErrorKind, Read};
use std::num::NonZeroU64;
use std::sync::Arc;

use caraway_devices::{Clock, FakeClock, FakeTimer, Lifecycle, Rate};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::virtio::{BUFFERS, Driver, SIZE};
use caraway_virtio::Rng;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

const MOST_MEMORY: usize = 1 << 20;
const QUEUE: u16 = 0;
/// Bytes of each buffer's place.
const ROOM: u64 = 8192;
/// What the source gives.
const BYTE: u8 = 0xa5;
const PER_SECOND: u64 = 100_000;
const BURST: u64 = 10_000;

/// Gives less than it is asked for, or nothing, now and then.
struct Source(u8);

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.wrapping_mul(13).wrapping_add(7);
        let count = match self.0 {
            0..20 => return Err(ErrorKind::WouldBlock.into()),
            20..30 => return Err(ErrorKind::Other.into()),
            30..40 => 0,
            40..120 => buffer.len() / 2,
            _ => buffer.len(),
        };
        buffer[..count].fill(BYTE);
        Ok(count)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn drive(mut dice: Dice<'_>) {
    let clock = FakeClock::new(0);
    let rate = NonZeroU64::new(PER_SECOND).zip(NonZeroU64::new(BURST));
    let rate = rate.map(|(per_second, burst)| Rate { per_second, burst });
    let source = Source(dice.byte());
    let rng = Rng::new(source, rate, clock.clone(), FakeTimer::new());
    let device = Arc::new(rng);
    let mut driver = Driver::new(Arc::clone(&device), 0);
    let (mut given, mut lengths) = (0_u64, [0; SIZE as usize]);
    while !dice.is_over() {
        let mut is_sound = true;
        for _ in 0..dice.up_to(4) {
            if driver.under_way(QUEUE) < SIZE {
                let slot = given % u64::from(SIZE);
                let (at, len) = (BUFFERS + ROOM * slot, dice.up_to(ROOM as usize));
                driver.put(at, &vec![0; ROOM as usize]);
                is_sound &= driver.submit(&mut dice, QUEUE, &[(at, len as u32, true)]);
                lengths[slot as usize] = len;
                given += 1;
            }
        }
        driver.pci.process_queue(QUEUE);
        clock.advance(dice.number() % 200_000_000);
        device.expired();
        if dice.rarely() {
            let saved = Lifecycle::save(&*driver.pci).expect("it can be saved");
            Lifecycle::restore(&*driver.pci, &saved).expect("its own state is sound");
        }
        if !is_sound || driver.recover() {
            driver.set_up();
            given = 0;
        }
        while let Some((head, len)) = driver.used(QUEUE) {
            let (slot, len) = (head as usize, len as usize);
            assert!(len <= lengths[slot], "{len} bytes of {}", lengths[slot]);
            assert_eq!(len == 0, lengths[slot] == 0, "an empty answer");
            let bytes = driver.get(BUFFERS + ROOM * slot as u64, lengths[slot]);
            assert!(bytes[..len].iter().all(|byte| *byte == BYTE));
            assert!(bytes[len..].iter().all(|byte| *byte == 0));
        }
        let most = BURST + clock.now() / 1_000_000_000 * PER_SECOND + PER_SECOND;
        assert!(device.counts().bytes <= most, "more than the limit lets");
    }
}
