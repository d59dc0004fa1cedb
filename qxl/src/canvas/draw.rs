//! Drawing: what every command does to a surface.

use caraway_spice::Rect;

use super::blend::{over, times};
use super::mask::Stencil;
use super::sampler::{Filter, Sampler};
use super::{Brush, Canvas, Composite, Mask, PixelFormat, Pixels, Region, Rop, Rop3, Stroke, Text};

/// What a draw command does. Images are of type `I`: places in guest memory at first, then pictures
/// that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Draw<I> {
    /// Nothing.
    Nop,
    /// Draws with a brush.
    Fill {
        brush: Brush<I>,
        rop: Rop,
        mask: Option<Mask<I>>,
    },
    /// Draws an image.
    Copy {
        source: Source<I>,
        rop: Rop,
        mask: Option<Mask<I>>,
    },
    /// Draws an image, and then with a brush on it.
    Opaque {
        source: Source<I>,
        brush: Brush<I>,
        rop: Rop,
        mask: Option<Mask<I>>,
    },
    /// Draws an image and with a brush at once.
    Rop3 {
        source: Source<I>,
        brush: Brush<I>,
        rop: Rop3,
        mask: Option<Mask<I>>,
    },
    /// Draws an image without pixels of one colour (red, green and blue in 8 bits each).
    Transparent { source: Source<I>, color: u32 },
    /// Draws an image on top of what is there.
    AlphaBlend(AlphaBlend<I>),
    /// Combines images with what is there.
    Composite(Composite<I>),
    /// Draws lines.
    Stroke(Stroke<I>),
    /// Writes.
    Text(Text<I>),
}

/// The part of an image that is drawn; it is scaled if it does not have the size of where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source<I> {
    pub(crate) image: I,
    pub(crate) area: Rect,
    pub(crate) filter: Filter,
}

/// How an image is drawn on top of what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlphaBlend<I> {
    pub(crate) source: Source<I>,
    /// How much of it is seen, of 255.
    pub(crate) alpha: u8,
    /// Takes an image that is a surface of no alpha for one with alpha.
    pub(crate) source_has_alpha: bool,
    /// Takes a surface of no alpha for one with alpha.
    pub(crate) dest_has_alpha: bool,
}

/// How an image's pixels are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Coded as those of the surface, and with alpha if the image has some.
    Local,
    /// As they are.
    Original,
    /// One bit each.
    Bits,
}

impl<I> Source<I> {
    fn resolve<P>(self, picture: impl FnOnce(I) -> Option<P>) -> Option<Source<P>> {
        Some(Source {
            image: picture(self.image)?,
            area: self.area,
            filter: self.filter,
        })
    }
}

impl<I> Draw<I> {
    /// The same with other images; `None` if one is missing.
    pub(crate) fn resolve<P>(
        self,
        mut picture: impl FnMut(I, Form) -> Option<P>,
    ) -> Option<Draw<P>> {
        let masked = |mask: Option<Mask<I>>, picture: &mut dyn FnMut(I, Form) -> Option<P>| {
            mask.map_or(Some(None), |mask| {
                mask.resolve(|image| picture(image, Form::Bits)).map(Some)
            })
        };
        let mut local = |image| picture(image, Form::Local);
        Some(match self {
            Self::Nop => Draw::Nop,
            Self::Fill { brush, rop, mask } => Draw::Fill {
                brush: brush.resolve(&mut local)?,
                rop,
                mask: masked(mask, &mut picture)?,
            },
            Self::Copy { source, rop, mask } => Draw::Copy {
                source: source.resolve(&mut local)?,
                rop,
                mask: masked(mask, &mut picture)?,
            },
            Self::Opaque {
                source,
                brush,
                rop,
                mask,
            } => Draw::Opaque {
                source: source.resolve(&mut local)?,
                brush: brush.resolve(&mut local)?,
                rop,
                mask: masked(mask, &mut picture)?,
            },
            Self::Rop3 {
                source,
                brush,
                rop,
                mask,
            } => Draw::Rop3 {
                source: source.resolve(&mut local)?,
                brush: brush.resolve(&mut local)?,
                rop,
                mask: masked(mask, &mut picture)?,
            },
            Self::Transparent { source, color } => Draw::Transparent {
                source: source.resolve(local)?,
                color,
            },
            Self::AlphaBlend(blend) => Draw::AlphaBlend(AlphaBlend {
                source: blend
                    .source
                    .resolve(|image| picture(image, Form::Original))?,
                alpha: blend.alpha,
                source_has_alpha: blend.source_has_alpha,
                dest_has_alpha: blend.dest_has_alpha,
            }),
            Self::Composite(composite) => Draw::Composite(composite.resolve(local)?),
            Self::Stroke(stroke) => Draw::Stroke(stroke.resolve(local)?),
            Self::Text(text) => Draw::Text(text.resolve(local)?),
        })
    }
}

