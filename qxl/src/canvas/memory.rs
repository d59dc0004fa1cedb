//! Memory of a surface that is gone, for the one that comes after it.
//!
//! A guest that sets a mode gets a new surface and draws all of it. In new memory every 4 KiB of that are a page
//! fault, which takes longer than the drawing.

use super::Canvas;

/// Pixels of the largest memory that is kept while nobody needs it: a screen of 3840×2160, 33 MB.
pub(super) const KEPT: usize = 3840 * 2160;

/// What a surface that was seen leaves.
#[derive(Default)]
pub(crate) struct Memory {
    /// Zeros.
    pixels: Vec<u32>,
    /// Where its draft kept pixels.
    draft: Vec<u32>,
}

impl Memory {
    /// That of `canvas`, which is gone.
    pub(crate) fn of(mut canvas: Canvas) -> Self {
        if canvas.pixels.len() > KEPT {
            return Self::default();
        }
        for (x, y, width) in canvas.drawn.parts() {
            let range = canvas.range(x, y, width);
            let part = range.and_then(|range| canvas.pixels.get_mut(range));
            part.unwrap_or_default().fill(0);
        }
        let draft = canvas.draft.map(|draft| draft.into_memory());
        Self {
            pixels: canvas.pixels,
            draft: draft.unwrap_or_default(),
        }
    }

    /// At least `count` zeros, and memory for a draft.
    pub(super) fn into_parts(self, count: usize) -> (Vec<u32>, Vec<u32>) {
        let fits = self.pixels.len() >= count;
        let pixels = if fits { self.pixels } else { vec![0; count] };
        (pixels, self.draft)
    }
}

#[cfg(test)]
mod tests {
    use caraway_spice::{Rect, Size};

    use super::super::{PixelFormat, Region};
    use super::*;

    fn surface(width: u32, height: u32, memory: Memory) -> Canvas {
        Canvas::on_screen(PixelFormat::Xrgb, Size { width, height }, memory)
    }

    #[test]
    fn a_surface_in_the_memory_of_another_is_black() {
        let mut memory = Memory::default();
        for (width, height) in [(100, 80), (64, 33), (101, 70), (200, 90), (1, 1)] {
            let mut canvas = surface(width, height, memory);

            let mut rows = (0..height).map(|y| canvas.row(0, y, width));
            assert!(rows.all(|row| row == Some(&vec![0; width as usize][..])));
            assert_eq!(canvas.row(0, height, 1), None);
            assert_eq!(canvas.drawn(), Rect::default());
            assert_eq!(canvas.take_damage(), []);

            let right = Rect {
                left: width as i32 / 2,
                ..canvas.area()
            };
            canvas.paint(&Region::from(right), |x, y, row| {
                row.fill(x + y + 1);
                true
            });
            memory = Memory::of(canvas);
        }
        let lengths = (memory.pixels.len(), memory.draft.len());
        assert_eq!(lengths, (200 * 90, 0));
    }

    #[test]
    fn memory_that_fits_is_used_again_and_what_is_very_large_is_not_kept() {
        let canvas = surface(300, 200, Memory::default());
        let place = canvas.pixels.as_ptr();

        let again = surface(200, 300, Memory::of(canvas));

        assert_eq!(again.pixels.as_ptr(), place);
        let large = surface(3840, 2161, Memory::default());
        assert!(Memory::of(large).pixels.is_empty());
    }
}
