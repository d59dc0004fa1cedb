//! What an encoder and a decoder of QUIC have in common; the format is described by the encoder
//! (`codec/quic.rs`).

/// The longest code word of a residual.
const MAX_BITS: u32 = 26;
/// Pixels until a model is a step older.
const AGE_PIXELS: usize = 2048;
/// The sum of bits above which a bucket's sums are halved, by age.
const TRIGGERS: [u32; 7] = [110, 550, 900, 800, 550, 400, 350];
/// The binary logarithm of a run's order, by state.
pub const RUN_ORDER: [u8; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13,
    14, 15,
];
/// The low six bits of the numbers that decide when the model learns: no more are ever used.
#[rustfmt::skip]
const CHAOS: [u8; 256] = [
    2, 23, 19, 21, 7, 18, 40, 14, 12, 32, 47, 44, 36, 6, 18, 11, 4, 19, 42, 29, 16, 63, 57, 51,
    16, 3, 5, 14, 15, 30, 20, 9, 36, 45, 3, 57, 61, 0, 8, 5, 41, 14, 43, 27, 43, 59, 31, 35,
    39, 60, 42, 38, 13, 54, 62, 1, 26, 3, 11, 61, 52, 34, 7, 48, 4, 59, 22, 12, 22, 8, 50, 4,
    10, 6, 44, 8, 11, 46, 31, 51, 53, 17, 1, 43, 46, 60, 36, 54, 10, 27, 39, 44, 22, 41, 23, 2,
    44, 0, 40, 53, 40, 48, 16, 43, 32, 28, 33, 12, 20, 2, 56, 62, 55, 58, 18, 20, 13, 55, 38, 29,
    57, 19, 49, 33, 47, 63, 59, 0, 35, 61, 19, 25, 46, 38, 60, 4, 35, 1, 26, 40, 28, 10, 5, 14,
    25, 18, 48, 49, 20, 59, 62, 34, 46, 7, 33, 52, 34, 58, 9, 29, 8, 55, 62, 60, 37, 36, 37, 50,
    6, 3, 10, 28, 48, 24, 26, 61, 57, 30, 11, 54, 2, 6, 50, 47, 7, 17, 35, 53, 32, 12, 23, 17,
    5, 21, 49, 55, 51, 45, 52, 27, 39, 25, 39, 63, 22, 24, 42, 52, 56, 38, 41, 41, 56, 32, 13, 24,
    26, 51, 27, 56, 58, 37, 24, 42, 15, 28, 17, 30, 31, 15, 16, 23, 25, 54, 33, 34, 1, 29, 31, 50,
    53, 21, 49, 15, 47, 9, 0, 58, 37, 45, 30, 13, 9, 45, 63, 21,
];

/// One of the codes for residuals `n`: `n >> code` zeros, a one and the low bits of `n`, if it is under
/// `limit`; else `n - limit` in `long` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Golomb {
    /// So many zeros and more begin the long form.
    pub zeros: u32,
    /// The first residual that is written in the long form.
    pub limit: u32,
    /// Bits of the long form.
    pub long: u32,
}

impl Golomb {
    /// Code `code`, which is less than `depth`, for residuals of `depth` bits.
    #[must_use]
    pub const fn new(depth: u32, code: u32) -> Self {
        let all = (1 << (depth - code)) - 1;
        let most = MAX_BITS - depth;
        let zeros = if most < all { most } else { all };
        let limit = zeros << code;
        let rest: u32 = (1 << depth) - limit;
        Self {
            zeros,
            limit,
            long: zeros + rest.next_power_of_two().ilog2(),
        }
    }

    /// Bits of `residual` in this code.
    #[must_use]
    pub(crate) const fn cost(self, code: u32, residual: u32) -> u32 {
        if residual < self.limit {
            (residual >> code) + 1 + code
        } else {
            self.long
        }
    }
}

/// Codes, and buckets of a channel, at most: those of residuals of eight bits.
pub const CODES: usize = 8;

/// What is known of residuals that follow some others.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// The code for the next one.
    best: u32,
    /// Bits of those before, in each code.
    sums: [u32; CODES],
}

impl Bucket {
    /// Nothing, of residuals of so many bits.
    #[must_use]
    pub const fn new(depth: u32) -> Self {
        Self {
            best: depth - 1,
            sums: [0; CODES],
        }
    }

    /// The code for the next residual.
    #[must_use]
    pub fn best(&self) -> u32 {
        self.best
    }

    /// There was one more; `costs` are its bits in each code.
    #[inline]
    pub fn learn(&mut self, costs: &[u8; CODES], trigger: u32) {
        let mut least = u32::MAX;
        for (code, cost) in costs.iter().enumerate().rev() {
            self.sums[code] += u32::from(*cost);
            if self.sums[code] < least {
                least = self.sums[code];
                self.best = code as u32;
            }
        }
        if least > trigger {
            self.sums.iter_mut().for_each(|sum| *sum >>= 1);
        }
    }
}

/// Bits of each residual of `depth` bits in each code, as [`Bucket::learn`] asks for them. A code that there is not
/// costs more than any.
#[must_use]
pub const fn costs(depth: u32) -> [[u8; CODES]; 256] {
    let mut costs = [[u8::MAX; CODES]; 256];
    let mut code = 0;
    while code < depth {
        let golomb = Golomb::new(depth, code);
        let mut residual = 0;
        while residual < 1 << depth {
            costs[residual as usize][code as usize] = golomb.cost(code, residual) as u8;
            residual += 1;
        }
        code += 1;
    }
    costs
}

/// When the model learns.
#[derive(Debug)]
pub struct Pace {
    age: usize,
    /// Pixels until it is older.
    left: usize,
    /// Pixels until it learns.
    wait: u32,
    drawn: u8,
}

impl Pace {
    /// That of a picture's first pixel.
    pub const NEW: Self = Self {
        age: 0,
        left: AGE_PIXELS,
        wait: 0,
        drawn: u8::MAX,
    };

    /// The sum of bits above which a bucket's sums are halved.
    #[must_use]
    pub fn trigger(&self) -> u32 {
        TRIGGERS[self.age]
    }

    /// Whether the model learns from this pixel.
    pub fn learns(&mut self) -> bool {
        if self.wait > 0 {
            self.wait -= 1;
            return false;
        }
        self.drawn = self.drawn.wrapping_add(1);
        self.wait = u32::from(CHAOS[usize::from(self.drawn)]) & ((1 << self.age) - 1);
        true
    }

    /// How many of `width` pixels are coded at one age, which they then end; one at least, if there is one.
    pub fn segment(&mut self, width: usize) -> usize {
        if self.age == TRIGGERS.len() - 1 {
            return width;
        }
        let length = self.left.min(width);
        self.left -= length;
        length
    }

    /// A segment is done.
    pub fn grow(&mut self) {
        if self.left == 0 {
            self.age += 1;
            self.left = AGE_PIXELS;
        }
    }
}
