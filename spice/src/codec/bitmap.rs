//! The raw form, for clients that want no compression and for pixels that do not compress.

use super::Pixels;

/// `SPICE_BITMAP_FMT_32BIT`.
const FORMAT_32BIT: u8 = 8;
/// `SPICE_BITMAP_FLAGS_TOP_DOWN`.
const TOP_DOWN: u8 = 4;
/// Format, flags, width, height, bytes in a row, place of the palette.
const HEADER: usize = 18;

/// Bytes that [`encode`] makes of an image.
pub(super) fn encoded_len(pixels: &Pixels) -> usize {
    HEADER + pixels.data.len() * 4
}

pub(super) fn encode(pixels: &Pixels) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(pixels));
    out.extend_from_slice(&[FORMAT_32BIT, TOP_DOWN]);
    let no_palette = 0;
    for word in [
        pixels.width,
        pixels.height,
        pixels.width.saturating_mul(4),
        no_palette,
    ] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend(pixels.data.iter().flat_map(|pixel| pixel.to_le_bytes()));
    out
}
