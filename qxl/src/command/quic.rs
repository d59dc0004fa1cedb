//! Images that a guest compressed with QUIC (`SPICE_IMAGE_TYPE_QUIC`).
//!
//! The stream is what `caraway_spice`'s encoder describes, in four types. Types RGB24 and RGB32 are the
//! same stream. RGBA has alpha behind red, green and blue of each row, as a channel with a pace and runs
//! of its own. RGB16 has channels of 5 bits: five codes, five buckets, and all else in proportion.
//!
//! Everything in a stream may be wrong. A decoder reads zeros past its end and notices at the end of the
//! row; runs never leave their row; and numbers that no encoder writes lose their highest bits.

use caraway_spice::Size;
use caraway_spice::codec::quic_model::{Bucket, CODES, Golomb, Pace, RUN_ORDER, costs};

use super::CommandError;

/// `"QUIC"`.
const MAGIC: u32 = 0x4349_5551;
const VERSION: u32 = 0;
const WORD: usize = 4;
/// Words before the pixels: magic, version, type, width, height.
const HEADER: usize = 5 * WORD;

/// What a stream is a picture of (`QuicImageType`); the reference draws no grey ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 5 bits each of red, green and blue.
    Rgb16,
    /// 8 bits each.
    Rgb32,
    /// 8 bits each, and of alpha.
    Rgba,
}

impl Kind {
    const fn of(number: u32) -> Option<Self> {
        Some(match number {
            2 => Self::Rgb16,
            3 | 4 => Self::Rgb32,
            5 => Self::Rgba,
            _ => return None,
        })
    }

    /// Bytes of an unpacked pixel.
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::Rgb16 => 2,
            Self::Rgb32 | Self::Rgba => 4,
        }
    }

    /// Bits of a channel.
    const fn depth(self) -> &'static Depth {
        match self {
            Self::Rgb16 => &FIVE,
            Self::Rgb32 | Self::Rgba => &EIGHT,
        }
    }

    /// The channels that are coded together, by their lowest bits in a pixel.
    const fn groups(self) -> &'static [&'static [u32]] {
        match self {
            Self::Rgb16 => &[&[10, 5, 0]],
            Self::Rgb32 => &[&[16, 8, 0]],
            Self::Rgba => &[&[16, 8, 0], &[24]],
        }
    }
}

/// A picture, row by row from the top without gaps: bytes blue, green, red and alpha (0 if there is
/// none), or words of 5 bits a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) kind: Kind,
    pub(super) pixels: Vec<u8>,
}

/// Unpacks `stream`, which ought to be of `size`, into no more than `most` bytes.
pub(super) fn unpack(stream: &[u8], size: Size, most: u64) -> Result<Unpacked, CommandError> {
    let short = |found: usize, expected: usize| CommandError::Short {
        found: found as u64,
        expected: expected as u64,
    };
    let (header, body) = stream
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| short(stream.len(), HEADER))?;
    let word = |at: usize| {
        let bytes = header.as_chunks().0.get(at).copied();
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    let expect = |what, value, expected| {
        let right = value == expected;
        right
            .then_some(())
            .ok_or(CommandError::unknown(what, value))
    };
    expect("QUIC magic", word(0), MAGIC)?;
    expect("QUIC version", word(1), VERSION)?;
    let kind = Kind::of(word(2)).ok_or(CommandError::unknown("QUIC type", word(2)))?;
    expect("QUIC width", word(3), size.width)?;
    expect("QUIC height", word(4), size.height)?;
    let count = u64::from(size.width) * u64::from(size.height);
    let len = count * kind.bytes();
    CommandError::at_most("bytes of an unpacked image", len, most)?;

    let width = size.width as usize;
    let mut bits = Bits::new(body);
    let groups = kind.groups().iter();
    let mut groups: Vec<Group> = groups
        .map(|shifts| Group::new(kind.depth(), shifts, width))
        .collect();
    let (mut above, mut row) = (Vec::new(), vec![0; width]);
    let mut pixels = Vec::with_capacity(len as usize);
    for _ in 0..size.height {
        row.fill(0);
        for group in &mut groups {
            group.decode_row(&mut bits, &above, &mut row)?;
        }
        if bits.is_over() {
            return Err(short(pixels.len(), len as usize));
        }
        match kind {
            Kind::Rgb16 => pixels.extend(row.iter().flat_map(|p| (*p as u16).to_le_bytes())),
            _ => pixels.extend(row.iter().flat_map(|pixel| pixel.to_le_bytes())),
        }
        above.resize(width, 0);
        std::mem::swap(&mut above, &mut row);
    }
    Ok(Unpacked { kind, pixels })
}

