//! Pictures that are scaled, turned and repeated.

use caraway_spice::{Rect, Size};

use super::blend::between;
use super::{PixelFormat, Pixels};

/// How pixels between those of a picture are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Nearest,
    /// The weighted mean of the four around.
    Bilinear,
}

/// What is around a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: transparent pixels.
    None,
    /// The picture again and again.
    Normal,
    /// The pixels of its edges.
    Pad,
    /// The picture again and again, each time mirrored.
    Reflect,
}

impl Repeat {
    /// The pixel of `len` that is at `at`; `None` if it is transparent.
    fn place(self, at: i64, len: u32) -> Option<u32> {
        let len = i64::from(len);
        let at = match self {
            Self::None => at,
            Self::Normal => at.checked_rem_euclid(len)?,
            Self::Pad => at.clamp(0, (len - 1).max(0)),
            Self::Reflect => {
                let at = at.checked_rem_euclid(2 * len)?;
                if at < len { at } else { 2 * len - 1 - at }
            }
        };
        (0..len).contains(&at).then_some(at as u32)
    }
}

/// One pixel in 16.16 fixed point, in which all of this is computed.
const ONE: i64 = 1 << 16;
const HALF: i64 = ONE / 2;

/// From a place drawn at to a place in a picture: the upper two rows of a matrix in 16.16 fixed
/// point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transform(pub(crate) [[i32; 3]; 2]);

impl Transform {
    /// Every place to itself.
    pub(crate) const IDENTITY: Self = Self([[ONE as i32, 0, 0], [0, ONE as i32, 0]]);
}

/// A picture as it is after scaling, turning and repeating; its pixels have 8 bits each of
/// premultiplied alpha, red, green and blue.
pub(super) struct Sampler<P> {
    picture: P,
    format: PixelFormat,
    size: Size,
    /// Like [`Transform`]'s, but any offset fits.
    matrix: [[i64; 3]; 2],
    /// What is drawn here is at 0,0 for the matrix.
    origin: (i64, i64),
    filter: Filter,
    repeat: Repeat,
    /// The last rows that were read.
    rows: [Row; 2],
}

/// Pixels of one row of a picture.
#[derive(Default)]
struct Row {
    y: i64,
    start: i64,
    pixels: Vec<u32>,
}

impl Row {
    fn has(&self, y: i64, start: i64, end: i64) -> bool {
        !self.pixels.is_empty()
            && self.y == y
            && self.start <= start
            && end <= self.start + self.pixels.len() as i64
    }

    fn at(&self, x: i64) -> u32 {
        let at = usize::try_from(x - self.start).ok();
        at.and_then(|at| self.pixels.get(at).copied()).unwrap_or(0)
    }
}

impl<P: Pixels> Sampler<P> {
    pub(super) fn new(picture: P, transform: Transform, filter: Filter, repeat: Repeat) -> Self {
        let (format, size) = (picture.format(), picture.size());
        Self {
            picture,
            format,
            size,
            matrix: transform.0.map(|row| row.map(i64::from)),
            origin: (0, 0),
            filter,
            repeat,
            rows: Default::default(),
        }
    }

    /// `area` of the picture at the place and in the size of `to`.
    pub(super) fn scaled(picture: P, area: Rect, to: Rect, filter: Filter) -> Self {
        let scale = |from: u32, to: u32| (i64::from(from) << 16).checked_div(i64::from(to));
        let mut sampler = Self::new(picture, Transform::IDENTITY, filter, Repeat::None);
        sampler.matrix = [
            [
                scale(area.width(), to.width()).unwrap_or(0),
                0,
                i64::from(area.left) << 16,
            ],
            [
                0,
                scale(area.height(), to.height()).unwrap_or(0),
                i64::from(area.top) << 16,
            ],
        ];
        sampler.origin = (to.left.into(), to.top.into());
        sampler
    }

    /// Takes the picture's pixels as coded in another format with as many bits.
    pub(super) fn reinterpret(&mut self, format: PixelFormat) {
        self.format = format;
    }

    /// Puts what the matrix takes for 0,0 at `x` and `y` of the surface.
    pub(super) fn place(&mut self, x: i64, y: i64) {
        self.origin = (x, y);
    }

