//! The surfaces of a session, and where a guest keeps them.

/// A surface to draw on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surface {
    /// Its number.
    pub id: u32,
    /// As the protocol numbers formats (`SPICE_SURFACE_FMT_*`).
    pub(crate) format: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

const fn surface(id: u32, format: u32, width: u32, height: u32) -> Surface {
    Surface {
        id,
        format,
        width,
        height,
    }
}

/// All surfaces of a session, by their numbers; the first is the primary one, on the screen.
pub const SURFACES: [Surface; 7] = [
    surface(0, 32, 40, 36),
    surface(1, 96, 33, 20),
    surface(2, 32, 16, 16),
    surface(3, 16, 31, 17),
    surface(4, 80, 24, 24),
    surface(5, 8, 30, 21),
    surface(6, 1, 45, 19),
];

impl Surface {
    /// The BAR that it is in: the primary surface is at the start of BAR 0, in slot 1, the others are
    /// in BAR 1, which is slot 2.
    #[must_use]
    pub fn bar(&self) -> u8 {
        u8::from(self.id != 0)
    }

    /// Its first byte in that BAR.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.id * 0x4000
    }

    /// Bytes from row to row.
    #[must_use]
    pub fn stride(&self) -> u32 {
        if self.id == 0 { self.width * 4 } else { 256 }
    }

    /// Bytes of a row that have pixels.
    #[must_use]
    pub fn row_len(&self) -> u32 {
        (self.width * self.bits()).div_ceil(8)
    }

    /// The bits of a row's byte that are colours; what the others are is the device's affair.
    #[must_use]
    pub fn visible(&self, at: u32) -> u8 {
        match self.format {
            32 if at % 4 == 3 => 0,
            16 if at % 2 == 1 => 0x7f,
            1 if at == self.row_len() - 1 => u8::MAX >> (8 * self.row_len() - self.width),
            _ => u8::MAX,
        }
    }

    fn bits(&self) -> u32 {
        match self.format {
            80 => 16,
            96 => 32,
            other => other,
        }
    }

    /// Rows of pixels as they are in memory, without gaps, and invisible bits 0.
    pub(crate) fn store(&self, pixels: &[u32]) -> Vec<u8> {
        let rows = pixels.chunks(self.width as usize);
        rows.flat_map(|row| self.store_row(row)).collect()
    }

    fn store_row(&self, row: &[u32]) -> Vec<u8> {
        let mut bytes = match self.bits() {
            1 => row
                .chunks(8)
                .map(|byte| (0..).zip(byte).map(|(at, bit)| (*bit as u8) << at).sum())
                .collect(),
            bits => row
                .iter()
                .flat_map(|pixel| pixel.to_le_bytes()[..bits as usize / 8].to_vec())
                .collect::<Vec<u8>>(),
        };
        for (at, byte) in (0..).zip(&mut bytes) {
            *byte &= self.visible(at);
        }
        bytes
    }
}
