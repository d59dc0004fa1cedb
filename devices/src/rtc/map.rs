//! Registers by their index, and their bits.

pub(super) mod reg {
    pub(in super::super) const SECOND: u8 = 0x00;
    pub(in super::super) const SECOND_ALARM: u8 = 0x01;
    pub(in super::super) const MINUTE: u8 = 0x02;
    pub(in super::super) const MINUTE_ALARM: u8 = 0x03;
    pub(in super::super) const HOUR: u8 = 0x04;
    pub(in super::super) const HOUR_ALARM: u8 = 0x05;
    pub(in super::super) const WEEKDAY: u8 = 0x06;
    pub(in super::super) const DAY: u8 = 0x07;
    pub(in super::super) const MONTH: u8 = 0x08;
    pub(in super::super) const YEAR: u8 = 0x09;
    pub(in super::super) const A: u8 = 0x0a;
    pub(in super::super) const B: u8 = 0x0b;
    pub(in super::super) const C: u8 = 0x0c;
    pub(in super::super) const D: u8 = 0x0d;
    pub(in super::super) const CENTURY: u8 = 0x32;
    /// The century's place on a PS/2; the same register.
    pub(in super::super) const CENTURY_PS2: u8 = 0x37;
}

/// Register A: an update is about to happen, so the time may change while it is read.
pub(super) const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register A: with both of these the divider is held in reset, and the clock stands still.
pub(super) const DIVIDER_RESET: u8 = 0b11 << 5;
/// Register A: the rate of the periodic event.
pub(super) const RATE: u8 = 0xf;
/// Register A after power-on: 32,768 Hz, 1,024 periodic events a second.
pub(super) const A_RESET: u8 = 0x26;

/// Register B: the clock stands still so that it can be set.
pub(super) const SET: u8 = 1 << 7;
/// Register B and C: the periodic event.
pub(super) const PERIODIC: u8 = 1 << 6;
/// Register B and C: the alarm.
pub(super) const ALARM: u8 = 1 << 5;
/// Register B and C: the second changed.
pub(super) const UPDATE: u8 = 1 << 4;
/// Register B: the square wave output, which is wired to nothing.
pub(super) const SQUARE_WAVE: u8 = 1 << 3;
/// The three events.
pub(super) const EVENTS: u8 = PERIODIC | ALARM | UPDATE;
/// Register C: an enabled event happened.
pub(super) const INTERRUPT: u8 = 1 << 7;

/// Register D: the battery is good.
pub(super) const VALID: u8 = 1 << 7;
