//! Combining pictures as the X Render extension does.

use caraway_spice::{Point, Rect};

use super::blend::{plus, times, times_each};
use super::sampler::{Filter, Repeat, Sampler, Transform};
use super::{Canvas, OPAQUE, PixelFormat, Pixels, Region};

/// Images that are combined with what is there (`SpiceComposite`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Composite<I> {
    pub(crate) operator: Operator,
    pub(crate) source: Operand<I>,
    pub(crate) mask: Option<Operand<I>>,
    /// Each colour of the mask is a factor for that colour of the source. Otherwise the mask's
    /// alpha is the factor for all of them.
    pub(crate) component_alpha: bool,
    /// Takes a surface with alpha for one without.
    pub(crate) dest_opaque: bool,
}

/// An image that is combined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operand<I> {
    pub(crate) image: I,
    pub(crate) transform: Transform,
    pub(crate) filter: Filter,
    pub(crate) repeat: Repeat,
    /// The place, before transforming, of the top left pixel of what is drawn.
    pub(crate) origin: Point,
    /// Takes an image with alpha for one without.
    pub(crate) opaque: bool,
}

/// How a source and what is there are combined: the sum of both, each with a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operator {
    source: Factor,
    dest: Factor,
    /// It is to be computed without rounding in between.
    fine: bool,
}

/// A factor that depends on the alpha of the source and of what is there. `Over` is division, and
/// `Less` is what is missing to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    Zero,
    One,
    Source,
    Dest,
    LessSource,
    LessDest,
    SourceOverDest,
    DestOverSource,
    LessSourceOverDest,
    LessDestOverSource,
    LessOfSourceOverDest,
    LessOfDestOverSource,
    LessOfLessDestOverSource,
    LessOfLessSourceOverDest,
}

impl Operator {
    /// The operator that pixman (`pixman_op_t`) and Render give this number; `None` for the blend
    /// modes, which are no such sum.
    pub(crate) const fn of(number: u32) -> Option<Self> {
        use Factor::{
            Dest, DestOverSource, LessDest, LessDestOverSource, LessOfDestOverSource,
            LessOfLessDestOverSource, LessOfLessSourceOverDest, LessOfSourceOverDest, LessSource,
            LessSourceOverDest, One, Source, SourceOverDest, Zero,
        };
        /// The operators from `OVER` to `XOR` have a plain, a disjoint and a conjoint form.
        const fn form(
            number: u32,
            [source, less_source, dest, less_dest]: [Factor; 4],
        ) -> Option<(Factor, Factor)> {
            Some(match number {
                0 => (Zero, Zero),
                1 => (One, Zero),
                2 => (Zero, One),
                3 => (One, less_source),
                4 => (less_dest, One),
                5 => (dest, Zero),
                6 => (Zero, source),
                7 => (less_dest, Zero),
                8 => (Zero, less_source),
                9 => (dest, less_source),
                10 => (less_dest, source),
                11 => (less_dest, less_source),
                _ => return None,
            })
        }
        let plain = [Source, LessSource, Dest, LessDest];
        let disjoint = [
            LessOfLessSourceOverDest,
            LessSourceOverDest,
            LessOfLessDestOverSource,
            LessDestOverSource,
        ];
        let conjoint = [
            SourceOverDest,
            LessOfSourceOverDest,
            DestOverSource,
            LessOfDestOverSource,
        ];
        let (factors, fine) = match number {
            0..=11 => (form(number, plain), false),
            12 => (Some((One, One)), false),
            13 => (Some((LessDestOverSource, One)), true),
            0x10..=0x1b => (form(number - 0x10, disjoint), true),
            0x20..=0x2b => (form(number - 0x20, conjoint), true),
            _ => (None, false),
        };
        match factors {
            Some((source, dest)) => Some(Self { source, dest, fine }),
            None => None,
        }
    }

    /// Combines a `source`, whose colours are there as far as `mask` says, with `dest`.
    fn combine(self, source: u32, mask: u32, dest: u32) -> u32 {
        if self.fine {
            return self.combine_finely(source, mask, dest);
        }
        let alphas = times(mask, source >> 24);
        let source = times_each(source, mask);
        plus(
            self.source.times(source, alphas, dest >> 24),
            self.dest.times(dest, alphas, dest >> 24),
        )
    }

    fn combine_finely(self, source: u32, mask: u32, dest: u32) -> u32 {
        let unit = |pixel: u32, shift: u32| (pixel >> shift & 0xff) as f32 * (1.0 / 255.0);
        let dest_alpha = unit(dest, 24);
        let each = |shift: u32| {
            let there = unit(mask, shift);
            let alpha = unit(source, 24) * there;
            let sum = unit(source, shift) * there * self.source.value(alpha, dest_alpha)
                + unit(dest, shift) * self.dest.value(alpha, dest_alpha);
            let scaled = (sum.clamp(0.0, 1.0) * 256.0) as u32;
            (scaled - (scaled >> 8)) << shift
        };
        each(0) | each(8) | each(16) | each(24)
    }
}

