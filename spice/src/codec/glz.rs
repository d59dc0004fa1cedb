//! GLZ: LZ with a dictionary of the images before (`SPICE_IMAGE_TYPE_GLZ_RGB`), for clients that keep
//! one; and the same through zlib (`SPICE_IMAGE_TYPE_ZLIB_GLZ_RGB`).
//!
//! # The format
//!
//! A header, big-endian: the magic `"  ZL"` (0x20205a4c), the version 0x00010001, a byte with the type
//! (8 for 32-bit RGB) and 0x10 for "first row on top", width, height, bytes in a row of the decoded
//! image, the 64-bit id of the image, and, in 32 bits, the *window*: by how many ids the oldest image
//! that this or a later one may refer to is older. Ids are 0, 1, 2, … over all display channels of a
//! session; a client that misses one keeps all the images after it for ever. Then operations, as in
//! LZ, where the first byte `c` is:
//!
//! - `c < 32`: `c + 1` literal pixels follow, three bytes each: blue, green, red.
//! - `c >= 32`: a copy. The top three bits are `min(length, 7)`. If they are 7, `length - 7` follows as
//!   bytes that are summed up to and with the first that is not 255. The low bits begin the place: an
//!   image that is `i` ids older, and in it the pixel `o`; or, if `i` is 0, the pixel `o + 1` before
//!   the one that is written. The low four bits of `c` are the low bits of `o`, and the next byte has
//!   eight more. What follows depends on bit 4 of `c`:
//!   - 0: `o` is complete. Of the next byte, the low six bits are those of `i`, and the high two
//!     say how many bytes follow with the rest of `i`, lowest first.
//!   - 1: Of the next byte, the low five bits continue `o`, the high two say how many bytes follow with
//!     `i`, lowest first, and bit 5, that after these there is one more, with the highest bits of `o`.
//!
//! In the zlib form all of this is one zlib stream, and its length is sent too.

use super::Pixels;
use super::dictionary::{Contents, Images};
use super::repeats::{self, Form};

/// `"  ZL"` and version 1.1.
const MAGIC: u64 = 0x2020_5a4c_0001_0001;
/// `LZ_IMAGE_TYPE_RGB32`, first row on top.
const TYPE: u8 = 0x18;

/// Bits of a pixel's place in an image, in the short form, the one with a byte more, and at most.
const SHORT_BITS: u32 = 12;
const LONG_BITS: u32 = 17;
const MAX_BITS: u32 = 25;

/// Header and stream of an image with the next id, for which the dictionary has room. The image belongs
/// to the dictionary once it is sent.
pub(super) fn encode(pixels: &Pixels, contents: &mut Contents) -> Vec<u8> {
    let repeated = contents.begin(&pixels.data);
    let mut out = Vec::with_capacity(64 + pixels.data.len() / 8);
    out.extend(MAGIC.to_be_bytes());
    out.push(TYPE);
    for word in [pixels.width, pixels.height, pixels.width.saturating_mul(4)] {
        out.extend(word.to_be_bytes());
    }
    out.extend(contents.id().to_be_bytes());
    out.extend(contents.window().to_be_bytes());
    let start = contents.start();
    let Contents {
        pixels,
        table,
        images,
        ..
    } = contents;
    let mut stream = Stream {
        out: &mut out,
        places: images,
    };
    repeats::write(pixels, start, repeated, table, &mut stream);
    out
}

/// The operations.
struct Stream<'a> {
    out: &'a mut Vec<u8>,
    places: &'a Images,
}

/// Bytes of a number; 0 has none.
fn bytes_of(number: usize) -> usize {
    (usize::BITS - number.leading_zeros()).div_ceil(8) as usize
}

impl Form for Stream<'_> {
    const LITERAL_BITS: usize = repeats::COLOUR_BITS;

    fn reach(&self) -> usize {
        usize::MAX
    }

    fn knows(&self, at: usize, distance: usize) -> bool {
        self.places.are_all_ours() || self.places.find(at, distance).is_some()
    }

    fn cost(&self, at: usize, distance: usize, length: usize) -> Option<usize> {
        let place = self.places.find(at, distance)?;
        let bytes = if place.pixel >> SHORT_BITS == 0 {
            3 + bytes_of(place.image >> 6)
        } else if place.pixel >> MAX_BITS == 0 {
            3 + bytes_of(place.image) + usize::from(place.pixel >> LONG_BITS != 0)
        } else {
            return None;
        };
        Some(bytes * 8 + repeats::length_cost(length))
    }

    fn literals(&mut self, pixels: &[u32]) {
        repeats::put_literals(self.out, pixels);
    }

    fn copy(&mut self, at: usize, distance: usize, length: usize) {
        let Some(place) = self.places.find(at, distance) else {
            return;
        };
        let pixel = place.pixel;
        let short = pixel >> SHORT_BITS == 0;
        let form = if short { 0 } else { 0x10 };
        self.out
            .push(repeats::length_bits(length) | form | (pixel & 15) as u8);
        repeats::put_length(self.out, length);
        self.out.push((pixel >> 4) as u8);
        let image = if short { place.image >> 6 } else { place.image };
        let count = bytes_of(image);
        let high = (count << 6) as u8;
        let longest = (pixel >> LONG_BITS) as u8;
        self.out.push(if short {
            high | (place.image & 63) as u8
        } else {
            high | u8::from(longest != 0) << 5 | (pixel >> SHORT_BITS & 31) as u8
        });
        self.out.extend_from_slice(&image.to_le_bytes()[..count]);
        if longest != 0 {
            self.out.push(longest);
        }
    }
}
