//! A tick as an old system has it: the PIT a hundred times a second, through the I/O APIC.

use crate::busy::{Slots, next};
use crate::cpu::{self, out8, write};
use crate::failure::{Outcome, Why};
use crate::interrupts;
use crate::qxl::{Qxl, rect};
use crate::say;
use crate::start_info::StartInfo;

const IOAPIC_SELECT: u64 = 0xfec0_0000;
const IOAPIC_DATA: u64 = IOAPIC_SELECT + 0x10;
/// The PIT's line, as the MADT has it.
const PIT_GSI: u32 = 2;
const VECTOR: u8 = 0x50;

/// 1,193,182 Hz divided by this is 100 Hz, nearly.
const DIVISOR: u16 = 11_932;
/// Ticks between two lines about them.
const REPORT: u32 = 50;

/// Ticks until the machine is ended from outside, or `ticks` of them; with `busy` in view of a
/// screen that changes with each. Says how many came so far, at which time of the processor's
/// clock, and the longest gap since the line before.
pub fn test(info: &StartInfo) -> Outcome {
    let mut screen = if info.has("busy") {
        Some(Screen::open()?)
    } else {
        None
    };
    let wanted = u32::try_from(info.number("ticks", 0)).unwrap_or(0);
    start();
    let (mut seen, mut last, mut longest) = (0, cpu::ticks(), 0);
    loop {
        cpu::halt();
        let count = interrupts::count(VECTOR);
        if count == seen {
            continue;
        }
        let now = cpu::ticks();
        longest = longest.max(now.wrapping_sub(last));
        last = now;
        if count / REPORT != seen / REPORT {
            say!("tick {count} {now} {longest}");
            longest = 0;
        }
        seen = count;
        if wanted != 0 && count >= wanted {
            return Ok(());
        }
        if let Some(screen) = &mut screen {
            screen.change()?;
        }
    }
}

fn start() {
    interrupts::enable();
    // To the first processor, edge, high, not masked.
    for (register, value) in [
        (0x11 + 2 * PIT_GSI, 0),
        (0x10 + 2 * PIT_GSI, u32::from(VECTOR)),
    ] {
        write(IOAPIC_SELECT, register);
        write(IOAPIC_DATA, value);
    }
    let [low, high] = DIVISOR.to_le_bytes();
    out8(0x43, 0x34); // channel 0, both bytes, rate generator
    out8(0x40, low);
    out8(0x40, high);
}

/// A screen of which each tick makes a part anew, with noise that no codec makes smaller.
struct Screen {
    qxl: Qxl,
    free: Slots,
    random: u64,
    top: u32,
}

impl Screen {
    const WIDTH: u32 = 640;
    const HEIGHT: u32 = 480;
    const STRIPE: u32 = 32;
    const SLOTS: usize = 32;

    fn open() -> Result<Self, Why> {
        let mut qxl = Qxl::open(Self::WIDTH, Self::HEIGHT)?;
        qxl.create_primary();
        qxl.set_monitors()?;
        let mut free = Slots::new();
        for _ in 0..Self::SLOTS {
            free.give(qxl.slot(Self::WIDTH * Self::STRIPE));
        }
        Ok(Self {
            qxl,
            free,
            random: 0x9e37_79b9_7f4a_7c15,
            top: 0,
        })
    }

    fn change(&mut self) -> Outcome {
        let free = &mut self.free;
        self.qxl.collect(|slot| free.give(slot))?;
        let Some(slot) = free.take() else {
            self.qxl.ask_back();
            return Ok(());
        };
        let area = rect(0, self.top, Self::WIDTH, Self::STRIPE);
        self.top = (self.top + Self::STRIPE) % Self::HEIGHT;
        let random = &mut self.random;
        self.qxl.put(slot, area, || next(random))
    }
}
