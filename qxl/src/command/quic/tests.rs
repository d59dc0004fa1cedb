use caraway_spice::codec::{Codec, Encoder, ImageKind, Pixels};
use proptest::prelude::*;
use shakenfist_spice_compression as independent;

use super::*;
use crate::canvas::from_555;
use crate::testing::*;

const MOST: u64 = 64 << 20;

/// Writes what a [`Group`] reads.
struct Packer {
    group: Group,
    bits: Vec<bool>,
}

impl Packer {
    fn put(&mut self, value: u32, count: u32) {
        let bits = (0..count).rev().map(|bit| value >> bit & 1 != 0);
        self.bits.extend(bits);
    }

    fn row(&mut self, above: &[u32], row: &[u32]) {
        let mut start = 0;
        while start < row.len() {
            let end = start + self.group.pace.segment(row.len() - start);
            self.segment(above, row, start..end);
            self.group.pace.grow();
            start = end;
        }
    }

    fn segment(&mut self, above: &[u32], row: &[u32], range: std::ops::Range<usize>) {
        let same = |a: u32, b: u32| (a ^ b) & self.group.mask == 0;
        let flat: Vec<bool> = (0..row.len())
            .map(|x| {
                let above = x > 2 && !above.is_empty() && same(above[x - 1], above[x]);
                above && same(row[x - 1], row[x - 2])
            })
            .collect();
        let repeats: Vec<bool> = (0..row.len())
            .map(|x| x > 0 && same(row[x], row[x - 1]))
            .collect();
        let (mut x, mut last_run) = (range.start, 0);
        while x < range.end {
            if flat[x] && x != last_run {
                last_run = x;
                let length = repeats[x..range.end].iter().take_while(|same| **same);
                let length = length.count();
                self.run(length);
                x += length;
            } else {
                let left = if x > 0 { Some(row[x - 1]) } else { None };
                self.pixel(x, row[x], left, above.get(x).copied());
                x += 1;
            }
        }
    }

    fn run(&mut self, mut length: usize) {
        let order = |state: usize| u32::from(RUN_ORDER[state]);
        while length >= 1 << order(self.group.run_state) {
            self.put(1, 1);
            length -= 1 << order(self.group.run_state);
            self.group.run_state = (self.group.run_state + 1).min(31);
        }
        self.put(length as u32, 1 + order(self.group.run_state));
        self.group.run_state = self.group.run_state.saturating_sub(1);
    }

    fn pixel(&mut self, x: usize, pixel: u32, left: Option<u32>, above: Option<u32>) {
        let depth = self.group.depth;
        let learns = self.group.pace.learns();
        let (left, above) = (left.or(above).unwrap_or(0), above.or(left).unwrap_or(0));
        for number in 0..self.group.channels.len() {
            let channel = &mut self.group.channels[number];
            let value = |pixel: u32| pixel >> channel.shift & depth.mask();
            let difference = value(pixel).wrapping_sub((value(left) + value(above)) / 2);
            let difference = difference & depth.mask();
            let residual = if difference <= depth.mask() / 2 {
                2 * difference
            } else {
                2 * (depth.mask() - difference) + 1
            };
            let bucket = depth.bucket(channel.residuals[x.saturating_sub(1)]);
            let bucket = &mut channel.buckets[bucket];
            let code = bucket.best();
            if learns {
                bucket.learn(&depth.costs[residual as usize], self.group.pace.trigger());
            }
            channel.residuals[x] = residual as u8;
            let golomb = depth.codes[code as usize];
            if residual < golomb.limit {
                self.put(1, (residual >> code) + 1);
                self.put(residual, code);
            } else {
                self.put(residual - golomb.limit, golomb.long);
            }
        }
    }
}

fn type_of(kind: Kind) -> u32 {
    match kind {
        Kind::Rgb16 => 2,
        Kind::Rgb32 => 4,
        Kind::Rgba => 5,
    }
}

