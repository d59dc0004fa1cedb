//! What each encoder makes of pictures of several kinds: MB of pixels a second, and the ratio.
//!
//! `cargo bench -p caraway-spice --bench codecs`; a word after `--` chooses.

#![allow(missing_docs, reason = "criterion's macros make functions without")]

use std::hint::black_box;

use caraway_spice::codec::{Codec, Dictionary, Encoder, Pixels};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// As large as pieces of a screen get.
const SIZE: (u32, u32) = (512, 256);
/// Pixels that the client keeps.
const WINDOW: usize = 4 << 20;

const CODECS: [(&str, Codec); 7] = [
    ("lz", Codec::Lz),
    ("lz palette", Codec::LzPalette),
    ("glz", Codec::Glz),
    ("lz4", Codec::Lz4),
    ("quic", Codec::Quic),
    ("raw", Codec::Raw),
    ("auto", Codec::Auto),
];

fn scrambled(number: u32) -> u32 {
    let number = (number ^ number >> 16).wrapping_mul(2_654_435_761);
    let number = (number ^ number >> 15).wrapping_mul(2_221_713_035);
    number ^ number >> 16
}

/// Letters of 8×16 pixels, in lines that differ.
fn text(x: u32, y: u32) -> u32 {
    let letter = scrambled(x / 8 + y / 16 * 977) % 64;
    let is_blank = x % 8 > 5 || y % 16 > 12 || x > 200 + scrambled(y / 16) % 250;
    let is_ink = scrambled(letter * 128 + y % 16 * 8 + x % 8).is_multiple_of(3);
    if is_ink && !is_blank {
        0x20_2020
    } else {
        0xf4_f4f0
    }
}

/// Smooth, with a little grain.
fn photograph(x: u32, y: u32) -> u32 {
    let grain = scrambled(y * SIZE.0 + x) >> 30;
    let channels = [x + y + grain, x / 5 + grain, y * 2, 0];
    u32::from_le_bytes(channels.map(|channel| channel as u8))
}

/// As smooth, of one tone: much of it looks like something else for a few pixels.
fn shades(x: u32, y: u32) -> u32 {
    let grain = scrambled(y * SIZE.0 + x) >> 30;
    let light = (x * 3 / 7 + y * 2 / 3) % 250 + grain;
    u32::from_le_bytes([light, light / 2 + 20, 255 - light, 0].map(|channel| channel as u8))
}

fn noise(x: u32, y: u32) -> u32 {
    scrambled(y * SIZE.0 + x) & 0xff_ffff
}

/// The colour of a place.
type Picture = fn(u32, u32) -> u32;

const PICTURES: [(&str, Picture); 4] = [
    ("text", text),
    ("photograph", photograph),
    ("shades", shades),
    ("noise", noise),
];

/// The bytes of a picture whose upper edge is at `top`.
fn bytes_of(colour: Picture, top: u32) -> Vec<u8> {
    let (width, height) = SIZE;
    (top..top + height)
        .flat_map(|y| (0..width).flat_map(move |x| colour(x, y).to_le_bytes()))
        .collect()
}

fn codecs(criterion: &mut Criterion) {
    let (width, height) = SIZE;
    for (picture, colour) in PICTURES {
        let bytes = bytes_of(colour, 0);
        let Some(pixels) = Pixels::new(width, height, &bytes) else {
            continue;
        };
        let mut group = criterion.benchmark_group(picture);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        for (name, codec) in CODECS {
            // What is not sent is not referred to: each image is a first one.
            let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
            let image = encoder.encode(codec, pixels.clone());
            let ratio = bytes.len() as f64 / image.data.len() as f64;
            let name = format!("{name} (1:{ratio:.1}, {:?})", image.kind);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| black_box(encoder.encode(codec, pixels.clone())));
            });
        }
        group.finish();
    }
}

/// What GLZ makes of a picture whose client keeps as many others of its kind as it has room for.
fn full_dictionary(criterion: &mut Criterion) {
    let (width, height) = SIZE;
    let mut group = criterion.benchmark_group("full dictionary");
    for (picture, colour) in PICTURES {
        let mut encoder = Encoder::with_dictionary(&Dictionary::default(), 1, WINDOW);
        for other in 1..=WINDOW as u32 / (width * height) {
            let bytes = bytes_of(colour, other * height);
            if let Some(pixels) = Pixels::new(width, height, &bytes) {
                let _image = encoder.encode(Codec::Glz, pixels);
                encoder.sent();
            }
        }
        let bytes = bytes_of(colour, 0);
        let Some(pixels) = Pixels::new(width, height, &bytes) else {
            continue;
        };
        let image = encoder.encode(Codec::Glz, pixels.clone());
        let ratio = bytes.len() as f64 / image.data.len() as f64;
        let name = format!("{picture} (1:{ratio:.1})");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| black_box(encoder.encode(Codec::Glz, pixels.clone())));
        });
    }
    group.finish();
}

criterion_group!(benches, codecs, full_dictionary);
criterion_main!(benches);
