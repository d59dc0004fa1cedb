//! LZ: the dictionary coder that every SPICE client knows (`SPICE_IMAGE_TYPE_LZ_RGB`), and the same of
//! [indices](super::palette) (`SPICE_IMAGE_TYPE_LZ_PLT`).
//!
//! # The format
//!
//! A header of seven big-endian 32-bit words: the magic `"  ZL"` (0x20205a4c), the version
//! 0x00010001, the type (8 for 32-bit RGB), width, height, bytes in a row of the *decoded* image,
//! or of the indices, and 1 for "first row on top". Then one stream of operations over the pixels in reading order,
//! rows without gaps. The first byte of an operation, `c`, tells which one it is:
//!
//! - `c < 32`: `c + 1` literal pixels follow, three bytes each: blue, green, red.
//! - `c >= 32`: a match, a copy of `length` pixels from `distance` pixels back, which may overlap
//!   with what it makes (distance 1 repeats one pixel). The top three bits of `c` are
//!   `min(length, 7)`. If they are 7, `length - 7` follows as bytes that are summed up to and with
//!   the first that is not 255. With `d = distance - 1`:
//!   - `d < 8191`: the low five bits of `c` are `d >> 8`, and a byte `d & 255` follows;
//!   - else the low five bits are 31, and a byte 255 and the big-endian 16-bit `d - 8191` follow.
//!
//! The unused fourth byte of a pixel is not transported.
//!
//! Of indices, the type is 2, 4 or 5 for 1, 4 or 8 bits each, a byte is what a pixel is above, of which a literal
//! is the one byte, and the length of a match, which is at least 3, is told as 2 less.

use super::Pixels;
use super::palette::{Depth, Indices};
use super::repeats::{self, Form, Table};

/// `"  ZL"`.
const MAGIC: u32 = 0x2020_5a4c;
/// Version 1.1.
const VERSION: u32 = 0x0001_0001;
/// `LZ_IMAGE_TYPE_RGB32`.
const TYPE_RGB32: u32 = 8;
/// `LZ_IMAGE_TYPE_PLT1_BE`, `LZ_IMAGE_TYPE_PLT4_BE` and `LZ_IMAGE_TYPE_PLT8`.
const TYPE_PLT1: u32 = 2;
const TYPE_PLT4: u32 = 4;
const TYPE_PLT8: u32 = 5;

/// `distance - 1` from which on the long form is needed.
const FAR: usize = 8191;
/// The largest distance a copy may have.
const MAX_DISTANCE: usize = FAR + 65_535;

/// How much less the length of a match of indices is told as.
const SHORTER: usize = 2;

/// Header and stream.
pub(super) fn encode(pixels: &Pixels, table: &mut Table) -> Vec<u8> {
    let stride = pixels.width.saturating_mul(4);
    let mut out = begin(TYPE_RGB32, pixels, stride, pixels.data.len() / 4);
    table.restart(pixels.data.len());
    repeats::write(&pixels.data, 0, None, table, &mut Colours(&mut out));
    out
}

/// The same of indices that were made of these pixels.
pub(super) fn encode_indices(pixels: &Pixels, indices: &Indices, table: &mut Table) -> Vec<u8> {
    let kind = match indices.depth {
        Depth::One => TYPE_PLT1,
        Depth::Four => TYPE_PLT4,
        Depth::Eight => TYPE_PLT8,
    };
    let bytes = &indices.bytes;
    let mut out = begin(kind, pixels, indices.stride, bytes.len() / 4);
    table.restart(bytes.len());
    repeats::write(bytes, 0, None, table, &mut Bytes(&mut out));
    out
}

/// The header, with room for a stream.
fn begin(kind: u32, pixels: &Pixels, stride: u32, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + room);
    let header = [MAGIC, VERSION, kind, pixels.width, pixels.height, stride, 1];
    out.extend(header.into_iter().flat_map(u32::to_be_bytes));
    out
}

/// Bits of a match without its length.
fn cost(distance: usize) -> Option<usize> {
    match distance {
        ..=FAR => Some(16),
        _ if distance <= MAX_DISTANCE => Some(32),
        _ => None,
    }
}

/// Writes a match, of a length as it is told.
fn put_match(out: &mut Vec<u8>, distance: usize, length: usize) {
    let back = distance - 1;
    let near = back < FAR;
    let high = if near { (back >> 8) as u8 } else { 31 };
    out.push(repeats::length_bits(length) | high);
    repeats::put_length(out, length);
    if near {
        out.push((back & 255) as u8);
    } else {
        out.push(255);
        out.extend_from_slice(&((back - FAR) as u16).to_be_bytes());
    }
}

/// The operations, of pixels.
struct Colours<'a>(&'a mut Vec<u8>);

impl Form for Colours<'_> {
    const LITERAL_BITS: usize = repeats::COLOUR_BITS;

    fn reach(&self) -> usize {
        MAX_DISTANCE
    }

    fn knows(&self, _: usize, _: usize) -> bool {
        true
    }

    fn cost(&self, _: usize, distance: usize, length: usize) -> Option<usize> {
        Some(cost(distance)? + repeats::length_cost(length))
    }

    fn literals(&mut self, pixels: &[u32]) {
        repeats::put_literals(self.0, pixels);
    }

    fn copy(&mut self, _: usize, distance: usize, length: usize) {
        put_match(self.0, distance, length);
    }
}

/// The operations, of bytes of indices.
struct Bytes<'a>(&'a mut Vec<u8>);

impl Form for Bytes<'_> {
    const LITERAL_BITS: usize = 8;

    fn reach(&self) -> usize {
        MAX_DISTANCE
    }

    fn knows(&self, _: usize, _: usize) -> bool {
        true
    }

    fn cost(&self, _: usize, distance: usize, length: usize) -> Option<usize> {
        let told = length.checked_sub(SHORTER).filter(|&told| told > 0)?;
        Some(cost(distance)? + repeats::length_cost(told))
    }

    fn literals(&mut self, bytes: &[u32]) {
        for run in bytes.chunks(repeats::MAX_LITERALS) {
            self.0.push((run.len() - 1) as u8);
            self.0.extend(run.iter().map(|&byte| byte as u8));
        }
    }

    fn copy(&mut self, _: usize, distance: usize, length: usize) {
        put_match(self.0, distance, length - SHORTER);
    }
}
