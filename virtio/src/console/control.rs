//! Control messages (5.3.6.2).

/// `VIRTIO_CONSOLE_*`.
pub(super) mod event {
    pub(in crate::console) const DEVICE_READY: u16 = 0;
    pub(in crate::console) const DEVICE_ADD: u16 = 1;
    pub(in crate::console) const PORT_READY: u16 = 3;
    pub(in crate::console) const PORT_OPEN: u16 = 6;
    pub(in crate::console) const PORT_NAME: u16 = 7;
}

/// `virtio_console_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Message {
    pub(super) const SIZE: usize = 8;

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[p0, p1, p2, p3, e0, e1, v0, v1] = bytes else {
            return None;
        };
        Some(Self {
            port: u32::from_le_bytes([p0, p1, p2, p3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        })
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.port.to_le_bytes().to_vec();
        bytes.extend(self.event.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        bytes
    }
}
