//! What the registers say is to be seen, in terms of pictures.

use caraway_spice::Size;

use super::registers::Registers;
use super::vbe::{LinearMode, Vbe};

/// Bytes of a font: 256 characters of 32 rows.
pub(crate) const FONT: u64 = 256 * 32;

/// Text: cells of a character and its colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextMode {
    /// Cells across.
    pub(crate) columns: u32,
    /// Cells down.
    pub(crate) rows: u32,
    /// Where the first cell is in VGA memory.
    pub(crate) start: u64,
    /// Bytes of VGA memory from row to row.
    pub(crate) stride: u64,
    /// Pixels across a cell, before doubling: 8 or 9.
    pub(super) cell_width: u32,
    /// Pixels down a cell.
    pub(super) cell_height: u32,
    /// Every pixel is two wide.
    pub(super) doubled: bool,
    /// The ninth column of line graphics repeats the eighth.
    pub(super) line_graphics: bool,
    /// The attribute's top bit is blinking, which we don't show, and not a brighter background.
    pub(super) blink: bool,
    /// Where the fonts for attribute bit 3 clear and set are in VGA memory (plane 2).
    pub(super) fonts: [u64; 2],
    /// Number of the cell that the cursor is on, and the cursor's first and last row in it.
    pub(super) cursor: Option<(u64, u32, u32)>,
    pub(super) palette: [u32; 16],
}

/// How a byte or a group of four planes becomes pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// One bit of each plane.
    Planar,
    /// Two bits of a plane, for CGA.
    Cga,
    /// A byte a pixel.
    Byte,
}

/// Graphics of VGA and its ancestors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GraphicsMode {
    pub(super) depth: Depth,
    /// Pixels across and down the screen, with every doubling.
    pub(super) size: Size,
    /// Every pixel is two wide.
    pub(super) doubled: bool,
    /// Rows of the screen that show the same row of memory.
    pub(super) repeat: u32,
    /// Consecutive row scans that share a start in memory.
    pub(super) scans: u32,
    /// The bit of the address that the row scan's lowest bit replaces, for CGA's interleaving.
    pub(super) interleave: Option<u32>,
    pub(super) start: u64,
    pub(super) stride: u64,
    /// Row of the screen after which the picture goes on from the start of memory.
    pub(super) split: u32,
    /// Which planes count.
    pub(super) planes: u8,
    pub(super) colors: Vec<u32>,
}

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Picture {
    /// Nothing: the screen is off, or no firmware has run yet.
    Blank,
    Text(TextMode),
    Graphics(GraphicsMode),
    /// A linear frame buffer, and the colours of its bytes if they have some.
    Linear(LinearMode, Vec<u32>),
}

impl Picture {
    pub(super) fn of(registers: &Registers, vbe: &Vbe) -> Self {
        if let Some(mode) = vbe.mode() {
            let colors = match mode.bpp {
                4 => registers.palette16().to_vec(),
                8 => registers.palette256(),
                _ => Vec::new(),
            };
            return Self::Linear(mode, colors);
        }
        if !registers.is_video_on() || registers.crtc(1) == 0 {
            return Self::Blank;
        }
        if registers.graphics(6) & 1 == 0 {
            Self::Text(TextMode::of(registers))
        } else {
            Self::Graphics(GraphicsMode::of(registers))
        }
    }

    /// Its size in pixels; `None` if it has none of its own.
    pub(crate) fn size(&self) -> Option<Size> {
        match self {
            Self::Blank => None,
            Self::Text(mode) => Some(mode.size()),
            Self::Graphics(mode) => Some(mode.size),
            Self::Linear(mode, _) => Some(Size {
                width: mode.width,
                height: mode.height,
            }),
        }
    }
}

/// Rows of the screen.
fn lines(registers: &Registers) -> u32 {
    let overflow = u32::from(registers.crtc(7));
    let last = u32::from(registers.crtc(0x12)) | (overflow & 2) << 7 | (overflow & 0x40) << 3;
    last + 1
}

