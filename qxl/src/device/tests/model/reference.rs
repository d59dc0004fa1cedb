//! The model: every pixel on its own, by the formulas of the reference's canvas and of pixman.

use std::collections::BTreeMap;

use caraway_spice::Rect;

use super::random::{
    Act, Bitmap, Brush, Composite, Mask, Operand, Picture, Scene, Source, Stroke, Surface, Text,
};

/// Alpha, red, green and blue of a pixel; 0 to 255 each, premultiplied.
type Color = [u32; 4];

const NOTHING: Color = [0; 4];

/// A surface's pixels, coded as the protocol's format is.
#[derive(Clone)]
struct Sheet {
    format: u32,
    width: i64,
    height: i64,
    pixels: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Model(BTreeMap<u32, Sheet>);

/// A pixel as it is coded, with the format that it is coded in.
#[derive(Clone, Copy)]
struct Coded {
    bits: u32,
    format: u32,
}

fn depth(format: u32) -> u32 {
    match format {
        80 => 16,
        96 => 32,
        other => other,
    }
}

fn widen(value: u32, bits: u32) -> u32 {
    let value = value & ((1 << bits) - 1);
    value << (8 - bits) | value >> (2 * bits - 8)
}

impl Coded {
    fn color(self) -> Color {
        let p = self.bits;
        match self.format {
            1 => [255 * (p & 1), 0, 0, 0],
            8 => [p & 255, 0, 0, 0],
            16 => [255, widen(p >> 10, 5), widen(p >> 5, 5), widen(p, 5)],
            80 => [255, widen(p >> 11, 5), widen(p >> 5, 6), widen(p, 5)],
            32 => [255, p >> 16 & 255, p >> 8 & 255, p & 255],
            _ => [p >> 24, p >> 16 & 255, p >> 8 & 255, p & 255],
        }
    }

    /// The bits for a surface of another format.
    fn bits_for(self, format: u32) -> u32 {
        if self.format == format || depth(self.format) == 32 && depth(format) == 32 {
            self.bits
        } else {
            code(self.color(), format)
        }
    }
}

fn code([a, r, g, b]: Color, format: u32) -> u32 {
    match format {
        1 => a / 128,
        8 => a,
        16 => (r / 8) * 1024 + (g / 8) * 32 + b / 8,
        80 => (r / 8) * 2048 + (g / 4) * 32 + b / 8,
        32 => r * 65536 + g * 256 + b,
        _ => a * 0x100_0000 + r * 65536 + g * 256 + b,
    }
}

/// A product of fractions of 255, rounded.
fn product(a: u32, b: u32) -> u32 {
    (a * b + 127) / 255
}

fn over(top: Color, bottom: Color) -> Color {
    std::array::from_fn(|i| (top[i] + product(bottom[i], 255 - top[0])).min(255))
}

/// A raster operation of the protocol on single words.
fn combine(rop: u16, source: u32, dest: u32, invert_source: u16, invert_dest: u16) -> u32 {
    let s = if rop & invert_source != 0 {
        !source
    } else {
        source
    };
    let d = if rop & invert_dest != 0 { !dest } else { dest };
    let result = |value: u32| if rop & 1024 != 0 { !value } else { value };
    match rop & 0x3f8 {
        8 => result(s),
        16 => result(s | d),
        32 => result(s & d),
        64 => result(s ^ d),
        128 => 0,
        256 => u32::MAX,
        512 => !dest,
        _ => source,
    }
}

fn contains(rect: &Rect, x: i64, y: i64) -> bool {
    i64::from(rect.left) <= x
        && x < i64::from(rect.right)
        && i64::from(rect.top) <= y
        && y < i64::from(rect.bottom)
}

impl Sheet {
    fn at(&self, x: i64, y: i64) -> Option<Coded> {
        let inside = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        inside.then(|| Coded {
            bits: self.pixels[(y * self.width + x) as usize],
            format: self.format,
        })
    }
}

/// What one command sees of the surfaces: how they were before it.
struct View<'a> {
    sheets: &'a BTreeMap<u32, Sheet>,
    /// The format of the surface that is drawn on.
    format: u32,
}

