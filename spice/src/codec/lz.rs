//! LZ: the dictionary coder that every SPICE client knows (`SPICE_IMAGE_TYPE_LZ_RGB`).
//!
//! # The format
//!
//! A header of seven big-endian 32-bit words: the magic `"  ZL"` (0x20205a4c), the version
//! 0x00010001, the type (8 for 32-bit RGB), width, height, bytes in a row of the *decoded* image,
//! and 1 for "first row on top". Then one stream of operations over the pixels in reading order,
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

use super::Pixels;
use super::repeats::{self, Form, Table};

/// `"  ZL"`.
const MAGIC: u32 = 0x2020_5a4c;
/// Version 1.1.
const VERSION: u32 = 0x0001_0001;
/// `LZ_IMAGE_TYPE_RGB32`.
const TYPE_RGB32: u32 = 8;

/// `distance - 1` from which on the long form is needed.
const FAR: usize = 8191;
/// The largest distance a copy may have.
const MAX_DISTANCE: usize = FAR + 65_535;

/// Header and stream.
pub(super) fn encode(pixels: &Pixels, table: &mut Table) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + pixels.data.len() / 4);
    let header = [
        MAGIC,
        VERSION,
        TYPE_RGB32,
        pixels.width,
        pixels.height,
        pixels.width.saturating_mul(4),
        1,
    ];
    out.extend(header.into_iter().flat_map(u32::to_be_bytes));
    table.restart(pixels.data.len());
    let mut stream = Stream(out);
    repeats::write(&pixels.data, 0, None, table, &mut stream);
    stream.0
}

/// The operations.
struct Stream(Vec<u8>);

impl Form for Stream {
    fn reach(&self) -> usize {
        MAX_DISTANCE
    }

    fn knows(&self, _: usize, _: usize) -> bool {
        true
    }

    fn cost(&self, _: usize, distance: usize, length: usize) -> Option<usize> {
        let bits = match distance {
            ..=FAR => 16,
            _ if distance <= MAX_DISTANCE => 32,
            _ => return None,
        };
        Some(bits + repeats::length_cost(length))
    }

    fn literals(&mut self, pixels: &[u32]) {
        repeats::put_literals(&mut self.0, pixels);
    }

    fn copy(&mut self, _: usize, distance: usize, length: usize) {
        let back = distance - 1;
        let near = back < FAR;
        let high = if near { (back >> 8) as u8 } else { 31 };
        self.0.push(repeats::length_bits(length) | high);
        repeats::put_length(&mut self.0, length);
        if near {
            self.0.push((back & 255) as u8);
        } else {
            self.0.push(255);
            self.0
                .extend_from_slice(&((back - FAR) as u16).to_be_bytes());
        }
    }
}
