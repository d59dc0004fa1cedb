//! PIT and RTC: a guest that counts their interrupts, as old systems do to tell the time.

use crate::cpu::{self, in8, out8, write};
use crate::failure::Outcome;
use crate::interrupts::{self, count};
use crate::start_info::StartInfo;
use crate::{ensure, say};

const IOAPIC_INDEX: u64 = 0xfec0_0000;
const IOAPIC_DATA: u64 = IOAPIC_INDEX + 0x10;
const LVT0: u64 = 0xfee0_0350;
const EXTINT: u32 = 0x700;
/// Vectors by controller; the IRQ is added. `entry.s` knows them, for the end of the interrupt.
const IOAPIC_BASE: u8 = 0x50;
const PIC_BASE: u8 = 0x60;

const PIT_IRQ: u8 = 0;
const PIT_PIN: u8 = 2;
const PIT_DATA: u16 = 0x40;
const PIT_CONTROL: u16 = 0x43;
const RATE_GENERATOR: u8 = 0x34;
const RTC_IRQ: u8 = 8;
const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const DIVIDER_ON: u8 = 0x20;
const PERIODIC: u8 = 0x40;
const SET: u8 = 0x80;
const HOURS_24: u8 = 0x02;

/// Ticks of the processor's clock between two reports, if `every` does not say.
const EVERY: u64 = 250_000_000;

/// The timers are programmed at once if it takes no longer than this by the processor's clock.
const AT_ONCE: u64 = 1_000_000;

/// Counts ticks, for ever or for `for` of the processor's clock: of `source=pit` with `divisor`, or of
/// `source=rtc` with the rate `code`; through `route=ioapic` or `route=pic`. Says `ticks from CLOCK CLOCK`,
/// between which they began, and then now and again `ticks COUNT CLOCK`, all by the processor's clock. In the
/// end no more tick falls due, from between the clocks of the last two lines on.
pub fn test_count(info: &StartInfo) -> Outcome {
    let irq = match info.option("source") {
        Some("rtc") => RTC_IRQ,
        _ => PIT_IRQ,
    };
    let vector = match info.option("route") {
        Some("pic") => through_pic(irq),
        _ => through_ioapic(irq),
    };
    let every = info.number("every", EVERY);
    let length = info.number("for", u64::MAX);
    let (asked, start, before) = begin(info, irq, vector);
    say!("ticks from {asked} {start}");
    let mut told = start;
    loop {
        cpu::halt();
        let now = cpu::ticks();
        let over = now.wrapping_sub(start) >= length;
        if over {
            stop(irq);
        } else if now.wrapping_sub(told) < every {
            continue;
        }
        let stopped = cpu::ticks();
        let taken = count(vector).wrapping_sub(before);
        say!("ticks {taken} {now}");
        if over {
            say!("ticks {taken} {stopped}");
            return Ok(());
        }
        told = now;
    }
}

/// Lets the ticks begin; the processor's clock before and after, and how many had come before. It
/// begins anew, `tries` times at most, if the host had something else to do in between: one would not
/// know when the first tick is due.
fn begin(info: &StartInfo, irq: u8, vector: u8) -> (u64, u64, u32) {
    let mut tries = info.number("tries", 100);
    loop {
        stop(irq);
        let before = count(vector);
        let asked = cpu::ticks();
        if irq == RTC_IRQ {
            start_rtc(info.number("code", 6) as u8);
        } else {
            start_pit(info.number("divisor", 11_932) as u16);
        }
        let begun = cpu::ticks();
        tries = tries.saturating_sub(1);
        if begun.wrapping_sub(asked) < AT_ONCE || tries == 0 {
            return (asked, begun, before);
        }
    }
}

/// No more ticks.
fn stop(irq: u8) {
    if irq == RTC_IRQ {
        set_rtc(REGISTER_B, HOURS_24);
    } else {
        // A counter without a count.
        out8(PIT_CONTROL, RATE_GENERATOR);
    }
}