impl View<'_> {
    fn size(&self, picture: &Picture) -> (i64, i64) {
        match picture {
            Picture::Bitmap(bitmap) => (bitmap.width.into(), bitmap.height.into()),
            Picture::Surface(id) => (self.sheets[id].width, self.sheets[id].height),
        }
    }

    /// A pixel, coded as it is drawn.
    fn local(&self, picture: &Picture, x: i64, y: i64) -> Option<Coded> {
        let bitmap = match picture {
            Picture::Surface(id) => return self.sheets[id].at(x, y),
            Picture::Bitmap(bitmap) => bitmap,
        };
        let number = stored(bitmap, x, y)?;
        if depth(self.format) == 32 {
            let (bits, format) = match bitmap.format {
                1..=5 => (bitmap.palette[number as usize], 32),
                6 => (
                    0xff00_0000
                        | Coded {
                            bits: number,
                            format: 16,
                        }
                        .bits_for(32),
                    32,
                ),
                10 => (number << 24, 32),
                9 => (number, 96),
                _ => (number, 32),
            };
            let high = if bitmap.high_bits && format == 32 {
                0xff00_0000
            } else {
                0
            };
            return Some(Coded {
                bits: bits | high,
                format,
            });
        }
        let format = match bitmap.format {
            1..=5 => {
                let mask = u32::MAX >> (32 - depth(self.format));
                return Some(Coded {
                    bits: bitmap.palette[number as usize] & mask,
                    format: self.format,
                });
            }
            6 => 16,
            9 => 96,
            10 => 8,
            _ => 32,
        };
        let coded = Coded {
            bits: number,
            format,
        };
        Some(Coded {
            bits: coded.bits_for(self.format),
            format: self.format,
        })
    }

    /// A pixel's own colour, not coded as the surface's first.
    fn original(&self, picture: &Picture, x: i64, y: i64, surface_alpha: bool) -> Option<Color> {
        match picture {
            Picture::Surface(id) => {
                let mut coded = self.sheets[id].at(x, y)?;
                if coded.format == 32 && surface_alpha {
                    coded.format = 96;
                }
                Some(coded.color())
            }
            Picture::Bitmap(bitmap) => {
                let number = stored(bitmap, x, y)?;
                let (bits, format) = match bitmap.format {
                    1..=5 => (bitmap.palette[number as usize], self.format),
                    6 => (number, 16),
                    7 | 8 => (number, 32),
                    9 => (number, 96),
                    _ => (number, 8),
                };
                Some(Coded { bits, format }.color())
            }
        }
    }

    fn brush(&self, brush: &Brush, x: i64, y: i64) -> u32 {
        match brush {
            Brush::None => 0,
            Brush::Solid(color) => *color,
            Brush::Pattern(picture, left, top) => {
                let (width, height) = self.size(picture);
                let x = (x - i64::from(*left)).rem_euclid(width);
                let y = (y - i64::from(*top)).rem_euclid(height);
                self.local(picture, x, y).unwrap().bits_for(self.format)
            }
        }
    }

    fn masked(&self, mask: Option<&Mask>, area: Rect, x: i64, y: i64) -> bool {
        let Some(mask) = mask else {
            return true;
        };
        let x = x - i64::from(area.left) + i64::from(mask.x);
        let y = y - i64::from(area.top) + i64::from(mask.y);
        let bit = match &mask.picture {
            Picture::Bitmap(bitmap) => stored(bitmap, x, y),
            Picture::Surface(id) => self.sheets[id].at(x, y).map(|coded| coded.bits),
        };
        bit.is_some_and(|bit| (bit == 1) != mask.inverted)
    }

    /// The pixel of a source that is drawn at a place; `None` where it has none.
    fn source(&self, source: &Source, nearest: bool, area: Rect, x: i64, y: i64) -> Option<u32> {
        let (dx, dy) = (x - i64::from(area.left), y - i64::from(area.top));
        let from = source.area;
        if (from.width(), from.height()) == (area.width(), area.height()) {
            let (x, y) = (dx + i64::from(from.left), dy + i64::from(from.top));
            let coded = self.local(&source.picture, x, y)?;
            return Some(coded.bits_for(self.format));
        }
        let color = |x: i64, y: i64| {
            let coded = self.local(&source.picture, x, y);
            coded.map_or(NOTHING, Coded::color)
        };
        let place = scaled_place(from, area, dx, dy);
        let color = if nearest {
            color(
                (place.0 - 1).div_euclid(65536),
                (place.1 - 1).div_euclid(65536),
            )
        } else {
            interpolated(place, color)
        };
        Some(code(color, self.format))
    }

    fn operand(&self, operand: &Operand, opaque: bool, dx: i64, dy: i64) -> Color {
        let (width, height) = self.size(&operand.picture);
        let (x, y) = (dx + i64::from(operand.x), dy + i64::from(operand.y));
        let rows = operand.transform.unwrap_or([[65536, 0, 0], [0, 65536, 0]]);
        // In 1/131072 of a pixel the middle of a pixel is whole.
        let along = |[a, b, c]: [i32; 3]| {
            let exact = i64::from(a) * (2 * x + 1) + i64::from(b) * (2 * y + 1);
            (exact + 1).div_euclid(2) + i64::from(c)
        };
        let place = (along(rows[0]), along(rows[1]));
        let repeated = |at: i64, len: i64| match operand.repeat {
            0 => at,
            1 => at.rem_euclid(len),
            2 => at.max(0).min(len - 1),
            _ => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at)
            }
        };
        let color = |x: i64, y: i64| {
            let (x, y) = (repeated(x, width), repeated(y, height));
            let mut coded = match self.local(&operand.picture, x, y) {
                Some(coded) => coded,
                None => return NOTHING,
            };
            if opaque && coded.format == 96 {
                coded.format = 32;
            }
            coded.color()
        };
        if operand.bilinear {
            interpolated(place, color)
        } else {
            color(
                (place.0 - 1).div_euclid(65536),
                (place.1 - 1).div_euclid(65536),
            )
        }
    }
}

