//! Drawing on some pixels only.

use caraway_spice::{Point, Rect, Size};

use super::Pixels;

/// Which pixels are drawn on (`SpiceQMask`): those where an image of one bit a pixel has a one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask<I> {
    pub(crate) image: I,
    /// The image's pixel for the top left corner of what is drawn.
    pub(crate) corner: Point,
    /// Zeros count and not ones. Outside of the image nothing is drawn even so.
    pub(crate) inverted: bool,
}

impl<I> Mask<I> {
    /// The same mask with another image; `None` if there is none.
    pub(crate) fn resolve<P>(self, picture: impl FnOnce(I) -> Option<P>) -> Option<Mask<P>> {
        Some(Mask {
            image: picture(self.image)?,
            corner: self.corner,
            inverted: self.inverted,
        })
    }
}

/// A mask and what it needs to be applied.
pub(super) struct Stencil<P> {
    mask: Mask<P>,
    /// What is drawn, unclipped.
    area: Rect,
    bits: Vec<u32>,
}

impl<P: Pixels> Stencil<P> {
    pub(super) fn new(mask: Mask<P>, area: Rect) -> Self {
        let bits = Vec::new();
        Self { mask, area, bits }
    }

    /// Where the mask's image is on the surface.
    pub(super) fn area(&self) -> Rect {
        let Size { width, height } = self.mask.image.size();
        let left = self.area.left.saturating_sub(self.mask.corner.x);
        let top = self.area.top.saturating_sub(self.mask.corner.y);
        Rect {
            left,
            top,
            right: left.saturating_add_unsigned(width),
            bottom: top.saturating_add_unsigned(height),
        }
    }

    /// Puts pixels of `old` back into `row`, which starts at `x` and `y` inside of
    /// [`area`](Self::area), where the mask says so.
    pub(super) fn restore(&mut self, (x, y): (u32, u32), old: &[u32], row: &mut [u32]) -> bool {
        let area = self.area();
        let place = |at: u32, start: i32| u32::try_from(i64::from(at) - i64::from(start)).ok();
        let (Some(x), Some(y)) = (place(x, area.left), place(y, area.top)) else {
            return false;
        };
        self.bits.resize(row.len(), 0);
        if !self.mask.image.read(x, y, &mut self.bits) {
            return false;
        }
        let drawn = u32::from(!self.mask.inverted);
        for ((pixel, old), bit) in row.iter_mut().zip(old).zip(&self.bits) {
            if *bit != drawn {
                *pixel = *old;
            }
        }
        true
    }
}
