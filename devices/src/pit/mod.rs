//! The 8254 programmable interval timer (Intel 8254 datasheet) and system control port B (ICH9
//! datasheet 13.7.1).
//!
//! Ports 0x40 to 0x43, and 0x61. Channel 0 interrupts on GSI 0 by a rising edge of its output,
//! channel 1 does nothing, channel 2 is gated and seen through port 0x61.
//!
//! A counter is exact to the clock of its input: a count is loaded by the clock after it was
//! written, a new one for a periodic mode when the old one ends, and all six modes follow their
//! gates. Where the datasheet says nothing: a count that a mode does not allow is taken for the
//! smallest that it does, a digit over 9 for its value, and a gate that shuts during a strobe makes
//! it last. An edge that programming causes is no interrupt.
//!
//! In a periodic mode each rise of channel 0 is a tick of its
//! [`TickLedger`](crate::ticks::TickLedger), so that none is lost under the policies that say so.
//! What a guest can make the host do is bounded: if its period is below 100 µs, as many periods as
//! fill that make one tick, and the others count as dropped.

mod channel;
mod device;
mod element;
mod mode;

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
