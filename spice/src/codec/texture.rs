//! What kind of picture pixels are, as far as it matters for the choice of a codec.

use super::Pixels;

/// Rows and columns between two samples: enough to judge, and a hundredth of the work of encoding.
const GRID: usize = 11;
/// A difference in one channel above which two neighbours are two things: text and its ground.
const CONTRAST: u8 = 60;

/// Whether neighbours differ mostly a little, as in photographs and gradients, so that predicting a
/// pixel from its neighbours pays more than looking for repetitions.
pub(crate) fn is_gradual(pixels: &Pixels) -> bool {
    let width = pixels.width as usize;
    let rows = pixels.data.chunks_exact(width);
    let below = rows.clone().skip(1);
    // Hundredths: equal neighbours speak for repetitions, and contrasts still more.
    let mut score = 0i64;
    let mut pairs = 0i64;
    for (row, below) in rows.zip(below).step_by(GRID) {
        for x in (0..width - 1).step_by(GRID) {
            for neighbour in [row[x + 1], below[x]] {
                pairs += 1;
                score += match difference(row[x], neighbour) {
                    0 => 50,
                    1..=CONTRAST => -25,
                    _ => 100,
                };
            }
        }
    }
    score < -3 * pairs
}

/// The largest difference of a channel.
fn difference(a: u32, b: u32) -> u8 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    std::iter::zip(a, b)
        .map(|(a, b)| a.abs_diff(b))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(pixel: impl Fn(u32, u32) -> u32) -> Pixels {
        let bytes: Vec<u8> = (0..100 * 100)
            .flat_map(|i| pixel(i % 100, i / 100).to_le_bytes())
            .collect();
        Pixels::new(100, 100, &bytes).expect("the size is right")
    }

    #[test]
    fn a_gradient_is_gradual() {
        assert!(is_gradual(&picture(|x, y| x * 0x0202 + y * 0x0001_0000)));
    }

    #[test]
    fn flat_ground_with_letters_is_not() {
        assert!(!is_gradual(&picture(|x, y| if x % 7 < 2 && y % 9 < 6 {
            0x00ff_ffff
        } else {
            0
        })));
    }

    #[test]
    fn noise_is_not() {
        assert!(!is_gradual(&picture(|x, y| (x * 7919 + y * 104_729)
            .wrapping_mul(2_654_435_761)
            >> 8)));
    }

    #[test]
    fn a_single_row_or_column_is_not() {
        for (width, height) in [(1, 50), (50, 1), (1, 1)] {
            let bytes = vec![7; (width * height * 4) as usize];
            assert!(!is_gradual(
                &Pixels::new(width, height, &bytes).expect("the size is right")
            ));
        }
    }
}
