//! Native mode: taking commands from the rings and doing what they say.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caraway_spice::{CursorState, DisplayObserver, Rect};

use super::memslots::GuestAddress;
use super::rings::{COMMANDS, RingError};
use super::screen::Screen;
use super::{Core, Mode, Qxl, interrupts};
use crate::canvas::{Canvas, Region, Rop};
use crate::command::wire::RingCommand;
use crate::command::{
    CommandError, CommandKind, CursorCommand, Draw, Drawable, Source, SurfaceCommand,
};

/// The most commands that one call of [`Qxl::process`] takes; then others get their turn.
const MAX_COMMANDS: u32 = 8 * COMMANDS;

/// The two rings that commands come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    Commands,
    Cursors,
}

impl Qxl {
    /// Does what the guest has asked for since the last call, and tells the observers of it. The
    /// display thread calls this whenever [`kick`](Self::kick) is readable.
    pub fn process(&self) {
        // Reading it makes it unreadable; it fails if it was.
        let _ = self.kick.read();
        for _ in 0..MAX_COMMANDS {
            let mut core = self.core.lock();
            self.perform_pending(&mut core);
            if !self.step(&mut core) {
                self.rest(&mut core);
                drop(core);
                self.tell_observers();
                return;
            }
            // A vCPU that waits for the lock gets it now.
            parking_lot::MutexGuard::unlock_fair(core);
        }
        // There is more to do.
        self.wake();
        self.tell_observers();
    }

    /// Takes everything that is in the rings now; no more than they have room for, for a guest
    /// could go on filling them.
    pub(super) fn drain(&self, core: &mut Core) {
        for _ in 0..2 * COMMANDS {
            if !self.step(core) {
                break;
            }
        }
    }

    fn is_listening(&self) -> bool {
        self.mode() == Mode::Native && !self.guest_bug.load(Ordering::SeqCst)
    }

    /// Takes the next command of each ring; whether there was one.
    fn step(&self, core: &mut Core) -> bool {
        if !self.is_listening() {
            return false;
        }
        let command = self.take(core, Ring::Commands);
        let cursor = self.take(core, Ring::Cursors);
        command || cursor
    }

    /// Takes the next command of `ring`; whether there was one.
    fn take(&self, core: &mut Core, ring: Ring) -> bool {
        let (queue, interrupt) = match ring {
            Ring::Commands => (&self.ram.commands, interrupts::DISPLAY),
            Ring::Cursors => (&self.ram.cursors, interrupts::CURSOR),
        };
        match queue.pop() {
            Ok(None) => false,
            Ok(Some((command, wanted))) => {
                if wanted {
                    self.interrupts.raise(&self.ram, interrupt);
                }
                self.execute(core, ring, &command);
                true
            }
            Err(error) => {
                self.guest_bug(&error);
                false
            }
        }
    }

    /// Gives back what was released, and asks to be woken for the next command.
    fn rest(&self, core: &mut Core) {
        let result = self.push_releases(core);
        let waits = || -> Result<bool, RingError> {
            Ok(self.ram.commands.wait()? && self.ram.cursors.wait()?)
        };
        match result.and_then(|()| waits()) {
            // Something came in before we asked.
            Ok(false) if self.is_listening() => self.wake(),
            Ok(_) => {}
            Err(error) if self.is_listening() => self.guest_bug(&error),
            Err(_) => {}
        }
    }

    fn push_releases(&self, core: &mut Core) -> Result<(), RingError> {
        if core.releases.push(&self.ram.releases)? {
            self.interrupts.raise(&self.ram, interrupts::DISPLAY);
        }
        Ok(())
    }

