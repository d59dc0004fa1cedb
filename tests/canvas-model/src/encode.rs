//! Random commands as a driver writes them.

use caraway_spice::codec::{Codec, Encoder, ImageKind, Pixels};

use crate::memory::{Bytes, Form, Heap};
use crate::random::{Act, Bitmap, Brush, Composite, Mask, Operand, Picture, Scene, Source};
use crate::surface::Surface;

/// A command that creates a surface.
pub(crate) fn create(heap: &impl Heap, surface: Surface) -> u64 {
    let slot = u64::from(surface.bar() + 1);
    let command = Bytes::default()
        .u64(0)
        .u32(surface.id)
        .u8(0)
        .u32(0)
        .u32(surface.format)
        .u32(surface.width)
        .u32(surface.height)
        .u32(surface.stride())
        .u64(slot << 56 | u64::from(surface.offset()));
    heap.command(&command.0)
}

/// A drawable.
pub(crate) fn scene(heap: &impl Heap, scene: &Scene) -> u64 {
    let brush = |bytes: Bytes, brush: &Brush| put_brush(heap, bytes, brush);
    let mask = |bytes: Bytes, mask: &Option<Mask>| put_mask(heap, bytes, mask.as_ref());
    let source = |source: &Source| {
        Bytes::default()
            .u64(picture(heap, &source.picture))
            .rect(source.area)
    };
    let (kind, body) = match &scene.act {
        Act::Fill(with, rop, m) => (1, mask(brush(Bytes::default(), with).u16(*rop), m)),
        Act::Opaque(from, with, rop, m) => {
            let body = brush(source(from), with).u16(*rop).u8(from.nearest.into());
            (2, mask(body, m))
        }
        Act::Copy(from, rop, m) => (3, mask(source(from).u16(*rop).u8(from.nearest.into()), m)),
        Act::CopyBits(x, y) => (4, Bytes::default().u32(*x as u32).u32(*y as u32)),
        Act::Blend(from, rop, m) => (5, mask(source(from).u16(*rop).u8(from.nearest.into()), m)),
        Act::Blackness(m) => (6, mask(Bytes::default(), m)),
        Act::Whiteness(m) => (7, mask(Bytes::default(), m)),
        Act::Invers(m) => (8, mask(Bytes::default(), m)),
        Act::Rop3(from, with, code, m) => {
            let body = brush(source(from), with).u8(*code).u8(from.nearest.into());
            (9, mask(body, m))
        }
        Act::Stroke(stroke) => {
            let flags = 3 | if stroke.closed { 8 } else { 0 };
            let path = Bytes::default().u32(flags).u32(stroke.points.len() as u32);
            let point = |bytes: Bytes, (x, y): &(i32, i32)| bytes.u32(*x as u32).u32(*y as u32);
            let path = stroke.points.iter().fold(path, point);
            let dashes = stroke.dashes.iter();
            let dashes = dashes.fold(Bytes::default(), |b, d| b.u32(u32::from(*d) * 16));
            let body = Bytes::default()
                .u64(shapes(heap, Bytes::default().u32(0), &path))
                .u8(if stroke.dashes.is_empty() { 0 } else { 8 })
                .zeros(2)
                .u8(stroke.dashes.len() as u8)
                .zeros(8)
                .u64(heap.put(&dashes.0));
            (10, brush(body, &stroke.brush).u16(stroke.rop).u16(0))
        }
        Act::Text(text) => {
            let flags = [1, 2, 4][[1, 4, 8].iter().position(|b| *b == text.bits).unwrap()];
            let header = Bytes::default()
                .u32(0)
                .u16(text.glyphs.len() as u16)
                .u16(flags);
            let mut glyphs = Bytes::default();
            for glyph in &text.glyphs {
                // Half of the place is in the origin of the letter.
                glyphs = glyphs
                    .u32((glyph.x - 3) as u32)
                    .u32((glyph.y - 5) as u32)
                    .u32(3)
                    .u32(5)
                    .u16(glyph.width as u16)
                    .u16(glyph.height as u16);
                let rows = glyph.numbers.chunks(glyph.width.max(1) as usize);
                for row in rows.rev() {
                    glyphs = glyphs.bytes(&pack(row, text.bits, true));
                }
            }
            let body = Bytes::default()
                .u64(shapes(heap, header, &glyphs))
                .rect(text.back.unwrap_or_default());
            let body = brush(brush(body, &text.brush), &text.back_brush);
            (11, body.u16(8).u16(8))
        }
        Act::Transparent(from, color) => (12, source(from).u32(0).u32(*color)),
        Act::AlphaBlend(from, alpha, flags) => {
            let body = Bytes::default().u16(*flags).u8(*alpha);
            (13, body.bytes(&source(from).0))
        }
        Act::Composite(composite) => (14, put_composite(heap, composite)),
    };
    heap.drawable(kind, scene.surface, scene.area, &scene.clip, body)
}

/// Numbers of so many bits, the first in the highest or the lowest bits of a byte.
fn pack(numbers: &[u32], bits: u8, high_first: bool) -> Vec<u8> {
    if bits >= 8 {
        let bytes = usize::from(bits) / 8;
        return numbers
            .iter()
            .flat_map(|number| number.to_le_bytes()[..bytes].to_vec())
            .collect();
    }
    let per_byte = usize::from(8 / bits);
    let byte = |numbers: &[u32]| {
        let each = numbers.iter().enumerate().map(|(at, number)| {
            let at = if high_first { per_byte - 1 - at } else { at };
            number << (at * usize::from(bits))
        });
        each.sum::<u32>() as u8
    };
    numbers.chunks(per_byte).map(byte).collect()
}

