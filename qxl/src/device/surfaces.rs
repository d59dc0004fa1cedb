//! Surfaces off screen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::memslots::{GuestAddress, Place, Slots};
use crate::canvas::Canvas;
use crate::command::{CommandError, SurfaceShape};
use crate::config::QxlConfig;

/// A surface off screen.
pub(super) struct Surface {
    pub(super) canvas: Canvas,
    pub(super) shape: SurfaceShape,
    /// The command that made it. It is given back when the surface goes, as Linux's driver keeps what it
    /// destroys the surface with beside it.
    command: GuestAddress,
}

/// All surfaces but the primary one, by id; their canvases take no more host memory than the guest
/// has memory for surfaces.
pub(super) struct Surfaces {
    all: BTreeMap<u32, Surface>,
    /// How many ids there are.
    ids: u32,
    /// Pixels that all canvases may have together.
    most: u64,
}

/// A surface in a snapshot; its pixels are in guest memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SurfaceState {
    id: u32,
    shape: SurfaceShape,
    command: GuestAddress,
}

impl SurfaceState {
    pub(super) fn is_possible(&self) -> bool {
        self.id != 0 && self.shape.is_possible()
    }
}

impl Surfaces {
    pub(super) fn new(config: &QxlConfig) -> Self {
        let bytes = config.ram + config.vram.max(config.vram64.unwrap_or(0));
        Self {
            all: BTreeMap::new(),
            ids: config.surfaces,
            most: bytes / 4,
        }
    }

    /// Makes surface `id`, which is not there, as `command` says.
    pub(super) fn create(
        &mut self,
        slots: &Slots,
        id: u32,
        shape: SurfaceShape,
        command: GuestAddress,
    ) -> Result<(), CommandError> {
        let place = slots.resolve(shape.data, shape.len())?;
        self.insert(Some(&place), id, shape, command)
    }

    /// Makes a surface whose memory is at `place`, or nowhere any more.
    fn insert(
        &mut self,
        place: Option<&Place>,
        id: u32,
        shape: SurfaceShape,
        command: GuestAddress,
    ) -> Result<(), CommandError> {
        CommandError::at_most("surface id", id, self.ids - 1)?;
        let pixels = |shape: &SurfaceShape| u64::from(shape.width) * u64::from(shape.height);
        let used: u64 = self
            .all
            .values()
            .map(|surface| pixels(&surface.shape))
            .sum();
        CommandError::at_most("pixels of all surfaces", used + pixels(&shape), self.most)?;
        let mut canvas = Canvas::new(shape.format, shape.size());
        if let Some(place) = place.filter(|_| shape.keep) {
            shape.load(&mut canvas, place);
        }
        let surface = Surface {
            canvas,
            shape,
            command,
        };
        self.all.insert(id, surface);
        Ok(())
    }

    pub(super) fn get(&self, id: u32) -> Option<&Canvas> {
        self.all.get(&id).map(|surface| &surface.canvas)
    }

    pub(super) fn with_shape(&self, id: u32) -> Option<&Surface> {
        self.all.get(&id)
    }

    /// Takes a surface away to draw on it.
    pub(super) fn take(&mut self, id: u32) -> Option<Surface> {
        self.all.remove(&id)
    }

    pub(super) fn put_back(&mut self, id: u32, surface: Surface) {
        self.all.insert(id, surface);
    }

    /// Destroys a surface; the command that made it, which is to be given back.
    #[must_use]
    pub(super) fn destroy(&mut self, id: u32) -> Option<GuestAddress> {
        self.all.remove(&id).map(|surface| surface.command)
    }

    /// The same with all of them.
    #[must_use]
    pub(super) fn destroy_all(&mut self) -> Vec<GuestAddress> {
        let all = std::mem::take(&mut self.all);
        all.into_values().map(|surface| surface.command).collect()
    }

    /// Forgets all of them, as a reset does.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Surface> {
        self.all.values()
    }

    pub(super) fn save(&self) -> Vec<SurfaceState> {
        let state = |(&id, surface): (&u32, &Surface)| SurfaceState {
            id,
            shape: surface.shape,
            command: surface.command,
        };
        self.all.iter().map(state).collect()
    }

    /// Takes saved surfaces on, with the pixels that are in guest memory.
    pub(super) fn restore(
        &mut self,
        slots: &Slots,
        states: &[SurfaceState],
    ) -> Result<(), CommandError> {
        self.clear();
        for state in states {
            let keep = true;
            let kept = SurfaceShape {
                keep,
                ..state.shape
            };
            // The guest may take the slot away under its surface.
            let place = slots.resolve(kept.data, kept.len()).ok();
            self.insert(place.as_ref(), state.id, kept, state.command)?;
        }
        Ok(())
    }
}
