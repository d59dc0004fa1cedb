//! Images, as the guest stores them.

use caraway_spice::{Rect, Size};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::quic::{self, Unpacked};
use super::wire;
use super::{Chunks, CommandError, Dialect, MAX_SIDE, MAX_UNPACKED, some};
use crate::canvas::{Form, OPAQUE, PixelFormat, Pixels, from_555};
use crate::device::{AddressError, GuestAddress, Slots};

/// The data is in one piece and not in chunks.
const FLAG_DIRECT: u8 = 1;
/// The first row is the topmost.
const FLAG_TOP_DOWN: u8 = 4;

const IMAGE_BITMAP: u8 = 0;
const IMAGE_QUIC: u8 = 1;
const IMAGE_SURFACE: u8 = 104;
/// Pixels of an image without alpha are opaque where somebody looks for it.
const IMAGE_HIGH_BITS_SET: u8 = 2;

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

/// Where a bitmap's bytes are.
enum Store {
    Guest(Chunks),
    /// With us, after they were unpacked.
    Unpacked(Vec<u8>),
}

impl Store {
    /// Copies the bytes from `at` into `data`; zeros come after the last.
    fn read(&self, at: u64, data: &mut [u8]) -> Result<(), AddressError> {
        let bytes = match self {
            Self::Guest(chunks) => return chunks.read(at, data),
            Self::Unpacked(bytes) => bytes,
        };
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let there = bytes.get(start..).unwrap_or_default();
        let count = there.len().min(data.len());
        let (now, rest) = data.split_at_mut(count);
        now.copy_from_slice(&there[..count]);
        rest.fill(0);
        Ok(())
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
    opaque: bool,
    data: Store,
    row: Vec<u8>,
}

impl Bitmap {
    /// The bitmap whose `QXLBitmap` is at `address`.
    pub(super) fn decode(
        slots: &Slots,
        address: GuestAddress,
        dialect: Dialect,
    ) -> Result<Self, CommandError> {
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
        let palette = palette.into_iter().map(|color| dialect.color(color));
        Ok(Self {
            format,
            width,
            height,
            stride,
            top_down: wire.flags & FLAG_TOP_DOWN != 0,
            palette: palette.collect(),
            opaque: false,
            data: Store::Guest(data),
            row: Vec::new(),
        })
    }

    /// What the `QXLQUICData` at `address` becomes, which is of `size`.
    fn unpacked(slots: &Slots, address: GuestAddress, size: Size) -> Result<Self, CommandError> {
        CommandError::at_most("image width", size.width, MAX_SIDE)?;
        CommandError::at_most("image height", size.height, MAX_SIDE)?;
        // A guest that has no room for a picture has no need of one so large.
        let most = MAX_UNPACKED.min(slots.room());
        let len: U32 = slots.get(address)?;
        CommandError::at_most("bytes of a packed image", len.get(), most)?;
        let mut stream = vec![0; len.get() as usize];
        let chunks = Chunks::chain(slots, address.plus(4), stream.len() as u64)?;
        chunks.read(0, &mut stream)?;
        let Unpacked { kind, pixels } = quic::unpack(&stream, size, most)?;
        Ok(Self {
            format: match kind {
                quic::Kind::Rgb16 => BitmapFormat::Bit16,
                quic::Kind::Rgb32 => BitmapFormat::Bit32,
                quic::Kind::Rgba => BitmapFormat::Rgba,
            },
            width: size.width,
            height: size.height,
            stride: u64::from(size.width) * kind.bytes(),
            top_down: true,
            palette: Vec::new(),
            opaque: false,
            data: Store::Unpacked(pixels),
            row: Vec::new(),
        })
    }

