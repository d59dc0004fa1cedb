//! Putting a picture on a canvas, at as little work as telling what changed takes.

use zerocopy::IntoBytes;

use super::picture::{Depth, FONT, GraphicsMode, Picture, TextMode};
use super::vbe::LinearMode;
use crate::canvas::{Canvas, from_555, from_565};
use crate::memory::Memory;

/// Bytes of VGA memory that a picture of VGA's own modes can be in.
const VGA_MEMORY: u64 = 0x4_0000;

/// What a picture was drawn from, so that the next one is drawn only where that differs.
#[derive(Default)]
pub(crate) struct View {
    mode: Option<TextMode>,
    fonts: [Vec<u8>; 2],
    /// The cells as they were drawn; `None` if not yet.
    cells: Vec<Option<Cell>>,
    bytes: Vec<u8>,
    row: Vec<u32>,
}

impl View {
    /// Forgets everything: the canvas is a new one.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Brings `canvas`, which has the picture's size, up to date with `memory`.
    pub(crate) fn draw(&mut self, picture: &Picture, memory: &Memory, canvas: &mut Canvas) {
        match picture {
            Picture::Text(mode) => self.text(mode, memory, canvas),
            Picture::Graphics(mode) => self.graphics(mode, memory, canvas),
            Picture::Linear(mode, colors) => self.linear(mode, colors, memory, canvas),
            Picture::Blank => self.blank(canvas),
        }
        if !matches!(picture, Picture::Text(_)) {
            self.mode = None;
        }
    }

    fn blank(&mut self, canvas: &mut Canvas) {
        let size = canvas.size();
        self.row.clear();
        self.row.resize(size.width as usize, 0);
        for y in 0..size.height {
            canvas.put_row(0, y, &self.row);
        }
    }

    fn text(&mut self, mode: &TextMode, memory: &Memory, canvas: &mut Canvas) {
        let fonts = mode.fonts.map(|at| font(memory, at));
        let known = self.mode.as_ref().is_some_and(|old| same_look(old, mode));
        if self.fonts != fonts || !known {
            self.fonts = fonts;
            self.cells.clear();
        }
        self.mode = Some(mode.clone());
        let count = mode.columns as usize * mode.rows as usize;
        self.cells.resize(count, None);
        let mut bytes = vec![0; mode.columns as usize * 4];
        for row in 0..mode.rows {
            let at = mode.start + u64::from(row) * mode.stride;
            read_wrapped(memory, at, &mut bytes);
            for (column, bytes) in (0..mode.columns).zip(bytes.as_chunks::<4>().0) {
                let number = u64::from(row) * (mode.stride / 4) + u64::from(column);
                let cell = Cell {
                    character: bytes[0],
                    attribute: bytes[1],
                    cursor: mode.cursor.filter(|c| c.0 == number).map(|c| (c.1, c.2)),
                };
                let place = row as usize * mode.columns as usize + column as usize;
                let Some(old) = self.cells.get_mut(place) else {
                    continue;
                };
                if old.replace(cell) != Some(cell) {
                    self.cell(mode, cell, (column, row), canvas);
                }
            }
        }
    }

    fn cell(
        &mut self,
        mode: &TextMode,
        cell: Cell,
        (column, row): (u32, u32),
        canvas: &mut Canvas,
    ) {
        let color = |index: u8| mode.palette.get(usize::from(index)).copied().unwrap_or(0);
        let background = cell.attribute >> 4 & if mode.blink { 7 } else { 15 };
        let (front, back) = (color(cell.attribute & 15), color(background));
        let [plain, second] = &self.fonts;
        let font = if cell.attribute & 8 == 0 {
            plain
        } else {
            second
        };
        let repeats_last = mode.line_graphics && (0xc0..=0xdf).contains(&cell.character);
        for y in 0..mode.cell_height {
            let at = usize::from(cell.character) * 32 + y as usize;
            let mut bits = u32::from(font.get(at).copied().unwrap_or(0)) << 1;
            if repeats_last {
                bits |= bits >> 1 & 1;
            }
            if cell
                .cursor
                .is_some_and(|(first, last)| (first..=last).contains(&y))
            {
                bits = 0x1ff;
            }
            self.row.clear();
            for x in 0..mode.cell_width {
                let pixel = if bits << x & 0x100 == 0 { back } else { front };
                self.row.push(pixel);
                if mode.doubled {
                    self.row.push(pixel);
                }
            }
            let left = column * mode.cell_pixels();
            canvas.put_row(left, row * mode.cell_height + y, &self.row);
        }
    }

    fn graphics(&mut self, mode: &GraphicsMode, memory: &Memory, canvas: &mut Canvas) {
        let dots = mode.size.width as usize >> usize::from(mode.doubled);
        let bytes = match mode.depth {
            Depth::Byte => dots,
            // Four planes make eight pixels.
            Depth::Planar | Depth::Cga => dots.div_ceil(8) * 4,
        };
        self.bytes.resize(bytes, 0);
        for y in 0..mode.size.height {
            read_wrapped(memory, mode.row_at(y), &mut self.bytes);
            self.row.clear();
            mode.expand(&self.bytes, &mut self.row);
            if mode.doubled {
                self.row = self.row.iter().flat_map(|pixel| [*pixel; 2]).collect();
            }
            self.row.resize(mode.size.width as usize, 0);
            canvas.put_row(0, y, &self.row);
        }
    }

