//! What a QXL device is made with.

/// Sizes and limits of a QXL device. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QxlConfig {
    /// Size of BAR 0, where frame buffer, commands and rings are: a power of two, at least twice
    /// `vgamem`.
    pub ram: u64,
    /// Size of BAR 1, where the guest keeps surfaces: a power of two, at least 4 KiB.
    pub vram: u64,
    /// Size of BAR 4, a 64-bit BAR in addition to BAR 1 for guests that prefer it; none if absent.
    pub vram64: Option<u64>,
    /// The part of `ram` that is frame buffer, and so the largest primary surface: a power of two
    /// from 1 MiB to 256 MiB.
    pub vgamem: u64,
    /// The largest number of monitors that the guest is asked for, 1 to 64.
    pub heads: u32,
    /// Whether it has a VGA core, which firmware shows itself on. One device of a machine at most has; the
    /// others (class 0x0380) show nothing before their driver does.
    pub vga: bool,
    /// Number of its display channel, which its ROM tells the guest.
    pub channel: u32,
    /// How many surfaces a guest may have, the primary one included.
    pub surfaces: u32,
}

impl Default for QxlConfig {
    fn default() -> Self {
        Self {
            ram: 64 << 20,
            vram: 64 << 20,
            vram64: None,
            vgamem: 16 << 20,
            heads: 1,
            vga: true,
            channel: 0,
            surfaces: 1024,
        }
    }
}

/// Why no QXL device could be made.
#[derive(Debug, thiserror::Error)]
pub enum QxlError {
    /// A memory size is not one of the possible ones.
    #[error("{what} of {size:#x} bytes: must be a power of two from {min:#x} to {max:#x}")]
    Size {
        /// Which size: `ram`, `vram`, `vram64` or `vgamem`.
        what: &'static str,
        /// What was asked for.
        size: u64,
        /// The smallest possible.
        min: u64,
        /// The largest possible.
        max: u64,
    },
    /// The number of monitors is not possible.
    #[error("{0} heads: must be 1 to 64")]
    Heads(u32),
    /// The number of surfaces is not possible.
    #[error("{0} surfaces: must be 1 to 65536")]
    Surfaces(u32),
    /// The host has no memory for a BAR.
    #[error("no host memory for {what} of {size:#x} bytes")]
    Memory {
        /// Which memory.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// What the host said.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The host gave no event to wake the display thread by.
    #[error("no eventfd for the display thread")]
    Event(#[source] std::io::Error),
}

impl QxlConfig {
    /// Checks every size against what the device can do.
    ///
    /// # Errors
    /// [`QxlError`] names the first size that is out of its range.
    pub(crate) fn check(&self) -> Result<(), QxlError> {
        const MIB: u64 = 1 << 20;
        let size = |what, size: u64, min: u64, max: u64| {
            if size.is_power_of_two() && (min..=max).contains(&size) {
                Ok(())
            } else {
                let refused = QxlError::Size {
                    what,
                    size,
                    min,
                    max,
                };
                Err(refused)
            }
        };
        size("vgamem", self.vgamem, MIB, 256 * MIB)?;
        size("ram", self.ram, 2 * self.vgamem, 2048 * MIB)?;
        size("vram", self.vram, 4096, 2048 * MIB)?;
        if let Some(vram64) = self.vram64 {
            size("vram64", vram64, MIB, 64 * 1024 * MIB)?;
        }
        if !(1..=64).contains(&self.heads) {
            return Err(QxlError::Heads(self.heads));
        }
        if !(1..=65536).contains(&self.surfaces) {
            return Err(QxlError::Surfaces(self.surfaces));
        }
        Ok(())
    }
}
