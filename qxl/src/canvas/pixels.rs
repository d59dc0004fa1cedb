//! Where pixels to draw come from.

use caraway_spice::{Point, Rect, Size};

use super::{Canvas, PixelFormat};

/// A picture that can be read by parts of rows.
pub(crate) trait Pixels {
    /// How the pixels that it gives are coded.
    fn format(&self) -> PixelFormat;

    /// Pixels across and down.
    fn size(&self) -> Size;

    /// Whether these are pixels of the surface that is drawn on, at their own places.
    fn are_of_target(&self) -> bool {
        false
    }

    /// Fills `row` with the pixels of row `y` (0 is the topmost) from `x`; `false` if they are not
    /// all in the picture, or can't be read.
    fn read(&mut self, x: u32, y: u32, row: &mut [u32]) -> bool;

    /// Like [`read`](Self::read), but coded as `format`.
    fn read_as(&mut self, format: PixelFormat, x: u32, y: u32, row: &mut [u32]) -> bool {
        let read = self.read(x, y, row);
        self.format().convert(format, row);
        read
    }

    /// Fills `row` with the pixels at row `y` from `x` of a plane that copies of the picture tile,
    /// one of them at `origin`; `false` if there are no pixels.
    fn tile(
        &mut self,
        format: PixelFormat,
        origin: Point,
        (x, y): (u32, u32),
        row: &mut [u32],
    ) -> bool {
        let Size { width, height } = self.size();
        let within = |at: u32, origin: i32, len: u32| {
            (i64::from(at) - i64::from(origin)).checked_rem_euclid(i64::from(len))
        };
        let (Some(x), Some(y)) = (within(x, origin.x, width), within(y, origin.y, height)) else {
            return false;
        };
        let (mut x, y) = (x as u32, y as u32);
        let period = row.len().min(width as usize);
        let mut done = 0;
        while let Some(rest) = row.get_mut(done..period).filter(|rest| !rest.is_empty()) {
            let len = rest.len().min((width - x) as usize);
            if !self.read_as(format, x, y, &mut rest[..len]) {
                return false;
            }
            (x, done) = (0, done + len);
        }
        while done < row.len() {
            let len = done.min(row.len() - done);
            row.copy_within(..len, done);
            done += len;
        }
        true
    }
}

/// Pixels of a surface, or a copy of those of them that will be needed.
pub(crate) struct Snapshot<C> {
    canvas: C,
    /// Where the top left corner of `canvas` is on the surface.
    corner: (u32, u32),
    size: Size,
}

impl Snapshot<Canvas> {
    /// A copy of what is in `area`; pixels outside of it can't be read then.
    pub(crate) fn copied(canvas: &Canvas, area: Rect) -> Self {
        let size = canvas.size();
        let (canvas, left, top) = canvas.copy(area);
        let corner = (left, top);
        Self {
            canvas,
            corner,
            size,
        }
    }
}

impl Snapshot<Canvas> {
    /// A picture of its own of what is in `area`, if all of that is on the surface.
    pub(crate) fn cut(canvas: &Canvas, area: Rect) -> Option<Self> {
        let inside = area.intersection(canvas.area()) == area;
        inside.then(|| {
            let (canvas, ..) = canvas.copy(area);
            let (corner, size) = ((0, 0), canvas.size());
            Self {
                canvas,
                corner,
                size,
            }
        })
    }
}

impl<'a> Snapshot<&'a Canvas> {
    /// The surface itself.
    pub(crate) fn of(canvas: &'a Canvas) -> Self {
        let (corner, size) = ((0, 0), canvas.size());
        Self {
            canvas,
            corner,
            size,
        }
    }
}

impl<C: std::borrow::Borrow<Canvas>> Pixels for Snapshot<C> {
    fn format(&self) -> PixelFormat {
        self.canvas.borrow().format()
    }

    fn size(&self) -> Size {
        self.size
    }

    fn read(&mut self, x: u32, y: u32, row: &mut [u32]) -> bool {
        let (left, top) = self.corner;
        let place = x.checked_sub(left).zip(y.checked_sub(top));
        let width = u32::try_from(row.len()).ok();
        let pixels = place.zip(width).and_then(|((x, y), width)| {
            let canvas = self.canvas.borrow();
            canvas.row(x, y, width)
        });
        match pixels {
            Some(pixels) => row.copy_from_slice(pixels),
            None => row.fill(0),
        }
        pixels.is_some()
    }
}
