//! Pictures as encoders take them: brightness, and two colours at half the resolution.

/// A picture in I420: planes of Y, of U and of V without gaps, by ITU-R BT.601 in its limited range, which
/// is what decoders assume of VP8 (RFC 6386, 9.2) and are told of H.264.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct I420 {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

/// Columns and rows at most.
const MAX_SIDE: u32 = 16_384;

/// A pixel: blue, green, red, and a byte that means nothing.
type Pixel = [u8; 4];

impl I420 {
    /// A black picture of so many pixels; `None` unless both sides are even, and from 2 to 16384.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Option<Self> {
        let is_possible = |side: u32| (2..=MAX_SIDE).contains(&side) && side.is_multiple_of(2);
        if !is_possible(width) || !is_possible(height) {
            return None;
        }
        let (width, height) = (width as usize, height as usize);
        let mut bytes = vec![16; width * height * 3 / 2];
        bytes[width * height..].fill(128);
        Some(Self {
            width,
            height,
            bytes,
        })
    }

    /// A picture of these planes, one behind the other.
    #[cfg(all(test, any(feature = "vp8", feature = "h264")))]
    pub(crate) fn of_planes(width: usize, height: usize, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), width * height * 3 / 2);
        Self {
            width,
            height,
            bytes,
        }
    }

    /// Pixels across.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width as u32
    }

    /// Pixels down.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height as u32
    }

    /// The three planes, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The planes Y, U and V.
    #[must_use]
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, colours) = self.bytes.split_at(self.width * self.height);
        let (u, v) = colours.split_at(colours.len() / 2);
        [y, u, v]
    }

    /// Makes it the picture of `pixels`: rows without gaps of blue, green, red and a byte that means nothing.
    /// Whether there are as many as it has; else it stays as it is.
    #[must_use]
    pub fn fill(&mut self, pixels: &[u8]) -> bool {
        let (pixels, rest) = pixels.as_chunks::<4>();
        if pixels.len() != self.width * self.height || !rest.is_empty() {
            return false;
        }
        let (y, colours) = self.bytes.split_at_mut(self.width * self.height);
        let (u, v) = colours.split_at_mut(colours.len() / 2);
        let rows = pixels
            .chunks_exact(self.width * 2)
            .zip(y.chunks_exact_mut(self.width * 2));
        let colours = u
            .chunks_exact_mut(self.width / 2)
            .zip(v.chunks_exact_mut(self.width / 2));
        for ((pixels, y), (u, v)) in rows.zip(colours) {
            brightness(pixels, y);
            let (above, below) = pixels.split_at(self.width);
            colour(above, below, u, v);
        }
        true
    }
}

// The compiler makes vector instructions of both loops, as each pixel is one number in them: two milliseconds
// for a picture of 1920 by 1080.

fn brightness(pixels: &[Pixel], y: &mut [u8]) {
    for (pixel, y) in pixels.iter().zip(y) {
        let pixel = u32::from_le_bytes(*pixel);
        let [blue, green, red] = [0, 8, 16].map(|shift| (pixel >> shift) & 0xff);
        *y = (((25 * blue + 129 * green + 66 * red + 128) >> 8) + 16) as u8;
    }
}

/// Of the mean of each four pixels.
fn colour(above: &[Pixel], below: &[Pixel], u: &mut [u8], v: &mut [u8]) {
    let above = above.as_chunks::<2>().0.iter();
    let below = below.as_chunks::<2>().0.iter();
    for (([a, b], [c, d]), (u, v)) in above.zip(below).zip(u.iter_mut().zip(v)) {
        let pixels = [a, b, c, d].map(|pixel| u32::from_le_bytes(*pixel));
        let sum = |mask: u32, shift: u32| {
            let parts = pixels.map(|pixel| (pixel >> shift) & mask);
            parts[0] + parts[1] + parts[2] + parts[3]
        };
        // Blue and red at once, as there is room between them.
        let (both, green) = (sum(0x00ff_00ff, 0), sum(0xff, 8).cast_signed());
        let blue = (both & 0xffff).cast_signed();
        let red = (both >> 16).cast_signed();
        // From -112 to 112.
        *u = (((112 * blue - 74 * green - 38 * red + 512) >> 10) + 128) as u8;
        *v = (((112 * red - 94 * green - 18 * blue + 512) >> 10) + 128) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ITU-R BT.601, 2.5.1, of parts from 0 to 255.
    fn reference([blue, green, red]: [f64; 3]) -> [f64; 3] {
        let y = 0.299 * red + 0.587 * green + 0.114 * blue;
        [
            16.0 + y * 219.0 / 255.0,
            128.0 + (blue - y) / 1.772 * 224.0 / 255.0,
            128.0 + (red - y) / 1.402 * 224.0 / 255.0,
        ]
    }

    #[test]
    fn colours_are_those_of_the_standard() {
        let (width, height) = (66, 34);
        let mut noise = 1_u32;
        let mut next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // The extremes often.
            match noise >> 30 {
                0 => 0,
                1 => 255,
                _ => (noise >> 16) as u8,
            }
        };
        let pixels: Vec<u8> = (0..width * height * 4).map(|_| next()).collect();
        let mut picture = I420::new(width, height).expect("it is possible");
        assert!(picture.fill(&pixels));

        let part = |x: usize, y: usize, part: usize| f64::from(pixels[(y * 66 + x) * 4 + part]);
        let [luma, u, v] = picture.planes();
        for (at, &found) in luma.iter().enumerate() {
            let wanted = reference([0, 1, 2].map(|of| part(at % 66, at / 66, of)))[0];
            assert!((f64::from(found) - wanted).abs() <= 1.0, "{found} {wanted}");
        }
        for (at, (&found_u, &found_v)) in u.iter().zip(v).enumerate() {
            let (x, y) = (at % 33 * 2, at / 33 * 2);
            let places = [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)];
            let mean = |of| places.iter().map(|&(x, y)| part(x, y, of)).sum::<f64>() / 4.0;
            let [_, wanted_u, wanted_v] = reference([0, 1, 2].map(mean));
            for (found, wanted) in [(found_u, wanted_u), (found_v, wanted_v)] {
                assert!((f64::from(found) - wanted).abs() <= 1.5, "{found} {wanted}");
            }
        }
    }

    #[test]
    fn odd_sides_and_another_number_of_pixels_are_refused() {
        for (width, height) in [(0, 2), (2, 0), (3, 2), (2, 5), (16_386, 2)] {
            assert!(I420::new(width, height).is_none());
        }
        let mut picture = I420::new(2, 2).expect("it is possible");
        let black = picture.clone();
        assert!(!picture.fill(&[0; 12]) && !picture.fill(&[0; 17]));
        assert_eq!(picture, black);
        assert!(picture.fill(&[0; 16]));
        assert_eq!(picture, black);
    }
}
