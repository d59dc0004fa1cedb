//! Surfaces: the primary one that a port creates, and those off screen that commands create.

use caraway_spice::Size;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::wire;
use super::{CommandError, MAX_SIDE};
use crate::canvas::{Canvas, from_555, from_565, to_555, to_565};
use crate::device::{GuestAddress, Place, Slots};

/// Keep what is in guest memory as the first picture.
const FLAG_KEEP_DATA: u32 = 1;

/// How a surface's pixels are stored in guest memory (`SpiceSurfaceFmt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SurfaceFormat {
    A1,
    A8,
    Rgb555,
    Rgb565,
    Xrgb,
    Argb,
}

impl SurfaceFormat {
    const fn of(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::A1,
            8 => Self::A8,
            16 => Self::Rgb555,
            80 => Self::Rgb565,
            32 => Self::Xrgb,
            96 => Self::Argb,
            _ => return None,
        })
    }

    /// By `SpiceSurfaceFmt`.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::A1 => 1,
            Self::A8 => 8,
            Self::Rgb555 => 16,
            Self::Rgb565 => 80,
            Self::Xrgb => 32,
            Self::Argb => 96,
        }
    }

    const fn bits(self) -> u64 {
        match self {
            Self::A1 => 1,
            Self::A8 => 8,
            Self::Rgb555 | Self::Rgb565 => 16,
            Self::Xrgb | Self::Argb => 32,
        }
    }
}

/// Size, form and place of a surface in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SurfaceShape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from row to row; negative if the first row is the lowest on the screen.
    pub(crate) stride: i32,
    pub(crate) format: SurfaceFormat,
    pub(crate) data: GuestAddress,
    /// Whether guest memory has the first picture.
    pub(crate) keep: bool,
}

/// A command about an off-screen surface (`QXLSurfaceCmd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SurfaceCommand {
    Create { id: u32, shape: SurfaceShape },
    Destroy { id: u32 },
}

impl SurfaceCommand {
    /// The surface command at `address`.
    pub(crate) fn decode(slots: &Slots, address: GuestAddress) -> Result<Self, CommandError> {
        let wire: wire::Surface = slots.get(address)?;
        let id = wire.surface_id.get();
        Ok(match wire.kind {
            0 => {
                let shape = SurfaceShape::checked(
                    (wire.width.get(), wire.height.get()),
                    wire.stride.get(),
                    wire.format.get(),
                    wire.data.get(),
                    wire.flags.get(),
                )?;
                Self::Create { id, shape }
            }
            1 => Self::Destroy { id },
            other => return Err(CommandError::unknown("surface command", other.into())),
        })
    }
}

impl SurfaceShape {
    /// The primary surface that the guest describes in the RAM header.
    pub(crate) fn primary(wire: &wire::SurfaceCreate) -> Result<Self, CommandError> {
        let shape = Self::checked(
            (wire.width.get(), wire.height.get()),
            wire.stride.get(),
            wire.format.get(),
            wire.mem.get(),
            wire.flags.get(),
        )?;
        if shape.has_colors() {
            Ok(shape)
        } else {
            let format = wire.format.get();
            Err(CommandError::unknown("primary surface format", format))
        }
    }

    /// Whether it could be on a screen: it has more than alpha.
    pub(crate) fn has_colors(&self) -> bool {
        self.format.bits() >= 16
    }

    fn checked(
        (width, height): (u32, u32),
        stride: i32,
        format: u32,
        data: u64,
        flags: u32,
    ) -> Result<Self, CommandError> {
        CommandError::at_most("surface width", width, MAX_SIDE)?;
        CommandError::at_most("surface height", height, MAX_SIDE)?;
        let format =
            SurfaceFormat::of(format).ok_or(CommandError::unknown("surface format", format))?;
        let shape = Self {
            width,
            height,
            stride,
            format,
            data: GuestAddress(data),
            keep: flags & FLAG_KEEP_DATA != 0,
        };
        if shape.is_possible() {
            Ok(shape)
        } else {
            let stride = stride.into();
            Err(CommandError::Stride { stride, width })
        }
    }

