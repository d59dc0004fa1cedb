//! What a snapshot keeps of the device. Pixels are not part of it: they are written back into guest
//! memory, which is where a guest believes them to be anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caraway_devices::pci::{ConfigState, PciFunction};
use caraway_devices::state::{restore_payload, save_payload};
use caraway_devices::{Lifecycle, Payload, StateError, Stateful};
use caraway_spice::{CursorImage, CursorKind, CursorState, Head, Point, Rect};
use serde::{Deserialize, Serialize};

use super::memslots::{SLOTS, Slot};
use super::ports::Request;
use super::release::Releases;
use super::rom::OldAnswers;
use super::surfaces::SurfaceState;
use super::{Core, Mode, Qxl, interrupts};
use crate::command::SurfaceShape;
use crate::vga::VgaState;

/// A head: id, left, top, right, bottom.
type HeadState = (u32, [i32; 4]);

/// The shape of the cursor in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorImageState {
    mono: bool,
    size: (u16, u16),
    hot: (u16, u16),
    data: Vec<u8>,
}

/// The cursor in a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorStateState {
    position: (i32, i32),
    visible: bool,
    image: Option<CursorImageState>,
}

/// What a snapshot keeps of a [`Qxl`], beside the memory of its BARs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QxlState {
    config: ConfigState,
    vga: VgaState,
    mode: Mode,
    guest_bug: bool,
    slots: [Option<Slot>; SLOTS],
    primary: Option<SurfaceShape>,
    heads: Vec<HeadState>,
    surfaces: Vec<SurfaceState>,
    releases: Releases,
    pending: Option<Request>,
    cursor: CursorStateState,
    rom: Vec<u8>,
    #[serde(default)]
    old_answers: OldAnswers,
}

fn save_cursor(cursor: &CursorState) -> CursorStateState {
    CursorStateState {
        position: (cursor.position.x, cursor.position.y),
        visible: cursor.visible,
        image: cursor.image.as_ref().map(|image| CursorImageState {
            mono: image.kind == CursorKind::Mono,
            size: (image.width, image.height),
            hot: (image.hot_x, image.hot_y),
            data: image.data.clone(),
        }),
    }
}

/// `None` if the shape has not as many bytes as its size needs.
fn restored_cursor(state: &CursorStateState) -> Option<CursorState> {
    let image = match &state.image {
        None => None,
        Some(image) => {
            let (width, height) = image.size;
            let (columns, rows) = (usize::from(width), usize::from(height));
            let (kind, len) = if image.mono {
                (CursorKind::Mono, columns.div_ceil(8) * rows * 2)
            } else {
                (CursorKind::Alpha, columns * rows * 4)
            };
            if image.data.len() != len {
                return None;
            }
            Some(Arc::new(CursorImage {
                kind,
                width,
                height,
                hot_x: image.hot.0,
                hot_y: image.hot.1,
                data: image.data.clone(),
            }))
        }
    };
    Some(CursorState {
        position: Point {
            x: state.position.0,
            y: state.position.1,
        },
        visible: state.visible,
        image,
    })
}

impl Qxl {
    fn invalid(what: String) -> StateError {
        let kind = <&Self as Stateful>::KIND;
        StateError::Invalid { kind, what }
    }

    /// What of `state` is impossible in this device, found before anything changes.
    fn check(&self, core: &Core, state: &QxlState) -> Result<CursorState, StateError> {
        if !core.slots.possible(&state.slots) {
            return Err(Self::invalid("a memory slot is outside of its BAR".into()));
        }
        if state.mode.has_primary() != state.primary.is_some() {
            let what = format!("mode {:?} and a primary surface", state.mode);
            return Err(Self::invalid(what));
        }
        if let Some(shape) = &state.primary {
            let possible = shape.is_possible() && shape.has_colors();
            if !possible || shape.len() > self.config.vgamem {
                return Err(Self::invalid(format!("primary surface {shape:?}")));
            }
        }
        if !state.surfaces.iter().all(SurfaceState::is_possible) {
            return Err(Self::invalid("a surface's rows have no room".into()));
        }
        restored_cursor(&state.cursor)
            .ok_or_else(|| Self::invalid("the cursor's data has another size".into()))
    }

