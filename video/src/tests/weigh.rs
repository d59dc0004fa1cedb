//! What films weigh, at which likeness, and how long they take: `make bench` prints it.

use std::time::{Duration, Instant};

use jpeg_decoder::{Decoder as JpegDecoder, PixelFormat};
use jpeg_encoder::{ColorType, Encoder as JpegEncoder, SamplingFactor};

use super::decoders::Decoder;
use super::{RATE, built_in, likeness, picture, settings};
use crate::open;

const WIDTH: u32 = 1920;
const HEIGHT: u32 = 1080;
const PICTURES: u32 = 60;

/// Bytes, likeness in dB and time of a mean picture.
#[derive(Default)]
struct Mean {
    bytes: f64,
    likeness: f64,
    millis: f64,
    /// Bytes of the first one.
    first: usize,
}

impl Mean {
    fn add(&mut self, bytes: usize, likeness: f64, time: Duration) {
        if self.first == 0 {
            self.first = bytes;
        }
        self.bytes += bytes as f64 / f64::from(PICTURES);
        self.likeness += likeness / f64::from(PICTURES);
        self.millis += time.as_secs_f64() * 1000.0 / f64::from(PICTURES);
    }

    fn print(&self, name: &str) {
        let rate = self.bytes * f64::from(RATE) * 8.0 / 1e6;
        println!(
            "{name:24} {:8.0} bytes a picture ({rate:6.2} Mbit/s), {:.1} dB, {:.1} ms, the first {} bytes",
            self.bytes, self.likeness, self.millis, self.first
        );
    }
}

/// Smooth noise, from 0 to 1.
fn noise(x: f64, y: f64, seed: u32) -> f64 {
    let corner = |x: f64, y: f64| {
        let mut hash = (x as i32 as u32).wrapping_mul(0x9e37_79b1)
            ^ (y as i32 as u32).wrapping_mul(0x85eb_ca6b)
            ^ seed.wrapping_mul(0xc2b2_ae35);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d);
        f64::from((hash ^ (hash >> 13)) >> 8) / f64::from(1 << 24)
    };
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (across, down) = (ease(x - left), ease(y - top));
    let mix = |a: f64, b: f64, t: f64| a + (b - a) * t;
    let above = mix(corner(left, top), corner(left + 1.0, top), across);
    let below = mix(
        corner(left, top + 1.0),
        corner(left + 1.0, top + 1.0),
        across,
    );
    mix(above, below, down)
}

/// A camera that pans over a landscape of all scales and zooms slowly, something that crosses it, and grain. With
/// more `detail`, up to 1, the small scales are as rough as the large ones.
fn landscape(at: u32, detail: f64) -> Vec<u8> {
    let time = f64::from(at);
    let zoom = 1.0 - time * 0.001;
    let mut grain = at.wrapping_add(1);
    let mut pixels = Vec::with_capacity(WIDTH as usize * HEIGHT as usize * 4);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (u, v) = (
                f64::from(x) * zoom + time * 2.5,
                f64::from(y) * zoom + time * 0.7,
            );
            let mut height = 0.0;
            let (mut scale, mut weight) = (1.0 / 256.0, 0.5);
            for octave in 0..7 {
                height += noise(u * scale, v * scale, octave) * weight;
                (scale, weight) = (scale * 2.0, weight * detail);
            }
            let (from_x, from_y) = (f64::from(x) - time * 9.0 - 300.0, f64::from(y) - 540.0);
            if from_x.hypot(from_y) < 160.0 {
                height = 0.3 + 0.5 * noise(from_x / 12.0, from_y / 12.0, 99);
            }
            grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = f64::from(grain >> 30) - 1.5;
            let shade = |low: f64, high: f64| (low + (high - low) * height + grain) as u8;
            pixels.extend([
                shade(90.0, 150.0),
                shade(20.0, 250.0),
                shade(60.0, 220.0),
                0,
            ]);
        }
    }
    pixels
}

#[test]
#[ignore = "figures for make bench"]
fn films_of_1920_by_1080_weigh() {
    for detail in [0.55, 0.75] {
        println!("detail {detail}");
        weigh(detail);
    }
}

fn weigh(detail: f64) {
    let pictures: Vec<_> = (0..PICTURES)
        .map(|at| {
            let pixels = landscape(at, detail);
            let planes = picture(WIDTH, HEIGHT, &pixels);
            (pixels, planes)
        })
        .collect();
    let mut planes = pictures[0].1.clone();
    let begun = Instant::now();
    for (pixels, _) in &pictures {
        assert!(planes.fill(pixels));
    }
    let took = begun.elapsed() / PICTURES;
    println!("colours converted in {took:?} a picture");

    for quality in [50, 70, 80, 85] {
        let mut mean = Mean::default();
        for (pixels, planes) in &pictures {
            let begun = Instant::now();
            let mut bytes = Vec::new();
            let mut encoder = JpegEncoder::new(&mut bytes, quality);
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            let encoded = encoder.encode(pixels, WIDTH as u16, HEIGHT as u16, ColorType::Bgra);
            encoded.expect("it has pixels");
            let took = begun.elapsed();
            let mut decoder = JpegDecoder::new(&*bytes);
            let decoded = decoder.decode().expect("it is a picture");
            let format = decoder.info().expect("it was decoded").pixel_format;
            assert_eq!(format, PixelFormat::RGB24);
            let shown: Vec<u8> = decoded
                .chunks(3)
                .flat_map(|p| [p[2], p[1], p[0], 0])
                .collect();
            let shown = picture(WIDTH, HEIGHT, &shown);
            mean.add(bytes.len(), likeness(planes, &shown), took);
        }
        mean.print(&format!("MJPEG, quality {quality}"));
    }
    for codec in built_in() {
        for megabits in [2, 4, 8, 12, 16, 24] {
            let settings = settings(WIDTH, HEIGHT, megabits * 1_000_000);
            let mut encoder = open(codec, settings).expect("it can");
            let mut decoder = Decoder::new(codec);
            let mut mean = Mean::default();
            for (at, (_, planes)) in (0..).zip(&pictures) {
                let begun = Instant::now();
                let time = Duration::from_secs(at) / RATE;
                let encoded = encoder.encode(planes, time, false).expect("it can");
                let took = begun.elapsed();
                let shown = decoder.decode(&encoded.bytes).expect("it is a picture");
                mean.add(encoded.bytes.len(), likeness(planes, &shown), took);
            }
            mean.print(&format!("{codec}, {megabits} Mbit/s"));
        }
    }
}
