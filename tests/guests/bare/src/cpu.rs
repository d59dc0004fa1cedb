//! What needs an instruction of its own: ports, device memory, the clock, ring 0's services.

use core::arch::asm;
use core::ptr;

const SERVICE_HALT: u64 = 0x5e100;
const SERVICE_NO_IDT: u64 = 0x5e101;

macro_rules! port {
    ($input:ident, $output:ident, $type:ty, $register:tt) => {
        /// Reads an I/O port.
        pub fn $input(port: u16) -> $type {
            let value: $type;
            // SAFETY: a port access touches no memory of ours.
            unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nomem, nostack)) };
            value
        }

        /// Writes an I/O port.
        pub fn $output(port: u16, value: $type) {
            // SAFETY: a port access touches no memory of ours, unless it starts DMA: then the
            // caller gave the device memory that is the device's.
            unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nostack)) };
        }
    };
}

port!(in8, out8, u8, "al");
port!(in16, out16, u16, "ax");
port!(in32, out32, u32, "eax");

/// Reads memory at a physical address, which here is its address, in one access.
pub fn read<T: Copy>(address: u64) -> T {
    // SAFETY: all the first 16 GiB are mapped, and `T` is one of the integers, valid in any bits.
    unsafe { ptr::read_volatile(address as *const T) }
}

/// Writes memory at a physical address in one access.
pub fn write<T: Copy>(address: u64, value: T) {
    // SAFETY: as for `read`; callers name device memory, or memory that nothing else here uses.
    unsafe { ptr::write_volatile(address as *mut T, value) }
}

/// Ticks of the processor's clock.
pub fn ticks() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Waits until `done`, at most for some ten seconds; whether it happened.
pub fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    const PATIENCE: u64 = 30_000_000_000;
    let start = ticks();
    while !done() {
        if ticks().wrapping_sub(start) > PATIENCE {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn service(number: u64) {
    // SAFETY: `entry.s` answers by coming back after the instruction with every register as it was.
    unsafe { asm!("ud2", in("rax") number) };
}

/// Sleeps until an interrupt.
pub fn halt() {
    service(SERVICE_HALT);
}

/// An exception without a handler for it, nor for that: the processor gives up.
pub fn triple_fault() -> ! {
    loop {
        service(SERVICE_NO_IDT);
    }
}
