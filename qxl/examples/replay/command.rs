//! Commands, from the words of a recording to the structures of `qxl_dev.h` in guest memory.
//!
//! The order of the fields is that in which the reference writes them, and what is written is byte
//! for byte what its guest had, but for addresses.

use crate::guest::{Guest, OutOfMemory};
use crate::recording::{Input, Recording, RecordingError};

/// Chunks of one blob; more make no sense.
const MAX_CHUNKS: i128 = 65_536;

/// Bytes of a blob that is rather mapped than copied.
const IN_PLACE: usize = 32 << 10;

const COMMAND_DRAW: u32 = 1;
const COMMAND_UPDATE: u32 = 2;
const COMMAND_CURSOR: u32 = 3;
const COMMAND_MESSAGE: u32 = 4;
const COMMAND_SURFACE: u32 = 5;

const IMAGE_BITMAP: u8 = 0;
const IMAGE_QUIC: u8 = 1;
const IMAGE_SURFACE: u8 = 104;
/// `QXL_BITMAP_DIRECT`.
const DIRECT: u8 = 1;
const CLIP_RECTS: u32 = 1;
const BRUSH_SOLID: u32 = 1;
const BRUSH_PATTERN: u32 = 2;
/// `SPICE_LINE_FLAGS_STYLED`.
const STYLED: u8 = 8;
/// Bytes of the part of a drawable that depends on its type.
const BODY_LEN: usize = 68;

/// Why a command can't be given to the device.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The recording is wrong.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// It is too large.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// It is of a kind that is not known.
    #[error("{what} {number} is unknown")]
    Unknown {
        /// What is numbered.
        what: &'static str,
        /// Its number.
        number: u32,
    },
}

type Result<T> = std::result::Result<T, CommandError>;

/// A structure that is put together field by field; all are packed and little-endian.
struct Packed(Vec<u8>);

impl Default for Packed {
    fn default() -> Self {
        Self(Vec::with_capacity(Self::COMMON))
    }
}

impl Packed {
    /// Bytes that most structures have at most.
    const COMMON: usize = 192;

    /// Appends the low `bytes` bytes of a number, whatever its sign.
    fn number(mut self, bytes: usize, number: i128) -> Self {
        self.0.extend(&number.to_le_bytes()[..bytes]);
        self
    }

    fn u8(self, number: impl Into<i128>) -> Self {
        self.number(1, number.into())
    }

    fn u16(self, number: impl Into<i128>) -> Self {
        self.number(2, number.into())
    }

    fn u32(self, number: impl Into<i128>) -> Self {
        self.number(4, number.into())
    }

    fn u64(self, number: impl Into<i128>) -> Self {
        self.number(8, number.into())
    }

    /// A point or a rectangle.
    fn words<const N: usize>(self, numbers: [i128; N]) -> Self {
        numbers.into_iter().fold(self, Self::u32)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// Turns the commands of `recording` into memory of `guest`.
pub struct Transcript<'a, R> {
    pub recording: &'a mut Recording<R>,
    pub guest: &'a mut Guest,
}

impl<R: Input> Transcript<'_, R> {
    /// The next command, of this `QXLCommand.type`, and what it says: its address, if there is
    /// something to do.
    ///
    /// # Errors
    /// It can't be read, or there is no room for it.
    pub fn command(&mut self, kind: u32) -> Result<Option<u64>> {
        Ok(match kind {
            COMMAND_DRAW => Some(self.drawable()?),
            COMMAND_CURSOR => Some(self.cursor_command()?),
            COMMAND_SURFACE => Some(self.surface_command()?),
            COMMAND_UPDATE => {
                self.recording.word("update")?;
                self.rect("rect area")?;
                self.recording.number("update_id")?;
                self.recording.number("surface_id")?;
                None
            }
            COMMAND_MESSAGE => {
                self.recording.blob()?;
                None
            }
            number => {
                return Err(CommandError::Unknown {
                    what: "command type",
                    number,
                });
            }
        })
    }

    fn u8(&mut self, name: &str) -> Result<u8> {
        Ok(self.recording.number(name)? as u8)
    }

    fn u32(&mut self, name: &str) -> Result<u32> {
        Ok(self.recording.number(name)? as u32)
    }

    /// Top, left, bottom, right, in a line of this name.
    fn rect(&mut self, name: &str) -> Result<[i128; 4]> {
        Ok(self.recording.numbers(name)?)
    }

    fn point(&mut self) -> Result<[i128; 2]> {
        Ok(self.recording.numbers("point")?)
    }

