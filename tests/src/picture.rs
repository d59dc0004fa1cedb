//! Pictures of screens, compared to the pixel.

use std::fmt;
use std::path::Path;

use caraway_spice::Rect;

/// How two pictures of one size differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The first pixel that does, from the top: column and row.
    pub first: (usize, usize),
    /// What it is in each.
    pub values: [[u8; 3]; 2],
    /// How many pixels do.
    pub count: usize,
    /// By how much one of their colours does at most.
    pub most: u8,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((x, y), [one, other]) = (self.first, self.values);
        write!(f, "at {x},{y} ({one:x?}, not {other:x?})")?;
        write!(f, " and {} more pixels, ", self.count - 1)?;
        write!(f, "by {} of 255 at most", self.most)
    }
}

/// A picture: 8 bits each of red, green and blue, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Of these pixels, row by row.
    ///
    /// # Panics
    /// If they are more or fewer.
    pub fn new(width: usize, height: usize, pixels: Vec<[u8; 3]>) -> Self {
        assert_eq!(pixels.len(), width * height);
        Self {
            width,
            height,
            pixels,
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If it is not inside.
    pub fn part(&self, area: Rect) -> Self {
        let rows = area.top as usize..area.bottom as usize;
        let row = |y: usize| {
            let start = y * self.width;
            &self.pixels[start + area.left as usize..start + area.right as usize]
        };
        let pixels = rows.flat_map(row).copied().collect();
        Self::new(area.width() as usize, area.height() as usize, pixels)
    }

    /// Out of a PNG file's bytes.
    ///
    /// # Panics
    /// If they are none, or not 8 bits of RGB or RGBA.
    pub fn from_png(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut data).unwrap();
        assert_eq!(info.bit_depth, png::BitDepth::Eight);
        let samples = info.color_type.samples();
        assert!(samples >= 3, "{:?}", info.color_type);
        let pixels = data[..info.buffer_size()]
            .chunks_exact(samples)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
        Self {
            width: info.width as usize,
            height: info.height as usize,
            pixels,
        }
    }

    /// Out of a binary PPM file (`P6`, 255 levels).
    ///
    /// # Panics
    /// If it is none.
    pub fn from_ppm(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        // Magic, width, height and the highest level, then one white space, then the pixels.
        let mut position = 0;
        let mut word = || {
            while bytes[position].is_ascii_whitespace() {
                position += 1;
            }
            let start = position;
            while !bytes[position].is_ascii_whitespace() {
                position += 1;
            }
            (
                std::str::from_utf8(&bytes[start..position])
                    .unwrap()
                    .to_owned(),
                position + 1,
            )
        };
        assert_eq!(word().0, "P6");
        let (width, height) = (word().0.parse().unwrap(), word().0.parse().unwrap());
        let (levels, data) = word();
        assert_eq!(levels, "255");
        let pixels: Vec<_> = bytes[data..]
            .chunks_exact(3)
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
        assert_eq!(pixels.len(), width * height);
        Self {
            width,
            height,
            pixels,
        }
    }

    /// The pixel at a place.
    ///
    /// # Panics
    /// If it is outside.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        assert!(x < self.width);
        self.pixels[y * self.width + x]
    }

    /// Whether this is somewhere in `whole`, pixel for pixel.
    pub fn is_within(&self, whole: &Self) -> bool {
        let Some(across) = whole.width.checked_sub(self.width) else {
            return false;
        };
        let Some(down) = whole.height.checked_sub(self.height) else {
            return false;
        };
        (0..=down).any(|top| (0..=across).any(|left| self.is_at(whole, left, top)))
    }

    fn is_at(&self, whole: &Self, left: usize, top: usize) -> bool {
        self.pixels
            .chunks_exact(self.width)
            .zip(top..)
            .all(|(row, y)| {
                let start = y * whole.width + left;
                whole.pixels[start..start + self.width] == *row
            })
    }

    /// Fails, saying where the first of how many differences is, unless both are the same.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn assert_same(&self, other: &Self, what: &str) {
        assert_eq!(
            (self.width, self.height),
            (other.width, other.height),
            "size of {what}"
        );
        if let Some(difference) = self.difference(other) {
            panic!("{what} differs {difference}");
        }
    }

    /// How this differs from a picture of the same size, if it does.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let pixels = self.pixels.iter().zip(&other.pixels).enumerate();
        let mut pixels = pixels.filter(|(_, (a, b))| a != b);
        let by = |a: &[u8; 3], b: &[u8; 3]| {
            let colours = a.iter().zip(b);
            colours.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
        };
        let (index, (one, other)) = pixels.next()?;
        let first = Difference {
            first: (index % self.width, index / self.width),
            values: [*one, *other],
            count: 1,
            most: by(one, other),
        };
        Some(pixels.fold(first, |sum, (_, (a, b))| Difference {
            count: sum.count + 1,
            most: sum.most.max(by(a, b)),
            ..sum
        }))
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a picture of {} × {}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, pixels: &[u8]) -> Picture {
        let pixels: Vec<_> = pixels.iter().map(|&level| [level; 3]).collect();
        Picture {
            width,
            height: pixels.len() / width,
            pixels,
        }
    }

    #[test]
    fn a_part_is_found_at_its_place_only() {
        let whole = picture(3, &[0, 0, 0, 0, 1, 2, 0, 3, 4]);

        assert!(picture(2, &[1, 2, 3, 4]).is_within(&whole));
        assert!(!picture(2, &[2, 1, 3, 4]).is_within(&whole));
    }

    #[test]
    fn every_pixel_that_differs_is_counted() {
        let (one, other) = (picture(2, &[1, 2, 3, 4]), picture(2, &[1, 2, 5, 14]));

        let difference = one.difference(&other);

        let expected = Difference {
            first: (0, 1),
            values: [[3; 3], [5; 3]],
            count: 2,
            most: 10,
        };
        assert_eq!(difference, Some(expected));
        assert_eq!(one.difference(&one), None);
    }
}
