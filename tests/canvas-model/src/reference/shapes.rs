//! Letters and lines.

use super::color::{Coded, NOTHING, code, combine, depth, over, product};
use super::sample::{Sheet, View};
use super::{contains, is_drawn_on};
use crate::random::{Brush, Scene, Stroke, Text};

pub(super) fn written(view: &View<'_>, text: &Text, old: u32, x: i64, y: i64) -> Option<u32> {
    let back = text.back.filter(|area| contains(area, x, y));
    let under =
        back.map(|_| view.brush(&text.back_brush, x, y) & (u32::MAX >> (32 - depth(view.format))));
    let solid = text
        .glyphs
        .iter()
        .filter(|glyph| glyph.width > 0 && glyph.height > 0);
    let (left, top) = (
        solid.clone().map(|glyph| glyph.x).min().unwrap_or(0),
        solid.clone().map(|glyph| glyph.y).min().unwrap_or(0),
    );
    let covered = solid.filter_map(|glyph| {
        let (dx, dy) = (x - i64::from(glyph.x), y - i64::from(glyph.y));
        let inside =
            (0..i64::from(glyph.width)).contains(&dx) && (0..i64::from(glyph.height)).contains(&dy);
        inside.then(|| glyph.numbers[(dy * i64::from(glyph.width) + dx) as usize])
    });
    let covered = match (covered.max().unwrap_or(0), text.bits) {
        (number, 1) => number * 255,
        (number, 4) => number * 16,
        (number, _) => number,
    };
    let ink = match &text.brush {
        Brush::None => return under,
        Brush::Solid(color) if depth(view.format) == 16 => Coded {
            bits: *color,
            format: view.format,
        }
        .color(),
        Brush::Solid(color) => Coded {
            bits: *color,
            format: 32,
        }
        .color(),
        Brush::Pattern(picture, dx, dy) => {
            let (width, height) = view.size(picture);
            let x = (x - i64::from(left) - i64::from(*dx)).rem_euclid(width);
            let y = (y - i64::from(top) - i64::from(*dy)).rem_euclid(height);
            view.local(picture, x, y).unwrap().color()
        }
    };
    let ink = ink.map(|c| product(c, covered));
    if ink == NOTHING {
        return under;
    }
    let below = Coded {
        bits: under.unwrap_or(old),
        format: view.format,
    };
    Some(code(over(ink, below.color()), view.format))
}

/// To whole pixels: a fraction of more than half is one more.
pub(super) fn round(fixed: i32) -> i64 {
    i64::from(fixed.div_euclid(16)) + i64::from(fixed.rem_euclid(16) > 8)
}

pub(super) fn draw_stroke(view: &View<'_>, sheet: &mut Sheet, scene: &Scene, stroke: &Stroke) {
    let mut points: Vec<(i64, i64)> = stroke
        .points
        .iter()
        .map(|(x, y)| (round(*x), round(*y)))
        .collect();
    if stroke.closed {
        points.push(points[0]);
    }
    let mask = u32::MAX >> (32 - depth(sheet.format));
    for pair in points.windows(2) {
        let pixels = if stroke.dashes.is_empty() {
            walk(pair[0], pair[1])
        } else {
            dash(pair[0], pair[1], &stroke.dashes)
        };
        for (x, y) in pixels {
            let inside = (0..sheet.width).contains(&x) && (0..sheet.height).contains(&y);
            if inside && is_drawn_on(scene, x, y) {
                let pixel = &mut sheet.pixels[(y * sheet.width + x) as usize];
                let brush = view.brush(&stroke.brush, x, y);
                *pixel = combine(stroke.rop, brush, *pixel, 2, 4) & mask;
            }
        }
    }
}

/// Bresenham's algorithm step by step; the last pixel is left out.
pub(super) fn walk(from: (i64, i64), to: (i64, i64)) -> Vec<(i64, i64)> {
    let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
    let (sx, sy) = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
    let flat = dx > dy;
    let (long, short) = if flat { (dx, dy) } else { (dy, dx) };
    let backwards = if flat { sx < 0 } else { sy < 0 };
    let mut error = 2 * short - long - i64::from(backwards);
    let (mut x, mut y) = from;
    let mut pixels = Vec::new();
    for _ in 0..long {
        pixels.push((x, y));
        if error >= 0 {
            error -= 2 * long;
            if flat { y += sy } else { x += sx }
        }
        error += 2 * short;
        if flat { x += sx } else { y += sy }
    }
    pixels
}

/// Dashes along an axis: unit squares from the lower coordinate on.
pub(super) fn dash(from: (i64, i64), to: (i64, i64), dashes: &[u8]) -> Vec<(i64, i64)> {
    let length = (to.0 - from.0).abs() + (to.1 - from.1).abs();
    let (sx, sy) = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
    let mut on = dashes
        .iter()
        .enumerate()
        .flat_map(|(number, len)| vec![number % 2 == 0; usize::from(*len)])
        .cycle();
    let mut pixels = Vec::new();
    for at in 0..length {
        // Going left or up, a unit ends where it is counted from.
        let shift = i64::from(sx + sy < 0);
        if on.next() == Some(true) {
            pixels.push((from.0 + sx * (at + shift), from.1 + sy * (at + shift)));
        }
    }
    pixels
}
