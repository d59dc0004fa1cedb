//! Bitmaps, as the guest stores them.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::wire;
use super::{Chunks, CommandError, MAX_SIDE, some};
use crate::device::{GuestAddress, Slots};

/// The data is in one piece and not in chunks.
const FLAG_DIRECT: u8 = 1;
/// The first row is the topmost.
const FLAG_TOP_DOWN: u8 = 4;

/// How a bitmap's pixels are stored (`SpiceBitmapFmt`, spice-protocol `enums.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitmapFormat {
    Bit1Le,
    Bit1Be,
    Bit4Le,
    Bit4Be,
    Bit8,
    Bit16,
    Bit24,
    Bit32,
    Rgba,
    Alpha8,
}

impl BitmapFormat {
    const fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Bit1Le,
            2 => Self::Bit1Be,
            3 => Self::Bit4Le,
            4 => Self::Bit4Be,
            5 => Self::Bit8,
            6 => Self::Bit16,
            7 => Self::Bit24,
            8 => Self::Bit32,
            9 => Self::Rgba,
            10 => Self::Alpha8,
            _ => return None,
        })
    }

    /// Bits per pixel.
    const fn bits(self) -> u64 {
        match self {
            Self::Bit1Le | Self::Bit1Be => 1,
            Self::Bit4Le | Self::Bit4Be => 4,
            Self::Bit8 | Self::Alpha8 => 8,
            Self::Bit16 => 16,
            Self::Bit24 => 24,
            Self::Bit32 | Self::Rgba => 32,
        }
    }

    /// How many colours a palette has at most; 0 for formats without one.
    const fn palette(self) -> usize {
        match self {
            Self::Bit1Le | Self::Bit1Be => 2,
            Self::Bit4Le | Self::Bit4Be => 16,
            Self::Bit8 => 256,
            _ => 0,
        }
    }
}

/// A bitmap: how it is stored, and where its pixels are.
pub(crate) struct Bitmap {
    format: BitmapFormat,
    width: u32,
    height: u32,
    stride: u64,
    top_down: bool,
    palette: Vec<u32>,
    data: Chunks,
    row: Vec<u8>,
}

impl Bitmap {
    /// The bitmap whose `QXLBitmap` is at `address`.
    pub(super) fn decode(slots: &Slots, address: GuestAddress) -> Result<Self, CommandError> {
        let wire: wire::Bitmap = slots.get(address)?;
        let (width, height) = (wire.width.get(), wire.height.get());
        CommandError::at_most("image width", width, MAX_SIDE)?;
        CommandError::at_most("image height", height, MAX_SIDE)?;
        let format = BitmapFormat::of(wire.format)
            .ok_or(CommandError::unknown("bitmap format", wire.format.into()))?;
        let stride = u64::from(wire.stride.get());
        let row = (u64::from(width) * format.bits()).div_ceil(8);
        if stride < row {
            let stride = stride as i64;
            return Err(CommandError::Stride { stride, width });
        }
        // The last row need not be padded.
        let len = match height {
            0 => 0,
            rows => u64::from(rows - 1) * stride + row,
        };
        let data = GuestAddress(wire.data.get());
        let data = if wire.flags & FLAG_DIRECT != 0 {
            Chunks::flat(slots, data, len)?
        } else {
            Chunks::chain(slots, data, len)?
        };
        let palette = match some(wire.palette.get()) {
            Some(address) => palette(slots, address, format.palette())?,
            None => Vec::new(),
        };
        Ok(Self {
            format,
            width,
            height,
            stride,
            top_down: wire.flags & FLAG_TOP_DOWN != 0,
            palette,
            data,
            row: Vec::new(),
        })
    }

    /// Fills `pixels` with those of row `y` (0 is the topmost) from `x`; `false` if they are not
    /// all in the bitmap.
    pub(crate) fn read_row(&mut self, x: u32, y: u32, pixels: &mut [u32]) -> bool {
        let width = pixels.len() as u64;
        if y >= self.height || u64::from(x) + width > u64::from(self.width) {
            return false;
        }
        let stored = if self.top_down {
            y
        } else {
            self.height - 1 - y
        };
        let bits = self.format.bits();
        let first = u64::from(x) * bits;
        let at = u64::from(stored) * self.stride + first / 8;
        if bits == 32 {
            // As stored is as we store them.
            return self.data.read(at, pixels.as_mut_bytes()).is_ok();
        }
        let skipped = first % 8;
        self.row
            .resize((skipped + width * bits).div_ceil(8) as usize, 0);
        if self.data.read(at, &mut self.row).is_err() {
            return false;
        }
        self.expand(skipped as usize, pixels);
        true
    }

    /// Turns the bytes of `self.row`, without the first `skipped` bits, into pixels.
    fn expand(&self, skipped: usize, pixels: &mut [u32]) {
        let bytes = &self.row;
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let color = |index: u8| self.color(index);
        let each = |pixels: &mut [u32], of: &dyn Fn(usize) -> u32| {
            for (i, pixel) in pixels.iter_mut().enumerate() {
                *pixel = of(i);
            }
        };
        match self.format {
            BitmapFormat::Bit1Le => each(pixels, &|i| {
                let bit = skipped + i;
                color(byte(bit / 8) >> (bit % 8) & 1)
            }),
            BitmapFormat::Bit1Be => each(pixels, &|i| {
                let bit = skipped + i;
                color(byte(bit / 8) >> (7 - bit % 8) & 1)
            }),
            BitmapFormat::Bit4Le => each(pixels, &|i| {
                let nibble = skipped / 4 + i;
                color(byte(nibble / 2) >> (nibble % 2 * 4) & 15)
            }),
            BitmapFormat::Bit4Be => each(pixels, &|i| {
                let nibble = skipped / 4 + i;
                color(byte(nibble / 2) >> ((1 - nibble % 2) * 4) & 15)
            }),
            BitmapFormat::Bit8 => each(pixels, &|i| color(byte(i))),
            BitmapFormat::Alpha8 => each(pixels, &|i| u32::from(byte(i)) << 24),
            BitmapFormat::Bit16 => each(pixels, &|i| {
                crate::canvas::from_555(u16::from_le_bytes([byte(2 * i), byte(2 * i + 1)]))
            }),
            BitmapFormat::Bit24 => each(pixels, &|i| {
                u32::from_le_bytes([byte(3 * i), byte(3 * i + 1), byte(3 * i + 2), 0])
            }),
            // Copied without a detour.
            BitmapFormat::Bit32 | BitmapFormat::Rgba => {}
        }
    }

    /// The palette's colour; without a palette, from black to white.
    fn color(&self, index: u8) -> u32 {
        let known = self.palette.get(usize::from(index)).copied();
        known.unwrap_or_else(|| {
            let steps = self.format.palette().saturating_sub(1).max(1) as u32;
            if self.palette.is_empty() {
                u32::from(index) * 255 / steps * 0x01_01_01
            } else {
                0
            }
        })
    }
}

/// The palette at `address`, of which no more than `most` colours are of use.
fn palette(slots: &Slots, address: GuestAddress, most: usize) -> Result<Vec<u32>, CommandError> {
    let header: wire::Palette = slots.get(address)?;
    let mut entries = vec![U32::ZERO; usize::from(header.count.get()).min(most)];
    let bytes = entries.as_mut_slice().as_mut_bytes();
    let after = address.plus(size_of::<wire::Palette>() as u64);
    slots.resolve(after, bytes.len() as u64)?.read(0, bytes)?;
    Ok(entries.iter().map(|entry| entry.get()).collect())
}
