//! Lines one pixel wide.

use caraway_spice::{Point, Rect};

use super::{Brush, Canvas, Pixels, Region, Rop};

/// The most pixels that one stroke draws, or looks at for dashes; what is left of it after that is
/// not drawn.
const MAX_PIXELS: usize = 1 << 24;

/// Lines (`SpiceStroke`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stroke<I> {
    pub(crate) lines: Vec<Line>,
    pub(crate) dashes: Option<Dashes>,
    pub(crate) brush: Brush<I>,
    pub(crate) rop: Rop,
}

/// Points that are joined by straight lines. The last of them is not drawn.
pub(crate) type Line = Vec<Point>;

/// Which parts of a line are drawn: every other one of some lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dashes {
    /// Pixels of each part, over and over again; not all are 0.
    lengths: Vec<u8>,
    /// How much of them is over when a line begins.
    start: u32,
}

impl Dashes {
    /// `None` if all lengths are 0.
    pub(crate) fn new(lengths: Vec<u8>, start: u32) -> Option<Self> {
        let any = lengths.iter().any(|length| *length != 0);
        any.then_some(Self { lengths, start })
    }

    /// Whether what is `at` from the start of the lengths is drawn; a limit between two of them
    /// belongs to the later one, or to the `earlier`.
    fn is_drawn(&self, at: f64, earlier: bool) -> bool {
        let total: u32 = self.lengths.iter().map(|length| u32::from(*length)).sum();
        // An odd number of lengths goes on with the next being drawn again.
        let mut rest = at.rem_euclid(f64::from(total));
        if rest == 0.0 && earlier {
            rest = f64::from(total);
        }
        for (number, length) in self.lengths.iter().enumerate() {
            let length = f64::from(*length);
            if rest < length || rest == length && earlier {
                return number % 2 == 0;
            }
            rest -= length;
        }
        false
    }
}

impl<I> Stroke<I> {
    /// The same with another image; `None` if there is none.
    pub(super) fn resolve<P>(self, picture: impl FnOnce(I) -> Option<P>) -> Option<Stroke<P>> {
        Some(Stroke {
            lines: self.lines,
            dashes: self.dashes,
            brush: self.brush.resolve(picture)?,
            rop: self.rop,
        })
    }
}

impl Canvas {
    pub(super) fn stroke<P: Pixels>(&mut self, region: &Region, stroke: Stroke<P>) {
        let Stroke {
            lines,
            dashes,
            mut brush,
            rop,
        } = stroke;
        let region = region.clipped(self.area());
        let format = self.format();
        let Some(cover) = Cover::of(&region) else {
            return;
        };
        let mut budget = MAX_PIXELS;
        let mut dot = |x: i32, y: i32| {
            if !cover.has(x, y) {
                return;
            }
            let (x, y) = (x as u32, y as u32);
            let mut pixel = [0];
            let there = self.row(x, y, 1).and_then(|row| row.first().copied());
            let Some(there) = there.filter(|_| brush.read(format, x, y, &mut pixel)) else {
                return;
            };
            self.put_row(x, y, &[rop.pixel(pixel[0], there) & format.mask()]);
        };
        for line in &lines {
            let segments = line.iter().zip(line.iter().skip(1));
            match &dashes {
                None => segments.for_each(|(from, to)| {
                    Segment::new(*from, *to).visit(cover.area, &mut budget, &mut dot);
                }),
                Some(dashes) => {
                    for (x, y) in dashed(segments, dashes, cover.area, &mut budget) {
                        dot(x, y);
                    }
                }
            }
        }
    }
}

/// Which pixels of an area are in a region.
struct Cover {
    area: Rect,
    /// `None` if all are.
    pixels: Option<Vec<bool>>,
}

impl Cover {
    /// `None` if there are none. The region is bounded by a surface.
    fn of(region: &Region) -> Option<Self> {
        let area = region.bounds()?;
        let mut pixels = vec![false; area.width() as usize * area.height() as usize];
        let mut only = false;
        region.visit(|rect| {
            only = rect == area;
            for y in rect.top..rect.bottom {
                let row = (y - area.top) as usize * area.width() as usize;
                let (left, right) = (rect.left - area.left, rect.right - area.left);
                let row = pixels.get_mut(row + left as usize..row + right as usize);
                row.unwrap_or_default().fill(true);
            }
            !only
        });
        let pixels = (!only).then_some(pixels);
        Some(Self { area, pixels })
    }

    fn has(&self, x: i32, y: i32) -> bool {
        let Rect {
            left,
            top,
            right,
            bottom,
        } = self.area;
        if !(left..right).contains(&x) || !(top..bottom).contains(&y) {
            return false;
        }
        let at = (y - top) as usize * self.area.width() as usize + (x - left) as usize;
        self.pixels
            .as_ref()
            .is_none_or(|pixels| pixels.get(at).is_some_and(|is_in| *is_in))
    }
}

