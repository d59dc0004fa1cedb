//! Choices out of the fuzzer's bytes.

use arbitrary::Unstructured;

/// Values at which arithmetic and comparisons go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// Answers from the fuzzer's bytes. When they are used up every answer is the smallest: no damage,
/// the first of a choice, nothing more.
pub struct Dice<'a>(Unstructured<'a>);

impl<'a> Dice<'a> {
    /// Takes the answers from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether no answers are left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// A number up to `last`.
    pub fn up_to(&mut self, last: usize) -> usize {
        self.0.int_in_range(0..=last).unwrap_or_default()
    }

    /// Once in two times.
    pub fn flip(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// Once in sixteen times.
    pub fn rarely(&mut self) -> bool {
        self.byte() >= 0xf0
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.up_to(choices.len() - 1)]
    }

    /// Mostly a small number, else an edge or any.
    pub fn field(&mut self) -> u64 {
        match self.byte() {
            small @ ..0xd0 => u64::from(small & 0x1f),
            0xd0..0xf0 => self.pick(&EDGES),
            _ => self.number(),
        }
    }

    /// `sound`, and rarely something else.
    pub fn mostly(&mut self, sound: u64) -> u64 {
        if !self.rarely() {
            return sound;
        }
        match self.up_to(3) {
            0 => sound.wrapping_add(1),
            1 => sound.wrapping_sub(1),
            2 => self.pick(&EDGES),
            _ => self.number(),
        }
    }

    /// Up to `most` bytes.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let count = self.up_to(most).min(self.0.len());
        self.0.bytes(count).unwrap_or_default()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let count = self.0.len();
        self.0.bytes(count).unwrap_or_default()
    }
}
