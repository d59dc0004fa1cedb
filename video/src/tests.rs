//! What encoders make, by the decoders of their libraries.

#![cfg(any(feature = "vp8", feature = "h264"))]

mod decoders;
mod weigh;

use std::time::Duration;

use decoders::Decoder;

use crate::{Codec, Encoder, Error, I420, Settings, open};

const CODECS: [Codec; 2] = [Codec::Vp8, Codec::H264];
/// Pictures a second.
const RATE: u32 = 30;

fn built_in() -> impl Iterator<Item = Codec> {
    CODECS.into_iter().filter(|codec| codec.is_built_in())
}

fn settings(width: u32, height: u32, bits: u32) -> Settings {
    let rate = RATE.into();
    Settings {
        width,
        height,
        rate,
        bits,
    }
}

/// A camera that moves past something smooth with a little grain.
fn camera(width: u32, height: u32, at: u32) -> I420 {
    picture(width, height, &grainy(width, height, at, 2))
}

/// The same, with grain of so many bits, up to 4.
fn grainy(width: u32, height: u32, at: u32, grain: u32) -> Vec<u8> {
    let mut noise = at;
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let shade = (x + y / 2 + at * 4) & 511;
            let shade = (shade.min(511 - shade) * 15 / 16 + (noise >> (32 - grain))) as u8;
            pixels.extend([shade, shade / 2, 200, 0]);
        }
    }
    pixels
}

fn picture(width: u32, height: u32, pixels: &[u8]) -> I420 {
    let mut picture = I420::new(width, height).expect("its sides are even");
    assert!(picture.fill(pixels));
    picture
}

/// Peak signal to noise ratio, in dB, of all three planes.
fn likeness(a: &I420, b: &I420) -> f64 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let pairs = a.bytes().iter().zip(b.bytes());
    let squares: f64 = pairs.map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    let mean = squares / a.bytes().len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

/// Bytes that some pictures of a film take.
fn bytes(encoder: &mut dyn Encoder, pictures: std::ops::Range<u32>, grain: u32) -> usize {
    let encode = |at| {
        let picture = picture(320, 240, &grainy(320, 240, at, grain));
        let encoded = encoder.encode(&picture, Duration::from_secs(at.into()) / RATE, false);
        encoded.expect("it takes the picture").bytes.len()
    };
    pictures.map(encode).sum()
}

#[test]
fn a_decoder_shows_each_picture_at_once_and_as_it_was() {
    for codec in built_in() {
        for (width, height) in [(320, 240), (16, 16), (1282, 18), (326, 182)] {
            let mut encoder = open(codec, settings(width, height, 3_000_000)).expect("it can");
            let mut decoder = Decoder::new(codec);
            for at in 0..12 {
                let picture = camera(width, height, at);
                let time = Duration::from_secs(at.into()) / RATE;
                let encoded = encoder.encode(&picture, time, false).expect("it can");
                let shown = decoder.decode(&encoded.bytes).expect("it is a picture");
                let likeness = likeness(&picture, &shown);
                assert!(likeness > 34.0, "{codec} {width}x{height} {at}: {likeness}");
            }
        }
    }
}

#[test]
fn only_the_first_picture_and_those_that_are_asked_for_are_keys() {
    for codec in built_in() {
        let mut encoder = open(codec, settings(320, 240, 1_000_000)).expect("it can");
        let keys: Vec<u32> = (0..200)
            .filter(|&at| {
                // A cut is none, and neither is one that comes at the hundredth.
                let picture = camera(320, 240, at + at / 60 * 999);
                let time = Duration::from_secs(at.into()) / RATE;
                let encoded = encoder.encode(&picture, time, [7, 150].contains(&at));
                encoded.expect("it can").is_key
            })
            .collect();
        assert_eq!(keys, [0, 7, 150], "{codec}");
    }
}

#[test]
fn a_decoder_that_missed_pictures_goes_on_at_a_key_picture() {
    for codec in built_in() {
        let mut encoder = open(codec, settings(320, 240, 2_000_000)).expect("it can");
        let mut decoder = Decoder::new(codec);
        for at in 0..20 {
            let picture = camera(320, 240, at);
            let time = Duration::from_secs(at.into()) / RATE;
            let encoded = encoder.encode(&picture, time, at == 10).expect("it can");
            if (5..10).contains(&at) {
                continue;
            }
            let shown = decoder.decode(&encoded.bytes).expect("it is a picture");
            assert!(likeness(&picture, &shown) > 34.0, "{codec} {at}");
        }
    }
}

#[test]
fn a_film_takes_about_the_bits_that_it_may_and_follows_when_they_change() {
    for codec in built_in() {
        let mut encoder = open(codec, settings(320, 240, 400_000)).expect("it can");
        // What the key picture took is made up for.
        bytes(&mut *encoder, 0..60, 4);
        let narrow = bytes(&mut *encoder, 60..120, 4);
        encoder.set_bits(1_000_000).expect("it can");
        bytes(&mut *encoder, 120..150, 4);
        let wide = bytes(&mut *encoder, 150..210, 4);
        encoder.set_bits(200_000).expect("it can");
        bytes(&mut *encoder, 210..240, 4);
        let narrower = bytes(&mut *encoder, 240..300, 4);

        // Of two seconds each.
        for (bytes, bits) in [(narrow, 400_000), (wide, 1_000_000), (narrower, 200_000)] {
            let share = bytes as f64 * 4.0 / f64::from(bits);
            assert!((0.4..1.25).contains(&share), "{codec} {bits}: {share}");
        }
    }
}

#[test]
fn what_is_easy_does_not_take_all_it_may() {
    for codec in built_in() {
        let mut encoder = open(codec, settings(320, 240, 50_000_000)).expect("it can");
        let bytes = bytes(&mut *encoder, 0..60, 2);
        assert!(bytes * 4 < 10_000_000, "{codec}: {bytes}");
    }
}

#[test]
fn another_size_is_refused_and_the_film_goes_on() {
    for codec in built_in() {
        for (width, height) in [(0, 16), (320, 241), (14, 320), (16_386, 16)] {
            let refused = open(codec, settings(width, height, 1_000_000)).err();
            let size = Error::Size {
                codec,
                width,
                height,
            };
            assert_eq!(refused, Some(size));
        }
        let mut encoder = open(codec, settings(320, 240, 1_000_000)).expect("it can");
        let refused = encoder.encode(&camera(320, 238, 0), Duration::ZERO, false);
        assert!(refused.is_err(), "{codec}");
        let first = encoder.encode(&camera(320, 240, 0), Duration::ZERO, false);
        assert!(first.expect("it can").is_key, "{codec}");
    }
}

#[test]
fn times_that_stand_still_or_jump_do_no_harm() {
    for codec in built_in() {
        let mut encoder = open(codec, settings(64, 64, 1_000_000)).expect("it can");
        let mut decoder = Decoder::new(codec);
        for seconds in [5, 5, 5, 4, 5, 6, 3600, 1 << 40] {
            let picture = camera(64, 64, 3);
            let time = Duration::from_secs(seconds);
            let encoded = encoder.encode(&picture, time, false).expect("it can");
            let shown = decoder.decode(&encoded.bytes).expect("it is a picture");
            assert!(likeness(&picture, &shown) > 30.0, "{codec} {seconds}");
        }
    }
}
