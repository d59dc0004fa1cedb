//! What is to be seen, and what of it is news.

use std::sync::atomic::{AtomicBool, Ordering};

use caraway_spice::{Head, Layout, Size, Update};

use crate::canvas::{Canvas, Memory};
use crate::command::SurfaceShape;

/// The primary surface as everybody sees it.
#[derive(Default)]
pub(super) struct Screen {
    pub(super) canvas: Option<Canvas>,
    /// Its place in guest memory; `None` in VGA modes.
    pub(super) shape: Option<SurfaceShape>,
    pub(super) heads: Vec<Head>,
    pub(super) generation: u64,
    /// That of the surface before.
    spare: Memory,
}

impl Screen {
    /// Memory for a new surface.
    pub(super) fn spare_memory(&mut self) -> Memory {
        std::mem::take(&mut self.spare)
    }

    /// A new surface, with one head that shows all of it.
    pub(super) fn replace(&mut self, canvas: Canvas, shape: Option<SurfaceShape>) {
        self.remove();
        self.heads = vec![Head {
            id: 0,
            area: canvas.area(),
        }];
        self.canvas = Some(canvas);
        self.shape = shape;
    }

    /// No surface at all.
    pub(super) fn remove(&mut self) {
        if let Some(canvas) = self.canvas.take() {
            self.spare = Memory::of(canvas);
        }
        self.shape = None;
        self.heads.clear();
        self.generation += 1;
    }

    pub(super) fn size(&self) -> Option<Size> {
        self.canvas.as_ref().map(Canvas::size)
    }

    pub(super) fn layout(&self, max_heads: u32) -> Layout {
        Layout {
            primary: self.size(),
            heads: self.heads.clone(),
            max_heads,
            generation: self.generation,
        }
    }

    /// What changed since the last call, in its order.
    pub(super) fn take_damage(&mut self) -> Vec<Update> {
        self.canvas.as_mut().map_or(Vec::new(), Canvas::take_damage)
    }
}

/// What the observers have to be told; pixels' news are with the [`Canvas`].
#[derive(Default)]
pub(super) struct News {
    layout: AtomicBool,
    cursor: AtomicBool,
}

impl News {
    pub(super) fn layout(&self) {
        self.layout.store(true, Ordering::SeqCst);
    }

    pub(super) fn cursor(&self) {
        self.cursor.store(true, Ordering::SeqCst);
    }

    /// Whether layout and cursor are news, which they are then no more.
    pub(super) fn take(&self) -> (bool, bool) {
        let take = |flag: &AtomicBool| flag.swap(false, Ordering::SeqCst);
        (take(&self.layout), take(&self.cursor))
    }
}