/// An image at the place where it is drawn.
enum Placed<P> {
    /// Pixel by pixel: where its top left corner comes to be.
    Plain {
        picture: P,
        left: i64,
        top: i64,
    },
    Scaled(Sampler<P>),
}

impl<P: Pixels> Placed<P> {
    fn new(source: Source<P>, to: Rect) -> Self {
        let Source {
            image,
            area,
            filter,
        } = source;
        if (area.width(), area.height()) == (to.width(), to.height()) {
            return Self::Plain {
                picture: image,
                left: i64::from(to.left) - i64::from(area.left),
                top: i64::from(to.top) - i64::from(area.top),
            };
        }
        Self::Scaled(Sampler::scaled(image, area, to, filter))
    }

    /// How far to the right and down it goes from where it is, if it is on the surface already.
    fn distance(&self) -> Option<(i64, i64)> {
        match self {
            Self::Plain { picture, left, top } if picture.are_of_target() => Some((*left, *top)),
            _ => None,
        }
    }

    /// Where it has pixels. What is around a scaled image is drawn as black.
    fn area(&self) -> Option<Rect> {
        let Self::Plain { picture, left, top } = self else {
            return None;
        };
        let size = picture.size();
        let side = |at: i64| at.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Some(Rect {
            left: side(*left),
            top: side(*top),
            right: side(left + i64::from(size.width)),
            bottom: side(top + i64::from(size.height)),
        })
    }

    /// The pixels of `region` that it has.
    fn part_of(&self, region: &Region) -> Region {
        self.area()
            .map_or_else(|| region.clone(), |area| region.clipped(area))
    }

    /// Fills `row`, which starts at `x` and `y`, where the image has pixels; `false` if they can't
    /// be read.
    fn read(&mut self, format: PixelFormat, x: u32, y: u32, row: &mut [u32]) -> bool {
        match self {
            Self::Plain { picture, left, top } => {
                let x = u32::try_from(i64::from(x) - *left);
                let y = u32::try_from(i64::from(y) - *top);
                x.ok()
                    .zip(y.ok())
                    .is_some_and(|(x, y)| picture.read_as(format, x, y, row))
            }
            Self::Scaled(sampler) => {
                let read = sampler.read(x, y, row);
                row.iter_mut()
                    .for_each(|pixel| *pixel = format.of_argb(*pixel));
                read
            }
        }
    }
}

