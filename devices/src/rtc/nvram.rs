//! The battery-backed memory, and what PC firmware reads from it.

use serde::{Deserialize, Serialize};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 64 * KIB;

/// Where firmware looks for what. Two- and three-byte values have their low byte first.
mod at {
    pub(super) const EQUIPMENT: usize = 0x14;
    /// KiB below 640 KiB.
    pub(super) const BASE_MEMORY: usize = 0x15;
    /// KiB from 1 MiB on.
    pub(super) const EXTENDED_MEMORY: usize = 0x17;
    /// The same again.
    pub(super) const EXTENDED_MEMORY_COPY: usize = 0x30;
    /// 64 KiB units from 16 MiB on.
    pub(super) const HIGH_MEMORY: usize = 0x34;
    /// Third boot device in bits 7:4.
    pub(super) const BOOT_THIRD: usize = 0x38;
    /// Second and first boot device in bits 7:4 and 3:0.
    pub(super) const BOOT_ORDER: usize = 0x3d;
    /// 64 KiB units from 4 GiB on.
    pub(super) const MEMORY_ABOVE_4G: usize = 0x5b;
    /// How many processors there are beside the first.
    pub(super) const OTHER_CPUS: usize = 0x5f;
}

/// Equipment: a coprocessor and a PS/2 mouse.
const EQUIPMENT: u8 = 0x06;

/// What firmware may boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDevice {
    /// A floppy disk.
    Floppy,
    /// A hard disk.
    Disk,
    /// A CD or DVD.
    Cdrom,
    /// The network.
    Network,
}

impl BootDevice {
    const fn code(self) -> u8 {
        match self {
            Self::Floppy => 1,
            Self::Disk => 2,
            Self::Cdrom => 3,
            Self::Network => 4,
        }
    }
}

/// What firmware reads of the machine from the battery-backed memory.
#[derive(Debug, Clone, Default)]
pub struct FirmwareFacts {
    /// Bytes of RAM below 4 GiB.
    pub memory_below_4g: u64,
    /// Bytes of RAM from 4 GiB on.
    pub memory_above_4g: u64,
    /// How many processors there are at the start; at least 1.
    pub cpus: u16,
    /// What to boot from, in order; three at most.
    pub boot_order: Vec<BootDevice>,
}

/// 256 bytes: 128 behind ports 0x70 and 0x71, 128 behind 0x72 and 0x73. The clock's registers hide
/// the first 14 and the century.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(super) struct Nvram(Box<[u8; Nvram::SIZE]>);

impl Nvram {
    pub(super) const SIZE: usize = 256;

    pub(super) fn new() -> Self {
        Self(Box::new([0; Self::SIZE]))
    }

    pub(super) fn get(&self, index: u8) -> u8 {
        self.0[usize::from(index)]
    }

    pub(super) fn set(&mut self, index: u8, byte: u8) {
        self.0[usize::from(index)] = byte;
    }

    /// Writes `facts` where firmware looks for them.
    pub(super) fn describe(&mut self, facts: &FirmwareFacts) {
        let below = facts.memory_below_4g;
        let base = (below / KIB).min(640);
        let extended = (below.saturating_sub(MIB) / KIB).min(0xffff);
        let high = (below.saturating_sub(16 * MIB) / CHUNK).min(0xffff);
        let above = (facts.memory_above_4g / CHUNK).min(0xff_ffff);
        self.put::<2>(at::BASE_MEMORY, base);
        self.put::<2>(at::EXTENDED_MEMORY, extended);
        self.put::<2>(at::EXTENDED_MEMORY_COPY, extended);
        self.put::<2>(at::HIGH_MEMORY, high);
        self.put::<3>(at::MEMORY_ABOVE_4G, above);
        let others = facts.cpus.saturating_sub(1).min(0xff);
        self.put::<1>(at::OTHER_CPUS, u64::from(others));
        self.put::<1>(at::EQUIPMENT, u64::from(EQUIPMENT));
        let boot = |n: usize| facts.boot_order.get(n).map_or(0, |device| device.code());
        self.put::<1>(at::BOOT_ORDER, u64::from(boot(1) << 4 | boot(0)));
        self.put::<1>(at::BOOT_THIRD, u64::from(boot(2) << 4));
    }

    fn put<const N: usize>(&mut self, at: usize, value: u64) {
        self.0[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
    }
}

/// A saved memory of the wrong size.
#[derive(Debug, thiserror::Error)]
#[error("the battery-backed memory has {0} bytes, not 256")]
pub(super) struct WrongSize(usize);

impl TryFrom<Vec<u8>> for Nvram {
    type Error = WrongSize;

    fn try_from(bytes: Vec<u8>) -> Result<Self, WrongSize> {
        let boxed = bytes.into_boxed_slice().try_into();
        boxed
            .map(Self)
            .map_err(|bytes: Box<[u8]>| WrongSize(bytes.len()))
    }
}

impl From<Nvram> for Vec<u8> {
    fn from(nvram: Nvram) -> Self {
        nvram.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_finds_the_memory_where_it_looks() {
        let mut nvram = Nvram::new();

        nvram.describe(&FirmwareFacts {
            memory_below_4g: 2 << 30,
            memory_above_4g: 3 << 30,
            cpus: 4,
            boot_order: vec![BootDevice::Cdrom, BootDevice::Disk],
        });

        assert_eq!(nvram.0[0x15..0x19], [0x80, 0x02, 0xff, 0xff]);
        assert_eq!(nvram.0[0x30..0x32], [0xff, 0xff]);
        assert_eq!(nvram.0[0x34..0x36], [0x00, 0x7f]);
        assert_eq!(nvram.0[0x5b..0x60], [0x00, 0xc0, 0x00, 0, 3]);
        assert_eq!(nvram.0[0x3d], 0x23);
    }

    #[test]
    fn little_memory_fits() {
        let mut nvram = Nvram::new();

        nvram.describe(&FirmwareFacts {
            memory_below_4g: 8 << 20,
            ..FirmwareFacts::default()
        });

        assert_eq!(nvram.0[0x17..0x19], 7168_u16.to_le_bytes());
        assert_eq!(nvram.0[0x34..0x36], [0, 0]);
    }
}