    /// A structure that ends with the first of a chain of chunks; its address.
    fn chunks(&mut self, head: Packed) -> Result<u64> {
        let [more, _size] = self.recording.numbers("data_chunks")?;
        self.chain(head, more)
    }

    /// The same, when it is known how many more chunks there are.
    fn chain(&mut self, head: Packed, more: i128) -> Result<u64> {
        let (structure, mut last) = self.chunk(head)?;
        for _ in 0..more.min(MAX_CHUNKS) {
            let (chunk, next) = self.chunk(Packed::default())?;
            self.guest.write(last, &chunk.to_le_bytes());
            last = next;
        }
        Ok(structure)
    }

    /// A chunk behind `head`; where both are, and where the address of the chunk after it belongs.
    fn chunk(&mut self, head: Packed) -> Result<(u64, u64)> {
        let len = self.recording.blob_len()?;
        let next = head.0.len() as u64 + 12;
        let head = head.u32(len as u32).u64(0).u64(0).0;
        let address = self.data(head.len(), len)?;
        self.guest.write(address, &head);
        Ok((address, address + next))
    }

    /// The `len` bytes of a blob, with room for `before` bytes in front of them; where that begins. A large
    /// one stays where it is in the file: to copy it would take as long as to draw it.
    pub fn data(&mut self, before: usize, len: usize) -> Result<u64> {
        if let Some(address) = self.data_in_place(before, len)? {
            self.recording.skip_blob(len)?;
            return Ok(address);
        }
        let address = self.guest.reserve(before + len)?;
        let memory = self.guest.memory(address + before as u64, len)?;
        self.recording.blob_into(&memory)?;
        Ok(address)
    }

    fn data_in_place(&mut self, before: usize, len: usize) -> Result<Option<u64>> {
        let Some((file, at)) = self.recording.place().filter(|_| len >= IN_PLACE) else {
            return Ok(None);
        };
        // What is there are the lines that lead to the blob, which were read.
        let Some(start) = at.checked_sub(before as u64) else {
            return Ok(None);
        };
        let address = self.guest.map(file, start..at + len as u64);
        Ok(address.map_err(RecordingError::of_blob)?)
    }

    /// An image's address; 0 if there is none.
    fn image(&mut self) -> Result<u64> {
        if self.recording.number("image")? == 0 {
            return Ok(0);
        }
        let id = self.recording.number("descriptor.id")?;
        let kind = self.u8("descriptor.type")?;
        let image = Packed::default()
            .u64(id)
            .u8(kind)
            .u8(self.recording.number("descriptor.flags")?)
            .u32(self.recording.number("descriptor.width")?)
            .u32(self.recording.number("descriptor.height")?);
        let image = match kind {
            IMAGE_BITMAP => self.bitmap(image)?,
            IMAGE_SURFACE => image.u32(self.recording.number("surface_image.surface_id")?),
            IMAGE_QUIC => {
                let image = image.u32(self.recording.number("quic.data_size")?);
                return self.chunks(image);
            }
            other => {
                let number = other.into();
                return Err(CommandError::Unknown {
                    what: "image type",
                    number,
                });
            }
        };
        Ok(self.guest.put(&image.0)?)
    }

    fn bitmap(&mut self, image: Packed) -> Result<Packed> {
        let format = self.recording.number("bitmap.format")?;
        let flags = self.u8("bitmap.flags")?;
        let image = image
            .u8(format)
            .u8(flags)
            .u32(self.recording.number("bitmap.x")?)
            .u32(self.recording.number("bitmap.y")?)
            .u32(self.recording.number("bitmap.stride")?);
        let palette = match self.recording.number("has_palette")? {
            0 => 0,
            _ => self.palette()?,
        };
        let data = if flags & DIRECT != 0 {
            let len = self.recording.blob_len()?;
            self.data(0, len)?
        } else {
            self.chunks(Packed::default())?
        };
        Ok(image.u64(palette).u64(data))
    }

    fn palette(&mut self) -> Result<u64> {
        let count = self.recording.number("qp.num_ents")? as u16;
        let mut palette = Packed::default()
            .u64(self.recording.number("unique")?)
            .u16(count);
        for _ in 0..count {
            palette = palette.u32(self.recording.number("ents")?);
        }
        Ok(self.guest.put(&palette.0)?)
    }

    fn brush(&mut self, body: Packed) -> Result<Packed> {
        let kind = self.u32("type")?;
        let body = body.u32(kind);
        Ok(match kind {
            BRUSH_SOLID => body.u32(self.recording.number("u.color")?).words([0, 0, 0]),
            BRUSH_PATTERN => body.u64(self.image()?).words(self.point()?),
            _ => body.words([0, 0, 0, 0]),
        })
    }