    fn linear(&mut self, mode: &LinearMode, colors: &[u32], memory: &Memory, canvas: &mut Canvas) {
        let width = mode.width as usize;
        self.row.clear();
        self.row.resize(width, 0);
        let bytes = match mode.bpp {
            8 => width,
            15 | 16 => width * 2,
            24 => width * 3,
            // 4 bits are planar, at a byte of each plane for eight pixels.
            4 => width / 2,
            _ => 0,
        };
        self.bytes.resize(bytes, 0);
        let color = |index: usize| colors.get(index).copied().unwrap_or(0);
        for y in 0..mode.height {
            let at = mode.start + u64::from(y) * mode.stride;
            let read = if mode.bpp == 32 {
                memory.read(at, self.row.as_mut_bytes())
            } else {
                memory.read(at, &mut self.bytes)
            };
            if read.is_err() {
                return;
            }
            let words = self
                .bytes
                .as_chunks()
                .0
                .iter()
                .map(|w| u16::from_le_bytes(*w));
            let row = self.row.iter_mut();
            match mode.bpp {
                4 => {
                    self.row.clear();
                    planar(&self.bytes, 0xf, colors, &mut self.row);
                    self.row.resize(width, 0);
                }
                8 => row
                    .zip(&self.bytes)
                    .for_each(|(p, b)| *p = color(usize::from(*b))),
                15 => row.zip(words).for_each(|(p, w)| *p = from_555(w)),
                16 => row.zip(words).for_each(|(p, w)| *p = from_565(w)),
                24 => row
                    .zip(self.bytes.as_chunks::<3>().0)
                    .for_each(|(p, [b, g, r])| *p = u32::from_le_bytes([*b, *g, *r, 0])),
                _ => {}
            }
            canvas.put_row(0, y, &self.row);
        }
    }
}

/// A cell of text as it was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    character: u8,
    attribute: u8,
    /// The cursor's first and last row, on the cell that has it.
    cursor: Option<(u32, u32)>,
}

/// Whether cells look the same in both modes, though they may be others.
fn same_look(old: &TextMode, new: &TextMode) -> bool {
    let of = |mode: &TextMode| TextMode {
        start: 0,
        cursor: None,
        ..mode.clone()
    };
    of(old) == of(new)
}

/// Copies the bytes from `at` in VGA memory, which begins again after its end.
fn read_wrapped(memory: &Memory, at: u64, bytes: &mut [u8]) {
    let mut at = at % VGA_MEMORY;
    let mut rest = bytes;
    while !rest.is_empty() {
        let here = rest.len().min((VGA_MEMORY - at) as usize);
        let (now, later) = rest.split_at_mut(here);
        // VGA memory is the start of a larger one.
        let _ = memory.read(at, now);
        at = 0;
        rest = later;
    }
}

/// The font at `at` in VGA memory: plane 2, 32 bytes a character.
fn font(memory: &Memory, at: u64) -> Vec<u8> {
    let mut planes = vec![0; FONT as usize * 4];
    read_wrapped(memory, at, &mut planes);
    planes.into_iter().skip(2).step_by(4).collect()
}

/// Appends the pixels of groups of four planes' bytes.
fn planar(bytes: &[u8], planes: u8, colors: &[u32], row: &mut Vec<u32>) {
    for group in bytes.as_chunks::<4>().0 {
        for bit in (0..8).rev() {
            let index = (0..4).fold(0, |index, plane| {
                let byte: u8 = group.get(plane).copied().unwrap_or(0);
                index | (byte >> bit & 1) << plane
            });
            let color = colors.get(usize::from(index & planes));
            row.push(color.copied().unwrap_or(0));
        }
    }
}

impl GraphicsMode {
    /// Where row `y` of the screen begins in VGA memory.
    fn row_at(&self, y: u32) -> u64 {
        let (start, y) = match y.checked_sub(self.split.saturating_add(1)) {
            Some(after) => (0, after),
            None => (self.start, y),
        };
        let scan = y / self.repeat;
        let row = u64::from(scan / self.scans);
        let at = start + row * self.stride;
        match self.interleave {
            Some(bit) => at & !(1 << bit) | u64::from((scan % self.scans) & 1) << bit,
            None => at,
        }
    }

    /// Appends the pixels of a row's bytes.
    fn expand(&self, bytes: &[u8], row: &mut Vec<u32>) {
        let color = |index: u8| self.colors.get(usize::from(index)).copied().unwrap_or(0);
        match self.depth {
            Depth::Byte => row.extend(bytes.iter().map(|byte| color(*byte))),
            Depth::Planar => planar(bytes, self.planes, &self.colors, row),
            Depth::Cga => {
                for group in bytes.as_chunks::<4>().0 {
                    // Even planes' pixels come first; the upper two bits are of planes 2 and 3.
                    for (low, high) in [(group[0], group[2]), (group[1], group[3])] {
                        for shift in [6, 4, 2, 0] {
                            let index = low >> shift & 3 | (high >> shift & 3) << 2;
                            row.push(color(index & self.planes));
                        }
                    }
                }
            }
        }
    }
}
