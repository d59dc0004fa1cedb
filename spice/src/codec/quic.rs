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

/// `"QUIC"`.
const MAGIC: u32 = 0x4349_5551;
const VERSION: u32 = 0;
/// `QUIC_IMAGE_TYPE_RGB32`.
const TYPE_RGB32: u32 = 4;

/// Codes, and buckets of a channel.
const CODES: usize = 8;
/// Where red, green and blue are in a pixel, as the wire has them.
const CHANNELS: [u32; 3] = [16, 8, 0];

/// Pixels until a model is a step older.
const AGE_PIXELS: usize = 2048;
/// The sum of bits above which a bucket's sums are halved, by age.
const TRIGGERS: [u32; 7] = [110, 550, 900, 800, 550, 400, 350];
/// The binary logarithm of a run's order, by state.
const RUN_ORDER: [u8; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];
/// The low six bits of the numbers that decide when the model learns: no more are ever used.
#[rustfmt::skip]
const CHAOS: [u8; 256] = [
    2, 23, 19, 21, 7, 18, 40, 14, 12, 32, 47, 44, 36, 6, 18, 11, 4, 19, 42, 29, 16, 63, 57, 51,
    16, 3, 5, 14, 15, 30, 20, 9, 36, 45, 3, 57, 61, 0, 8, 5, 41, 14, 43, 27, 43, 59, 31, 35,
    39, 60, 42, 38, 13, 54, 62, 1, 26, 3, 11, 61, 52, 34, 7, 48, 4, 59, 22, 12, 22, 8, 50, 4,
    10, 6, 44, 8, 11, 46, 31, 51, 53, 17, 1, 43, 46, 60, 36, 54, 10, 27, 39, 44, 22, 41, 23, 2,
    44, 0, 40, 53, 40, 48, 16, 43, 32, 28, 33, 12, 20, 2, 56, 62, 55, 58, 18, 20, 13, 55, 38, 29,
    57, 19, 49, 33, 47, 63, 59, 0, 35, 61, 19, 25, 46, 38, 60, 4, 35, 1, 26, 40, 28, 10, 5, 14,
    25, 18, 48, 49, 20, 59, 62, 34, 46, 7, 33, 52, 34, 58, 9, 29, 8, 55, 62, 60, 37, 36, 37, 50,
    6, 3, 10, 28, 48, 24, 26, 61, 57, 30, 11, 54, 2, 6, 50, 47, 7, 17, 35, 53, 32, 12, 23, 17,
    5, 21, 49, 55, 51, 45, 52, 27, 39, 25, 39, 63, 22, 24, 42, 52, 56, 38, 41, 41, 56, 32, 13, 24,
    26, 51, 27, 56, 58, 37, 24, 42, 15, 28, 17, 30, 31, 15, 16, 23, 25, 54, 33, 34, 1, 29, 31, 50,
    53, 21, 49, 15, 47, 9, 0, 58, 37, 45, 30, 13, 9, 45, 63, 21,
];

/// One of the codes for residuals.
#[derive(Clone, Copy)]
struct Golomb {
    /// The first residual that is written in the long form.
    limit: u32,
    /// Bits of the long form.
    long: u32,
}

impl Golomb {
    /// The longest code word.
    const MAX_BITS: u32 = 26;

    const fn new(code: u32) -> Self {
        let all = (1 << (8 - code)) - 1;
        let zeros = if Self::MAX_BITS - 8 < all {
            Self::MAX_BITS - 8
        } else {
            all
        };
        let limit = zeros << code;
        let rest: u32 = 256 - limit;
        Self {
            limit,
            long: zeros + rest.next_power_of_two().ilog2(),
        }
    }

    /// The code word of `residual` in code `code`, and its bits.
    fn word(self, code: u32, residual: u32) -> (u32, u32) {
        if residual < self.limit {
            let word = 1 << code | residual & ((1 << code) - 1);
            (word, (residual >> code) + 1 + code)
        } else {
            (residual - self.limit, self.long)
        }
    }
}

const GOLOMB: [Golomb; CODES] = {
    let mut codes = [Golomb::new(0); CODES];
    let mut code = 1;
    while code < CODES {
        codes[code] = Golomb::new(code as u32);
        code += 1;
    }
    codes
};

/// What `residual` costs in every code, as [`Bucket::learn`] asks for it.
static COSTS: [[u8; CODES]; 256] = {
    let mut costs = [[0; CODES]; 256];
    let mut residual = 0;
    while residual < 256 {
        let mut code = 0;
        while code < CODES {
            let golomb = GOLOMB[code];
            costs[residual][code] = if (residual as u32) < golomb.limit {
                ((residual >> code) + 1 + code) as u8
            } else {
                golomb.long as u8
            };
            code += 1;
        }
        residual += 1;
    }
    costs
};

/// What is known of residuals that follow some others.
#[derive(Clone, Copy)]
struct Bucket {
    best: u32,
    sums: [u32; CODES],
}

impl Bucket {
    const NEW: Self = Self {
        best: 7,
        sums: [0; CODES],
    };

    fn learn(&mut self, residual: u8, trigger: u32) {
        let mut least = u32::MAX;
        for (code, cost) in COSTS[usize::from(residual)].iter().enumerate().rev() {
            self.sums[code] += u32::from(*cost);
            if self.sums[code] < least {
                least = self.sums[code];
                self.best = code as u32;
            }
        }
        if least > trigger {
            self.sums.iter_mut().for_each(|sum| *sum >>= 1);
        }
    }
}

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

/// When the model learns.
struct Pace {
    age: usize,
    /// Pixels until it is older.
    left: usize,
    /// Pixels until it learns.
    wait: u32,
    drawn: u8,
}

impl Pace {
    const NEW: Self = Self {
        age: 0,
        left: AGE_PIXELS,
        wait: 0,
        drawn: u8::MAX,
    };

    fn trigger(&self) -> u32 {
        TRIGGERS[self.age]
    }

    /// Whether the model learns from this pixel.
    fn learns(&mut self) -> bool {
        if self.wait > 0 {
            self.wait -= 1;
            return false;
        }
        self.drawn = self.drawn.wrapping_add(1);
        self.wait = u32::from(CHAOS[usize::from(self.drawn)]) & ((1 << self.age) - 1);
        true
    }

    /// How many of `width` pixels are coded at one age, which they then end.
    fn segment(&mut self, width: usize) -> usize {
        if self.age == TRIGGERS.len() - 1 {
            return width;
        }
        let length = self.left.min(width);
        self.left -= length;
        length
    }

    fn grow(&mut self) {
        if self.left == 0 {
            self.age += 1;
            self.left = AGE_PIXELS;
        }
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
                buckets: [Bucket::NEW; CODES],
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
            let golomb = GOLOMB[bucket.best as usize];
            let (word, count) = golomb.word(bucket.best, u32::from(residual));
            self.bits.put(word, count);
            if learns {
                bucket.learn(residual, trigger);
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
        for residual in 0..256u32 {
            for code in 0..CODES {
                let (_, bits) = GOLOMB[code].word(code as u32, residual);
                assert_eq!(u32::from(COSTS[residual as usize][code]), bits);
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