impl Canvas {
    /// Does `draw` to the pixels of `region` that are on the surface; `area` is where it would be
    /// without clipping.
    pub(crate) fn draw<P: Pixels>(&mut self, area: Rect, region: &Region, draw: Draw<P>) {
        let format = self.format();
        let (mut source_row, mut brush_row) = (Vec::new(), Vec::new());
        match draw {
            Draw::Nop => {}
            Draw::Fill {
                brush: Brush::Solid(color),
                rop: Rop::PUT,
                mask: None,
            } => self.fill(region, color),
            Draw::Fill {
                mut brush,
                rop,
                mask,
            } => self.change(area, region, mask, |x, y, row| {
                brush_row.resize(row.len(), 0);
                let read = brush.read(format, x, y, &mut brush_row);
                rop.combine(row, &brush_row);
                read
            }),
            Draw::Copy {
                source,
                rop: Rop::PUT,
                mask: None,
            } => {
                let mut source = Placed::new(source, area);
                let region = source.part_of(region);
                let distance = source.distance();
                self.paint_from(&region, distance, |x, y, row| {
                    source.read(format, x, y, row)
                });
            }
            Draw::Copy { source, rop, mask } => {
                let mut source = Placed::new(source, area);
                let region = source.part_of(region);
                self.change(area, &region, mask, |x, y, row| {
                    source_row.resize(row.len(), 0);
                    let read = source.read(format, x, y, &mut source_row);
                    rop.combine(row, &source_row);
                    read
                });
            }
            Draw::Opaque {
                source,
                mut brush,
                rop,
                mask,
            } => {
                let mut source = Placed::new(source, area);
                let inside = source.area();
                self.change(area, region, mask, |x, y, row| {
                    // The brush is drawn where there is no image too.
                    let (start, len) = overlap(inside, x, y, row.len());
                    let part = row.get_mut(start..start + len).unwrap_or_default();
                    if !part.is_empty() && !source.read(format, x + start as u32, y, part) {
                        return false;
                    }
                    brush_row.resize(row.len(), 0);
                    let read = brush.read(format, x, y, &mut brush_row);
                    rop.combine(row, &brush_row);
                    read
                });
            }
            Draw::Rop3 {
                source,
                mut brush,
                rop,
                mask,
            } => {
                let mut source = Placed::new(source, area);
                let region = source.part_of(region);
                self.change(area, &region, mask, |x, y, row| {
                    source_row.resize(row.len(), 0);
                    brush_row.resize(row.len(), 0);
                    let read = source.read(format, x, y, &mut source_row)
                        && brush.read(format, x, y, &mut brush_row);
                    rop.combine(row, &source_row, &brush_row);
                    read
                });
            }
            Draw::Transparent { source, color } => {
                let filter = Filter::Nearest;
                let mut source = Placed::new(Source { filter, ..source }, area);
                let region = source.part_of(region);
                let (looked_at, color) = match format.bits() {
                    32 => (0x00ff_ffff, color & 0x00ff_ffff),
                    16 => (0xffff, format.of_argb(color)),
                    _ => (u32::MAX, 0),
                };
                self.modify(&region, |x, y, row| {
                    source_row.resize(row.len(), 0);
                    let read = source.read(format, x, y, &mut source_row);
                    for (pixel, source) in row.iter_mut().zip(&source_row) {
                        if source & looked_at != color {
                            *pixel = *source;
                        }
                    }
                    read
                });
            }
            Draw::AlphaBlend(blend) => self.alpha_blend(area, region, blend),
            Draw::Composite(composite) => self.composite(area, region, composite),
            Draw::Stroke(stroke) => self.stroke(region, stroke),
            Draw::Text(text) => self.text(region, text),
        }
    }

    /// Like [`modify`](Self::modify), but only where `mask` allows it.
    fn change<P: Pixels>(
        &mut self,
        area: Rect,
        region: &Region,
        mask: Option<Mask<P>>,
        mut change: impl FnMut(u32, u32, &mut [u32]) -> bool,
    ) {
        let Some(mask) = mask else {
            self.modify(region, change);
            return;
        };
        let mut stencil = Stencil::new(mask, area);
        let mut old = Vec::new();
        self.modify(&region.clipped(stencil.area()), |x, y, row| {
            old.clear();
            old.extend_from_slice(row);
            change(x, y, row) && stencil.restore((x, y), &old, row)
        });
    }

    fn alpha_blend<P: Pixels>(&mut self, area: Rect, region: &Region, blend: AlphaBlend<P>) {
        let Source {
            image, area: from, ..
        } = blend.source;
        let alpha = u32::from(blend.alpha);
        let with_alpha = |format, yes| match format {
            PixelFormat::Xrgb if yes => PixelFormat::Argb,
            other => other,
        };
        let dest = with_alpha(self.format(), blend.dest_has_alpha);
        let source = with_alpha(image.format(), blend.source_has_alpha);
        let mut sampler = Sampler::scaled(image, from, area, Filter::Nearest);
        sampler.reinterpret(source);
        let mut source_row = Vec::new();
        self.modify(region, |x, y, row| {
            source_row.resize(row.len(), 0);
            let read = sampler.read(x, y, &mut source_row);
            for (pixel, source) in row.iter_mut().zip(&source_row) {
                let source = times(*source, alpha);
                if source != 0 {
                    *pixel = dest.of_argb(over(source, dest.to_argb(*pixel)));
                }
            }
            read
        });
    }
}

/// Which of the `len` pixels from `x` and `y` are in `area` (everywhere if it is `None`): the first
/// of them and how many.
fn overlap(area: Option<Rect>, x: u32, y: u32, len: usize) -> (usize, usize) {
    let Some(area) = area else {
        return (0, len);
    };
    if !(i64::from(area.top)..i64::from(area.bottom)).contains(&i64::from(y)) {
        return (0, 0);
    }
    let place = |side: i32| (i64::from(side) - i64::from(x)).clamp(0, len as i64) as usize;
    let (start, end) = (place(area.left), place(area.right));
    (start, end.saturating_sub(start))
}
