//! The model: every pixel on its own, by the formulas of the reference's canvas and of pixman.

mod color;
mod render;
mod sample;
mod shapes;

use std::collections::BTreeMap;

use caraway_spice::Rect;

use crate::random::{Act, Composite, Mask, Picture, Scene};
use crate::surface::Surface;
use color::{Coded, NOTHING, code, combine, depth, over, product};
use render::render;
use sample::{Sheet, View, scaled_place};
use shapes::{draw_stroke, written};

/// Every surface, by its number.
#[derive(Debug, Default)]
pub(crate) struct Model(BTreeMap<u32, Sheet>);

fn contains(rect: &Rect, x: i64, y: i64) -> bool {
    i64::from(rect.left) <= x
        && x < i64::from(rect.right)
        && i64::from(rect.top) <= y
        && y < i64::from(rect.bottom)
}

impl Model {
    pub(crate) fn create(&mut self, surface: Surface) {
        let (width, height) = (i64::from(surface.width), i64::from(surface.height));
        let sheet = Sheet {
            format: surface.format,
            width,
            height,
            pixels: vec![0; (width * height) as usize],
        };
        self.0.insert(surface.id, sheet);
    }

    pub(crate) fn pixels(&self, id: u32) -> &[u32] {
        &self.0[&id].pixels
    }

    pub(crate) fn draw(&mut self, scene: &Scene) {
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