impl Factor {
    /// `pixel` times this factor; the source has the alphas of `alphas` for its colours, and what
    /// is there has alpha `dest`.
    fn times(self, pixel: u32, alphas: u32, dest: u32) -> u32 {
        match self {
            Self::Zero => 0,
            Self::One => pixel,
            Self::Source => times_each(pixel, alphas),
            Self::LessSource => times_each(pixel, !alphas),
            Self::Dest => times(pixel, dest),
            Self::LessDest => times(pixel, 255 - dest),
            // Those with a division are computed finely.
            _ => pixel,
        }
    }

    fn value(self, source: f32, dest: f32) -> f32 {
        let over = |a: f32, b: f32, otherwise: f32| {
            if b == 0.0 {
                otherwise
            } else {
                (a / b).clamp(0.0, 1.0)
            }
        };
        let less_of = |a: f32, b: f32| {
            if b == 0.0 {
                0.0
            } else {
                (1.0 - a / b).clamp(0.0, 1.0)
            }
        };
        match self {
            Self::Zero => 0.0,
            Self::One => 1.0,
            Self::Source => source,
            Self::Dest => dest,
            Self::LessSource => 1.0 - source,
            Self::LessDest => 1.0 - dest,
            Self::SourceOverDest => over(source, dest, 1.0),
            Self::DestOverSource => over(dest, source, 1.0),
            Self::LessSourceOverDest => over(1.0 - source, dest, 1.0),
            Self::LessDestOverSource => over(1.0 - dest, source, 1.0),
            Self::LessOfSourceOverDest => less_of(source, dest),
            Self::LessOfDestOverSource => less_of(dest, source),
            Self::LessOfLessDestOverSource => less_of(1.0 - dest, source),
            Self::LessOfLessSourceOverDest => less_of(1.0 - source, dest),
        }
    }
}

impl<I> Composite<I> {
    /// The same with other images; `None` if one is missing.
    pub(super) fn resolve<P>(
        self,
        mut picture: impl FnMut(I) -> Option<P>,
    ) -> Option<Composite<P>> {
        let mut resolve = |operand: Operand<I>| {
            Some(Operand {
                image: picture(operand.image)?,
                transform: operand.transform,
                filter: operand.filter,
                repeat: operand.repeat,
                origin: operand.origin,
                opaque: operand.opaque,
            })
        };
        Some(Composite {
            operator: self.operator,
            source: resolve(self.source)?,
            mask: match self.mask {
                Some(mask) => Some(resolve(mask)?),
                None => None,
            },
            component_alpha: self.component_alpha,
            dest_opaque: self.dest_opaque,
        })
    }
}

impl<P: Pixels> Operand<P> {
    fn sampler(self, area: Rect) -> Sampler<P> {
        let format = self.image.format();
        let mut sampler = Sampler::new(self.image, self.transform, self.filter, self.repeat);
        if self.opaque && format == PixelFormat::Argb {
            sampler.reinterpret(PixelFormat::Xrgb);
        }
        let place = |at: i32, origin: i32| i64::from(at) - i64::from(origin);
        sampler.place(
            place(area.left, self.origin.x),
            place(area.top, self.origin.y),
        );
        sampler
    }
}

impl Canvas {
    pub(super) fn composite<P: Pixels>(
        &mut self,
        area: Rect,
        region: &Region,
        composite: Composite<P>,
    ) {
        let Composite {
            operator,
            component_alpha,
            dest_opaque,
            ..
        } = composite;
        let format = self.format();
        let mut source = composite.source.sampler(area);
        let mut mask = composite.mask.map(|mask| mask.sampler(area));
        let (mut sources, mut masks) = (Vec::new(), Vec::new());
        self.modify(region, |x, y, row| {
            sources.resize(row.len(), 0);
            masks.clear();
            masks.resize(row.len(), u32::MAX);
            let read = source.read(x, y, &mut sources)
                && mask.as_mut().is_none_or(|mask| mask.read(x, y, &mut masks));
            for ((pixel, source), mask) in row.iter_mut().zip(&sources).zip(&masks) {
                let mask = if component_alpha {
                    *mask
                } else {
                    (mask >> 24) * 0x0101_0101
                };
                let mut dest = format.to_argb(*pixel);
                if dest_opaque {
                    dest |= OPAQUE;
                }
                *pixel = format.of_argb(operator.combine(*source, mask, dest));
            }
            read
        });
    }
}