/// Does to both timers what no guest should, and leaves them so.
pub fn test_abuse(info: &StartInfo) -> Outcome {
    let rounds = info.number("rounds", 2_000);
    for round in 0..rounds {
        let byte = (round * 0x9d) as u8;
        for port in [0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x72, 0x73] {
            out8(port, byte.wrapping_add(port as u8));
            in8(port);
        }
    }
    // A clock that stands still half set, ticking at its fastest, and a counter of 1 half read.
    set_rtc(REGISTER_B, SET | PERIODIC);
    set_rtc(0, 0xff);
    set_rtc(REGISTER_A, DIVIDER_ON | 3);
    start_pit(1);
    out8(PIT_CONTROL, 0);
    in8(PIT_DATA);
    Ok(())
}

/// Waits while both timers are as they are and nobody hears them, for `silent` ticks of the
/// processor's clock.
pub fn test_silence(info: &StartInfo) -> Outcome {
    let end = cpu::ticks().wrapping_add(info.number("silent", 5_000_000_000));
    say!("silence begins");
    // Reading the clock is all it does: what the host does for the timers is what it uses.
    while cpu::ticks() < end {
        for _ in 0..1_000 {
            core::hint::spin_loop();
        }
    }
    say!("silence ends");
    Ok(())
}

/// The RTC takes a date and goes on from it.
pub fn test_set_clock(_: &StartInfo) -> Outcome {
    set_rtc(REGISTER_B, SET | HOURS_24);
    for (register, value) in [
        (0, 0x30),
        (2, 0x59),
        (4, 0x23),
        (7, 0x31),
        (8, 0x12),
        (9, 0x99),
    ] {
        set_rtc(register, value);
    }
    set_rtc(0x32, 0x20);
    set_rtc(REGISTER_B, HOURS_24);
    out8(RTC_INDEX, 9);
    let year = in8(RTC_DATA);
    ensure!(year == 0x99, "the year is {year:#x}");
    Ok(())
}

fn start_pit(divisor: u16) {
    out8(PIT_CONTROL, RATE_GENERATOR);
    for byte in divisor.to_le_bytes() {
        out8(PIT_DATA, byte);
    }
}

fn start_rtc(code: u8) {
    set_rtc(REGISTER_A, DIVIDER_ON | code & 0xf);
    // A period that is over already would interrupt at once.
    out8(RTC_INDEX, REGISTER_C);
    in8(RTC_DATA);
    set_rtc(REGISTER_B, PERIODIC | HOURS_24);
}

fn set_rtc(register: u8, value: u8) {
    out8(RTC_INDEX, register);
    out8(RTC_DATA, value);
}

/// Lets `irq` through the I/O APIC; its vector.
fn through_ioapic(irq: u8) -> u8 {
    interrupts::enable();
    let pin = if irq == PIT_IRQ { PIT_PIN } else { irq };
    let vector = IOAPIC_BASE + irq;
    let entry = 0x10 + 2 * u32::from(pin);
    for (register, value) in [(entry + 1, 0), (entry, u32::from(vector))] {
        write(IOAPIC_INDEX, register);
        write(IOAPIC_DATA, value);
    }
    vector
}

/// Lets `irq` through the PICs; its vector.
fn through_pic(irq: u8) -> u8 {
    interrupts::enable();
    write(LVT0, EXTINT);
    for (port, base, cascade) in [(0x20, PIC_BASE, 4), (0xa0, PIC_BASE + 8, 2)] {
        out8(port, 0x11);
        for word in [base, cascade, 1] {
            out8(port + 1, word);
        }
    }
    let open = if irq < 8 { 1 << irq } else { 4 | 1 << irq };
    let [first, second] = (!(open as u16)).to_le_bytes();
    out8(0x21, first);
    out8(0xa1, second);
    PIC_BASE + irq
}