    /// Does one command and gives it back.
    fn execute(&self, core: &mut Core, ring: Ring, command: &RingCommand) {
        let address = GuestAddress(command.data.get());
        let Some(kind) = CommandKind::of(command.kind.get()) else {
            let unknown = format!("command of unknown type {}", command.kind);
            core.log_once("command type", &unknown);
            return;
        };
        // A guest that can't even say where its command is, is lost.
        if kind != CommandKind::Nop
            && let Err(error) = core.slots.resolve(address, 8)
        {
            self.guest_bug(&error);
            return;
        }
        core.note(|recorder, slots| recorder.command(slots, kind, address));
        let result = match (kind, ring) {
            (CommandKind::Draw, Ring::Commands) => self.draw(core, address),
            (CommandKind::Surface, Ring::Commands) => self.surface(core, address),
            (CommandKind::Cursor, Ring::Cursors) => self.cursor_command(core, address),
            (CommandKind::Nop, _) => return,
            (CommandKind::Update | CommandKind::Message, Ring::Commands) => Ok(()),
            _ => {
                core.log_once("wrong ring", &"a command is in the wrong ring");
                Ok(())
            }
        };
        if let Err(error) = result {
            core.log_once("bad command", &format!("a command means nothing: {error}"));
        }
        core.releases.add(&core.slots, address);
        // A long list would keep much of the guest's memory.
        if let Err(error) = self.push_if_long(core) {
            self.guest_bug(&error);
        }
    }

    fn push_if_long(&self, core: &mut Core) -> Result<(), RingError> {
        if core.releases.is_long() && self.ram.releases.has_room()? {
            self.push_releases(core)?;
        }
        Ok(())
    }

    fn surface(&self, core: &mut Core, address: GuestAddress) -> Result<(), CommandError> {
        match SurfaceCommand::decode(&core.slots, address)? {
            SurfaceCommand::Create { id, shape } if id != 0 => {
                core.surfaces.create(&core.slots, id, shape)?;
            }
            SurfaceCommand::Destroy { id } if id != 0 => core.surfaces.destroy(id),
            _ => core.log_once("primary", &"a command is about the primary surface"),
        }
        Ok(())
    }

    fn cursor_command(&self, core: &Core, address: GuestAddress) -> Result<(), CommandError> {
        let command = CursorCommand::decode(&core.slots, address)?;
        let mut cursor = self.cursor.lock().clone();
        match command {
            CursorCommand::Set {
                position,
                visible,
                image,
            } => {
                // The same picture again is not worth sending again.
                let shown = cursor.image.filter(|shown| *shown == image);
                cursor = CursorState {
                    position,
                    visible,
                    image: shown.or(Some(image)),
                };
            }
            CursorCommand::Move(position) => {
                cursor.position = position;
                cursor.visible = true;
            }
            CursorCommand::Hide => cursor.visible = false,
            CursorCommand::Trail => {}
        }
        self.set_cursor(cursor);
        Ok(())
    }

    fn draw(&self, core: &mut Core, address: GuestAddress) -> Result<(), CommandError> {
        let drawable = Drawable::decode(&core.slots, address)?;
        if let Draw::Unsupported(what) = drawable.draw {
            core.log_once(what, &format!("drawing {what} is not possible yet"));
        }
        let target = drawable.surface;
        // Reading from one surface while drawing on another takes a copy of the one.
        let source = match &drawable.draw {
            Draw::Copy {
                source: Source::Surface(id),
                area,
                ..
            } => self.snapshot(core, *id, *area),
            Draw::CopyBits { from } => {
                let (width, height) = (drawable.area.width(), drawable.area.height());
                let end = |start: i32, len: u32| start.saturating_add_unsigned(len);
                let area = Rect {
                    left: from.x,
                    top: from.y,
                    right: end(from.x, width),
                    bottom: end(from.y, height),
                };
                self.snapshot(core, target, area)
            }
            _ => None,
        };
        if target == 0 {
            let mut screen = self.screen.write();
            if let Some(canvas) = screen.canvas.as_mut() {
                paint(drawable, source, canvas);
                if canvas.has_copies() {
                    self.tell_updates(&mut screen);
                }
            }
        } else if let Some(surface) = core.surfaces.get_mut(target) {
            paint(drawable, source, &mut surface.canvas);
        }
        Ok(())
    }

    /// A copy of `area` of a surface, and where it comes from.
    fn snapshot(&self, core: &Core, id: u32, area: Rect) -> Option<Snapshot> {
        let of = |canvas: &Canvas| {
            let (pixels, left, top) = canvas.copy(area);
            Snapshot { pixels, left, top }
        };
        if id == 0 {
            self.screen.read().canvas.as_ref().map(of)
        } else {
            core.surfaces.get(id).map(|surface| of(&surface.canvas))
        }
    }

