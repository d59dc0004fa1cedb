//! LZ4, for clients that have `SPICE_DISPLAY_CAP_LZ4_COMPRESSION`.
//!
//! The format: a byte 1 ("first row on top"), a byte with the bitmap format (8 for 32-bit), then
//! blocks, each a big-endian 32-bit length and that many bytes of the LZ4 block format. The pixels
//! are those of a raw bitmap, rows without gaps. Blocks may refer to earlier ones; this encoder
//! writes one block only.

use super::Pixels;

/// `SPICE_BITMAP_FMT_32BIT`.
const FORMAT_32BIT: u8 = 8;

pub(super) fn encode(pixels: &Pixels) -> Vec<u8> {
    let block = lz4_flex::block::compress(&pixels.to_bytes());
    let mut out = Vec::with_capacity(block.len() + 6);
    out.extend_from_slice(&[1, FORMAT_32BIT]);
    out.extend_from_slice(&u32::try_from(block.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&block);
    out
}
