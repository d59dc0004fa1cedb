//! Where the registers are: capabilities and BARs (4.1.4).

use caraway_devices::pci::{BarKind, Capability, ConfigSpace, Ids};

use crate::device::DeviceType;

/// The BAR with the MSI-X table and pending bits.
pub(crate) const MSIX_BAR: u8 = 1;
/// Size of [`MSIX_BAR`] in bytes.
pub(crate) const MSIX_BAR_SIZE: u64 = 0x1000;
/// Where the pending bits start in [`MSIX_BAR`].
pub(crate) const MSIX_PBA: u32 = 0x800;
/// The BAR with everything else.
pub(crate) const BAR: u8 = 4;
/// Size of [`BAR`] in bytes.
const BAR_SIZE: u64 = 0x4000;
/// Each region of [`BAR`] is this long, so that each can be on its own page.
const REGION_SIZE: u64 = 0x1000;
/// The notification of queue `n` is written at `n` times this in the notify region.
pub(crate) const NOTIFY_MULTIPLIER: u64 = 4;

/// Length of `struct virtio_pci_common_cfg` with what 1.2 added to it (4.1.4.3).
pub(crate) const COMMON_SIZE: usize = 0x3c;

/// `PCI_CAP_ID_VNDR`.
const CAPABILITY_VENDOR: u8 = 9;
/// Vendor id of every virtio function.
const VENDOR: u16 = 0x1af4;
/// A virtio device's PCI device id is this plus its type (4.1.2).
const DEVICE_BASE: u16 = 0x1040;

/// A region of [`BAR`]; the number is its `cfg_type` (4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
}

impl Region {
    const ALL: [Self; 4] = [Self::Common, Self::Isr, Self::Device, Self::Notify];

    /// Where it starts in the BAR.
    pub(crate) fn offset(self) -> u64 {
        match self {
            Self::Common => 0,
            Self::Isr => REGION_SIZE,
            Self::Device => 2 * REGION_SIZE,
            Self::Notify => 3 * REGION_SIZE,
        }
    }

    fn capability(self) -> Capability {
        let mut body = header(if self == Self::Notify { 20 } else { 16 }, self as u8);
        body.extend([BAR, 0, 0, 0]);
        body.extend((self.offset() as u32).to_le_bytes());
        let len = match self {
            Self::Common => COMMON_SIZE as u32,
            Self::Isr => 1,
            Self::Device | Self::Notify => REGION_SIZE as u32,
        };
        body.extend(len.to_le_bytes());
        if self == Self::Notify {
            body.extend((NOTIFY_MULTIPLIER as u32).to_le_bytes());
        }
        Capability {
            id: CAPABILITY_VENDOR,
            body,
            writable: Vec::new(),
        }
    }

    /// The region that BAR offset `offset` is in, and the offset there.
    pub(crate) fn at(offset: u64) -> Option<(Self, u64)> {
        let region = usize::try_from(offset / REGION_SIZE).ok()?;
        Some((*Self::ALL.get(region)?, offset % REGION_SIZE))
    }
}

/// The first bytes of a virtio capability's body: its length and type.
fn header(len: u8, cfg_type: u8) -> Vec<u8> {
    vec![len, cfg_type]
}

/// `VIRTIO_PCI_CAP_PCI_CFG`.
const CFG_TYPE_PCI: u8 = 5;

/// The window through which firmware reaches the BAR from the configuration space (4.1.4.9). Its
/// fields, as offsets from the start of the capability.
pub(crate) mod window {
    /// Which BAR.
    pub(crate) const BAR: u16 = 4;
    /// Offset in the BAR.
    pub(crate) const OFFSET: u16 = 8;
    /// How many bytes: 1, 2 or 4.
    pub(crate) const LENGTH: u16 = 12;
    /// The bytes.
    pub(crate) const DATA: u16 = 16;
    /// Length of the whole capability.
    pub(crate) const END: u16 = 20;
}

fn window_capability() -> Capability {
    let mut body = header(window::END as u8, CFG_TYPE_PCI);
    body.resize(usize::from(window::END) - 2, 0);
    let mut writable = vec![0; body.len()];
    writable[usize::from(window::BAR) - 2] = 0xff;
    writable[usize::from(window::OFFSET) - 2..].fill(0xff);
    Capability {
        id: CAPABILITY_VENDOR,
        body,
        writable,
    }
}

/// The configuration space of a device of type `kind`, without MSI-X, and the offset of the
/// window's capability.
pub(crate) fn config_space(kind: DeviceType) -> (ConfigSpace, u16) {
    let ids = Ids {
        vendor: VENDOR,
        device: DEVICE_BASE + kind.id,
        subsystem_vendor: VENDOR,
        subsystem: 0x40 + kind.id,
        class: kind.pci_class,
        revision: 1,
    };
    let mut space = ConfigSpace::new(ids)
        .with_bar(MSIX_BAR, BarKind::Mem32, MSIX_BAR_SIZE)
        .with_bar(BAR, BarKind::Mem64, BAR_SIZE)
        .with_interrupt_pin(1);
    for region in Region::ALL {
        space.add_capability(&region.capability());
    }
    let window = space.add_capability(&window_capability()).unwrap_or(0);
    (space, window)
}