/// A straight line between two pixels.
#[derive(Clone, Copy)]
struct Segment {
    from: Point,
    /// Pixels right and down.
    delta: (i64, i64),
}

impl Segment {
    fn new(from: Point, to: Point) -> Self {
        let delta = (
            i64::from(to.x) - i64::from(from.x),
            i64::from(to.y) - i64::from(from.y),
        );
        Self { from, delta }
    }

    /// Whether it goes more across than down.
    fn is_flat(self) -> bool {
        self.delta.0.abs() > self.delta.1.abs()
    }

    /// Which of its steps, along the axis that it goes along more, are in `area`; with a `margin`
    /// on both sides of the area, and of the line. They are taken from the `budget`.
    fn steps(self, area: Rect, margin: i64, budget: &mut usize) -> std::ops::Range<i64> {
        let (start, delta, low, high) = if self.is_flat() {
            (self.from.x, self.delta.0, area.left, area.right)
        } else {
            (self.from.y, self.delta.1, area.top, area.bottom)
        };
        let (low, high) = (
            i64::from(low) - i64::from(start) - margin,
            i64::from(high) - i64::from(start) + margin,
        );
        let (low, high) = if delta < 0 {
            (1 - high, 1 - low)
        } else {
            (low, high)
        };
        let start = low.max(-margin);
        let end = high.min(delta.abs() + 2 * margin).max(start);
        let count = usize::try_from(end - start).unwrap_or(*budget).min(*budget);
        *budget -= count;
        start..start + count as i64
    }

    /// How many steps down (or across) are done after `step` steps across (or down): Bresenham's
    /// algorithm. In the middle between two pixels it depends on the direction which is taken.
    fn minor(self, step: i64) -> i64 {
        let (across, down) = self.delta;
        let (major, minor) = if self.is_flat() {
            (across, down)
        } else {
            (down, across)
        };
        let bias = i64::from(major < 0);
        let (major, length) = (major.abs(), minor.abs());
        let steps = (2 * length * step + major - bias).div_euclid(2 * major.max(1));
        steps * minor.signum()
    }

    /// The pixel `step` steps along and `aside` steps to the side.
    fn pixel(self, step: i64, aside: i64) -> (i64, i64) {
        let (across, down) = if self.is_flat() {
            (step * self.delta.0.signum(), aside)
        } else {
            (aside, step * self.delta.1.signum())
        };
        (
            i64::from(self.from.x) + across,
            i64::from(self.from.y) + down,
        )
    }

    /// Goes along the line, without its last pixel, as far as it may be in `area`.
    fn visit(self, area: Rect, budget: &mut usize, mut dot: impl FnMut(i32, i32)) {
        for step in self.steps(area, 0, budget) {
            let (x, y) = self.pixel(step, self.minor(step));
            if let (Ok(x), Ok(y)) = (x.try_into(), y.try_into()) {
                dot(x, y);
            }
        }
    }
}

/// The pixels in `area` of dashed lines: those whose middles are in rectangles one pixel wide along
/// the line. Each is there once.
fn dashed<'a>(
    segments: impl Iterator<Item = (&'a Point, &'a Point)>,
    dashes: &Dashes,
    area: Rect,
    budget: &mut usize,
) -> std::collections::BTreeSet<(i32, i32)> {
    let mut pixels = std::collections::BTreeSet::new();
    let mut start = f64::from(dashes.start);
    for (from, to) in segments.filter(|(from, to)| from != to) {
        let segment = Segment::new(*from, *to);
        let (dx, dy) = (segment.delta.0 as f64, segment.delta.1 as f64);
        let length = dx.hypot(dy);
        // Of a limit, a pixel is in what is right of it, or below if there is no right.
        let first = dx > 0.0 || dx == 0.0 && dy > 0.0;
        for step in segment.steps(area, 1, budget) {
            for aside in -1..=1 {
                let (x, y) = segment.pixel(step, segment.minor(step) + aside);
                let right = (x - i64::from(from.x)) as f64;
                let down = (y - i64::from(from.y)) as f64;
                let along = (right * dx + down * dy) / length;
                let aside = (right * dy - down * dx) / length;
                let is_along = if first {
                    (0.0..length).contains(&along)
                } else {
                    0.0 < along && along <= length
                };
                let upper = dy > 0.0 || dy == 0.0 && dx < 0.0;
                let is_aside = if upper {
                    (-0.5..0.5).contains(&aside)
                } else {
                    -0.5 < aside && aside <= 0.5
                };
                let is_drawn = is_along && is_aside && dashes.is_drawn(start + along, !first);
                if let (true, Ok(x), Ok(y)) = (is_drawn, x.try_into(), y.try_into()) {
                    pixels.insert((x, y));
                }
            }
        }
        start = (start + length).ceil();
    }
    pixels
}
