//! QUIC: the predictive coder for gradual pictures (`SPICE_IMAGE_TYPE_QUIC`), of the SFALIC family.
//!
//! # The format
//!
//! A stream of little-endian 32-bit words, each read from its highest bit down. First five whole
//! words: the magic `"QUIC"` (0x43495551), the version 0, the type (4 for 32-bit RGB), width and
//! height. Then the pixels in reading order; of each pixel red, green and blue. A decoder looks one
//! word ahead, so one word more follows the last bit.
//!
//! **Residual.** A channel's value is predicted from what is known: the value to the left in the
//! first row, the one above in the first column, the mean of the two (rounded down) elsewhere, 0 for
//! the very first pixel. The difference `d`, modulo 256, is folded to a residual in which small
//! differences of both signs are small: `2d` up to 127, else `2(255 - d) + 1`.
//!
//! **Code.** A residual `n` is written in one of eight Golomb codes, `l` from 0 to 7. If `n` is under
//! [`Golomb::limit`]: `n >> l` zeros, a one, and the low `l` bits of `n`. Else `n - limit` in
//! [`Golomb::long`] bits, whose leading zeros say that it is this form.
//!
//! **Model.** Which code is taken depends on the residual of the same channel one pixel to the left
//! (in the first column: of the first pixel of the row above): residuals 0, 1–2, 3–6, … 127–255 are
//! eight *buckets*, and each has a best code, 7 at first. From time to time, after one pixel, each of
//! the three buckets that coded it adds up what its residual would have cost in every code, and takes
//! the cheapest (of equals the highest). When the cheapest sum is over a *trigger*, the sums are
//! halved. The time to the next such pixel is pseudo-random, below `1 << age`, where the age grows
//! from 0 to 6 every 2048 pixels: a young model learns from every pixel.
//!
//! **Runs.** From the second row on and the fourth pixel on: when the pixel above equals the one to
//! its left, and the last two pixels of this row are equal, then the number of pixels that repeat the
//! last one is written (it may be 0). A run ends with the row at the latest, or where the model's age
//! changes. Its pixels leave the residuals of the row above in place. The number is written in an
//! adaptive Elias-like code: a one for each full *order*, then a zero and the rest in as many bits
//! as the order has. The order is `1 << RUN_ORDER[state]`; each full order moves the state up, each
//! end of a run moves it down.

use super::Pixels;
use super::quic_model::{Bucket, CODES, Golomb, Pace, RUN_ORDER, costs};

/// `"QUIC"`.
const MAGIC: u32 = 0x4349_5551;
const VERSION: u32 = 0;
/// `QUIC_IMAGE_TYPE_RGB32`.
const TYPE_RGB32: u32 = 4;

/// Bits of a channel.
const DEPTH: u32 = 8;
/// Where red, green and blue are in a pixel, as the wire has them.
const CHANNELS: [u32; 3] = [16, 8, 0];

/// The code word of `residual` in code `code`, and its bits.
fn word(code: u32, residual: u32) -> (u32, u32) {
    let golomb = GOLOMB[code as usize];
    if residual < golomb.limit {
        let word = 1 << code | residual & ((1 << code) - 1);
        (word, golomb.cost(code, residual))
    } else {
        (residual - golomb.limit, golomb.long)
    }
}

const GOLOMB: [Golomb; CODES] = {
    let mut codes = [Golomb::new(DEPTH, 0); CODES];
    let mut code = 1;
    while code < CODES {
        codes[code] = Golomb::new(DEPTH, code as u32);
        code += 1;
    }
    codes
};

/// What each residual costs in every code.
static COSTS: [[u8; CODES]; 256] = costs(DEPTH);

/// One of the three colours.
struct Channel {
    shift: u32,
    buckets: [Bucket; CODES],
    /// Of the row above from here on, of this row before.
    residuals: Vec<u8>,
}

impl Channel {
    /// The bucket that codes the pixel in column `x`.
    fn bucket(&self, x: usize) -> usize {
        let before = u32::from(self.residuals[x.saturating_sub(1)]);
        (before + 1).ilog2().min(7) as usize
    }
}

/// The code for the lengths of runs.
#[derive(Default)]
struct Runs {
    state: usize,
}

impl Runs {
    fn order(&self) -> u32 {
        u32::from(RUN_ORDER[self.state])
    }

    fn put(&mut self, bits: &mut Bits, mut length: usize) {
        while length >= 1 << self.order() {
            bits.put(1, 1);
            length -= 1 << self.order();
            self.state = (self.state + 1).min(RUN_ORDER.len() - 1);
        }
        bits.put(length as u32, self.order() + 1);
        self.state = self.state.saturating_sub(1);
    }
}

/// Words of bits.
struct Bits {
    out: Vec<u8>,
    /// The bits that are no whole word yet, in its low part.
    word: u64,
    count: u32,
}