fn stored(bitmap: &Bitmap, x: i64, y: i64) -> Option<u32> {
    let (width, height) = (i64::from(bitmap.width), i64::from(bitmap.height));
    let inside = (0..width).contains(&x) && (0..height).contains(&y);
    inside.then(|| bitmap.numbers[(y * width + x) as usize])
}

/// Where the middle of a pixel of a scaled picture comes from, in 1/65536 of a pixel.
fn scaled_place(from: Rect, to: Rect, dx: i64, dy: i64) -> (i64, i64) {
    let along = |at: i64, from: u32, to: u32, start: i32| {
        let scale = i64::from(from) * 65536 / i64::from(to);
        scale * at + (scale + 1) / 2 + i64::from(start) * 65536
    };
    (
        along(dx, from.width(), to.width(), from.left),
        along(dy, from.height(), to.height(), from.top),
    )
}

fn interpolated(place: (i64, i64), color: impl Fn(i64, i64) -> Color) -> Color {
    let (x, y) = (place.0 - 32768, place.1 - 32768);
    let (left, top) = (x.div_euclid(65536), y.div_euclid(65536));
    let right = (x.rem_euclid(65536) / 512) as u32;
    let down = (y.rem_euclid(65536) / 512) as u32;
    let corners = [
        (color(left, top), (128 - right) * (128 - down)),
        (color(left + 1, top), right * (128 - down)),
        (color(left, top + 1), (128 - right) * down),
        (color(left + 1, top + 1), right * down),
    ];
    std::array::from_fn(|i| corners.iter().map(|(c, weight)| c[i] * weight).sum::<u32>() / 16384)
}

