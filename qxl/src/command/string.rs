//! Letters.

use caraway_spice::Rect;
use zerocopy::FromBytes;

use super::wire;
use super::{Chunks, CommandError, MAX_DISTANCE, MAX_SHAPES};
use crate::canvas::Glyph;
use crate::device::{GuestAddress, Slots};

/// Bits a pixel by flag (`SpiceStringFlags`, spice-protocol `enums.h`); the first counts.
const DEPTHS: [(u16, u8); 3] = [(1, 1), (1 << 1, 4), (1 << 2, 8)];
/// The first row of a letter is the topmost.
const TOP_DOWN: u16 = 1 << 3;

/// The letters of the `QXLString` at `address`.
pub(super) fn glyphs(slots: &Slots, address: GuestAddress) -> Result<Vec<Glyph>, CommandError> {
    let header: wire::String = slots.get(address)?;
    let flags = header.flags.get();
    let depth = DEPTHS.iter().find(|(flag, _)| flags & flag != 0);
    let (_, bits) = *depth.ok_or(CommandError::Unsupported("letters made of lines"))?;
    let chunks = address.plus(size_of::<wire::String>() as u64);
    let data = Chunks::whole(slots, chunks, "bytes of a text", MAX_SHAPES)?;
    let mut rest = data.as_slice();
    let mut glyphs = Vec::new();
    for _ in 0..header.length.get() {
        let short = |expected: usize| CommandError::Short {
            found: rest.len() as u64,
            expected: expected as u64,
        };
        let (glyph, after) =
            wire::Glyph::read_from_prefix(rest).map_err(|_| short(size_of::<wire::Glyph>()))?;
        let (width, height) = (glyph.width.get(), glyph.height.get());
        let len = Glyph::row_len(width.into(), bits) * usize::from(height);
        let (pixels, after) = after.split_at_checked(len).ok_or_else(|| short(len))?;
        let place = |at: i32, origin: i32| {
            let sum = at.checked_add(origin);
            sum.filter(|at| (-MAX_DISTANCE..=MAX_DISTANCE).contains(at))
        };
        let left = place(glyph.x.get(), glyph.origin_x.get());
        let top = place(glyph.y.get(), glyph.origin_y.get());
        let (left, top) = left
            .zip(top)
            .ok_or(CommandError::Unsupported("letters that far away"))?;
        glyphs.push(Glyph {
            area: Rect {
                left,
                top,
                right: left + i32::from(width),
                bottom: top + i32::from(height),
            },
            bits,
            top_down: flags & TOP_DOWN != 0,
            data: pixels.to_vec(),
        });
        rest = after;
    }
    Ok(glyphs)
}
