//! The MC146818 real-time clock and the battery-backed memory around it (Motorola MC146818
//! datasheet; ICH9 datasheet 13.6).
//!
//! Ports 0x70 and 0x71 reach 128 bytes, 0x72 and 0x73 another 128. The interrupt is GSI 8: high
//! from an enabled event until the guest reads register C.
//!
//! Each periodic event that interrupts is a tick of the device's
//! [`TickLedger`](crate::ticks::TickLedger), acknowledged by that read, so that none is lost under
//! the policies that say so. Periodic events come by the machine's time, which stands still while
//! it is paused; date and time follow the host's wall clock at a distance, which changes when the
//! guest sets them. The day of the week follows the date. Daylight saving (register B, DSE) is kept
//! but does nothing, as its American dates of 1984 would be wrong almost anywhere; nor does the
//! square wave output, which is wired to nothing.

mod alarm;
mod calendar;
mod clock;
mod divider;
mod map;
mod nvram;
mod registers;

pub use clock::{ClockChanged, ClockSink, RtcBase};
pub use nvram::{BootDevice, FirmwareFacts};
pub use registers::{Rtc, RtcState};

/// The first of four ports.
pub const PORT: u16 = 0x70;
/// How many ports there are.
pub const PORTS: u16 = 4;
/// The interrupt.
pub const GSI: u32 = 8;
