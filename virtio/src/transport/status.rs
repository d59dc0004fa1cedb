//! Device status and the feature bits that belong to the transport (2.1 and 6).

/// The driver knows the device.
pub(crate) const ACKNOWLEDGE: u8 = 1 << 0;
/// The driver knows how to drive it.
pub(crate) const DRIVER: u8 = 1 << 1;
/// The driver is set up.
pub(crate) const DRIVER_OK: u8 = 1 << 2;
/// Both sides agree on the features.
pub(crate) const FEATURES_OK: u8 = 1 << 3;
/// The device gave up.
pub(crate) const NEEDS_RESET: u8 = 1 << 6;
/// The driver gave up.
pub(crate) const FAILED: u8 = 1 << 7;
/// What of it the driver sets.
pub(crate) const DRIVERS: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

/// `VIRTIO_F_INDIRECT_DESC`: a descriptor may name a table of descriptors.
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
/// `VIRTIO_F_EVENT_IDX`: both sides say up to which index they want to hear nothing.
pub(crate) const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`: this is not a legacy device.
pub(crate) const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_RING_RESET`: a single queue can be reset.
pub(crate) const RING_RESET: u64 = 1 << 40;

/// What the transport offers for every device.
pub(crate) const TRANSPORT_FEATURES: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1 | RING_RESET;