    fn mask(&mut self, body: Packed) -> Result<Packed> {
        let body = body
            .u8(self.recording.number("flags")?)
            .words(self.point()?);
        Ok(body.u64(self.image()?))
    }

    /// An image and the part of it that is drawn.
    fn source(&mut self, body: Packed) -> Result<Packed> {
        Ok(body.u64(self.image()?).words(self.rect("rect src_area")?))
    }

    fn rop_scale_mask(&mut self, body: Packed) -> Result<Packed> {
        let body = body
            .u16(self.recording.number("rop_descriptor")?)
            .u8(self.recording.number("scale_mode")?);
        self.mask(body)
    }

    fn modes(&mut self, body: Packed) -> Result<Packed> {
        Ok(body
            .u16(self.recording.number("fore_mode")?)
            .u16(self.recording.number("back_mode")?))
    }

    fn drawable(&mut self) -> Result<u64> {
        self.recording.word("drawable")?;
        let bbox = self.rect("rect bbox")?;
        let clip_kind = self.u32("type")?;
        let clip = match clip_kind {
            CLIP_RECTS => {
                let count = self.recording.number("num_rects")?;
                self.chunks(Packed::default().u32(count))?
            }
            _ => 0,
        };
        let effect = self.recording.number("effect")?;
        let time = self.recording.number("mm_time")?;
        // Of the compatibility mode of old drivers, which has no surfaces.
        let compat = self.recording.at_line("bitmap_offset")?;
        let (self_bitmap, self_area, surface);
        let mut depends = Packed::default();
        let mut areas = Packed::default();
        if compat {
            self_bitmap = i128::from(self.recording.number("bitmap_offset")? != 0);
            self_area = self.rect("rect bitmap_area")?;
            surface = 0;
            depends = depends.words([-1; 3]);
            areas = areas.words([0; 12]);
        } else {
            self_bitmap = self.recording.number("self_bitmap")?;
            self_area = self.rect("rect self_bitmap_area")?;
            surface = self.recording.number("surface_id")?;
            for _ in 0..3 {
                depends = depends.u32(self.recording.number("surfaces_dest")?);
                areas = areas.words(self.rect("rect surfaces_rects")?);
            }
        }
        let kind = self.u8("type")?;
        let mut body = self.body(kind, compat)?.0;
        body.resize(BODY_LEN, 0);
        let drawable = Packed::default()
            .u64(0)
            .u32(surface)
            .u8(effect)
            .u8(kind)
            .u8(self_bitmap)
            .words(self_area)
            .words(bbox)
            .u32(clip_kind)
            .u64(clip)
            .u32(time)
            .bytes(&depends.0)
            .bytes(&areas.0)
            .bytes(&body);
        Ok(self.guest.put(&drawable.0)?)
    }

    /// The part of a drawable that depends on its type.
    fn body(&mut self, kind: u8, compat: bool) -> Result<Packed> {
        let body = Packed::default();
        Ok(match kind {
            // Nothing.
            0 => body,
            // Fill.
            1 => {
                let body = self.brush(body)?;
                let body = body.u16(self.recording.number("rop_descriptor")?);
                self.mask(body)?
            }
            // Opaque.
            2 => {
                let body = self.source(body)?;
                let body = self.brush(body)?;
                self.rop_scale_mask(body)?
            }
            // Copy and blend.
            3 | 5 => {
                let body = self.source(body)?;
                self.rop_scale_mask(body)?
            }
            // Copy bits.
            4 => body.words(self.point()?),
            // Blackness, whiteness, inversion.
            6..=8 => self.mask(body)?,
            // Ternary raster operation.
            9 => {
                let body = self.source(body)?;
                let body = self
                    .brush(body)?
                    .u8(self.recording.number("rop3")?)
                    .u8(self.recording.number("scale_mode")?);
                self.mask(body)?
            }
            // Stroke.
            10 => {
                let body = self.stroke(body)?;
                self.modes(body)?
            }
            // Text.
            11 => {
                let body = self.string(body)?.words(self.rect("rect back_area")?);
                let body = self.brush(body)?;
                let body = self.brush(body)?;
                self.modes(body)?
            }
            // Transparent.
            12 => self
                .source(body)?
                .u32(self.recording.number("src_color")?)
                .u32(self.recording.number("true_color")?),
            // Alpha blend.
            13 => {
                let flags = match compat {
                    true => 0,
                    false => self.recording.number("alpha_flags")?,
                };
                let body = body.u16(flags).u8(self.recording.number("alpha")?);
                self.source(body)?
            }
            14 => self.composite(body)?,
            other => {
                let number = other.into();
                return Err(CommandError::Unknown {
                    what: "draw type",
                    number,
                });
            }
        })
    }

