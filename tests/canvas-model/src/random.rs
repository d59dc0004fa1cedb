//! What random commands are made of.

use caraway_spice::Rect;

use crate::surface::SURFACES;

/// A draw command.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) surface: u32,
    pub(crate) area: Rect,
    pub(crate) clip: Vec<Rect>,
    pub(crate) act: Act,
}

#[derive(Debug)]
pub(crate) enum Act {
    Fill(Brush, u16, Option<Mask>),
    Opaque(Source, Brush, u16, Option<Mask>),
    Copy(Source, u16, Option<Mask>),
    CopyBits(i32, i32),
    Blend(Source, u16, Option<Mask>),
    Blackness(Option<Mask>),
    Whiteness(Option<Mask>),
    Invers(Option<Mask>),
    Rop3(Source, Brush, u8, Option<Mask>),
    Stroke(Stroke),
    Text(Text),
    Transparent(Source, u32),
    AlphaBlend(Source, u8, u16),
    Composite(Composite),
}

#[derive(Debug, Clone)]
pub(crate) enum Picture {
    Bitmap(Bitmap),
    Surface(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Bitmap {
    pub(crate) format: u8,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) top_down: bool,
    pub(crate) gap: u32,
    pub(crate) chunk: Option<usize>,
    pub(crate) high_bits: bool,
    /// By QUIC, if that makes it shorter.
    pub(crate) packed: bool,
    pub(crate) palette: Vec<u32>,
    /// What is stored for each pixel, in rows from the top.
    pub(crate) numbers: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) picture: Picture,
    pub(crate) area: Rect,
    pub(crate) nearest: bool,
}

#[derive(Debug)]
pub(crate) enum Brush {
    None,
    Solid(u32),
    Pattern(Picture, i32, i32),
}

#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) picture: Picture,
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) inverted: bool,
}

#[derive(Debug)]
pub(crate) struct Stroke {
    /// Points in sixteenths of a pixel.
    pub(crate) points: Vec<(i32, i32)>,
    pub(crate) closed: bool,
    pub(crate) dashes: Vec<u8>,
    pub(crate) brush: Brush,
    pub(crate) rop: u16,
}

#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) bits: u8,
    pub(crate) glyphs: Vec<Glyph>,
    pub(crate) back: Option<Rect>,
    pub(crate) brush: Brush,
    pub(crate) back_brush: Brush,
}

#[derive(Debug)]
pub(crate) struct Glyph {
    pub(crate) x: i32,
    pub(crate) y: i32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// How much is covered, in the numbers that are stored, in rows from the top.
    pub(crate) numbers: Vec<u32>,
}

#[derive(Debug)]
pub(crate) struct Composite {
    pub(crate) operator: u32,
    pub(crate) source: Operand,
    pub(crate) mask: Option<Operand>,
    pub(crate) component_alpha: bool,
    pub(crate) source_opaque: bool,
    pub(crate) dest_opaque: bool,
}

#[derive(Debug)]
pub(crate) struct Operand {
    pub(crate) picture: Picture,
    pub(crate) transform: Option<[[i32; 3]; 2]>,
    pub(crate) bilinear: bool,
    pub(crate) repeat: u32,
    pub(crate) x: i16,
    pub(crate) y: i16,
}

