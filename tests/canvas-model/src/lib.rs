//! A slow and simple model of what QXL commands draw, and random commands to try it on.
//!
//! A [`Session`] is a guest with surfaces of every format that draws some random commands. Whoever has
//! a device gives it the commands, reads the surfaces back and compares.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod encode;
mod memory;
mod random;
mod reference;
mod stream;
mod surface;

pub use memory::{Bytes, Form, Heap};
pub use stream::Stream;
pub use surface::{SURFACES, Surface};

use random::{Random, Scene};
use reference::Model;

/// Draw commands of a session.
pub const COMMANDS: usize = 40;

/// `QXL_CMD_DRAW`.
const DRAW: u32 = 1;
/// `QXL_CMD_SURFACE`.
const SURFACE: u32 = 5;

/// A command for the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// `QXLCommand.type`.
    pub kind: u32,
    /// `QXLCommand.data`.
    pub address: u64,
}

/// Random commands that depend on a seed only, and what they draw.
#[derive(Debug)]
pub struct Session {
    random: Random,
    model: Model,
    last: Option<Scene>,
}

impl Session {
    /// A session before its first command: there is the primary surface only, black.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut model = Model::default();
        SURFACES.iter().for_each(|surface| model.create(*surface));
        Self {
            random: Random::new(seed),
            model,
            last: None,
        }
    }

    /// The commands that create the other surfaces.
    pub fn begin(&self, heap: &impl Heap) -> Vec<Command> {
        let create = |surface: &Surface| Command {
            kind: SURFACE,
            address: encode::create(heap, *surface),
        };
        SURFACES[1..].iter().map(create).collect()
    }

    /// One more random command, and the surface that it draws on.
    pub fn draw(&mut self, heap: &impl Heap) -> (Command, Surface) {
        let scene = self.random.scene();
        let address = encode::scene(heap, &scene);
        let surface = SURFACES[scene.surface as usize];
        self.model.draw(&scene);
        self.last = Some(scene);
        let kind = DRAW;
        (Command { kind, address }, surface)
    }

    /// What a surface has now: the bytes of its rows as a guest reads them back, without gaps between
    /// rows, and 0 for every bit that is not [`Surface::visible`].
    #[must_use]
    pub fn expected(&self, surface: Surface) -> Vec<u8> {
        surface.store(self.model.pixels(surface.id))
    }

    /// The latest command in words.
    #[must_use]
    pub fn latest(&self) -> String {
        format!("{:#?}", self.last)
    }
}
