//! Surfaces: the primary one that a port creates, and those off screen that commands create.

use caraway_spice::Size;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::wire;
use super::{CommandError, MAX_SIDE};
use crate::canvas::{Canvas, PixelFormat};
use crate::device::{GuestAddress, Place, Slots};

/// Keep what is in guest memory as the first picture.
const FLAG_KEEP_DATA: u32 = 1;

/// Size, form and place of a surface in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SurfaceShape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from row to row; negative if the first row is the lowest on the screen.
    pub(crate) stride: i32,
    pub(crate) format: PixelFormat,
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

    /// The primary surface of a compatibility mode, at the start of BAR 0, which is at `data`.
    pub(crate) fn compat(width: u32, height: u32, data: GuestAddress) -> Self {
        Self {
            width,
            height,
            stride: -(width as i32 * 4),
            format: PixelFormat::Xrgb,
            data,
            keep: false,
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
            PixelFormat::of(format).ok_or(CommandError::unknown("surface format", format))?;
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
        (u64::from(self.width) * u64::from(self.format.bits())).div_ceil(8)
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

    /// Puts the picture that is at this place in guest memory on a black surface of this shape.
    pub(crate) fn load(&self, canvas: &mut Canvas, place: &Place) {
        let mut bytes = vec![0; self.row_len() as usize];
        canvas.load(|y, row| {
            let at = self.row_at(y);
            if self.format.bits() == 32 {
                return place.read(at, row.as_mut_bytes()).is_ok();
            }
            let read = place.read(at, &mut bytes);
            read.inspect(|()| self.unpack(&bytes, row)).is_ok()
        });
    }

    /// Takes the pixels of a row apart, which have fewer than 32 bits.
    fn unpack(&self, bytes: &[u8], row: &mut [u32]) {
        let set = |row: &mut [u32], pixels: &mut dyn Iterator<Item = u32>| {
            row.iter_mut().zip(pixels).for_each(|(to, from)| *to = from);
        };
        match self.format.bits() {
            16 => {
                let words = bytes.as_chunks().0.iter();
                set(row, &mut words.map(|word| u16::from_le_bytes(*word).into()));
            }
            8 => set(row, &mut bytes.iter().map(|byte| u32::from(*byte))),
            1 => {
                let bits = |byte: &u8| {
                    let byte = u32::from(*byte);
                    (0..8).map(move |bit| byte >> bit & 1)
                };
                set(row, &mut bytes.iter().flat_map(bits));
            }
            _ => {}
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
        // Bytes that have other pixels too are written whole.
        let bits = self.format.bits();
        let whole = (8 / bits).max(1);
        let start = columns.start / whole * whole;
        let end = columns.end.next_multiple_of(whole).min(self.width);
        let mut bytes = Vec::new();
        for y in rows {
            let Some(row) = canvas.row(start, y, end.saturating_sub(start)) else {
                return;
            };
            let at = self.row_at(y) + u64::from(start) * u64::from(bits) / 8;
            bytes.clear();
            match bits {
                32 => bytes.extend_from_slice(row.as_bytes()),
                16 => bytes.extend(row.iter().flat_map(|pixel| (*pixel as u16).to_le_bytes())),
                8 => bytes.extend(row.iter().map(|pixel| *pixel as u8)),
                _ => bytes.extend(row.chunks(8).map(|pixels| {
                    let bits = pixels.iter().enumerate();
                    bits.fold(0, |byte, (bit, pixel)| byte | (*pixel as u8 & 1) << bit)
                })),
            }
            if place.write(at, &bytes).is_err() {
                return;
            }
        }
    }
}
