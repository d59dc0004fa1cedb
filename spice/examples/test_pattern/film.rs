//! A film: a camera that moves past something smooth with a little grain.

use std::thread;
use std::time::{Duration, Instant};

use caraway_spice::{Framebuffer, Point, Rect, Size};

/// Pictures a second.
const RATE: u32 = 30;
/// Pictures that are drawn in advance and then shown again and again.
const PICTURES: u32 = 8;
/// Where on the screen: not at the edge of anything.
const PLACE: Point = Point { x: 33, y: 17 };

/// Plays for some time, as far as the screen reaches.
pub(super) fn play(screen: &Framebuffer, size: Size, time: Duration) {
    let place = if size == screen.size() {
        Point::default()
    } else {
        PLACE
    };
    let area = Rect::of_size(size).shifted(place);
    let area = area.intersection(Rect::of_size(screen.size()));
    let pictures: Vec<Vec<u32>> = (0..PICTURES).map(|at| picture(area, at)).collect();
    let start = Instant::now();
    for (picture, number) in pictures.iter().cycle().zip(0..) {
        let due = start + Duration::from_secs(1) * number / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if start.elapsed() >= time || !screen.blit(area, picture) {
            break;
        }
    }
}

fn picture(area: Rect, at: u32) -> Vec<u32> {
    let mut noise = at;
    let mut pixels = Vec::new();
    for y in 0..area.height() {
        for x in 0..area.width() {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wave = |n: u32| (n & 511).min(511 - (n & 511)) * 15 / 16 + (noise >> 30);
            let (x, y) = (x + at * 8, y + at * 3);
            pixels.push(wave(x / 2 + y) << 16 | wave(x + y / 3) << 8 | wave(x / 3 + 90));
        }
    }
    pixels
}