/// Render's operators with the factors as fractions; `form` 0 is plain, 1 disjoint, 2 conjoint.
fn render(operator: u32, source: Color, mask: Color, dest: Color) -> Color {
    std::array::from_fn(|i| {
        if operator < 13 {
            let alpha = product(mask[i], source[0]);
            let (s, d) = (product(source[i], mask[i]), dest[i]);
            let (not_source, not_dest) = (255 - alpha, 255 - dest[0]);
            let (fs, fd) = match operator {
                0 => (0, 0),
                1 => (255, 0),
                2 => (0, 255),
                3 => (255, not_source),
                4 => (not_dest, 255),
                5 => (dest[0], 0),
                6 => (0, alpha),
                7 => (not_dest, 0),
                8 => (0, not_source),
                9 => (dest[0], not_source),
                10 => (not_dest, alpha),
                11 => (not_dest, not_source),
                _ => (255, 255),
            };
            return (product(s, fs) + product(d, fd)).min(255);
        }
        let unit = |value: u32| value as f32 * (1.0_f32 / 255.0);
        let (sa, da) = (unit(source[0]) * unit(mask[i]), unit(dest[0]));
        let (s, d) = (unit(source[i]) * unit(mask[i]), unit(dest[i]));
        let cut = |value: f32| value.clamp(0.0, 1.0);
        let ratio = |a: f32, b: f32, none: f32| if b == 0.0 { none } else { cut(a / b) };
        let rest = |a: f32, b: f32| if b == 0.0 { 0.0 } else { cut(1.0 - a / b) };
        let disjoint = operator < 0x20;
        let source_out = if disjoint {
            ratio(1.0 - da, sa, 1.0)
        } else {
            rest(da, sa)
        };
        let dest_out = if disjoint {
            ratio(1.0 - sa, da, 1.0)
        } else {
            rest(sa, da)
        };
        let source_in = if disjoint {
            rest(1.0 - da, sa)
        } else {
            ratio(da, sa, 1.0)
        };
        let dest_in = if disjoint {
            rest(1.0 - sa, da)
        } else {
            ratio(sa, da, 1.0)
        };
        let (fs, fd) = match operator {
            13 => (ratio(1.0 - da, sa, 1.0), 1.0),
            _ => match operator % 16 {
                0 => (0.0, 0.0),
                1 => (1.0, 0.0),
                2 => (0.0, 1.0),
                3 => (1.0, dest_out),
                4 => (source_out, 1.0),
                5 => (source_in, 0.0),
                6 => (0.0, dest_in),
                7 => (source_out, 0.0),
                8 => (0.0, dest_out),
                9 => (source_in, dest_out),
                10 => (source_out, dest_in),
                _ => (source_out, dest_out),
            },
        };
        let value = (cut(s * fs + d * fd) * 256.0) as u32;
        value - value / 256
    })
}

impl Model {
    pub(super) fn create(&mut self, surface: Surface) {
        let (width, height) = (i64::from(surface.width), i64::from(surface.height));
        let sheet = Sheet {
            format: surface.format,
            width,
            height,
            pixels: vec![0; (width * height) as usize],
        };
        self.0.insert(surface.id, sheet);
    }

    pub(super) fn pixels(&self, id: u32) -> &[u32] {
        &self.0[&id].pixels
    }

    pub(super) fn draw(&mut self, scene: &Scene) {
        let before = self.0.clone();
        let sheet = self.0.get_mut(&scene.surface).unwrap();
        let view = View {
            sheets: &before,
            format: sheet.format,
        };
        let mask = u32::MAX >> (32 - depth(sheet.format));
        if let Act::Stroke(stroke) = &scene.act {
            draw_stroke(&view, sheet, scene, stroke);
            return;
        }
        for y in 0..sheet.height {
            for x in 0..sheet.width {
                if is_drawn_on(scene, x, y) {
                    let pixel = &mut sheet.pixels[(y * sheet.width + x) as usize];
                    if let Some(new) = new_pixel(&view, scene, *pixel, x, y) {
                        *pixel = new & mask;
                    }
                }
            }
        }
    }
}

fn is_drawn_on(scene: &Scene, x: i64, y: i64) -> bool {
    let clipped = scene.clip.is_empty() || scene.clip.iter().any(|rect| contains(rect, x, y));
    clipped && contains(&scene.area, x, y)
}