    /// The row of pixels from `x` and `y`; `false` if pixels can't be read.
    pub(super) fn read(&mut self, x: u32, y: u32, row: &mut [u32]) -> bool {
        let (x, y) = (i64::from(x) - self.origin.0, i64::from(y) - self.origin.1);
        // The middle of the pixel; the halves of a pixel are rounded on their own.
        let middle = |[a, b, c]: [i64; 3]| a * x + b * y + c + ((a + b + 1) >> 1);
        let (mut left, mut top) = (middle(self.matrix[0]), middle(self.matrix[1]));
        let (right, down) = (self.matrix[0][0], self.matrix[1][0]);
        if down == 0 && self.repeat == Repeat::None {
            return self.read_straight(left, top, right, row);
        }
        for pixel in row {
            let Some(sampled) = self.sample(left, top) else {
                return false;
            };
            *pixel = sampled;
            left += right;
            top += down;
        }
        true
    }

    /// The pixel at a place in the picture.
    fn sample(&mut self, left: i64, top: i64) -> Option<u32> {
        match self.filter {
            Filter::Nearest => self.pixel((left - 1) >> 16, (top - 1) >> 16),
            Filter::Bilinear => {
                let (left, top) = (left - HALF, top - HALF);
                let (x, y) = (left >> 16, top >> 16);
                let corners = [
                    self.pixel(x, y)?,
                    self.pixel(x + 1, y)?,
                    self.pixel(x, y + 1)?,
                    self.pixel(x + 1, y + 1)?,
                ];
                Some(between(corners, weight(left), weight(top)))
            }
        }
    }

    /// A pixel of the picture or around it; `None` if it can't be read.
    fn pixel(&mut self, x: i64, y: i64) -> Option<u32> {
        let x = self.repeat.place(x, self.size.width);
        let y = self.repeat.place(y, self.size.height);
        let Some((x, y)) = x.zip(y) else {
            return Some(0);
        };
        let mut pixel = [0];
        let read = self.picture.read(x, y, &mut pixel);
        read.then(|| self.format.to_argb(pixel[0]))
    }

    /// A row of pixels all of which come from one row of the picture, or two, with nothing around.
    fn read_straight(&mut self, left: i64, top: i64, step: i64, row: &mut [u32]) -> bool {
        let last = left + step * (row.len().max(1) as i64 - 1);
        let (low, high) = (left.min(last), left.max(last));
        match self.filter {
            Filter::Nearest => {
                let (start, end) = ((low - 1) >> 16, ((high - 1) >> 16) + 1);
                if !self.fetch(0, (top - 1) >> 16, start, end) {
                    return false;
                }
                let mut x = left - 1;
                for pixel in row {
                    *pixel = self.rows[0].at(x >> 16);
                    x += step;
                }
            }
            Filter::Bilinear => {
                let (start, end) = ((low - HALF) >> 16, ((high - HALF) >> 16) + 2);
                let y = top - HALF;
                if self.rows[1].has(y >> 16, start, end) {
                    self.rows.swap(0, 1);
                }
                if !self.fetch(0, y >> 16, start, end) || !self.fetch(1, (y >> 16) + 1, start, end)
                {
                    return false;
                }
                let [upper, lower] = &self.rows;
                let mut x = left - HALF;
                for pixel in row {
                    let at = x >> 16;
                    let corners = [
                        upper.at(at),
                        upper.at(at + 1),
                        lower.at(at),
                        lower.at(at + 1),
                    ];
                    *pixel = between(corners, weight(x), weight(y));
                    x += step;
                }
            }
        }
        true
    }

    /// Has the pixels from `start` to `end` of row `y`, as far as they are in the picture, in
    /// `rows[which]`; `false` if they can't be read.
    fn fetch(&mut self, which: usize, y: i64, start: i64, end: i64) -> bool {
        let width = i64::from(self.size.width);
        let (start, end) = (start.clamp(0, width), end.clamp(0, width));
        let row = &mut self.rows[which];
        if row.has(y, start, end) {
            return true;
        }
        row.pixels.clear();
        (row.y, row.start) = (y, start);
        let inside = Repeat::None.place(y, self.size.height);
        let Some(y) = inside.filter(|_| end > start) else {
            return true;
        };
        row.pixels.resize((end - start) as usize, 0);
        let read = self.picture.read(start as u32, y, &mut row.pixels);
        for pixel in &mut row.pixels {
            *pixel = self.format.to_argb(*pixel);
        }
        read
    }
}

/// How far (of 128) a place is past the pixel before it.
const fn weight(at: i64) -> u32 {
    (at >> 9 & 127) as u32
}