/// Two registers as one number, the first being the high one.
fn pair(registers: &Registers, high: u8) -> u64 {
    u64::from(registers.crtc(high)) << 8 | u64::from(registers.crtc(high + 1))
}

impl TextMode {
    /// The text mode that the registers describe, whether the screen is on or not; `None` in
    /// graphics modes and before any firmware ran.
    pub(super) fn current(registers: &Registers, vbe: &Vbe) -> Option<Self> {
        let is_text = !vbe.is_enabled() && registers.graphics(6) & 1 == 0;
        (is_text && registers.crtc(1) != 0).then(|| Self::of(registers))
    }

    fn of(registers: &Registers) -> Self {
        let mode = registers.attribute(0x10);
        let cell_height = u32::from(registers.crtc(9) & 0x1f) + 1;
        let map = u64::from(registers.sequencer(3));
        let font = |high: u64, low: u64| 4 * FONT * (high & 1 | low << 1 & 6);
        let start = pair(registers, 0x0c);
        let cursor = pair(registers, 0x0e).checked_sub(start);
        let rows = u32::from(registers.crtc(0x0a) & 0x1f)..=u32::from(registers.crtc(0x0b) & 0x1f);
        let shown = registers.crtc(0x0a) & 0x20 == 0 && !rows.is_empty();
        Self {
            columns: u32::from(registers.crtc(1)) + 1,
            rows: (lines(registers) / cell_height).max(1),
            start: start * 4,
            stride: u64::from(registers.crtc(0x13)) * 8,
            cell_width: if registers.sequencer(1) & 1 == 0 {
                9
            } else {
                8
            },
            cell_height,
            doubled: registers.sequencer(1) & 8 != 0,
            line_graphics: mode & 4 != 0,
            blink: mode & 8 != 0,
            fonts: [font(map >> 4, map), font(map >> 5, map >> 2)],
            cursor: cursor
                .filter(|_| shown)
                .map(|cell| (cell, *rows.start(), *rows.end())),
            palette: registers.palette16(),
        }
    }

    /// Pixels across a cell on the screen.
    pub(super) fn cell_pixels(&self) -> u32 {
        self.cell_width << u32::from(self.doubled)
    }

    pub(super) fn size(&self) -> Size {
        Size {
            width: self.columns * self.cell_pixels(),
            height: self.rows * self.cell_height,
        }
    }
}

impl GraphicsMode {
    fn of(registers: &Registers) -> Self {
        let depth = match registers.graphics(5) >> 5 & 3 {
            0 => Depth::Planar,
            1 => Depth::Cga,
            _ => Depth::Byte,
        };
        let scan = registers.crtc(9);
        let mode = registers.crtc(0x17);
        let doubled = depth == Depth::Byte || registers.sequencer(1) & 8 != 0;
        let slow = registers.sequencer(1) & 8 != 0;
        let dots = (u32::from(registers.crtc(1)) + 1) * 8;
        let split = u32::from(registers.crtc(0x18))
            | u32::from(registers.crtc(7) & 0x10) << 4
            | u32::from(scan & 0x40) << 3;
        Self {
            depth,
            size: Size {
                width: dots << u32::from(slow),
                height: lines(registers),
            },
            doubled,
            repeat: 1 + u32::from(scan >> 7),
            scans: u32::from(scan & 0x1f) + 1,
            interleave: (mode & 1 == 0).then_some(14 + u32::from(mode >> 6 & 1)),
            start: pair(registers, 0x0c) * 4,
            stride: u64::from(registers.crtc(0x13)) * 8,
            split,
            planes: registers.attribute(0x12) & 0xf,
            colors: if depth == Depth::Byte {
                registers.palette256()
            } else {
                registers.palette16().to_vec()
            },
        }
    }
}