/// Bits of words of four bytes, from the highest down; zeros follow the last.
struct Bits<'a> {
    words: std::slice::Iter<'a, [u8; WORD]>,
    /// The next bits, from the highest down: 32 at least.
    next: u64,
    /// How many there are.
    count: u32,
    /// Bits that are after the end.
    past: u64,
}

impl<'a> Bits<'a> {
    fn new(stream: &'a [u8]) -> Self {
        let mut bits = Self {
            words: stream.as_chunks().0.iter(),
            next: 0,
            count: 0,
            past: 0,
        };
        bits.fill();
        bits
    }

    fn fill(&mut self) {
        while self.count <= 32 {
            let word = self.words.next().map(|word| u32::from_le_bytes(*word));
            if word.is_none() {
                self.past += 32;
            }
            self.next |= u64::from(word.unwrap_or(0)) << (32 - self.count);
            self.count += 32;
        }
    }

    /// The next 32 bits.
    fn peek(&self) -> u32 {
        (self.next >> 32) as u32
    }

    /// Takes `count` bits, at most 32.
    fn take(&mut self, count: u32) -> u32 {
        let value = (self.next >> 32 >> (32 - count)) as u32;
        self.next <<= count;
        self.count -= count;
        self.fill();
        value
    }

    /// Whether bits were taken that there are not.
    fn is_over(&self) -> bool {
        self.past > u64::from(self.count)
    }
}

/// Channels of so many bits.
struct Depth {
    bits: u32,
    /// As many codes as bits.
    codes: [Golomb; CODES],
    /// What each residual costs in every code.
    costs: [[u8; CODES]; 256],
}

impl Depth {
    const fn new(bits: u32) -> Self {
        let mut codes = [Golomb::new(bits, 0); CODES];
        let mut code = 1;
        while code < bits {
            codes[code as usize] = Golomb::new(bits, code);
            code += 1;
        }
        let costs = costs(bits);
        Self { bits, codes, costs }
    }

    const fn mask(&self) -> u32 {
        (1 << self.bits) - 1
    }

    /// The bucket for a pixel behind one with this residual.
    fn bucket(&self, residual: u8) -> usize {
        (u32::from(residual) + 1).ilog2().min(self.bits - 1) as usize
    }

    fn residual(&self, code: u32, bits: &mut Bits<'_>) -> u8 {
        let golomb = self.codes[code as usize % CODES];
        let zeros = bits.peek().leading_zeros();
        let residual = if zeros < golomb.zeros {
            bits.take(zeros + 1);
            zeros << code | bits.take(code)
        } else {
            golomb.limit + bits.take(golomb.long)
        };
        (residual & self.mask()) as u8
    }

    /// What is `residual` away from what was predicted.
    fn value(&self, predicted: u32, residual: u8) -> u32 {
        let half = u32::from(residual >> 1);
        let difference = if residual & 1 == 0 { half } else { !half };
        predicted.wrapping_add(difference) & self.mask()
    }
}

static FIVE: Depth = Depth::new(5);
static EIGHT: Depth = Depth::new(8);

/// A colour, or alpha.
struct Channel {
    /// Its lowest bit in a pixel.
    shift: u32,
    buckets: [Bucket; CODES],
    /// Of the row above from here on, of this row before.
    residuals: Vec<u8>,
}

