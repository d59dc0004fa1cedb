//! The local APIC: waking a second processor, and interrupts from one's own.

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::{self, read, wait_until, write};
use crate::ensure;
use crate::failure::Outcome;
use crate::hostile;
use crate::start_info::StartInfo;

const LAPIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = LAPIC + 0xf0;
const SPURIOUS_ON: u32 = 0x1ff;
const COMMAND: u64 = LAPIC + 0x300;
const COMMAND_TARGET: u64 = LAPIC + 0x310;
const COMMAND_BUSY: u32 = 1 << 12;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;
const TO_SELF: u32 = 1 << 18;
const ASSERT: u32 = 1 << 14;

/// Where the trampoline goes, and so the start-up IPI's vector.
const TRAMPOLINE: u64 = 0x8000;

unsafe extern "C" {
    static interrupt_counts: [AtomicU32; 256];
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// Processors beyond the first that came up.
static AWAKE: AtomicU32 = AtomicU32::new(0);

/// Lets this processor's APIC take interrupts.
pub fn enable() {
    write(SPURIOUS, SPURIOUS_ON);
}

/// How often `vector` came.
pub fn count(vector: u8) -> u32 {
    // SAFETY: `entry.s` has the counters and adds to them atomically.
    let counts = unsafe { &interrupt_counts };
    counts[usize::from(vector)].load(Ordering::Relaxed)
}

/// The MSI address of the first processor.
pub const MSI_ADDRESS: u64 = LAPIC;

fn command(target: u32, what: u32) -> bool {
    write(COMMAND_TARGET, target << 24);
    write(COMMAND, what);
    wait_until(|| read::<u32>(COMMAND) & COMMAND_BUSY == 0)
}

/// An interrupt to oneself arrives.
pub fn test_ipi(_: &StartInfo) -> Outcome {
    const VECTOR: u8 = 0x40;
    enable();
    let before = count(VECTOR);
    ensure!(
        command(0, TO_SELF | ASSERT | u32::from(VECTOR)),
        "the APIC stays busy"
    );
    ensure!(wait_until(|| count(VECTOR) > before), "no interrupt came");
    Ok(())
}

/// INIT and two start-up IPIs wake each further processor, `cpus` (2) in all.
pub fn test_smp(info: &StartInfo) -> Outcome {
    let cpus = u32::try_from(info.number("cpus", 2)).unwrap_or(2);
    enable();
    let start = &raw const ap_trampoline;
    let length = (&raw const ap_trampoline_end).addr() - start.addr();
    // SAFETY: the first MiB is RAM that only the loader's tables use, and they are not there.
    unsafe { ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, length) };
    for target in 1..cpus {
        ensure!(command(target, INIT), "INIT is not taken");
        pause(10_000_000);
        for _ in 0..2 {
            ensure!(
                command(target, STARTUP | (TRAMPOLINE >> 12) as u32),
                "SIPI is not taken"
            );
            pause(1_000_000);
        }
        let up = wait_until(|| AWAKE.load(Ordering::Acquire) >= target);
        ensure!(up, "processor {target} does not come up");
    }
    Ok(())
}

fn pause(ticks: u64) {
    let start = cpu::ticks();
    while cpu::ticks().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// Where a further processor reaches ring 3.
#[unsafe(no_mangle)]
extern "C" fn ap_main(_start_info: u64, _cpu: u32) -> ! {
    AWAKE.fetch_add(1, Ordering::Release);
    hostile::rewrite();
    loop {
        cpu::halt();
    }
}