impl Bits {
    /// Appends the low `count` bits of `value`, whose other bits are 0; at most 32 of them.
    fn put(&mut self, value: u32, count: u32) {
        self.word = self.word << count | u64::from(value);
        self.count += count;
        if self.count >= 32 {
            self.count -= 32;
            let whole = (self.word >> self.count) as u32;
            self.out.extend_from_slice(&whole.to_le_bytes());
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.put(0, 32);
        self.put(0, (32 - self.count) % 32);
        self.out
    }
}

/// Header and stream; `None` if they are more than `most` bytes.
pub(super) fn encode(pixels: &Pixels, most: usize) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(pixels);
    let mut above = None;
    for row in pixels.data.chunks_exact(pixels.width as usize) {
        encoder.encode_row(above, row);
        if encoder.bits.out.len() > most {
            return None;
        }
        above = Some(row);
    }
    Some(encoder.bits.finish())
}

struct Encoder {
    bits: Bits,
    channels: [Channel; 3],
    pace: Pace,
    runs: Runs,
}

impl Encoder {
    /// Starts an image; `pixels` has its size.
    fn new(pixels: &Pixels) -> Self {
        let mut bits = Bits {
            out: Vec::with_capacity(64 + pixels.data.len()),
            word: 0,
            count: 0,
        };
        for word in [MAGIC, VERSION, TYPE_RGB32, pixels.width, pixels.height] {
            bits.put(word, 32);
        }
        let width = pixels.width as usize;
        Self {
            bits,
            channels: CHANNELS.map(|shift| Channel {
                shift,
                buckets: [Bucket::new(DEPTH); CODES],
                residuals: vec![0; width],
            }),
            pace: Pace::NEW,
            runs: Runs::default(),
        }
    }

    fn encode_row(&mut self, above: Option<&[u32]>, row: &[u32]) {
        let mut start = 0;
        while start < row.len() {
            let end = start + self.pace.segment(row.len() - start);
            match above {
                None => self.encode_first_row(row, start, end),
                Some(above) => self.encode_segment(above, row, start, end),
            }
            self.pace.grow();
            start = end;
        }
    }

    fn encode_first_row(&mut self, row: &[u32], start: usize, end: usize) {
        for x in start..end {
            let left = if x == 0 { 0 } else { row[x - 1] };
            self.encode_pixel(x, row[x], left, left);
        }
    }

    fn encode_segment(&mut self, above: &[u32], row: &[u32], start: usize, end: usize) {
        let mut x = start;
        let mut last_run = 0;
        while x < end {
            let flat = x > 2 && above[x - 1] == above[x] && row[x - 1] == row[x - 2];
            if flat && x != last_run {
                let repeated = row[x - 1];
                let same = row[x..end].iter().take_while(|&&pixel| pixel == repeated);
                let length = same.count();
                self.runs.put(&mut self.bits, length);
                last_run = x;
                x += length;
            } else {
                let left = if x == 0 { above[0] } else { row[x - 1] };
                self.encode_pixel(x, row[x], left, above[x]);
                x += 1;
            }
        }
    }

    /// Codes the pixel in column `x`, predicted to be the mean of two others.
    fn encode_pixel(&mut self, x: usize, pixel: u32, left: u32, above: u32) {
        let learns = self.pace.learns();
        let trigger = self.pace.trigger();
        for channel in &mut self.channels {
            let value = |pixel: u32| pixel >> channel.shift & 255;
            let predicted = (value(left) + value(above)) / 2;
            let difference = value(pixel).wrapping_sub(predicted) as u8;
            // The sign goes to the lowest bit.
            let residual = difference << 1 ^ ((difference as i8) >> 7) as u8;
            let bucket = channel.bucket(x);
            let bucket = &mut channel.buckets[bucket];
            let (word, count) = word(bucket.best(), u32::from(residual));
            self.bits.put(word, count);
            if learns {
                bucket.learn(&COSTS[usize::from(residual)], trigger);
            }
            channel.residuals[x] = residual;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_lengths_of_the_format() {
        let forms = GOLOMB.map(|golomb| (golomb.limit, golomb.long));
        let expected = [
            (18, 26),
            (36, 26),
            (72, 26),
            (144, 25),
            (240, 19),
            (224, 12),
            (192, 9),
            (128, 8),
        ];
        assert_eq!(forms, expected);
    }

    #[test]
    fn costs_are_the_lengths_of_the_code_words() {
        for (residual, costs) in (0..).zip(COSTS) {
            for (cost, code) in costs.into_iter().zip(0..) {
                assert_eq!(word(code, residual).1, u32::from(cost));
            }
        }
    }

    #[test]
    fn a_stream_is_whole_words_and_one_more() {
        let pixels = Pixels::new(1, 1, &[0; 4]).expect("the size is right");
        let stream = encode(&pixels, usize::MAX).expect("it may be as long as it is");
        // Five words of header, three codes of 8 bits, one word to look at.
        assert_eq!(stream.len(), 4 * (5 + 1 + 1));
    }
}