/// Channels that share a pace and runs.
struct Group {
    depth: &'static Depth,
    /// All of their bits in a pixel.
    mask: u32,
    channels: Vec<Channel>,
    pace: Pace,
    /// Place in [`RUN_ORDER`].
    run_state: usize,
}

impl Group {
    fn new(depth: &'static Depth, shifts: &[u32], width: usize) -> Self {
        let channel = |&shift: &u32| Channel {
            shift,
            buckets: [Bucket::new(depth.bits); CODES],
            residuals: vec![0; width],
        };
        Self {
            depth,
            mask: shifts.iter().map(|shift| depth.mask() << shift).sum(),
            channels: shifts.iter().map(channel).collect(),
            pace: Pace::NEW,
            run_state: 0,
        }
    }

    /// Adds the group's bits to `row`; the first row has nothing `above`.
    fn decode_row(
        &mut self,
        bits: &mut Bits<'_>,
        above: &[u32],
        row: &mut [u32],
    ) -> Result<(), CommandError> {
        let mut start = 0;
        while start < row.len() {
            let end = start + self.pace.segment(row.len() - start);
            self.decode_segment(bits, above, row, start..end)?;
            self.pace.grow();
            start = end;
        }
        Ok(())
    }

    fn decode_segment(
        &mut self,
        bits: &mut Bits<'_>,
        above: &[u32],
        row: &mut [u32],
        range: std::ops::Range<usize>,
    ) -> Result<(), CommandError> {
        let mask = self.mask;
        let same = |row: &[u32], x: usize| (row[x - 1] ^ row[x]) & mask == 0;
        let mut x = range.start;
        let mut last_run = 0;
        while x < range.end {
            let flat = x > 2 && !above.is_empty() && same(above, x) && same(row, x - 1);
            if flat && x != last_run {
                last_run = x;
                let end = x + self.run(bits, range.end - x)?;
                let repeated = row[x - 1] & mask;
                row[x..end].iter_mut().for_each(|pixel| *pixel |= repeated);
                x = end;
            } else {
                let left = if x > 0 { Some(row[x - 1]) } else { None };
                row[x] |= self.pixel(bits, x, left, above.get(x).copied());
                x += 1;
            }
        }
        Ok(())
    }

    /// The pixel in column `x`, predicted by those to its left and above.
    fn pixel(
        &mut self,
        bits: &mut Bits<'_>,
        x: usize,
        left: Option<u32>,
        above: Option<u32>,
    ) -> u32 {
        let learns = self.pace.learns();
        let trigger = self.pace.trigger();
        let (left, above) = (left.or(above).unwrap_or(0), above.or(left).unwrap_or(0));
        let mut pixel = 0;
        for channel in &mut self.channels {
            let value = |pixel: u32| pixel >> channel.shift & self.depth.mask();
            let predicted = (value(left) + value(above)) / 2;
            let before = channel.residuals[x.saturating_sub(1)];
            let bucket = &mut channel.buckets[self.depth.bucket(before)];
            let residual = self.depth.residual(bucket.best(), bits);
            if learns {
                bucket.learn(&self.depth.costs[usize::from(residual)], trigger);
            }
            channel.residuals[x] = residual;
            pixel |= self.depth.value(predicted, residual) << channel.shift;
        }
        pixel
    }

    /// How many pixels repeat the last one, which `most` may.
    fn run(&mut self, bits: &mut Bits<'_>, most: usize) -> Result<usize, CommandError> {
        let mut length = 0;
        while bits.take(1) != 0 && length <= most {
            length += 1 << RUN_ORDER[self.run_state];
            self.run_state = (self.run_state + 1).min(RUN_ORDER.len() - 1);
        }
        length += bits.take(RUN_ORDER[self.run_state].into()) as usize;
        self.run_state = self.run_state.saturating_sub(1);
        CommandError::at_most("pixels of a run", length as u64, most as u64)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
