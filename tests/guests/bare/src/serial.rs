//! COM1, polled.

use core::fmt::{self, Write};

use crate::cpu::{in8, out8};

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const ROOM: u8 = 0x20;

/// 115200 8n1, FIFOs on, no interrupts.
pub fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
        out8(COM1 + register, value);
    }
}

/// The port as a place to write text.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in8(LINE_STATUS) & ROOM == 0 {}
            out8(COM1, byte);
        }
        Ok(())
    }
}

/// Writes a line to COM1.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::serial::Serial, $($argument)*);
        let _ = $crate::serial::Serial.write_str("\r\n");
    }};
}
