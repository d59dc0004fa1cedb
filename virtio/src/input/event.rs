//! Events as both sides write them (5.8.6), with the numbers of Linux' `input-event-codes.h`.

use serde::{Deserialize, Serialize};

/// Bytes of an event on the wire.
pub(crate) const EVENT_SIZE: usize = 8;

pub(crate) const EV_SYN: u16 = 0x00;
pub(crate) const EV_KEY: u16 = 0x01;
pub(crate) const EV_REL: u16 = 0x02;
pub(crate) const EV_ABS: u16 = 0x03;
pub(crate) const EV_LED: u16 = 0x11;
pub(crate) const EV_REP: u16 = 0x14;
pub(crate) const SYN_REPORT: u16 = 0;

/// `struct virtio_input_event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `EV_*`.
    pub(crate) kind: u16,
    /// Which key, axis or light.
    pub(crate) code: u16,
    /// Its value; signed for axes.
    pub(crate) value: i32,
}

impl Event {
    pub(crate) const SYNC: Self = Self::new(EV_SYN, SYN_REPORT, 0);

    pub(crate) const fn new(kind: u16, code: u16, value: i32) -> Self {
        Self { kind, code, value }
    }

    pub(crate) fn to_bytes(self) -> [u8; EVENT_SIZE] {
        let mut bytes = [0; EVENT_SIZE];
        bytes[..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.code.to_le_bytes());
        bytes[4..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; EVENT_SIZE]) -> Self {
        let [k0, k1, c0, c1, value @ ..] = bytes;
        Self::new(
            u16::from_le_bytes([k0, k1]),
            u16::from_le_bytes([c0, c1]),
            i32::from_le_bytes(value),
        )
    }
}