    fn restore_native(&self, core: &mut Core, state: &QxlState) -> Result<(), StateError> {
        core.slots.set(state.slots);
        let restored = core.surfaces.restore(&core.slots, &state.surfaces);
        restored.map_err(|error| Self::invalid(format!("surfaces: {error}")))?;
        self.set_mode(core, state.mode);
        let Some(shape) = state.primary else {
            return Ok(());
        };
        let place = core.slots.resolve(shape.data, shape.len());
        // The guest may take the slot away under its surface.
        let place = place.inspect_err(|error| {
            tracing::debug!("the primary surface's memory is gone: {error}");
        });
        let canvas = self.primary_canvas(&shape, place.ok().as_ref());
        let whole = canvas.area();
        let head = |&(id, [left, top, right, bottom]): &HeadState| Head {
            id,
            area: Rect {
                left,
                top,
                right,
                bottom,
            }
            .intersection(whole),
        };
        let heads = state.heads.iter().map(head);
        let heads: Vec<Head> = heads.filter(|head| !head.area.is_empty()).collect();
        let mut screen = self.screen.write();
        screen.replace(canvas, Some(shape));
        if !heads.is_empty() {
            screen.heads = heads;
        }
        Ok(())
    }
}

impl Stateful for &Qxl {
    type State = QxlState;
    const KIND: &'static str = "qxl";
    const VERSION: u32 = 1;

    fn save(&self) -> QxlState {
        let core = self.core.lock();
        self.write_back(&core);
        let screen = self.screen.read();
        let head = |head: &Head| {
            let area = head.area;
            (head.id, [area.left, area.top, area.right, area.bottom])
        };
        let native = screen.shape.is_some();
        QxlState {
            config: self.space.lock().save(),
            vga: self.vga.lock().save(),
            mode: self.mode(),
            guest_bug: self.guest_bug.load(Ordering::SeqCst),
            slots: core.slots.active(),
            primary: screen.shape.map(|shape| SurfaceShape {
                keep: true,
                ..shape
            }),
            heads: screen.heads.iter().filter(|_| native).map(head).collect(),
            surfaces: core.surfaces.save(),
            releases: core.releases.clone(),
            pending: self.pending.lock().clone(),
            cursor: save_cursor(&self.cursor.lock()),
            rom: self.rom.save(),
            old_answers: self.rom.old_answers(),
        }
    }

    fn restore(&mut self, state: QxlState) -> Result<(), StateError> {
        let mut core = self.core.lock();
        let cursor = self.check(&core, &state)?;
        self.space.lock().restore(&state.config)?;
        self.vga.lock().restore(&state.vga);
        self.restore_native(&mut core, &state)?;
        self.guest_bug.store(state.guest_bug, Ordering::SeqCst);
        core.releases = state.releases;
        *self.pending.lock() = state.pending;
        let other_clients = self.rom.restore(&state.rom);
        self.rom.restore_old_answers(&state.old_answers);
        drop(core);
        if other_clients {
            self.interrupts.raise(&self.ram, interrupts::CLIENT);
        }
        self.set_cursor(cursor);
        self.news.layout();
        self.config_written(4, 2);
        self.interrupts.update(&self.ram);
        self.wake();
        Ok(())
    }

    fn reset(&mut self) {
        let mut core = self.core.lock();
        self.vga.lock().reset();
        self.space.lock().reset();
        self.hard_reset(&mut core);
        drop(core);
        self.config_written(4, 2);
    }
}

impl Lifecycle for Qxl {
    fn kind(&self) -> &'static str {
        <&Self as Stateful>::KIND
    }

    fn reset(&self) {
        let mut device = self;
        Stateful::reset(&mut device);
    }

    fn save(&self) -> Result<Payload, StateError> {
        save_payload(&self)
    }

    fn restore(&self, payload: &Payload) -> Result<(), StateError> {
        let mut device = self;
        restore_payload(&mut device, payload)
    }
}
