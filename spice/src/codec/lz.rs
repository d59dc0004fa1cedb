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

/// `"  ZL"`.
const MAGIC: u32 = 0x2020_5a4c;
/// Version 1.1.
const VERSION: u32 = 0x0001_0001;
/// `LZ_IMAGE_TYPE_RGB32`.
const TYPE_RGB32: u32 = 8;

/// Literals that one operation can carry.
const MAX_LITERALS: usize = 32;
/// `distance - 1` from which on the long form is needed.
const FAR: usize = 8191;
/// The largest distance a match may have.
const MAX_DISTANCE: usize = FAR + 65_535;
/// The shortest match that is not longer than its literals.
const MIN_MATCH: usize = 2;

const TABLE_BITS: u32 = 14;
/// After `1 << this` vain searches in a row, every second pixel is tried, and so on.
const SKIP_SHIFT: u32 = 6;

/// Encodes an image step by step, so that one large image never keeps a thread for long.
pub(super) struct Encoder {
    out: Vec<u8>,
    /// Where a pair of pixels was seen last, by its hash; 0 is "never", else the index plus one.
    table: Vec<u32>,
    /// The next pixel to look at.
    next: usize,
    /// The first pixel that is not encoded yet.
    literals: usize,
    vain: usize,
}

impl Encoder {
    /// Starts an image; `pixels` has its size.
    pub(super) fn new(pixels: &Pixels) -> Self {
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
        Self {
            out,
            table: vec![0; 1 << TABLE_BITS],
            next: 0,
            literals: 0,
            vain: 0,
        }
    }

    /// Encodes about `count` more pixels of the same image. `false` once all are done.
    pub(super) fn step(&mut self, pixels: &Pixels, count: usize) -> bool {
        let data = pixels.data.as_slice();
        let until = self.next.saturating_add(count).min(data.len());
        while self.next < until {
            match self.find(data) {
                Some((distance, length)) => {
                    self.flush_literals(data);
                    self.put_match(distance, length);
                    self.next += length;
                    self.literals = self.next;
                    self.vain = 0;
                    // So that what comes after can refer to the end of this match too.
                    self.remember(data, self.next - 1);
                }
                None => {
                    self.vain += 1;
                    self.next += 1 + (self.vain >> SKIP_SHIFT);
                }
            }
        }
        self.next = self.next.min(data.len());
        if self.next < data.len() {
            return true;
        }
        self.flush_literals(data);
        false
    }

    /// Header and stream; complete once [`Encoder::step`] returned `false`.
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A match for the pixels at `next`: distance and length.
    fn find(&mut self, data: &[u32]) -> Option<(usize, usize)> {
        let here = self.next;
        let seen = self.remember(data, here);
        if here > 0 && data[here] == data[here - 1] {
            let length = common(&data[here - 1..], &data[here..]);
            if length >= MIN_MATCH {
                return Some((1, length));
            }
        }
        let there = seen?;
        let distance = here.checked_sub(there)?;
        if distance == 0 || distance > MAX_DISTANCE {
            return None;
        }
        let length = common(&data[there..], &data[here..]);
        (length >= MIN_MATCH).then_some((distance, length))
    }

    /// Notes the pair at `index` in the table and returns where the last such pair was.
    fn remember(&mut self, data: &[u32], index: usize) -> Option<usize> {
        let pair = data.get(index..index + 2)?;
        let key = (u64::from(pair[0]) << 32) | u64::from(pair[1]);
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS);
        let slot = self.table.get_mut(usize::try_from(hash).ok()?)?;
        let seen = std::mem::replace(slot, u32::try_from(index + 1).unwrap_or(0));
        (seen != 0).then(|| seen as usize - 1)
    }

    fn flush_literals(&mut self, data: &[u32]) {
        for run in data[self.literals..self.next].chunks(MAX_LITERALS) {
            self.out.push((run.len() - 1) as u8);
            for pixel in run {
                let [blue, green, red, _] = pixel.to_le_bytes();
                self.out.extend_from_slice(&[blue, green, red]);
            }
        }
        self.literals = self.next;
    }

    fn put_match(&mut self, distance: usize, length: usize) {
        let back = distance - 1;
        let near = back < FAR;
        let high = if near { back >> 8 } else { 31 };
        self.out.push(((length.min(7) << 5) | high) as u8);
        if length >= 7 {
            let mut rest = length - 7;
            while rest >= 255 {
                self.out.push(255);
                rest -= 255;
            }
            self.out.push(rest as u8);
        }
        if near {
            self.out.push((back & 255) as u8);
        } else {
            self.out.push(255);
            self.out
                .extend_from_slice(&((back - FAR) as u16).to_be_bytes());
        }
    }
}

/// How many pixels both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