/// Pixels of so many columns as a stream.
fn pack(kind: Kind, width: usize, pixels: &[u32]) -> Vec<u8> {
    let groups = kind.groups().iter();
    let mut packers: Vec<Packer> = groups
        .map(|shifts| Packer {
            group: Group::new(kind.depth(), shifts, width),
            bits: Vec::new(),
        })
        .collect();
    let mut bits = Vec::new();
    let mut above: &[u32] = &[];
    for row in pixels.chunks(width) {
        for packer in &mut packers {
            packer.row(above, row);
            bits.append(&mut packer.bits);
        }
        above = row;
    }
    // A decoder may look a word ahead.
    bits.resize(bits.len().next_multiple_of(32) + 32, false);
    let height = (pixels.len() / width) as u32;
    let header = [MAGIC, VERSION, type_of(kind), width as u32, height];
    let words = bits
        .chunks(32)
        .map(|bits| bits.iter().fold(0, |word, bit| word << 1 | u32::from(*bit)));
    let words = header.into_iter().chain(words);
    words.flat_map(u32::to_le_bytes).collect()
}

fn size(width: usize, height: usize) -> Size {
    Size {
        width: width as u32,
        height: height as u32,
    }
}

/// Gradients, flat areas and noise of all bits.
fn picture(width: usize, height: usize, seed: u32) -> Vec<u32> {
    let pixel = |at: usize| {
        let (x, y) = ((at % width) as u32, (at / width) as u32);
        let noise = (at as u32 ^ seed).wrapping_mul(0x9e37_79b1) ^ seed;
        match (x / 13 + y / 5) % 4 {
            0 => noise,
            1 => 0x80_40_20_10 ^ seed,
            2 => (x + y).wrapping_mul(0x01_01_01_01),
            _ => (noise & 0x03_03_03_03).wrapping_add(x.wrapping_mul(0x01_00_01_02)),
        }
    };
    (0..width * height).map(pixel).collect()
}

fn bytes_of(kind: Kind, pixels: &[u32]) -> Vec<u8> {
    let bytes = pixels.iter().flat_map(|pixel| match kind {
        Kind::Rgb16 => (pixel & 0x7fff).to_le_bytes()[..2].to_vec(),
        Kind::Rgb32 => (pixel & 0xff_ffff).to_le_bytes().to_vec(),
        Kind::Rgba => pixel.to_le_bytes().to_vec(),
    });
    bytes.collect()
}

const SIZES: [(usize, usize); 7] = [
    (1, 1),
    (2, 3),
    (3, 2),
    (40, 1),
    (1, 40),
    (67, 61),
    (2100, 9),
];

#[test]
fn every_kind_is_unpacked_at_every_age_of_its_model() {
    for kind in [Kind::Rgb16, Kind::Rgb32, Kind::Rgba] {
        for (width, height) in SIZES {
            let pixels = picture(width, height, 7);
            let stream = pack(kind, width, &pixels);

            let unpacked = unpack(&stream, size(width, height), MOST).unwrap();

            assert_eq!(unpacked.kind, kind);
            let right = unpacked.pixels == bytes_of(kind, &pixels);
            assert!(right, "{kind:?} {width}x{height}");
        }
    }
}

#[test]
fn another_decoder_finds_the_same_in_the_same_streams() {
    for kind in [Kind::Rgb32, Kind::Rgba] {
        for (width, height) in SIZES {
            let stream = pack(kind, width, &picture(width, height, 99));

            let unpacked = unpack(&stream, size(width, height), MOST).unwrap();
            let theirs = independent::quic::quic_decode(&stream, width as u32, height as u32);

            let ours = unpacked.pixels.as_chunks().0.iter();
            let ours = ours.flat_map(|&[b, g, r, a]| {
                // They take alpha the other way round, as the client in a browser does.
                let alpha = if kind == Kind::Rgba { 255 - a } else { 255 };
                [r, g, b, alpha]
            });
            assert_eq!(theirs, Some(ours.collect()), "{kind:?} {width}x{height}");
        }
    }
}

