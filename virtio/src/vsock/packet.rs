//! Packets (5.10.6), of which each is a header and, for some, data.

/// The host's context id (5.10.4).
pub const HOST_CID: u64 = 2;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const STREAM: u16 = 1;

/// What a packet is, `VIRTIO_VSOCK_OP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    /// Whoever sends it wants a connection.
    Request = 1,
    /// It has one.
    Response = 2,
    /// There is none, or none any more.
    Rst = 3,
    /// Whoever sends it will receive or send no more, by [`shutdown`].
    Shutdown = 4,
    /// Data.
    Rw = 5,
    /// What every packet says of room, said on its own.
    CreditUpdate = 6,
    /// Asks for a [`CreditUpdate`](Self::CreditUpdate).
    CreditRequest = 7,
}

/// Flags of [`Op::Shutdown`].
pub(super) mod shutdown {
    pub(in crate::vsock) const RECEIVE: u32 = 1;
    pub(in crate::vsock) const SEND: u32 = 2;
    pub(in crate::vsock) const BOTH: u32 = RECEIVE | SEND;
}

/// `virtio_vsock_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of data behind it.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// Bytes of room that the sender has in all.
    pub(super) buf_alloc: u32,
    /// Bytes that left that room since the connection began.
    pub(super) fwd_cnt: u32,
}

impl Op {
    pub(super) fn parse(number: u16) -> Option<Self> {
        use Op::{CreditRequest, CreditUpdate, Request, Response, Rst, Rw, Shutdown};
        [
            Request,
            Response,
            Rst,
            Shutdown,
            Rw,
            CreditUpdate,
            CreditRequest,
        ]
        .into_iter()
        .find(|op| *op as u16 == number)
    }
}

impl Header {
    pub(super) const SIZE: usize = 44;

    pub(super) fn parse(bytes: &[u8; Self::SIZE]) -> Self {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            src_cid: u64_at(0),
            dst_cid: u64_at(8),
            src_port: u32_at(16),
            dst_port: u32_at(20),
            len: u32_at(24),
            kind: u16_at(28),
            op: u16_at(30),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The answer that there is no such connection.
    pub(super) fn reset(self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Rst as u16,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_its_bytes(
            cids in any::<(u64, u64)>(), ports in any::<(u32, u32)>(),
            rest in any::<(u32, u16, u16, u32, u32, u32)>(),
        ) {
            let header = Header {
                src_cid: cids.0,
                dst_cid: cids.1,
                src_port: ports.0,
                dst_port: ports.1,
                len: rest.0,
                kind: rest.1,
                op: rest.2,
                flags: rest.3,
                buf_alloc: rest.4,
                fwd_cnt: rest.5,
            };

            prop_assert_eq!(Header::parse(&header.to_bytes()), header);
        }
    }
}
