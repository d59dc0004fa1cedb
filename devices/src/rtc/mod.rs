//! The MC146818 real-time clock and the battery-backed memory around it (Motorola MC146818
//! datasheet; ICH9 datasheet 13.6).
//!
//! Ports 0x70 and 0x71 reach 128 bytes, 0x72 and 0x73 another 128. The interrupt is GSI 8: high
//! from an enabled event until the guest reads register C.

mod calendar;
mod clock;
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
