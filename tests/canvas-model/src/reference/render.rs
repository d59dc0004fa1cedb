//! The operators of X's Render extension.

use super::color::{Color, product};

/// Render's operators with the factors as fractions; `form` 0 is plain, 1 disjoint, 2 conjoint.
pub(super) fn render(operator: u32, source: Color, mask: Color, dest: Color) -> Color {
    std::array::from_fn(|i| {
        if operator < 13 {
            let alpha = product(mask[i], source[0]);
            let (s, d) = (product(source[i], mask[i]), dest[i]);
            let (not_source, not_dest) = (255 - alpha, 255 - dest[0]);
            let (fs, fd) = match operator {
                0 => (0, 0),
                1 => (255, 0),
                2 => (0, 255),
                3 => (255, not_source),
                4 => (not_dest, 255),
                5 => (dest[0], 0),
                6 => (0, alpha),
                7 => (not_dest, 0),
                8 => (0, not_source),
                9 => (dest[0], not_source),
                10 => (not_dest, alpha),
                11 => (not_dest, not_source),
                _ => (255, 255),
            };
            return (product(s, fs) + product(d, fd)).min(255);
        }
        let unit = |value: u32| value as f32 * (1.0_f32 / 255.0);
        let (sa, da) = (unit(source[0]) * unit(mask[i]), unit(dest[0]));
        let (s, d) = (unit(source[i]) * unit(mask[i]), unit(dest[i]));
        let cut = |value: f32| value.clamp(0.0, 1.0);
        let ratio = |a: f32, b: f32, none: f32| if b == 0.0 { none } else { cut(a / b) };
        let rest = |a: f32, b: f32| if b == 0.0 { 0.0 } else { cut(1.0 - a / b) };
        let disjoint = operator < 0x20;
        let source_out = if disjoint {
            ratio(1.0 - da, sa, 1.0)
        } else {
            rest(da, sa)
        };
        let dest_out = if disjoint {
            ratio(1.0 - sa, da, 1.0)
        } else {
            rest(sa, da)
        };
        let source_in = if disjoint {
            rest(1.0 - da, sa)
        } else {
            ratio(da, sa, 1.0)
        };
        let dest_in = if disjoint {
            rest(1.0 - sa, da)
        } else {
            ratio(sa, da, 1.0)
        };
        let (fs, fd) = match operator {
            13 => (ratio(1.0 - da, sa, 1.0), 1.0),
            _ => match operator % 16 {
                0 => (0.0, 0.0),
                1 => (1.0, 0.0),
                2 => (0.0, 1.0),
                3 => (1.0, dest_out),
                4 => (source_out, 1.0),
                5 => (source_in, 0.0),
                6 => (0.0, dest_in),
                7 => (source_out, 0.0),
                8 => (0.0, dest_out),
                9 => (source_in, dest_out),
                10 => (source_out, dest_in),
                _ => (source_out, dest_out),
            },
        };
        let value = (cut(s * fs + d * fd) * 256.0) as u32;
        value - value / 256
    })
}