#[test]
fn what_the_server_packs_is_unpacked() {
    for (width, height) in [(67, 61), (2100, 9)] {
        let gradient: Vec<u32> = (0..width * height)
            .map(|at| ((at % width) as u32 / 7 * 0x01_02_01) & 0xff_ffff)
            .collect();
        let bytes = bytes_of(Kind::Rgb32, &gradient);
        let pixels = Pixels::new(width as u32, height as u32, &bytes).unwrap();
        let image = Encoder::default().encode(Codec::Quic, pixels);
        assert_eq!(image.kind, ImageKind::Quic);
        for kind in [3, 4] {
            let mut stream = image.data.clone();
            stream[8] = kind;

            let unpacked = unpack(&stream, size(width, height), MOST).unwrap();

            assert!(unpacked.pixels == bytes, "{width}x{height}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_short_is_refused() {
    let stream = pack(Kind::Rgba, 20, &picture(20, 10, 1));
    let whole = stream.len() - 8;

    for len in 0..whole {
        let result = unpack(&stream[..len], size(20, 10), MOST);

        let short = matches!(result, Err(CommandError::Short { .. }));
        assert!(short, "{len} of {whole}: {result:?}");
    }
}

#[test]
fn a_stream_of_another_kind_or_size_is_refused() {
    let stream = pack(Kind::Rgb32, 20, &picture(20, 10, 1));

    for (at, value) in [(0, b'X'), (4, 1), (8, 1), (8, 0), (8, 6), (12, 21), (16, 9)] {
        let mut stream = stream.clone();
        stream[at] = value;

        assert!(unpack(&stream, size(20, 10), MOST).is_err(), "{at}");
    }
}

#[test]
fn a_picture_that_is_too_large_is_refused_before_it_takes_memory() {
    let stream: Vec<u8> = [MAGIC, VERSION, 4, 16384, 16384]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();

    let result = unpack(&stream, size(16384, 16384), MOST);

    assert!(matches!(result, Err(CommandError::TooLarge { .. })));
}

/// A `QXLImage` of 20 x 10 pixels in three chunks.
fn image(guest: &Guest, kind: Kind, pixels: &[u32]) -> u64 {
    let stream = pack(kind, 20, pixels);
    let (first, rest) = stream.split_at(3);
    let rest = guest.chunks(rest, stream.len() / 2);
    let image = Bytes::default().u64(0).u8(1).u8(0).u32(20).u32(10);
    let image = image.u32(stream.len() as u32).u32(3).u64(0).u64(rest);
    guest.put(&image.bytes(first).0)
}

#[test]
fn images_of_every_kind_are_drawn() {
    let area = rect(7, 5, 27, 15);
    let pixels = picture(20, 10, 5);
    for (kind, color) in [
        (
            Kind::Rgb16,
            (|pixel| from_555(pixel as u16)) as fn(u32) -> u32,
        ),
        (Kind::Rgb32, |pixel| pixel & 0xff_ffff),
        (Kind::Rgba, |pixel| pixel & 0xff_ffff),
    ] {
        let guest = Guest::native(64, 48);
        let body = Guest::copy_body(image(&guest, kind, &pixels), rect(0, 0, 20, 10));

        guest.run(CMD_DRAW, guest.drawable(3, 0, area, &[], body));

        let expected: Vec<u32> = pixels.iter().map(|pixel| color(*pixel)).collect();
        assert!(guest.pixels(area) == expected, "{kind:?}");
    }
}

#[test]
fn an_image_with_alpha_is_blended_by_it() {
    let guest = Guest::native(64, 48);
    let pixels = [0xff11_2233, 0].repeat(100);
    guest.fill(0, rect(0, 0, 64, 48), 0x44_5566);
    let body = Bytes::default()
        .u16(0)
        .u8(255)
        .u64(image(&guest, Kind::Rgba, &pixels))
        .rect(rect(0, 0, 20, 10));

    let area = rect(0, 0, 20, 10);
    guest.run(CMD_DRAW, guest.drawable(13, 0, area, &[], body));

    assert_eq!(guest.pixels(area), [0x11_2233, 0x44_5566].repeat(100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_behind_a_header_are_survived(
        kind in 2_u32..6, width in 1_u32..40, height in 1_u32..20,
        body in prop::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..600),
    ) {
        let header = [MAGIC, VERSION, kind, width, height];
        let mut stream: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        stream.extend(body);

        let result = unpack(&stream, Size { width, height }, MOST);

        let bytes = if kind == 2 { 2 } else { 4 };
        let len = result.map_or(0, |unpacked| unpacked.pixels.len() as u32);
        prop_assert!(len == 0 || len == width * height * bytes);
    }
}
