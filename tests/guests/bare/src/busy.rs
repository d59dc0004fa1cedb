//! A screen that is never still: what a viewer's latency is measured on.
//!
//! All of the surface but its first rows shows noise that no codec makes smaller, stripe after
//! stripe at a steady pace. At each key that goes down a square in the first rows gets the next
//! colour, and COM1 the line `key COUNT`; each second it gets the line `drew COUNT` of the stripes.
//!
//! Options: `width` and `height` in pixels, `fps` full pictures of noise a second (0 for a still
//! screen), `seconds` until the end.

use crate::cpu::{self, in8, out8};
use crate::failure::Outcome;
use crate::qxl::{Qxl, Slot, rect};
use crate::say;
use crate::start_info::StartInfo;

/// Rows without noise.
const QUIET_ROWS: u32 = 64;
/// Rows of a stripe of noise.
const STRIPE_ROWS: u32 = 32;
/// Commands that the device may have at a time.
const SLOTS: usize = 48;
/// Of the PIT's counter, a second.
const PIT_HZ: u64 = 1_193_182;
/// The square's colour after `count` keys. The test's clients know it too.
const fn colour(count: u32) -> u32 {
    0xff_0000 | (count & 0xff) << 8
}

/// Draws for `seconds`.
pub fn run(info: &StartInfo) -> Outcome {
    let option = |key, otherwise| info.number(key, otherwise) as u32;
    let (width, height) = (option("width", 640), option("height", 480));
    set_keyboard();
    let second = ticks_of_a_second();
    let mut qxl = Qxl::open(width, height)?;
    qxl.create_primary();
    qxl.set_monitors()?;

    let mut free = Slots::new();
    for _ in 0..SLOTS {
        free.give(qxl.slot(width * STRIPE_ROWS));
    }
    if let Some(slot) = free.take() {
        qxl.put_fill(slot, rect(0, 0, width, height), 0x20_4060)?;
    }
    let stripes = (height - QUIET_ROWS) / STRIPE_ROWS;
    let pace = second.checked_div(info.number("fps", 20) * u64::from(stripes));
    let end = cpu::ticks() + info.number("seconds", 3600) * second;
    let (mut random, mut stripe, mut keys, mut drawn, mut shown) =
        (0x9e37_79b9_7f4a_7c15, 0, 0, 0_u64, 0);
    let start = cpu::ticks();
    let (mut due, mut asked, mut report) = (start, start, start + second);
    say!("busy {second} ticks a second");
    loop {
        let now = cpu::ticks();
        if now >= end {
            break;
        }
        if now >= report {
            report += second;
            say!("drew {drawn}");
        }
        if key_went_down() {
            keys += 1;
        }
        qxl.collect(|slot| free.give(slot))?;
        if free.is_empty() && now.wrapping_sub(asked) > second / 200 {
            asked = now;
            qxl.ask_back();
        }
        if shown != keys
            && let Some(slot) = free.take()
        {
            shown = keys;
            qxl.put_fill(slot, rect(16, 16, 32, 32), colour(keys))?;
            say!("key {keys}");
        }
        let Some(pace) = pace.filter(|_| now >= due) else {
            continue;
        };
        if let Some(slot) = free.take() {
            let top = QUIET_ROWS + stripe * STRIPE_ROWS;
            qxl.put(slot, rect(0, top, width, STRIPE_ROWS), || next(&mut random))?;
            stripe = (stripe + 1) % stripes;
            drawn += 1;
            // Time that was lost is not made up for.
            due = now.max(due + pace);
        }
    }
    say!(
        "busy drew {drawn} stripes, {} pictures",
        drawn / u64::from(stripes)
    );
    Ok(())
}

/// Slots that the device does not have.
pub struct Slots {
    slots: [Option<Slot>; SLOTS],
    count: usize,
}

impl Slots {
    /// None.
    pub const fn new() -> Self {
        Self {
            slots: [None; SLOTS],
            count: 0,
        }
    }

    /// Adds a slot; one too many, which a device may claim to give back, is forgotten.
    pub fn give(&mut self, slot: Slot) {
        if let Some(place) = self.slots.get_mut(self.count) {
            *place = Some(slot);
            self.count += 1;
        }
    }

    /// One, if there is any.
    pub fn take(&mut self) -> Option<Slot> {
        self.count = self.count.checked_sub(1)?;
        self.slots[self.count].take()
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Marsaglia's xorshift.
pub fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// Whether the keyboard has a make code for us.
fn key_went_down() -> bool {
    const STATUS: u16 = 0x64;
    const DATA: u16 = 0x60;
    const FULL: u8 = 1;
    const FROM_MOUSE: u8 = 0x20;
    let status = in8(STATUS);
    if status & FULL == 0 {
        return false;
    }
    let code = in8(DATA);
    status & FROM_MOUSE == 0 && code < 0x80
}

/// Has the keyboard speak scancode set 1, as firmware does, and no interrupts.
fn set_keyboard() {
    const COMMAND: u16 = 0x64;
    const DATA: u16 = 0x60;
    const BUSY: u8 = 2;
    const WRITE_CONFIG: u8 = 0x60;
    const TRANSLATE: u8 = 0x40;
    for (port, value) in [(COMMAND, WRITE_CONFIG), (DATA, TRANSLATE)] {
        cpu::wait_until(|| in8(COMMAND) & BUSY == 0);
        out8(port, value);
    }
}

/// Ticks of the processor's clock in so many milliseconds.
pub fn ticks_of(milliseconds: u64) -> u64 {
    milliseconds * ticks_of_a_second() / 1000
}

/// Measures the processor's clock by the PIT's counter 0, for about 17 ms a few times. The least
/// counts: a pause of the host may be longer than the counter's period, and then hides from it.
pub fn ticks_of_a_second() -> u64 {
    const TIMES: usize = 8;
    (0..TIMES)
        .map(|_| measure_ticks())
        .min()
        .unwrap_or(u64::MAX)
}

fn measure_ticks() -> u64 {
    const CONTROL: u16 = 0x43;
    const COUNTER: u16 = 0x40;
    const PERIODIC: u8 = 0x34;
    const SPAN: u16 = 20_000;
    let counter = || {
        out8(CONTROL, 0);
        u16::from_le_bytes([in8(COUNTER), in8(COUNTER)])
    };
    out8(CONTROL, PERIODIC);
    out8(COUNTER, 0);
    out8(COUNTER, 0);
    let (start, first) = (cpu::ticks(), counter());
    loop {
        let passed = first.wrapping_sub(counter());
        if passed >= SPAN {
            return (cpu::ticks() - start) * PIT_HZ / u64::from(passed);
        }
    }
}
