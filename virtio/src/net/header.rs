//! The header before each frame (5.1.6), and what may be left undone in a frame for the other side.

use serde::{Deserialize, Serialize};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is still to be filled in.
const NEEDS_CHECKSUM: u8 = 1 << 0;
/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 1 << 7;

/// Work on a frame that its sender leaves to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offloads {
    /// Filling checksums in.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub tso4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub tso6: bool,
    /// Both of these for segments that carry a congestion mark.
    pub ecn: bool,
}

impl Offloads {
    /// All that are known.
    pub const ALL: Self = Self {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };

    /// None: every frame is as it is on a wire.
    pub const NONE: Self = Self {
        checksum: false,
        tso4: false,
        tso6: false,
        ecn: false,
    };

    /// Whether a frame may be longer than the MTU.
    #[must_use]
    pub fn segments(self) -> bool {
        self.tso4 || self.tso6
    }
}

/// `struct virtio_net_hdr_v1` without its number of buffers, which is the ring's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// What a driver leaves to us without having asked whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame wants the work {flags:#x}, {gso_type:#x} that was not agreed on")]
pub struct NotAgreed {
    flags: u8,
    gso_type: u8,
}

impl Header {
    /// Bytes of it before each frame; the last two are the number of buffers.
    pub const SIZE: usize = 12;

    /// As a driver or a tap wrote it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, _, _] = *bytes;
        Self {
            flags,
            gso_type,
            header_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// For a driver or a tap.
    #[must_use]
    pub fn to_bytes(self, buffers: u16) -> [u8; Self::SIZE] {
        let [h0, h1] = self.header_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        let [n0, n1] = buffers.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// The header with the flags that are known, if all that it asks for is among `agreed`. What it
    /// says of places in the frame is for whoever does the work to check.
    pub(super) fn checked(mut self, agreed: Offloads) -> Result<Self, NotAgreed> {
        self.flags &= NEEDS_CHECKSUM;
        let (kind, ecn) = (self.gso_type & !GSO_ECN, self.gso_type & GSO_ECN != 0);
        let segments = match kind {
            GSO_NONE => !ecn,
            GSO_TCPV4 => agreed.tso4,
            GSO_TCPV6 => agreed.tso6,
            _ => false,
        };
        if segments && (agreed.ecn || !ecn) && (agreed.checksum || self.flags == 0) {
            return Ok(self);
        }
        Err(NotAgreed {
            flags: self.flags,
            gso_type: self.gso_type,
        })
    }

    /// What a driver that took on `agreed` may be told: without checksums, no flag (5.1.6.4.1).
    pub(super) fn for_driver(self, agreed: Offloads) -> Self {
        match agreed.checksum {
            true => self,
            false => Self { flags: 0, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, gso_type: u8) -> Header {
        Header {
            flags,
            gso_type,
            ..Header::default()
        }
    }

    #[test]
    fn a_header_survives_its_bytes() {
        let bytes = [1, 4, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0];

        let header = Header::from_bytes(&bytes);

        assert_eq!(header.to_bytes(10), bytes);
    }

    #[test]
    fn a_plain_frame_needs_no_agreement() {
        let known = header(0, GSO_NONE).checked(Offloads::NONE);

        assert_eq!(known, Ok(Header::default()));
    }

    #[test]
    fn work_that_was_not_agreed_on_is_refused() {
        let but_one = |change: fn(&mut Offloads)| {
            let mut agreed = Offloads::ALL;
            change(&mut agreed);
            agreed
        };
        for (header, agreed) in [
            (header(1, 0), but_one(|all| all.checksum = false)),
            (header(1, 1), but_one(|all| all.tso4 = false)),
            (header(1, 4), but_one(|all| all.tso6 = false)),
            (header(1, 0x81), but_one(|all| all.ecn = false)),
            (header(0, 0x80), Offloads::ALL),
            (header(0, 3), Offloads::ALL),
            (header(0, 5), Offloads::ALL),
        ] {
            assert!(header.checked(agreed).is_err(), "{header:?}");
        }
    }

    #[test]
    fn flags_from_the_future_are_ignored() {
        let known = header(0xff, 0).checked(Offloads::ALL).unwrap();

        assert_eq!(known.flags, NEEDS_CHECKSUM);
    }
}
