//! The 8254 programmable interval timer (Intel 8254 datasheet) and system control port B.
//!
//! Ports 0x40 to 0x43, and 0x61. Channel 0 interrupts on GSI 0 by a rising edge of its output,
//! channel 1 does nothing, channel 2 is gated and seen through port 0x61.

mod channel;
mod device;

pub use channel::ChannelState;
pub use device::{ControlPortB, Pit, PitState};

/// Frequency of the counters' input in Hz.
pub const HZ: u64 = 1_193_182;
/// The first of four ports.
pub const PORT: u16 = 0x40;
/// How many ports there are.
pub const PORTS: u16 = 4;
/// System control port B.
pub const CONTROL_PORT_B: u16 = 0x61;
/// The interrupt of channel 0.
pub const GSI: u32 = 0;
