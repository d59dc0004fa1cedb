//! The cells of a text screen as text.

use crate::memory::Memory;
use crate::vga::TextMode;

/// The characters of code page 437 below the space, as the fonts of PCs show them.
const LOW: &str = "\u{0}☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";
/// The characters of code page 437 from 0x7f.
const HIGH: &str = "⌂\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// The character that code page 437 has at `byte`; nothing to see is a space.
fn character(byte: u8) -> char {
    match byte {
        0 | 0xff => ' ',
        0x01..=0x1f => LOW.chars().nth(usize::from(byte)).unwrap_or(' '),
        0x20..=0x7e => char::from(byte),
        _ => HIGH.chars().nth(usize::from(byte - 0x7f)).unwrap_or(' '),
    }
}

/// A text screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextScreen {
    /// Cells across.
    pub columns: u32,
    /// The rows from the top, each without blanks at its end.
    pub rows: Vec<String>,
}

pub(crate) fn screen(mode: &TextMode, memory: &Memory) -> TextScreen {
    let row = |row: u32| {
        let start = mode.start + u64::from(row) * mode.stride;
        let cell = |column: u32| {
            let at = (start + u64::from(column) * 4) & 0x3_ffff;
            character(memory.byte(at))
        };
        let line: String = (0..mode.columns).map(cell).collect();
        line.trim_end().to_owned()
    };
    TextScreen {
        columns: mode.columns,
        rows: (0..mode.rows).map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let pick = [1, 0x1f, b'A', 0x7f, 0x80, 0xb0, 0xc4, 0xdb, 0xe1, 0xfe].map(character);

        assert_eq!(pick, ['☺', '▼', 'A', '⌂', 'Ç', '░', '─', '█', 'ß', '■']);
        assert_eq!(LOW.chars().count(), 32);
        assert_eq!(HIGH.chars().count(), 129);
    }
}
