//! Native mode: taking commands from the rings and doing what they say.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caraway_spice::{CursorState, DisplayObserver, Size};

use super::memslots::GuestAddress;
use super::rings::{COMMANDS, RingError};
use super::screen::Screen;
use super::{Core, Mode, Qxl, interrupts};
use crate::canvas::{Canvas, Draw, Form, PixelFormat, Pixels, Snapshot};
use crate::command::wire::RingCommand;
use crate::command::{
    BitmapPixels, CommandError, CommandKind, CursorCommand, Dialect, Drawable, Image,
    SurfaceCommand, UpdateCommand,
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

    /// Whether the rings are read. They are without a primary surface too: a driver may change other
    /// surfaces or the cursor meanwhile.
    fn is_listening(&self) -> bool {
        self.mode() != Mode::Vga && !self.guest_bug.load(Ordering::SeqCst)
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
        if self.dialect() == Dialect::Native {
            core.note(|recorder, slots| recorder.command(slots, kind, address));
        }
        let result = match (kind, ring) {
            (CommandKind::Draw, Ring::Commands) => self.draw(core, address).map(|()| Fate::Done),
            (CommandKind::Surface, Ring::Commands) => Self::surface(core, address),
            (CommandKind::Cursor, Ring::Cursors) => {
                self.cursor_command(core, address).map(|()| Fate::Done)
            }
            (CommandKind::Nop, _) => return,
            (CommandKind::Update, Ring::Commands) => {
                self.update_command(core, address).map(|()| Fate::Done)
            }
            (CommandKind::Message, Ring::Commands) => Ok(Fate::Done),
            _ => {
                core.log_once("wrong ring", &"a command is in the wrong ring");
                Ok(Fate::Done)
            }
        };
        let fate = result.unwrap_or_else(|error| {
            core.log_once("bad command", &format!("a command means nothing: {error}"));
            Fate::Done
        });
        if fate == Fate::Done {
            core.releases.add(&core.slots, address);
        }
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

    fn surface(core: &mut Core, address: GuestAddress) -> Result<Fate, CommandError> {
        match SurfaceCommand::decode(&core.slots, address)? {
            SurfaceCommand::Create { id, shape } if id != 0 => {
                core.destroy_surface(id);
                core.surfaces.create(&core.slots, id, shape, address)?;
                return Ok(Fate::Kept);
            }
            SurfaceCommand::Destroy { id } if id != 0 => core.destroy_surface(id),
            _ => core.log_once("primary", &"a command is about the primary surface"),
        }
        Ok(Fate::Done)
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

    /// Writes pixels back, and says in the ROM that it is done.
    fn update_command(&self, core: &mut Core, address: GuestAddress) -> Result<(), CommandError> {
        let update = UpdateCommand::decode(&core.slots, address, self.dialect())?;
        if let Err(error) = self.update_area(core, update.surface, update.area) {
            core.log_once("update command", &error);
        }
        self.rom.set_update_id(update.id);
        Ok(())
    }

    fn draw(&self, core: &mut Core, address: GuestAddress) -> Result<(), CommandError> {
        let drawable = Drawable::decode(&core.slots, address, self.dialect())?;
        let target = drawable.surface;
        if target == 0 {
            let mut screen = self.screen.write();
            if let Some(canvas) = screen.canvas.as_mut() {
                draw(drawable, canvas, |id| core.surfaces.get(id));
                if canvas.has_copies() {
                    self.tell_updates(&mut screen);
                }
            }
            return Ok(());
        }
        // Other surfaces can be read while it is away.
        let Some(mut surface) = core.surfaces.take(target) else {
            return Ok(());
        };
        {
            let screen = self.screen.read();
            draw(drawable, &mut surface.canvas, |id| match id {
                0 => screen.canvas.as_ref(),
                other => core.surfaces.get(other),
            });
        }
        core.surfaces.put_back(target, surface);
        Ok(())
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

/// A picture for a draw command to read.
enum Picture<'a> {
    Bitmap(BitmapPixels),
    Surface(Snapshot<&'a Canvas>),
    /// Of the surface that is drawn on.
    Itself(Snapshot<Canvas>),
    /// A part of it, as it was.
    Part(Snapshot<Canvas>),
}

impl Picture<'_> {
    fn pixels(&self) -> &dyn Pixels {
        match self {
            Self::Bitmap(pixels) => pixels,
            Self::Surface(pixels) => pixels,
            Self::Itself(pixels) | Self::Part(pixels) => pixels,
        }
    }
}

impl Pixels for Picture<'_> {
    fn format(&self) -> PixelFormat {
        self.pixels().format()
    }

    fn size(&self) -> Size {
        self.pixels().size()
    }

    fn are_of_target(&self) -> bool {
        matches!(self, Self::Itself(_))
    }

    fn read(&mut self, x: u32, y: u32, row: &mut [u32]) -> bool {
        match self {
            Self::Bitmap(pixels) => pixels.read(x, y, row),
            Self::Surface(pixels) => pixels.read(x, y, row),
            Self::Itself(pixels) | Self::Part(pixels) => pixels.read(x, y, row),
        }
    }
}

/// What becomes of a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is given back.
    Done,
    /// It is needed as long as what it made.
    Kept,
}

impl Core {
    /// Destroys a surface off screen, if it is there, and gives back the command that made it.
    pub(super) fn destroy_surface(&mut self, id: u32) {
        if let Some(command) = self.surfaces.destroy(id) {
            self.releases.add(&self.slots, command);
        }
    }

    /// The same with all of them.
    pub(super) fn destroy_surfaces(&mut self) {
        for command in self.surfaces.destroy_all() {
            self.releases.add(&self.slots, command);
        }
    }
}

/// Draws on `canvas`; `surface` finds other surfaces by their id. With an image missing nothing is
/// drawn.
fn draw<'a>(drawable: Drawable, canvas: &mut Canvas, surface: impl Fn(u32) -> Option<&'a Canvas>) {
    let Drawable {
        surface: target,
        area,
        region,
        draw,
    } = drawable;
    // Mostly it is only moved, and the rest of it need not be copied.
    let needed = match &draw {
        Draw::Copy {
            source, mask: None, ..
        } if (source.area.width(), source.area.height()) == (area.width(), area.height()) => {
            source.area
        }
        _ => canvas.area(),
    };
    let format = canvas.format();
    let draw = draw.resolve(|image, form| {
        let picture = match image {
            Image::Bitmap(bitmap) => Picture::Bitmap(bitmap.pixels(form, format)?),
            Image::Surface(id) if id == target => Picture::Itself(Snapshot::copied(canvas, needed)),
            Image::Surface(id) => Picture::Surface(Snapshot::of(surface(id)?)),
            Image::Itself(area) => Picture::Part(Snapshot::cut(canvas, area)?),
        };
        let readable = form != Form::Bits || picture.format() == PixelFormat::A1;
        readable.then_some(picture)
    });
    if let Some(draw) = draw {
        canvas.draw(area, &region, draw);
    }
}
