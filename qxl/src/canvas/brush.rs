//! What areas, lines and letters are filled with.

use caraway_spice::Point;

use super::{PixelFormat, Pixels};

/// What to fill with (`SpiceBrush`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Brush<I> {
    /// Nothing, which is like black for raster operations.
    None,
    /// One colour, coded as the pixels of the surface are.
    Solid(u32),
    /// Copies of an image, one with its top left corner at `origin`.
    Pattern { image: I, origin: Point },
}

impl<I> Brush<I> {
    /// The same brush with another image; `None` if there is none.
    pub(crate) fn resolve<P>(self, picture: impl FnOnce(I) -> Option<P>) -> Option<Brush<P>> {
        Some(match self {
            Self::None => Brush::None,
            Self::Solid(color) => Brush::Solid(color),
            Self::Pattern { image, origin } => {
                let image = picture(image)?;
                Brush::Pattern { image, origin }
            }
        })
    }
}

impl<P: Pixels> Brush<P> {
    /// Fills `row`, which starts at `x` and `y` of a surface of `format`; `false` if the brush's
    /// pixels can't be read.
    pub(super) fn read(&mut self, format: PixelFormat, x: u32, y: u32, row: &mut [u32]) -> bool {
        match self {
            Self::None => row.fill(0),
            Self::Solid(color) => row.fill(*color & format.mask()),
            Self::Pattern { image, origin } => return image.tile(format, *origin, (x, y), row),
        }
        true
    }
}