/// What a pixel becomes; `None` if it stays.
fn new_pixel(view: &View<'_>, scene: &Scene, old: u32, x: i64, y: i64) -> Option<u32> {
    let area = scene.area;
    let allowed = |mask: &Option<Mask>| view.masked(mask.as_ref(), area, x, y).then_some(());
    match &scene.act {
        Act::Fill(brush, rop, mask) => {
            allowed(mask)?;
            Some(combine(*rop, view.brush(brush, x, y), old, 2, 4))
        }
        Act::Opaque(source, brush, rop, mask) => {
            allowed(mask)?;
            let under = view.source(source, source.nearest, area, x, y);
            let brush = view.brush(brush, x, y);
            Some(combine(*rop, brush, under.unwrap_or(old), 2, 1))
        }
        Act::Copy(source, rop, mask) | Act::Blend(source, rop, mask) => {
            allowed(mask)?;
            let new = view.source(source, source.nearest, area, x, y)?;
            Some(combine(*rop, new, old, 1, 4))
        }
        Act::CopyBits(left, top) => {
            let x = x - i64::from(area.left) + i64::from(*left);
            let y = y - i64::from(area.top) + i64::from(*top);
            Some(view.sheets[&scene.surface].at(x, y)?.bits)
        }
        Act::Blackness(mask) => allowed(mask).map(|()| 0),
        Act::Whiteness(mask) => allowed(mask).map(|()| u32::MAX),
        Act::Invers(mask) => allowed(mask).map(|()| !old),
        Act::Rop3(source, brush, rop, mask) => {
            allowed(mask)?;
            let s = view.source(source, source.nearest, area, x, y)?;
            let b = view.brush(brush, x, y);
            let bit = |i: u32| {
                let index = (b >> i & 1) * 4 + (s >> i & 1) * 2 + (old >> i & 1);
                u32::from(*rop) >> index & 1
            };
            Some((0..32).map(|i| bit(i) << i).sum())
        }
        Act::Transparent(source, color) => {
            let new = view.source(source, true, area, x, y)?;
            let is_key = match depth(view.format) {
                32 => new % 0x100_0000 == color % 0x100_0000,
                16 => {
                    let key = Coded {
                        bits: *color,
                        format: 32,
                    };
                    new == key.bits_for(view.format)
                }
                _ => new == 0,
            };
            (!is_key).then_some(new)
        }
        Act::AlphaBlend(source, alpha, flags) => {
            let place = scaled_place(
                source.area,
                area,
                x - i64::from(area.left),
                y - i64::from(area.top),
            );
            let (x, y) = (
                (place.0 - 1).div_euclid(65536),
                (place.1 - 1).div_euclid(65536),
            );
            let new = view.original(&source.picture, x, y, flags & 2 != 0)?;
            let format = if view.format == 32 && flags & 1 != 0 {
                96
            } else {
                view.format
            };
            let old_color = Coded { bits: old, format }.color();
            let new = new.map(|c| product(c, (*alpha).into()));
            (new != NOTHING).then(|| code(over(new, old_color), format))
        }
        Act::Composite(composite) => Some(composed(view, composite, area, old, x, y)),
        Act::Text(text) => written(view, text, old, x, y),
        Act::Stroke(_) => None,
    }
}

fn composed(view: &View<'_>, composite: &Composite, area: Rect, old: u32, x: i64, y: i64) -> u32 {
    let (dx, dy) = (x - i64::from(area.left), y - i64::from(area.top));
    let of_surface = matches!(composite.source.picture, Picture::Surface(_));
    let opaque = composite.source_opaque && of_surface;
    let source = view.operand(&composite.source, opaque, dx, dy);
    let mask = match &composite.mask {
        None => [255; 4],
        Some(mask) => {
            let mask = view.operand(mask, false, dx, dy);
            if composite.component_alpha {
                mask
            } else {
                [mask[0]; 4]
            }
        }
    };
    let old = Coded {
        bits: old,
        format: view.format,
    };
    let mut dest = old.color();
    if composite.dest_opaque {
        dest[0] = 255;
    }
    code(render(composite.operator, source, mask, dest), view.format)
}

fn written(view: &View<'_>, text: &Text, old: u32, x: i64, y: i64) -> Option<u32> {
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
fn round(fixed: i32) -> i64 {
    i64::from(fixed.div_euclid(16)) + i64::from(fixed.rem_euclid(16) > 8)
}

fn draw_stroke(view: &View<'_>, sheet: &mut Sheet, scene: &Scene, stroke: &Stroke) {
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
fn walk(from: (i64, i64), to: (i64, i64)) -> Vec<(i64, i64)> {
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
fn dash(from: (i64, i64), to: (i64, i64), dashes: &[u8]) -> Vec<(i64, i64)> {
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