    /// Tells the observers what is news.
    pub(super) fn tell_observers(&self) {
        let (layout, cursor) = self.news.take();
        for observer in self.observers() {
            if layout {
                observer.layout_changed();
            }
            if cursor {
                observer.cursor_changed();
            }
        }
        self.tell_updates(&mut self.screen.write());
    }

    /// Tells the observers which pixels are new, while they can't read them, so that nobody has
    /// pixels from after a copy and does not know of it.
    fn tell_updates(&self, screen: &mut Screen) {
        let updates = screen.take_damage();
        if !updates.is_empty() {
            for observer in self.observers() {
                observer.updated(&updates);
            }
        }
    }

    fn observers(&self) -> Vec<Arc<dyn DisplayObserver>> {
        let mut observers = self.observers.lock();
        observers.retain(|observer| observer.strong_count() > 0);
        observers
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .collect()
    }
}

/// Pixels copied from a surface, and where their top left corner was.
struct Snapshot {
    pixels: Canvas,
    left: u32,
    top: u32,
}

/// Draws on `canvas`.
fn paint(drawable: Drawable, source: Option<Snapshot>, canvas: &mut Canvas) {
    let (to, region) = (drawable.area, &drawable.region);
    match drawable.draw {
        Draw::Nop => {}
        Draw::Unsupported(_) => {
            region.visit(|rect| {
                canvas.damage(rect);
                true
            });
        }
        Draw::Fill { color, rop } => canvas.fill(region, rop, color),
        Draw::Blackness => canvas.fill(region, Rop::PUT, 0),
        Draw::Whiteness => canvas.fill(region, Rop::PUT, 0x00ff_ffff),
        Draw::Invers => canvas.fill(region, Rop::INVERS, 0),
        Draw::Copy {
            source: Source::Bitmap(mut bitmap),
            area,
            rop,
        } => canvas.paint(region, rop, |x, y, row| {
            match (moved(x, to.left, area.left), moved(y, to.top, area.top)) {
                (Some(x), Some(y)) => bitmap.read_row(x, y, row),
                _ => false,
            }
        }),
        Draw::Copy { area, rop, .. } => {
            if let Some(source) = source {
                copy(&source, (to, area.left, area.top), region, rop, canvas);
            }
        }
        Draw::CopyBits { from } => {
            if let Some(source) = source {
                copy(&source, (to, from.x, from.y), region, Rop::PUT, canvas);
            }
        }
    }
}

/// Draws pixels of a surface; what `to` asks for from outside of it stays as it is.
fn copy(
    source: &Snapshot,
    (to, left, top): (Rect, i32, i32),
    region: &Region,
    rop: Rop,
    canvas: &mut Canvas,
) {
    let size = source.pixels.size();
    // Where the pixels that there are will be: coordinates are far from overflowing i64.
    let place = |at: u32, from: i32, to: i32| {
        let at = i64::from(at) - i64::from(from) + i64::from(to);
        at.clamp(i32::MIN.into(), i32::MAX.into()) as i32
    };
    let there = Rect {
        left: place(source.left, left, to.left),
        top: place(source.top, top, to.top),
        right: place(source.left + size.width, left, to.left),
        bottom: place(source.top + size.height, top, to.top),
    };
    canvas.paint(&region.clipped(there), rop, |x, y, row| {
        let (x, y) = (moved(x, there.left, 0), moved(y, there.top, 0));
        let pixels = x.zip(y).and_then(|(x, y)| {
            let width = u32::try_from(row.len()).ok()?;
            source.pixels.row(x, y, width)
        });
        match pixels {
            Some(pixels) => {
                row.copy_from_slice(pixels);
                true
            }
            None => false,
        }
    });
}

/// The coordinate in a source whose `from` is drawn at `to`; `None` outside of any source.
fn moved(at: u32, to: i32, from: i32) -> Option<u32> {
    u32::try_from(i64::from(at) - i64::from(to) + i64::from(from)).ok()
}
