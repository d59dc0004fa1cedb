//! Commands in guest memory as lines of text.

use std::fmt::Display;

use crate::command::{Chunks, CommandError};
use crate::device::{GuestAddress, Slots};

/// The most bytes that one command may point to.
const MAX_DATA: u64 = 256 << 20;

const IMAGE_BITMAP: u8 = 0;
const IMAGE_QUIC: u8 = 1;
const IMAGE_SURFACE: u8 = 104;
/// `QXL_BITMAP_DIRECT`.
const DIRECT: u8 = 1;
/// `QXL_SURF_FLAG_KEEP_DATA`.
const KEEP_DATA: u32 = 1;
/// `SPICE_LINE_FLAGS_STYLED`.
const STYLED: u8 = 8;
/// Bytes of `SpiceTransform`.
const TRANSFORM_LEN: u64 = 36;

type Result<T = ()> = std::result::Result<T, CommandError>;

/// A packed structure of the guest's, taken apart from its start; past its end are zeros.
struct Fields {
    bytes: Vec<u8>,
    at: usize,
}

impl Fields {
    fn of(slots: &Slots, address: GuestAddress, len: usize) -> Result<Self> {
        let mut bytes = vec![0; len];
        slots.resolve(address, len as u64)?.read(0, &mut bytes)?;
        Ok(Self { bytes, at: 0 })
    }

    fn skip(&mut self, count: usize) {
        self.at += count;
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let from = self.bytes.get(self.at..).unwrap_or_default();
        self.at += N;
        *from.first_chunk().unwrap_or(&[0; N])
    }

