//! Pixels of fewer bits.

/// The 32-bit pixel of a 15-bit one: 5 bits each, blue lowest.
pub(crate) const fn from_555(pixel: u16) -> u32 {
    let pixel = pixel as u32;
    rgb(five(pixel >> 10), five(pixel >> 5), five(pixel))
}

/// The 32-bit pixel of a 16-bit one: 5 bits of red, 6 of green, 5 of blue, blue lowest.
pub(crate) const fn from_565(pixel: u16) -> u32 {
    let pixel = pixel as u32;
    let green = pixel >> 5 & 63;
    rgb(five(pixel >> 11), green << 2 | green >> 4, five(pixel))
}

/// The 15-bit pixel nearest to a 32-bit one.
pub(crate) const fn to_555(pixel: u32) -> u16 {
    (pixel >> 9 & 31 << 10 | pixel >> 6 & 31 << 5 | pixel >> 3 & 31) as u16
}

/// The 16-bit pixel nearest to a 32-bit one.
pub(crate) const fn to_565(pixel: u32) -> u16 {
    (pixel >> 8 & 31 << 11 | pixel >> 5 & 63 << 5 | pixel >> 3 & 31) as u16
}

/// The 8 bits of a colour whose lowest 5 are given.
const fn five(color: u32) -> u32 {
    let color = color & 31;
    color << 3 | color >> 2
}

/// The pixel of 8 bits of each colour.
pub(crate) const fn rgb(red: u32, green: u32, blue: u32) -> u32 {
    red << 16 | green << 8 | blue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_fewer_bits_survive_the_round_trip() {
        for pixel in 0..=u16::MAX {
            assert_eq!(to_565(from_565(pixel)), pixel);
            assert_eq!(to_555(from_555(pixel)), pixel & 0x7fff);
        }
        assert_eq!(from_565(0xffff), 0xff_ffff);
        assert_eq!(from_555(0x7c00), 0xff_0000);
    }
}