    /// How its pixels are coded if they are read for a surface of format `local`.
    fn coded(&self, form: Form, local: PixelFormat) -> PixelFormat {
        match (form, self.format) {
            (Form::Bits, _) => PixelFormat::A1,
            // Colours of a palette are coded as the surface's.
            (Form::Original, format) if format.palette() > 0 => local,
            (Form::Original, BitmapFormat::Bit16) => PixelFormat::Rgb555,
            (Form::Original, BitmapFormat::Bit24 | BitmapFormat::Bit32) => PixelFormat::Xrgb,
            (Form::Original, BitmapFormat::Alpha8) => PixelFormat::A8,
            (Form::Original, _) => PixelFormat::Argb,
            (Form::Local, format) if local.bits() == 32 => match format {
                BitmapFormat::Rgba => PixelFormat::Argb,
                _ => PixelFormat::Xrgb,
            },
            (Form::Local, _) => local,
        }
    }

    /// The bitmap's pixels for a surface of format `local`; `None` if it has no such form.
    pub(crate) fn pixels(self, form: Form, local: PixelFormat) -> Option<BitmapPixels> {
        let one_bit = matches!(self.format, BitmapFormat::Bit1Le | BitmapFormat::Bit1Be);
        let readable = form != Form::Bits || one_bit;
        readable.then(|| BitmapPixels {
            coded: self.coded(form, local),
            as_bits: form == Form::Bits,
            bitmap: self,
        })
    }

    /// The bytes that have the pixels of row `y` from `x`, and how many bits of them come first.
    fn row(&mut self, x: u32, y: u32, width: usize) -> Option<u32> {
        let bits = self.format.bits();
        let first = u64::from(x) * bits;
        let at = self.row_at(y) + first / 8;
        let skipped = first % 8;
        let len = (skipped + width as u64 * bits).div_ceil(8) as usize;
        self.row.resize(len, 0);
        self.data.read(at, &mut self.row).ok()?;
        Some(skipped as u32)
    }

    /// Where row `y` begins.
    fn row_at(&self, y: u32) -> u64 {
        let stored = if self.top_down {
            y
        } else {
            self.height - 1 - y
        };
        u64::from(stored) * self.stride
    }

    /// The number that is `i` numbers behind the first `skipped` bits of the row that was read.
    fn number(&self, skipped: u32, i: usize) -> u32 {
        let byte = |at: usize| u32::from(self.row.get(at).copied().unwrap_or(0));
        let bit = skipped as usize + i;
        let nibble = skipped as usize / 4 + i;
        match self.format {
            BitmapFormat::Bit1Le => byte(bit / 8) >> (bit % 8) & 1,
            BitmapFormat::Bit1Be => byte(bit / 8) >> (7 - bit % 8) & 1,
            BitmapFormat::Bit4Le => byte(nibble / 2) >> (nibble % 2 * 4) & 15,
            BitmapFormat::Bit4Be => byte(nibble / 2) >> ((1 - nibble % 2) * 4) & 15,
            BitmapFormat::Bit8 | BitmapFormat::Alpha8 => byte(i),
            BitmapFormat::Bit16 => byte(2 * i) | byte(2 * i + 1) << 8,
            BitmapFormat::Bit24 => byte(3 * i) | byte(3 * i + 1) << 8 | byte(3 * i + 2) << 16,
            // Read without a detour.
            BitmapFormat::Bit32 | BitmapFormat::Rgba => 0,
        }
    }