/// A header, and shapes in two chunks.
fn shapes(heap: &impl Heap, header: Bytes, shapes: &Bytes) -> u64 {
    let (first, second) = shapes.0.split_at(shapes.0.len() / 3);
    let next = heap.chunks(second, 10_000);
    let all = header.u32(first.len() as u32).u64(0).u64(next).bytes(first);
    heap.put(&all.0)
}

fn picture(heap: &impl Heap, picture: &Picture) -> u64 {
    match picture {
        Picture::Bitmap(bitmap) => put_bitmap(heap, bitmap),
        Picture::Surface(id) => {
            let image = Bytes::default().u64(0).u8(104).u8(0).zeros(8).u32(*id);
            heap.put(&image.0)
        }
    }
}

/// The bitmap as an image that is packed, if it can be.
fn put_packed(heap: &impl Heap, bitmap: &Bitmap) -> Option<u64> {
    let bytes: Vec<u8> = bitmap
        .numbers
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    let pixels = Pixels::new(bitmap.width, bitmap.height, &bytes)?;
    let image = Encoder::default().encode(Codec::Quic, pixels);
    if image.kind != ImageKind::Quic {
        return None;
    }
    let mut stream = image.data;
    // `QUIC_IMAGE_TYPE_RGB24` has the same bits as `QUIC_IMAGE_TYPE_RGB32`.
    stream[8] = if bitmap.format == 7 { 3 } else { 4 };
    let (first, rest) = stream.split_at(stream.len() / 2);
    let rest = heap.chunks(rest, bitmap.chunk.unwrap_or(rest.len()));
    let packed = Bytes::default()
        .u64(0)
        .u8(1)
        .u8(if bitmap.high_bits { 2 } else { 0 })
        .u32(bitmap.width)
        .u32(bitmap.height)
        .u32(stream.len() as u32)
        .u32(first.len() as u32)
        .u64(0)
        .u64(rest)
        .bytes(first);
    Some(heap.put(&packed.0))
}

fn put_bitmap(heap: &impl Heap, bitmap: &Bitmap) -> u64 {
    if let Some(packed) = bitmap.packed.then(|| put_packed(heap, bitmap)).flatten() {
        return packed;
    }
    let (bits, high_first) = [
        (1, false),
        (1, true),
        (4, false),
        (4, true),
        (8, true),
        (16, true),
        (24, true),
        (32, true),
        (32, true),
        (8, true),
    ][usize::from(bitmap.format) - 1];
    let rows = bitmap.numbers.chunks(bitmap.width as usize);
    let rows: Vec<Vec<u8>> = rows.map(|row| pack(row, bits, high_first)).collect();
    let palette = match bitmap.palette.len() {
        0 => 0,
        count => {
            let palette = Bytes::default().u64(0).u16(count as u16);
            let palette = bitmap
                .palette
                .iter()
                .fold(palette, |b, color| b.u32(*color));
            heap.put(&palette.0)
        }
    };
    let form = Form {
        format: bitmap.format,
        top_down: bitmap.top_down,
        stride: rows[0].len() as u32 + bitmap.gap,
        chunk: bitmap.chunk,
    };
    let image = heap.image(bitmap.width, &rows, form, palette);
    if bitmap.high_bits {
        heap.patch(image + 9, &[2]);
    }
    image
}

fn put_brush(heap: &impl Heap, bytes: Bytes, brush: &Brush) -> Bytes {
    match brush {
        Brush::None => bytes.u32(0).zeros(16),
        Brush::Solid(color) => bytes.u32(1).u32(*color).zeros(12),
        Brush::Pattern(image, x, y) => bytes
            .u32(2)
            .u64(picture(heap, image))
            .u32(*x as u32)
            .u32(*y as u32),
    }
}

fn put_mask(heap: &impl Heap, bytes: Bytes, mask: Option<&Mask>) -> Bytes {
    let Some(mask) = mask else {
        return bytes.zeros(17);
    };
    bytes
        .u8(mask.inverted.into())
        .u32(mask.x as u32)
        .u32(mask.y as u32)
        .u64(picture(heap, &mask.picture))
}

fn put_composite(heap: &impl Heap, composite: &Composite) -> Bytes {
    let transform = |operand: &Operand| {
        operand.transform.map_or(0, |rows| {
            let numbers = rows.iter().flatten();
            let bytes = numbers.fold(Bytes::default(), |b, number| b.u32(*number as u32));
            heap.put(&bytes.0)
        })
    };
    let filter = |operand: &Operand| if operand.bilinear { 4 } else { 3 };
    let (source, mask) = (&composite.source, composite.mask.as_ref());
    let mut flags = composite.operator
        | filter(source) << 8
        | source.repeat << 14
        | u32::from(composite.component_alpha) << 18
        | u32::from(mask.is_some()) << 19
        | u32::from(source.transform.is_some()) << 20
        | u32::from(composite.source_opaque) << 22
        | u32::from(composite.dest_opaque) << 24;
    if let Some(mask) = mask {
        flags |= filter(mask) << 11;
        flags |= mask.repeat << 16;
        flags |= u32::from(mask.transform.is_some()) << 21;
    }
    Bytes::default()
        .u32(flags)
        .u64(picture(heap, &source.picture))
        .u64(transform(source))
        .u64(mask.map_or(0, |mask| picture(heap, &mask.picture)))
        .u64(mask.map_or(0, transform))
        .u16(source.x as u16)
        .u16(source.y as u16)
        .u16(mask.map_or(0, |mask| mask.x as u16))
        .u16(mask.map_or(0, |mask| mask.y as u16))
}