    fn u8(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn i16(&mut self) -> i16 {
        i16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn address(&mut self) -> GuestAddress {
        GuestAddress(self.u64())
    }
}

/// The text of one event.
pub(super) struct Script<'a> {
    slots: &'a Slots,
    text: Vec<u8>,
    /// Bytes that may still be read.
    left: u64,
}

impl<'a> Script<'a> {
    pub(super) fn new(slots: &'a Slots) -> Self {
        Self {
            slots,
            text: Vec::new(),
            left: MAX_DATA,
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    fn fields(&self, address: GuestAddress, len: usize) -> Result<Fields> {
        Fields::of(self.slots, address, len)
    }

    fn word(&mut self, word: &str) {
        self.text.extend(word.as_bytes());
        self.text.push(b'\n');
    }

    fn line(&mut self, name: &str, value: impl Display) {
        self.word(&format!("{name} {value}"));
    }

    fn blob(&mut self, name: &str, bytes: &[u8]) {
        let head = format!("binary 0 {name} {}:", bytes.len());
        self.text.extend(head.as_bytes());
        self.text.extend(bytes);
        self.text.push(b'\n');
    }

    fn data(&mut self, chunks: &Chunks, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        chunks.read(0, &mut bytes)?;
        Ok(bytes)
    }

    fn spend(&mut self, len: u64) -> Result {
        CommandError::at_most("data of one command", len, self.left)?;
        self.left -= len;
        Ok(())
    }

    /// `len` bytes in one piece.
    fn flat(&mut self, name: &str, address: GuestAddress, len: u64) -> Result {
        self.spend(len)?;
        let bytes = self.data(&Chunks::flat(self.slots, address, len)?, len)?;
        self.blob(name, &bytes);
        Ok(())
    }

    /// `len` bytes of a chain of chunks, as one chunk.
    fn chunks(&mut self, name: &str, first: GuestAddress, len: u64) -> Result {
        self.spend(len)?;
        let bytes = self.data(&Chunks::chain(self.slots, first, len)?, len)?;
        self.line("data_chunks 0", len);
        self.blob(name, &bytes);
        Ok(())
    }

    fn rect(&mut self, name: &str, fields: &mut Fields) {
        let [top, left, bottom, right] = [(); 4].map(|()| fields.i32());
        self.word(&format!("rect {name} {top} {left} {bottom} {right}"));
    }

    fn point(&mut self, fields: &mut Fields) {
        let (x, y) = (fields.i32(), fields.i32());
        self.word(&format!("point {x} {y}"));
    }

    /// An image, or that there is none.
    fn image(&mut self, address: GuestAddress) -> Result {
        self.line("image", u8::from(address.0 != 0));
        if address.0 == 0 {
            return Ok(());
        }
        let mut image = self.fields(address, 18)?;
        self.line("descriptor.id", image.u64());
        let kind = image.u8();
        self.line("descriptor.type", kind);
        self.line("descriptor.flags", image.u8());
        self.line("descriptor.width", image.u32());
        self.line("descriptor.height", image.u32());
        let rest = address.plus(18);
        match kind {
            IMAGE_BITMAP => self.bitmap(rest),
            IMAGE_SURFACE => {
                let id = self.fields(rest, 4)?.u32();
                self.line("surface_image.surface_id", id);
                Ok(())
            }
            IMAGE_QUIC => {
                let len = self.fields(rest, 4)?.u32();
                self.line("quic.data_size", len);
                self.chunks("quic.data", rest.plus(4), len.into())
            }
            other => Err(CommandError::unknown("image type", other.into())),
        }
    }

    fn bitmap(&mut self, address: GuestAddress) -> Result {
        let mut bitmap = self.fields(address, 30)?;
        self.line("bitmap.format", bitmap.u8());
        let flags = bitmap.u8();
        self.line("bitmap.flags", flags);
        self.line("bitmap.x", bitmap.u32());
        let height = bitmap.u32();
        self.line("bitmap.y", height);
        let stride = bitmap.u32();
        self.line("bitmap.stride", stride);
        let palette = bitmap.address();
        self.line("has_palette", u8::from(palette.0 != 0));
        if palette.0 != 0 {
            self.palette(palette)?;
        }
        let (data, len) = (bitmap.address(), u64::from(height) * u64::from(stride));
        match flags & DIRECT {
            0 => self.chunks("bitmap.data", data, len),
            _ => self.flat("image_data_flat", data, len),
        }
    }

    fn palette(&mut self, address: GuestAddress) -> Result {
        let mut palette = self.fields(address, 10)?;
        let (unique, count) = (palette.u64(), palette.u16());
        let mut entries = self.fields(address.plus(10), usize::from(count) * 4)?;
        self.line("qp.num_ents", count);
        self.line("unique", unique);
        for _ in 0..count {
            self.line("ents", entries.i32());
        }
        Ok(())
    }

    fn brush(&mut self, fields: &mut Fields) -> Result {
        let kind = fields.u32();
        self.line("type", kind);
        match kind {
            1 => {
                self.line("u.color", fields.i32());
                fields.skip(12);
            }
            2 => {
                let image = fields.address();
                self.image(image)?;
                self.point(fields);
            }
            _ => fields.skip(16),
        }
        Ok(())
    }

    fn mask(&mut self, fields: &mut Fields) -> Result {
        self.line("flags", fields.u8());
        self.point(fields);
        self.image(fields.address())
    }

    /// An image and the part of it that is drawn.
    fn source(&mut self, fields: &mut Fields) -> Result {
        self.image(fields.address())?;
        self.rect("src_area", fields);
        Ok(())
    }

    fn rop(&mut self, fields: &mut Fields) {
        self.line("rop_descriptor", fields.u16());
    }

    fn scale(&mut self, fields: &mut Fields) {
        self.line("scale_mode", fields.u8());
    }

    fn modes(&mut self, fields: &mut Fields) {
        self.line("fore_mode", fields.u16());
        self.line("back_mode", fields.u16());
    }

    /// `QXLDrawable`.
    pub(super) fn drawable(&mut self, address: GuestAddress) -> Result {
        let mut fields = self.fields(address, 191)?;
        fields.skip(8);
        let (surface, effect, kind) = (fields.u32(), fields.u8(), fields.u8());
        let self_bitmap = fields.u8();
        let mut self_area = self.fields(address.plus(15), 16)?;
        fields.skip(16);
        self.word("drawable");
        self.rect("bbox", &mut fields);
        let (clip, rects) = (fields.u32(), fields.address());
        self.line("type", clip);
        if clip == 1 {
            let count = self.fields(rects, 4)?.u32();
            self.line("num_rects", count);
            self.chunks("clip_rects", rects.plus(4), u64::from(count) * 16)?;
        }
        self.line("effect", effect);
        self.line("mm_time", fields.u32());
        self.line("self_bitmap", self_bitmap);
        self.rect("self_bitmap_area", &mut self_area);
        self.line("surface_id", surface);
        let depends = [(); 3].map(|()| fields.i32());
        for id in depends {
            self.line("surfaces_dest", id);
            self.rect("surfaces_rects", &mut fields);
        }
        self.line("type", kind);
        self.body(kind, &mut fields)
    }

    /// The part of a drawable that depends on its type.
    fn body(&mut self, kind: u8, fields: &mut Fields) -> Result {
        match kind {
            // Nothing.
            0 => Ok(()),
            // Fill.
            1 => {
                self.brush(fields)?;
                self.rop(fields);
                self.mask(fields)
            }
            // Opaque.
            2 => {
                self.source(fields)?;
                self.brush(fields)?;
                self.rop(fields);
                self.scale(fields);
                self.mask(fields)
            }
            // Copy and blend.
            3 | 5 => {
                self.source(fields)?;
                self.rop(fields);
                self.scale(fields);
                self.mask(fields)
            }
            // Copy bits.
            4 => {
                self.point(fields);
                Ok(())
            }
            // Blackness, whiteness, inversion.
            6..=8 => self.mask(fields),
            // Ternary raster operation.
            9 => {
                self.source(fields)?;
                self.brush(fields)?;
                self.line("rop3", fields.u8());
                self.scale(fields);
                self.mask(fields)
            }
            // Stroke.
            10 => self.stroke(fields),
            // Text.
            11 => {
                self.string(fields.address())?;
                self.rect("back_area", fields);
                self.brush(fields)?;
                self.brush(fields)?;
                self.modes(fields);
                Ok(())
            }
            // Transparent.
            12 => {
                self.source(fields)?;
                self.line("src_color", fields.i32());
                self.line("true_color", fields.i32());
                Ok(())
            }
            // Alpha blend.
            13 => {
                self.line("alpha_flags", fields.u16());
                self.line("alpha", fields.u8());
                self.source(fields)
            }
            14 => self.composite(fields),
            other => Err(CommandError::unknown("draw type", other.into())),
        }
    }

    fn stroke(&mut self, fields: &mut Fields) -> Result {
        let path = fields.address();
        let len = self.fields(path, 4)?.u32();
        self.chunks("path", path.plus(4), len.into())?;
        let flags = fields.u8();
        // Joins and ends are not in the format.
        fields.skip(2);
        let segments = fields.u8();
        // Neither are width and miter limit.
        fields.skip(8);
        let style = fields.address();
        self.line("attr.flags", flags);
        if flags & STYLED != 0 {
            self.line("attr.style_nseg", segments);
            self.flat("style", style, u64::from(segments) * 4)?;
        }
        self.brush(fields)?;
        self.modes(fields);
        Ok(())
    }

    fn string(&mut self, address: GuestAddress) -> Result {
        let mut string = self.fields(address, 8)?;
        let len = string.u32();
        self.line("data_size", len);
        self.line("length", string.u16());
        self.line("flags", string.u16());
        self.chunks("string", address.plus(8), len.into())
    }

    fn composite(&mut self, fields: &mut Fields) -> Result {
        self.line("flags", fields.i32());
        self.image(fields.address())?;
        let transform = fields.address();
        self.transform("src_transform", transform)?;
        let mask = fields.address();
        self.line("mask", u8::from(mask.0 != 0));
        if mask.0 != 0 {
            self.image(mask)?;
        }
        let transform = fields.address();
        self.transform("mask_transform", transform)?;
        for name in ["src_origin", "mask_origin"] {
            let (x, y) = (fields.i16(), fields.i16());
            self.word(&format!("{name} {x} {y}"));
        }
        Ok(())
    }

    fn transform(&mut self, name: &str, address: GuestAddress) -> Result {
        self.line(name, u8::from(address.0 != 0));
        if address.0 != 0 {
            self.flat("transform", address, TRANSFORM_LEN)?;
        }
        Ok(())
    }

    /// `QXLSurfaceCmd`.
    pub(super) fn surface_command(&mut self, address: GuestAddress) -> Result {
        let mut fields = self.fields(address, 41)?;
        fields.skip(8);
        self.word("surface_cmd");
        self.line("surface_id", fields.u32());
        let kind = fields.u8();
        self.line("type", kind);
        let flags = fields.u32();
        self.line("flags", flags);
        if kind == 0 {
            self.line("u.surface_create.format", fields.u32());
            self.line("u.surface_create.width", fields.u32());
            let height = fields.u32();
            self.line("u.surface_create.height", height);
            let stride = fields.i32();
            self.line("u.surface_create.stride", stride);
            if flags & KEEP_DATA != 0 {
                let len = u64::from(stride.unsigned_abs()) * u64::from(height);
                self.flat("data", fields.address(), len)?;
            }
        }
        Ok(())
    }

    /// `QXLCursorCmd`.
    pub(super) fn cursor_command(&mut self, address: GuestAddress) -> Result {
        let mut fields = self.fields(address, 22)?;
        fields.skip(8);
        self.word("cursor_cmd");
        let kind = fields.u8();
        self.line("type", kind);
        if kind <= 1 {
            let (x, y) = (fields.i16(), fields.i16());
            self.word(&format!("point16 {x} {y}"));
        }
        match kind {
            0 => {
                self.line("u.set.visible", fields.u8());
                self.cursor(fields.address())?;
            }
            3 => {
                self.line("u.trail.length", fields.u16());
                self.line("u.trail.frequency", fields.u16());
            }
            _ => {}
        }
        Ok(())
    }

    fn cursor(&mut self, address: GuestAddress) -> Result {
        let mut cursor = self.fields(address, 22)?;
        self.line("header.unique", cursor.u64());
        for name in ["type", "width", "height", "hot_spot_x", "hot_spot_y"] {
            self.line(&format!("header.{name}"), cursor.u16());
        }
        let len = cursor.u32();
        self.line("data_size", len);
        self.chunks("cursor", address.plus(22), len.into())
    }
}