    /// The palette's colour; without a palette, from black to white.
    fn color(&self, index: u32) -> u32 {
        let known = self.palette.get(index as usize).copied();
        known.unwrap_or_else(|| {
            let steps = self.format.palette().saturating_sub(1).max(1) as u32;
            if self.palette.is_empty() {
                index * 255 / steps * 0x01_01_01
            } else {
                0
            }
        })
    }
}

/// A bitmap's pixels, coded in one way.
pub(crate) struct BitmapPixels {
    bitmap: Bitmap,
    coded: PixelFormat,
    as_bits: bool,
}

impl BitmapPixels {
    /// Turns the numbers that a row was read as into pixels.
    fn expand(&self, skipped: u32, row: &mut [u32]) {
        let bitmap = &self.bitmap;
        let numbers = |row: &mut [u32], of: &dyn Fn(u32) -> u32| {
            for (i, pixel) in row.iter_mut().enumerate() {
                *pixel = of(bitmap.number(skipped, i));
            }
        };
        let coded = self.coded;
        match bitmap.format {
            _ if self.as_bits => numbers(row, &|bit| bit),
            BitmapFormat::Bit16 if coded == PixelFormat::Rgb555 => numbers(row, &|pixel| pixel),
            BitmapFormat::Bit16 => numbers(row, &|pixel| {
                let argb = OPAQUE | from_555(pixel as u16);
                if coded.bits() == 32 {
                    argb
                } else {
                    coded.of_argb(argb)
                }
            }),
            BitmapFormat::Bit24 => numbers(row, &|pixel| {
                if coded.bits() == 32 {
                    pixel
                } else {
                    coded.of_argb(OPAQUE | pixel)
                }
            }),
            BitmapFormat::Alpha8 => numbers(row, &|alpha| {
                if coded.bits() == 32 {
                    alpha << 24
                } else {
                    coded.of_argb(alpha << 24)
                }
            }),
            BitmapFormat::Bit32 | BitmapFormat::Rgba if coded.bits() == 32 => {}
            BitmapFormat::Bit32 => row
                .iter_mut()
                .for_each(|pixel| *pixel = coded.of_argb(OPAQUE | *pixel)),
            BitmapFormat::Rgba => row
                .iter_mut()
                .for_each(|pixel| *pixel = coded.of_argb(*pixel)),
            _ => numbers(row, &|index| bitmap.color(index) & coded.mask()),
        }
        if bitmap.opaque && coded == PixelFormat::Xrgb {
            row.iter_mut().for_each(|pixel| *pixel |= OPAQUE);
        }
    }
}

impl Pixels for BitmapPixels {
    fn format(&self) -> PixelFormat {
        self.coded
    }

    fn size(&self) -> Size {
        Size {
            width: self.bitmap.width,
            height: self.bitmap.height,
        }
    }

    fn read(&mut self, x: u32, y: u32, row: &mut [u32]) -> bool {
        let bitmap = &mut self.bitmap;
        let end = u64::from(x) + row.len() as u64;
        if y >= bitmap.height || end > u64::from(bitmap.width) {
            return false;
        }
        let skipped = if bitmap.format.bits() == 32 {
            // As stored is as we store them.
            let at = bitmap.row_at(y) + u64::from(x) * 4;
            bitmap.data.read(at, row.as_mut_bytes()).ok().map(|()| 0)
        } else {
            bitmap.row(x, y, row.len())
        };
        match skipped {
            Some(skipped) => self.expand(skipped, row),
            None => row.fill(0),
        }
        skipped.is_some()
    }
}

/// An image (`QXLImage`): where its pixels are.
pub(crate) enum Image {
    /// In guest memory, or unpacked from there.
    Bitmap(Bitmap),
    /// On a surface; 0 is the primary one.
    Surface(u32),
    /// What is in this area of the surface that is drawn on before it is drawn on.
    Itself(Rect),
}

impl Image {
    /// The image at `address`.
    pub(super) fn decode(
        slots: &Slots,
        address: GuestAddress,
        dialect: Dialect,
    ) -> Result<Self, CommandError> {
        let descriptor: wire::ImageDescriptor = slots.get(address)?;
        let body = address.plus(size_of::<wire::ImageDescriptor>() as u64);
        let mut bitmap = match descriptor.kind {
            IMAGE_BITMAP => Bitmap::decode(slots, body, dialect)?,
            IMAGE_QUIC => {
                let size = Size {
                    width: descriptor.width.get(),
                    height: descriptor.height.get(),
                };
                Bitmap::unpacked(slots, body, size)?
            }
            IMAGE_SURFACE => {
                let surface: wire::SurfaceId = slots.get(body)?;
                return Ok(Self::Surface(surface.id.get()));
            }
            other => return Err(CommandError::unknown("image type", other.into())),
        };
        bitmap.opaque = descriptor.flags & IMAGE_HIGH_BITS_SET != 0;
        Ok(Self::Bitmap(bitmap))
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