    fn stroke(&mut self, body: Packed) -> Result<Packed> {
        let [more, size] = self.recording.numbers("data_chunks")?;
        let path = self.chain(Packed::default().u32(size), more)?;
        let flags = self.u8("attr.flags")?;
        let (segments, style) = if flags & STYLED != 0 {
            let segments = self.recording.number("attr.style_nseg")?;
            let style = self.recording.blob()?;
            (segments, self.guest.put(&style)?)
        } else {
            (0, 0)
        };
        // Neither joins nor ends, neither width nor miter limit are recorded.
        let body = body
            .u64(path)
            .u8(flags)
            .u16(0)
            .u8(segments)
            .words([0, 0])
            .u64(style);
        self.brush(body)
    }

    fn string(&mut self, body: Packed) -> Result<Packed> {
        let string = Packed::default()
            .u32(self.recording.number("data_size")?)
            .u16(self.recording.number("length")?)
            .u16(self.recording.number("flags")?);
        Ok(body.u64(self.chunks(string)?))
    }

    fn composite(&mut self, body: Packed) -> Result<Packed> {
        let flags = self.recording.number("flags")?;
        let source = self.image()?;
        let source_transform = self.transform("src_transform")?;
        let mask = match self.recording.number("mask")? {
            0 => 0,
            _ => self.image()?,
        };
        let mask_transform = self.transform("mask_transform")?;
        let [x, y]: [i128; 2] = self.recording.numbers("src_origin")?;
        let [mask_x, mask_y]: [i128; 2] = self.recording.numbers("mask_origin")?;
        let addresses = [source, source_transform, mask, mask_transform];
        let body = addresses.into_iter().fold(body.u32(flags), Packed::u64);
        Ok([x, y, mask_x, mask_y].into_iter().fold(body, Packed::u16))
    }

    fn transform(&mut self, name: &str) -> Result<u64> {
        if self.recording.number(name)? == 0 {
            return Ok(0);
        }
        let matrix = self.recording.blob()?;
        Ok(self.guest.put(&matrix)?)
    }

    fn surface_command(&mut self) -> Result<u64> {
        self.recording.word("surface_cmd")?;
        let id = self.u32("surface_id")?;
        let kind = self.u8("type")?;
        let flags = self.u32("flags")?;
        let command = Packed::default().u64(0).u32(id).u8(kind).u32(flags);
        let command = if kind == 0 {
            let format = self.recording.number("u.surface_create.format")?;
            let width = self.recording.number("u.surface_create.width")?;
            let height = self.recording.number("u.surface_create.height")?;
            let stride = self.recording.number("u.surface_create.stride")?;
            // The device reads the first picture there, and nobody anything later.
            let data = match self.recording.at_event()? {
                true => {
                    let len = height.unsigned_abs().saturating_mul(stride.unsigned_abs());
                    self.guest
                        .reserve(usize::try_from(len).unwrap_or(usize::MAX))?
                }
                false => {
                    let len = self.recording.blob_len()?;
                    self.data(0, len)?
                }
            };
            command.words([format, width, height, stride]).u64(data)
        } else {
            command.words([0; 4]).u64(0)
        };
        Ok(self.guest.put(&command.0)?)
    }

    fn cursor_command(&mut self) -> Result<u64> {
        self.recording.word("cursor_cmd")?;
        let kind = self.u8("type")?;
        let command = Packed::default().u64(0).u8(kind);
        let mut command = match kind {
            0 => {
                let [x, y]: [i128; 2] = self.recording.numbers("point16")?;
                let visible = self.recording.number("u.set.visible")?;
                let shape = self.cursor()?;
                command.u16(x).u16(y).u8(visible).u64(shape)
            }
            1 => {
                let [x, y]: [i128; 2] = self.recording.numbers("point16")?;
                command.u16(x).u16(y)
            }
            3 => command
                .u16(self.recording.number("u.trail.length")?)
                .u16(self.recording.number("u.trail.frequency")?),
            _ => command,
        }
        .0;
        command.resize(150, 0);
        Ok(self.guest.put(&command)?)
    }

    fn cursor(&mut self) -> Result<u64> {
        let cursor = Packed::default()
            .u64(self.recording.number("header.unique")?)
            .u16(self.recording.number("header.type")?)
            .u16(self.recording.number("header.width")?)
            .u16(self.recording.number("header.height")?)
            .u16(self.recording.number("header.hot_spot_x")?)
            .u16(self.recording.number("header.hot_spot_y")?)
            .u32(self.recording.number("data_size")?);
        self.chunks(cursor)
    }
}
