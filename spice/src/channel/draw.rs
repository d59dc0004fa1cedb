//! The messages that draw (`spice.proto`, display channel).

use crate::codec::{Image, Known, Palette};
use crate::damage::Move;
use crate::geometry::{Rect, Size};
use crate::protocol::display as id;
use crate::source::Head;
use crate::wire::Message;

/// The one surface that clients show.
const PRIMARY: u32 = 0;
/// `SPICE_ROPD_OP_PUT`.
const OP_PUT: u16 = 8;
/// `SPICE_BRUSH_TYPE_SOLID`.
const SOLID: u8 = 1;
/// Bytes of a `DRAW_COPY` before its image.
const COPY_LEN: u32 = 57;
/// `SPICE_IMAGE_FLAGS_CACHE_ME`.
const CACHE_ME: u8 = 1;
/// `SPICE_IMAGE_TYPE_FROM_CACHE`.
const FROM_CACHE: u8 = 103;
/// Bytes of an `ImageDescriptor`, and those of an `LZPLTData` before its data if there is a palette.
const DESCRIPTOR_LEN: u32 = 18;
const PALETTE_IMAGE_LEN: u32 = 9;
/// `SPICE_BITMAP_FLAGS_PAL_CACHE_ME`, `SPICE_BITMAP_FLAGS_PAL_FROM_CACHE` and `SPICE_BITMAP_FLAGS_TOP_DOWN`.
const KEEP_PALETTE: u8 = 1;
const KEPT_PALETTE: u8 = 2;
const TOP_DOWN: u8 = 4;
/// `SPICE_RES_TYPE_PIXMAP`.
const PIXMAP: u8 = 1;
/// Heads that one message may name.
const MAX_HEADS: usize = 64;

/// Replaces the pixels of `area` by `image`, whose size is that of `area`, and names it `id`.
pub(super) fn copy(area: Rect, image: &Image, id: u64) -> Message {
    let size = Size {
        width: image.width,
        height: image.height,
    };
    let flags = if image.keep { CACHE_ME } else { 0 };
    let message = Message::with_capacity(id::DRAW_COPY, image.data.len() + 128);
    let message = source(message, area, Rect::of_size(size));
    let message = descriptor(message, id, image.kind as u8, flags, size);
    let length = u32::try_from(image.data.len()).unwrap_or(u32::MAX);
    if let Some(palette) = &image.palette {
        return indexed(message, length, &image.data, palette);
    }
    let message = match image.unpacked {
        Some(length) => message.u32(length),
        None => message,
    };
    let message = if image.has_length() {
        message.u32(length)
    } else {
        message
    };
    message.bytes(&image.data)
}

/// `LZPLTData`, and the palette behind it.
fn indexed(message: Message, length: u32, data: &[u8], palette: &Palette) -> Message {
    match palette {
        Palette::Kept(id) => {
            let message = message.u8(KEPT_PALETTE | TOP_DOWN).u32(length);
            message.u64(*id).bytes(data)
        }
        Palette::New { id, colours, .. } => {
            let behind = COPY_LEN + DESCRIPTOR_LEN + PALETTE_IMAGE_LEN;
            let message = message.u8(KEEP_PALETTE | TOP_DOWN).u32(length);
            let message = message.u32(behind.saturating_add(length)).bytes(data);
            let count = u16::try_from(colours.len()).unwrap_or(u16::MAX);
            (colours.iter()).fold(message.u64(*id).u16(count), |message, &colour| {
                message.u32(colour)
            })
        }
    }
}

/// Replaces the pixels of `area` by those of an image that the client keeps.
pub(super) fn known(area: Rect, known: Known) -> Message {
    let message = source(Message::new(id::DRAW_COPY), area, known.source);
    descriptor(message, known.image, FROM_CACHE, 0, known.size)
}

/// `DisplayBase` and `Copy`, up to the image.
fn source(message: Message, area: Rect, source: Rect) -> Message {
    let message = base(message, area).u32(COPY_LEN).rect(source);
    no_mask(message.u16(OP_PUT).u8(0))
}

/// `ImageDescriptor`.
fn descriptor(message: Message, id: u64, kind: u8, flags: u8, size: Size) -> Message {
    let message = message.u64(id).u8(kind).u8(flags);
    message.u32(size.width).u32(size.height)
}

/// The client no longer needs these images, of which it takes 65,535 at once.
pub(super) fn forget(images: &[u64]) -> Message {
    let count = u16::try_from(images.len()).unwrap_or(u16::MAX);
    let message = Message::new(id::INVAL_LIST).u16(count);
    let images = images.iter().take(count.into());
    images.fold(message, |message, &image| message.u8(PIXMAP).u64(image))
}

/// The client no longer needs this palette.
pub(super) fn forget_palette(palette: u64) -> Message {
    Message::new(id::INVAL_PALETTE).u64(palette)
}

/// Makes `area` one colour (0x00RRGGBB).
pub(super) fn fill(area: Rect, colour: u32) -> Message {
    let message = base(Message::new(id::DRAW_FILL), area)
        .u8(SOLID)
        .u32(colour)
        .u16(OP_PUT);
    no_mask(message)
}

/// Copies pixels that the client has to another place.
pub(super) fn copy_bits(Move { from, to }: Move) -> Message {
    base(Message::new(id::COPY_BITS), to)
        .i32(from.x)
        .i32(from.y)
}

/// `DisplayBase` without clip.
fn base(message: Message, area: Rect) -> Message {
    message.u32(PRIMARY).rect(area).u8(0)
}

/// `QMask` without image.
fn no_mask(message: Message) -> Message {
    message.u8(0).i32(0).i32(0).u32(0)
}

pub(super) fn create_primary(size: Size) -> Message {
    Message::new(id::SURFACE_CREATE)
        .u32(PRIMARY)
        .u32(size.width)
        .u32(size.height)
        .u32(id::SURFACE_FMT_32_XRGB)
        .u32(id::SURFACE_FLAGS_PRIMARY)
}

pub(super) fn destroy_primary() -> Message {
    Message::new(id::SURFACE_DESTROY).u32(PRIMARY)
}

/// Which part of the primary surface each monitor shows.
pub(super) fn monitors(heads: &[Head], max_heads: u32) -> Message {
    let heads = &heads[..heads.len().min(MAX_HEADS)];
    let count = u16::try_from(heads.len()).unwrap_or(u16::MAX);
    let max = u16::try_from(max_heads)
        .unwrap_or(u16::MAX)
        .max(count)
        .max(1);
    heads.iter().fold(
        Message::new(id::MONITORS_CONFIG).u16(count).u16(max),
        |message, head| {
            message
                .u32(head.id)
                .u32(PRIMARY)
                .u32(head.area.width())
                .u32(head.area.height())
                .i32(head.area.left)
                .i32(head.area.top)
                .u32(0)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Encoder, Pixels};

    const AREA: Rect = Rect {
        left: 5,
        top: 6,
        right: 7,
        bottom: 7,
    };

    #[test]
    fn the_image_of_a_copy_is_where_its_offset_says() {
        let pixels = Pixels::new(2, 1, &[1, 2, 3, 0, 4, 5, 6, 0]).expect("the size is right");
        let image = Encoder::default().encode(Codec::Raw, pixels);
        let message = copy(AREA, &image, 9);
        assert_eq!(message.len(), 57 + 18 + 18 + 8);
    }

    #[test]
    fn a_fill_has_41_bytes() {
        assert_eq!(fill(AREA, 0x0003_0201).len(), 41);
    }
}
