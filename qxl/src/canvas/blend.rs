//! Arithmetic on pixels of 8 bits each of premultiplied alpha, red, green and blue.

/// Two colours of a pixel, one in the low half and one in the high half of a word.
const HALVES: u32 = 0x00ff_00ff;

/// Every colour of `pixel` times `factor` of 255, rounded.
pub(super) const fn times(pixel: u32, factor: u32) -> u32 {
    const fn halves(pair: u32, factor: u32) -> u32 {
        let product = pair * factor + 0x0080_0080;
        (product + (product >> 8 & HALVES)) >> 8 & HALVES
    }
    halves(pixel & HALVES, factor) | halves(pixel >> 8 & HALVES, factor) << 8
}

/// Every colour of `pixel` times the same colour of `factors`, of 255, rounded.
pub(super) fn times_each(pixel: u32, factors: u32) -> u32 {
    let each = |shift: u32| times(pixel >> shift & 0xff, factors >> shift & 0xff) << shift;
    each(0) | each(8) | each(16) | each(24)
}

/// The sum of every colour, at most 255.
pub(super) const fn plus(a: u32, b: u32) -> u32 {
    const fn halves(sum: u32) -> u32 {
        // A carry makes all bits of its colour ones.
        (sum | (0x0100_0100 - (sum >> 8 & HALVES))) & HALVES
    }
    halves((a & HALVES) + (b & HALVES)) | halves((a >> 8 & HALVES) + (b >> 8 & HALVES)) << 8
}

/// What is seen of `over` on top of `under`.
pub(super) const fn over(over: u32, under: u32) -> u32 {
    plus(over, times(under, 255 - (over >> 24)))
}

/// The weighted mean of four neighbours, their weights given by how far (of 128) right and down of
/// the first the place is; rounded down.
pub(super) fn between(
    [top_left, top_right, bottom_left, bottom_right]: [u32; 4],
    right: u32,
    down: u32,
) -> u32 {
    let each = |shift: u32| {
        let color = |pixel: u32| pixel >> shift & 0xff;
        let top = color(top_left) * (128 - right) + color(top_right) * right;
        let bottom = color(bottom_left) * (128 - right) + color(bottom_right) * right;
        (top * (128 - down) + bottom * down) >> 14 << shift
    };
    each(0) | each(8) | each(16) | each(24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_rounded_to_the_nearest() {
        for (a, b) in (0..=255).flat_map(|a| (0..=255).map(move |b| (a, b))) {
            let nearest = (a * b * 2 + 255) / 510;

            assert_eq!(times(a << 16 | a, b), nearest << 16 | nearest);
            assert_eq!(
                times_each(a << 24 | a, b << 24 | b),
                nearest << 24 | nearest
            );
        }
    }

    #[test]
    fn sums_stay_in_their_colour() {
        assert_eq!(plus(0x80ff_0170, 0x8001_0280), 0xffff_03f0);
    }

    #[test]
    fn what_is_between_four_pixels_is_their_mean() {
        let corners = [0x0000_0000, 0x0000_0080, 0x0080_0000, 0xff00_0000];

        assert_eq!(between(corners, 0, 0), 0);
        assert_eq!(between(corners, 64, 64), 0x3f20_0020);
        assert_eq!(between(corners, 127, 0), 0x7f);
    }
}
