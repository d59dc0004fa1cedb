//! What a guest does to its disk, and what that leaves on it: the same for the guest and for the
//! host's test, which checks the image afterwards.
//!
//! The host's tests include this file; it uses nothing but `core`.

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Sectors of a block, which is what one request is for.
pub const BLOCK: u64 = 8;
/// Blocks that are used.
pub const BLOCKS: usize = 256;

/// Something done to one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Write it anew, as this generation.
    Write {
        /// Which.
        block: usize,
        /// From 1, in the order of the plan.
        generation: u64,
    },
    /// Read it.
    Read {
        /// Which.
        block: usize,
    },
    /// It is not needed any more.
    Discard {
        /// Which.
        block: usize,
    },
    /// Make it zeroes.
    Zero {
        /// Which.
        block: usize,
        /// Whether its blocks may be given back.
        unmap: bool,
    },
    /// Make everything durable.
    Flush,
}

/// An endless list of [`Op`]s that its seed determines.
pub struct Plan {
    state: u64,
    generation: u64,
    /// Whether blocks are also given back.
    discards: bool,
}

impl Plan {
    /// The plan of this seed.
    pub fn new(seed: u64, discards: bool) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            state,
            generation: 0,
            discards,
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

impl Iterator for Plan {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        let block = self.random() as usize % BLOCKS;
        let op = match self.random() % 32 {
            0 | 1 => Op::Flush,
            2 | 3 if self.discards => Op::Discard { block },
            4 if self.discards => Op::Zero { block, unmap: true },
            5 if self.discards => Op::Zero {
                block,
                unmap: false,
            },
            6..=12 => Op::Read { block },
            _ => {
                self.generation += 1;
                let generation = self.generation;
                Op::Write { block, generation }
            }
        };
        Some(op)
    }
}

/// What is known of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it was never written, or given back.
    Nothing,
    /// It is all zeroes.
    Zeroes,
    /// It was written as this generation.
    Written(u64),
}

impl Known {
    /// What is known of its block after `op`.
    pub fn after(self, op: Op) -> Self {
        match op {
            Op::Write { generation, .. } => Self::Written(generation),
            Op::Discard { .. } => Self::Nothing,
            Op::Zero { .. } => Self::Zeroes,
            Op::Read { .. } | Op::Flush => self,
        }
    }

    /// The word `index` of the disk's sector `sector`.
    pub fn word(self, sector: u64, index: u64) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Zeroes => Some(0),
            Self::Written(generation) if index == 0 => Some(generation),
            Self::Written(generation) => Some(
                (sector << 32 ^ generation)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .wrapping_add(index),
            ),
        }
    }
}

impl Op {
    /// The block that it is for.
    pub fn block(self) -> Option<usize> {
        match self {
            Self::Write { block, .. }
            | Self::Read { block }
            | Self::Discard { block }
            | Self::Zero { block, .. } => Some(block),
            Self::Flush => None,
        }
    }
}

/// The first sector of `block` on a disk of `sectors`: the blocks are spread over all of it.
pub fn place(block: usize, sectors: u64) -> u64 {
    let step = sectors / BLOCKS as u64 / BLOCK * BLOCK;
    block as u64 * step
}