/// Numbers that depend on a seed only (xorshift64*).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.word() % end
    }

    fn within(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as u32) as i32
    }

    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// A pixel, often one with colours at their limits.
    fn pixel(&mut self) -> u32 {
        match self.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => 0xff00_0000,
            3 => 0xff00_0000 | self.word(),
            _ => self.word(),
        }
    }

    fn rect(&mut self, width: u32, height: u32) -> Rect {
        let (left, top) = (
            self.within(-6, width as i32),
            self.within(-6, height as i32),
        );
        let (wide, high) = (self.within(0, 34), self.within(0, 30));
        Rect {
            left,
            top,
            right: left + wide,
            bottom: top + high,
        }
    }

    pub(crate) fn scene(&mut self) -> Scene {
        let number = if self.once_in(2) {
            0
        } else {
            self.below(SURFACES.len() as u32)
        };
        let surface = SURFACES[number as usize];
        let area = self.rect(surface.width, surface.height);
        let clips = if self.once_in(2) { 0 } else { self.below(5) };
        let clip = (0..clips)
            .map(|_| self.rect(surface.width, surface.height))
            .collect();
        Scene {
            surface: number,
            area,
            clip,
            act: self.act(area),
        }
    }

    fn act(&mut self, area: Rect) -> Act {
        match self.below(14) {
            0 => Act::Fill(self.brush(), self.rop(), self.mask()),
            1 => Act::Opaque(self.source(area), self.brush(), self.rop(), self.mask()),
            2 => Act::Copy(self.source(area), self.rop(), self.mask()),
            3 => Act::CopyBits(self.within(-9, 40), self.within(-9, 40)),
            4 => Act::Blend(self.source(area), self.rop(), self.mask()),
            5 => Act::Blackness(self.mask()),
            6 => Act::Whiteness(self.mask()),
            7 => Act::Invers(self.mask()),
            8 => {
                let code = self.word() as u8;
                Act::Rop3(self.source(area), self.brush(), code, self.mask())
            }
            9 => Act::Stroke(self.stroke(area)),
            10 => Act::Text(self.text(area)),
            11 => {
                let color = self.pixel();
                Act::Transparent(self.source(area), color)
            }
            12 => {
                let alpha = if self.once_in(3) {
                    255
                } else {
                    self.word() as u8
                };
                let flags = self.below(4) as u16;
                Act::AlphaBlend(self.source(area), alpha, flags)
            }
            _ => Act::Composite(self.composite()),
        }
    }

    fn rop(&mut self) -> u16 {
        let operation = if self.once_in(3) {
            3
        } else {
            3 + self.below(8)
        };
        let inversions = if self.once_in(2) { 0 } else { self.below(8) };
        let result = if self.once_in(4) { 1 << 10 } else { 0 };
        inversions as u16 | ((1 << operation) & 0x3f8) as u16 | result
    }

    fn brush(&mut self) -> Brush {
        match self.below(5) {
            0 => Brush::None,
            1 | 2 => Brush::Solid(self.pixel()),
            _ => Brush::Pattern(self.picture(), self.within(-20, 50), self.within(-20, 50)),
        }
    }

    fn mask(&mut self) -> Option<Mask> {
        if !self.once_in(3) {
            return None;
        }
        let picture = if self.once_in(3) {
            Picture::Surface(6)
        } else {
            let format = 1 + self.below(2) as u8;
            Picture::Bitmap(self.bitmap(format))
        };
        Some(Mask {
            picture,
            x: self.within(-5, 30),
            y: self.within(-5, 10),
            inverted: self.once_in(2),
        })
    }

    fn picture(&mut self) -> Picture {
        if self.once_in(3) {
            return Picture::Surface(self.below(SURFACES.len() as u32));
        }
        let format = 1 + self.below(10) as u8;
        Picture::Bitmap(self.bitmap(format))
    }

    fn bitmap(&mut self, format: u8) -> Bitmap {
        let (width, height) = (1 + self.below(40), 1 + self.below(24));
        let colors = match format {
            1 | 2 => 2,
            3 | 4 => 16,
            5 => 256,
            _ => 0,
        };
        let bits = [1, 1, 4, 4, 8, 16, 24, 32, 32, 8][usize::from(format) - 1];
        // The unused byte of a pixel is not packed.
        let packed = matches!(format, 7 | 8) && self.once_in(3);
        let (bits, repeats) = if packed {
            (24, 1 + self.below(90) as usize)
        } else {
            (bits, 1)
        };
        let mut numbers = Vec::new();
        while numbers.len() < (width * height) as usize {
            let number = self.pixel() & (u32::MAX >> (32 - bits));
            numbers.extend(std::iter::repeat_n(number, repeats));
        }
        numbers.truncate((width * height) as usize);
        Bitmap {
            format,
            width,
            height,
            top_down: self.once_in(2),
            gap: self.below(6),
            chunk: (!self.once_in(2)).then(|| 1 + self.below(200) as usize),
            high_bits: self.once_in(3),
            packed,
            palette: (0..colors).map(|_| self.pixel()).collect(),
            numbers,
        }
    }

    fn source(&mut self, to: Rect) -> Source {
        let (left, top) = (self.within(-4, 20), self.within(-4, 14));
        let (width, height) = if self.once_in(3) {
            (self.within(1, 30), self.within(1, 20))
        } else {
            (to.width() as i32, to.height() as i32)
        };
        Source {
            picture: self.picture(),
            area: Rect {
                left,
                top,
                right: left + width,
                bottom: top + height,
            },
            nearest: self.once_in(2),
        }
    }

    fn stroke(&mut self, area: Rect) -> Stroke {
        let dashes: Vec<u8> = if self.once_in(3) {
            (0..2 * (1 + self.below(2)))
                .map(|_| 1 + self.below(6) as u8)
                .collect()
        } else {
            Vec::new()
        };
        let count = if dashes.is_empty() {
            2 + self.below(5)
        } else {
            2
        };
        let mut points: Vec<(i32, i32)> = (0..count)
            .map(|_| {
                let x = self.within(area.left - 20, area.right + 20);
                let y = self.within(area.top - 20, area.bottom + 20);
                (x * 16 + self.within(0, 15), y * 16 + self.within(0, 15))
            })
            .collect();
        // The model has dashes along the axes only.
        if !dashes.is_empty() {
            if self.once_in(2) {
                points[1].0 = points[0].0;
            } else {
                points[1].1 = points[0].1;
            }
        }
        Stroke {
            points,
            closed: dashes.is_empty() && self.once_in(2),
            dashes,
            brush: self.brush(),
            rop: self.rop(),
        }
    }

    fn text(&mut self, area: Rect) -> Text {
        let bits = [1, 4, 8][self.below(3) as usize];
        let glyphs = (0..1 + self.below(4))
            .map(|_| {
                let (width, height) = (self.below(12), self.below(12));
                Glyph {
                    x: self.within(area.left - 8, area.right + 4),
                    y: self.within(area.top - 8, area.bottom + 4),
                    width,
                    height,
                    numbers: (0..width * height)
                        .map(|_| self.pixel() & ((1 << bits) - 1))
                        .collect(),
                }
            })
            .collect();
        Text {
            bits: bits as u8,
            glyphs,
            back: self
                .once_in(2)
                .then(|| self.rect(30, 30))
                .filter(|r| !r.is_empty()),
            brush: self.brush(),
            back_brush: self.brush(),
        }
    }

    fn composite(&mut self) -> Composite {
        let operator = match self.below(4) {
            0 => 13,
            1 => 0x10 + self.below(12) + 16 * self.below(2),
            _ => self.below(13),
        };
        Composite {
            operator,
            source: self.operand(),
            mask: self.once_in(2).then(|| self.operand()),
            component_alpha: self.once_in(2),
            source_opaque: self.once_in(3),
            dest_opaque: self.once_in(3),
        }
    }

    fn operand(&mut self) -> Operand {
        let transform = self.once_in(2).then(|| {
            let turned = self.once_in(2);
            let mut scale = |zero: bool| {
                if zero {
                    0
                } else {
                    self.within(-140_000, 140_000)
                }
            };
            let rows = [
                [scale(false), scale(!turned)],
                [scale(!turned), scale(false)],
            ];
            rows.map(|[a, b]| [a, b, self.within(-1_000_000, 1_000_000)])
        });
        Operand {
            picture: self.picture(),
            transform,
            bilinear: self.once_in(2),
            repeat: self.below(4),
            x: self.within(-20, 40) as i16,
            y: self.within(-20, 40) as i16,
        }
    }
}