    /// Whether it has pixels and its rows have room for them.
    pub(crate) fn is_possible(&self) -> bool {
        (1..=MAX_SIDE).contains(&self.width)
            && (1..=MAX_SIDE).contains(&self.height)
            && self.stride % 4 == 0
            && u64::from(self.stride.unsigned_abs()) >= self.row_len()
    }

    pub(crate) fn size(&self) -> Size {
        Size {
            width: self.width,
            height: self.height,
        }
    }

    /// Bytes of guest memory.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.stride.unsigned_abs()) * u64::from(self.height)
    }

    /// Bytes of a row that have pixels.
    fn row_len(&self) -> u64 {
        (u64::from(self.width) * self.format.bits()).div_ceil(8)
    }

    /// Where row `y` begins, from the start of the data.
    fn row_at(&self, y: u32) -> u64 {
        let stored = if self.stride < 0 {
            self.height.saturating_sub(1).saturating_sub(y)
        } else {
            y
        };
        u64::from(self.stride.unsigned_abs()) * u64::from(stored)
    }

    /// Puts the picture that is in guest memory on `canvas`, which has the surface's size.
    pub(crate) fn load(&self, place: &Place, canvas: &mut Canvas) {
        let mut bytes = vec![0; self.row_len() as usize];
        let mut row = vec![0_u32; self.width as usize];
        for y in 0..self.height {
            if self.format.bits() == 32 {
                if place.read(self.row_at(y), row.as_mut_bytes()).is_err() {
                    return;
                }
            } else {
                if place.read(self.row_at(y), &mut bytes).is_err() {
                    return;
                }
                self.expand(&bytes, &mut row);
            }
            canvas.put_row(0, y, &row);
        }
    }

    fn expand(&self, bytes: &[u8], row: &mut [u32]) {
        let words = bytes
            .as_chunks()
            .0
            .iter()
            .map(|pair| u16::from_le_bytes(*pair));
        match self.format {
            SurfaceFormat::Rgb555 => fill(row, words.map(from_555)),
            SurfaceFormat::Rgb565 => fill(row, words.map(from_565)),
            SurfaceFormat::A8 => fill(row, bytes.iter().map(|byte| u32::from(*byte) << 24)),
            SurfaceFormat::A1 => {
                let bits = bytes
                    .iter()
                    .flat_map(|byte| (0..8).map(move |n| byte >> n & 1));
                fill(row, bits.map(|bit| if bit == 0 { 0 } else { 0xff00_0000 }));
            }
            SurfaceFormat::Xrgb | SurfaceFormat::Argb => {}
        }
    }

    /// Writes rows `rows`, columns `columns` of `canvas` to guest memory.
    pub(crate) fn store(
        &self,
        place: &Place,
        canvas: &Canvas,
        columns: std::ops::Range<u32>,
        rows: std::ops::Range<u32>,
    ) {
        let width = columns.end.saturating_sub(columns.start);
        let mut bytes = Vec::new();
        for y in rows {
            let Some(row) = canvas.row(columns.start, y, width) else {
                return;
            };
            let at = self.row_at(y) + u64::from(columns.start) * self.format.bits() / 8;
            bytes.clear();
            let words = |to: fn(u32) -> u16| row.iter().flat_map(move |p| to(*p).to_le_bytes());
            match self.format {
                SurfaceFormat::Xrgb | SurfaceFormat::Argb => {
                    bytes.extend_from_slice(row.as_bytes())
                }
                SurfaceFormat::Rgb555 => bytes.extend(words(to_555)),
                SurfaceFormat::Rgb565 => bytes.extend(words(to_565)),
                SurfaceFormat::A8 => bytes.extend(row.iter().map(|p| (p >> 24) as u8)),
                // Nobody reads one back: bits would have to be merged into bytes.
                SurfaceFormat::A1 => return,
            }
            if place.write(at, &bytes).is_err() {
                return;
            }
        }
    }
}

fn fill(row: &mut [u32], pixels: impl Iterator<Item = u32>) {
    for (to, pixel) in row.iter_mut().zip(pixels) {
        *to = pixel;
    }
}
