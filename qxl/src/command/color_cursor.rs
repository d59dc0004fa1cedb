//! Cursors in 4 to 32 bits of colour and a mask, as drivers of Windows XP and 7 send them
//! (`SPICE_CURSOR_TYPE_COLOR4` to `_COLOR32`), made into what every client can show: premultiplied
//! ARGB.
//!
//! The data is rows of pixels, then the palette of those that have one (32-bit xRGB), then rows of a
//! mask, a bit a pixel with the leftmost highest. A pixel whose bit is 0 is shown. One whose bit is 1
//! is combined with the screen by exclusive or: black leaves it alone, and any other colour, which no
//! alpha can express, becomes a checkerboard that can be seen on every ground.

/// How a colour cursor's pixels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Half bytes, the left one high, that are places in a palette.
    Four,
    /// Bytes that are places in a palette.
    Eight,
    /// 5 bits each of red, green and blue, and one that is unused.
    Sixteen,
    /// Blue, green, red.
    TwentyFour,
    /// Blue, green, red, and a byte that is unused.
    ThirtyTwo,
}

impl Depth {
    /// By `SpiceCursorType`; `None` if the type is another's.
    pub(crate) const fn of(kind: u16) -> Option<Self> {
        Some(match kind {
            2 => Self::Four,
            3 => Self::Eight,
            4 => Self::Sixteen,
            5 => Self::TwentyFour,
            6 => Self::ThirtyTwo,
            _ => return None,
        })
    }

    /// Bytes of a row of pixels.
    const fn row(self, columns: usize) -> usize {
        match self {
            Self::Four => columns.div_ceil(2),
            Self::Eight => columns,
            Self::Sixteen => columns * 2,
            Self::TwentyFour => columns * 3,
            Self::ThirtyTwo => columns * 4,
        }
    }

    /// Bytes of the palette.
    const fn palette(self) -> usize {
        match self {
            Self::Four => 16 * 4,
            Self::Eight => 256 * 4,
            _ => 0,
        }
    }

    /// Bytes of a cursor of this size.
    pub(crate) const fn len(self, columns: usize, rows: usize) -> usize {
        (self.row(columns) + columns.div_ceil(8)) * rows + self.palette()
    }

    /// Blue, green and red of a pixel of `row`.
    fn color(self, row: &[u8], palette: &[u8], x: usize) -> [u8; 3] {
        let byte = |at: usize| row.get(at).copied().unwrap_or(0);
        let entry = |index: u8| {
            let at = usize::from(index) * 4;
            let entry = palette.get(at..at + 3).unwrap_or(&[0; 3]);
            [entry[0], entry[1], entry[2]]
        };
        match self {
            Self::Four if x.is_multiple_of(2) => entry(byte(x / 2) >> 4),
            Self::Four => entry(byte(x / 2) & 15),
            Self::Eight => entry(byte(x)),
            Self::Sixteen => {
                let pixel = u16::from_le_bytes([byte(x * 2), byte(x * 2 + 1)]);
                [0, 5, 10].map(|shift| {
                    let five = (pixel >> shift & 31) as u8;
                    five << 3 | five >> 2
                })
            }
            Self::TwentyFour => [0, 1, 2].map(|part| byte(x * 3 + part)),
            Self::ThirtyTwo => [0, 1, 2].map(|part| byte(x * 4 + part)),
        }
    }

    /// The cursor in premultiplied ARGB, rows without gaps; `data` has [`len`](Self::len) bytes.
    pub(crate) fn to_alpha(self, columns: usize, rows: usize, data: &[u8]) -> Vec<u8> {
        let (pixels, rest) = data
            .split_at_checked(self.row(columns) * rows)
            .unwrap_or_default();
        let (palette, mask) = rest.split_at_checked(self.palette()).unwrap_or_default();
        let mut alpha = Vec::with_capacity(columns * rows * 4);
        let lines = pixels.chunks_exact(self.row(columns).max(1));
        let masks = mask.chunks_exact(columns.div_ceil(8).max(1));
        for (y, (row, mask)) in lines.zip(masks).enumerate() {
            for x in 0..columns {
                let [blue, green, red] = self.color(row, palette, x);
                let combined = mask[x / 8] >> (7 - x % 8) & 1 != 0;
                alpha.extend(match (combined, [blue, green, red]) {
                    (false, _) => [blue, green, red, 255],
                    (true, [0, 0, 0]) => [0; 4],
                    (true, _) if (x + y).is_multiple_of(2) => [255; 4],
                    (true, _) => [0, 0, 0, 255],
                });
            }
        }
        alpha
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 4] = [0, 0, 255, 255];
    const GREEN: [u8; 4] = [0, 255, 0, 255];

    /// A red and a green pixel, the third transparent, in a row that needs a gap in 4 bits.
    fn three(depth: Depth) -> Vec<u8> {
        let mut palette = vec![0; depth.palette()];
        if let Some(colors) = palette.get_mut(4..12) {
            colors.copy_from_slice(&[0, 0, 255, 0, 0, 255, 0, 0]);
        }
        let pixels: &[u8] = match depth {
            Depth::Four => &[0x12, 0x0f],
            Depth::Eight => &[1, 2, 0],
            Depth::Sixteen => &[0x00, 0x7c, 0xe0, 0x03, 0, 0],
            Depth::TwentyFour => &[0, 0, 255, 0, 255, 0, 0, 0, 0],
            Depth::ThirtyTwo => &[0, 0, 255, 9, 0, 255, 0, 9, 0, 0, 0, 9],
        };
        [pixels, &palette, &[0b0010_0000]].concat()
    }

    #[test]
    fn every_depth_becomes_the_same_cursor() {
        for kind in 2..=6 {
            let depth = Depth::of(kind).expect("it is a colour cursor's");
            let data = three(depth);

            let alpha = depth.to_alpha(3, 1, &data);

            assert_eq!(data.len(), depth.len(3, 1), "{depth:?}");
            assert_eq!(alpha, [RED, GREEN, [0; 4]].concat(), "{depth:?}");
        }
    }

    #[test]
    fn what_inverts_the_screen_is_a_checkerboard() {
        let data = [&[255; 32][..], &[0xff, 0xff]].concat();

        let alpha = Depth::ThirtyTwo.to_alpha(4, 2, &data);

        let (white, black) = ([255; 4], [0, 0, 0, 255]);
        let rows = [white, black, white, black, black, white, black, white];
        assert_eq!(alpha, rows.concat());
    }
}
