//! The I/O ports of BAR 3 (`qxl_dev.h`, `QXL_IO_*`).

use caraway_spice::{CursorState, Rect};
use serde::{Deserialize, Serialize};

use super::memslots::{GuestAddress, Place};
use super::{Core, Mode, Qxl, interrupts};
use crate::canvas::Canvas;
use crate::command::{CommandError, SurfaceShape};

/// A port, by its offset in BAR 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    NotifyCmd,
    NotifyCursor,
    UpdateIrq,
    NotifyOom,
    Reset,
    Log,
    MemslotDel,
    FlushRelease,
    /// One that works on a [`Request`], at once or later.
    Request(RequestPort, Timing),
    /// One that the reference does not offer either.
    Obsolete(&'static str),
}

/// What a port asks for; its operands are in the RAM header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestPort {
    UpdateArea,
    MemslotAdd,
    CreatePrimary,
    DestroyPrimary,
    DestroySurface,
    DestroyAllSurfaces,
    FlushSurfaces,
    MonitorsConfig,
    SetMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// The vCPU waits.
    Sync,
    /// An interrupt says when it is done.
    Async,
}

impl Port {
    const fn of(offset: u64) -> Option<Self> {
        use RequestPort as R;
        use Timing::{Async, Sync};
        Some(match offset {
            0 => Self::NotifyCmd,
            1 => Self::NotifyCursor,
            2 => Self::Request(R::UpdateArea, Sync),
            3 => Self::UpdateIrq,
            4 => Self::NotifyOom,
            5 => Self::Reset,
            6 => Self::Request(R::SetMode, Sync),
            7 => Self::Log,
            8 => Self::Request(R::MemslotAdd, Sync),
            9 => Self::MemslotDel,
            10 => Self::Obsolete("DETACH_PRIMARY"),
            11 => Self::Obsolete("ATTACH_PRIMARY"),
            12 => Self::Request(R::CreatePrimary, Sync),
            13 => Self::Request(R::DestroyPrimary, Sync),
            14 => Self::Request(R::DestroySurface, Sync),
            15 => Self::Request(R::DestroyAllSurfaces, Sync),
            16 => Self::Request(R::UpdateArea, Async),
            17 => Self::Request(R::MemslotAdd, Async),
            18 => Self::Request(R::CreatePrimary, Async),
            19 => Self::Request(R::DestroyPrimary, Async),
            20 => Self::Request(R::DestroySurface, Async),
            21 => Self::Request(R::DestroyAllSurfaces, Async),
            22 => Self::Request(R::FlushSurfaces, Async),
            23 => Self::FlushRelease,
            24 => Self::Request(R::MonitorsConfig, Async),
            _ => return None,
        })
    }

    /// Whether it does anything in VGA mode.
    const fn works_in_vga(self) -> bool {
        matches!(
            self,
            Self::Reset
                | Self::MemslotDel
                | Self::UpdateIrq
                | Self::Log
                | Self::Request(
                    RequestPort::MemslotAdd | RequestPort::CreatePrimary | RequestPort::SetMode,
                    _
                )
        )
    }
}

/// What a port asked for, with its operands copied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    UpdateArea { surface: u32, area: [i32; 4] },
    MemslotAdd { slot: u8, start: u64, end: u64 },
    CreatePrimary(SurfaceShape),
    DestroyPrimary,
    DestroySurface(u32),
    DestroyAllSurfaces,
    FlushSurfaces,
    MonitorsConfig(GuestAddress),
    SetMode(u8),
}

/// Why a port's work can't be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// The port takes only 0.
    #[error("port {port} was given {value} and takes 0 only")]
    Value { port: u64, value: u8 },
    /// The port is none.
    #[error("port {0} does not exist")]
    NoPort(u64),
    /// The port is one that nobody ever offered.
    #[error("port {0} is not offered")]
    Obsolete(&'static str),
    /// Only one asynchronous port works at a time.
    #[error("port {0} was written before the last asynchronous one was done")]
    Busy(u64),
    /// The compatibility mode is not in the list.
    #[error("there is no mode {0}")]
    NoMode(u8),
    /// The guest has not said where BAR 0 is.
    #[error("a mode was set before BAR 0 had an address")]
    NoBar,
    /// The slot can't be made.
    #[error(transparent)]
    Slot(#[from] super::memslots::SlotError),
    /// The primary surface is not one.
    #[error("the primary surface is impossible: {width}x{height}, {stride} bytes a row")]
    NoPrimary {
        width: u32,
        height: u32,
        stride: i32,
    },
    /// The primary surface takes more memory than there is for it.
    #[error("a primary surface of {len:#x} bytes is over the {most:#x} of the frame buffer")]
    PrimaryTooLarge { len: u64, most: u64 },
    /// Something that a port's operands point to is wrong.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// An area has its sides the wrong way round, or starts left of or above its surface.
    #[error("area {area:?} of surface {surface} is none")]
    Area { surface: u32, area: Rect },
    /// The surface's id is one of none.
    #[error("surface {0} can't exist")]
    SurfaceId(u32),
}

impl Qxl {
    /// A guest's write of a port.
    pub(super) fn write_port(&self, offset: u64, value: u8) {
        let port = Port::of(offset);
        // With the reference only the reset still works. But the line that says so must go down again, or
        // Linux disables it for all who share it.
        let works_after_bug = matches!(port, Some(Port::Reset | Port::UpdateIrq));
        if self.guest_bug_latched() && !works_after_bug {
            return;
        }
        if self.mode() == Mode::Vga && !port.is_some_and(Port::works_in_vga) {
            if let Some(Port::Request(_, Timing::Async)) = port {
                // A driver that waits for it is not to wait forever.
                self.interrupts.raise(&self.ram, interrupts::IO_CMD);
            }
            return;
        }
        let Some(port) = port else {
            self.guest_bug(&PortError::NoPort(offset));
            return;
        };
        if let Err(error) = self.port(port, offset, value) {
            self.guest_bug(&error);
        }
    }

    fn guest_bug_latched(&self) -> bool {
        self.guest_bug.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn port(&self, port: Port, offset: u64, value: u8) -> Result<(), PortError> {
        match port {
            // The display thread looks at both rings and pushes releases each time it wakes.
            Port::NotifyCmd | Port::NotifyCursor | Port::NotifyOom | Port::FlushRelease => {
                self.wake();
            }
            Port::UpdateIrq => self.interrupts.update(&self.ram),
            Port::Reset => self.hard_reset(&mut self.core.lock()),
            Port::Log => tracing::debug!("the guest's QXL driver: {}", self.ram.log()),
            Port::MemslotDel => self.core.lock().slots.remove(value)?,
            Port::Obsolete(name) => return Err(PortError::Obsolete(name)),
            Port::Request(request, Timing::Sync) => {
                let request = self.request(request, offset, value)?;
                self.perform(&mut self.core.lock(), &request)?;
                self.wake();
            }
            Port::Request(request, Timing::Async) => {
                let mut pending = self.pending.lock();
                if pending.is_some() {
                    return Err(PortError::Busy(offset));
                }
                match self.request(request, offset, value) {
                    Ok(request) => *pending = Some(request),
                    Err(error) => {
                        // A driver that waits for it is not to wait forever.
                        self.interrupts.raise(&self.ram, interrupts::IO_CMD);
                        return Err(error);
                    }
                }
                drop(pending);
                self.wake();
            }
        }
        Ok(())
    }

    /// The request with its operands, as they are now.
    fn request(&self, port: RequestPort, offset: u64, value: u8) -> Result<Request, PortError> {
        Ok(match port {
            RequestPort::UpdateArea => {
                let (surface, area) = self.ram.update_area();
                let area = [area.left, area.top, area.right, area.bottom];
                Request::UpdateArea { surface, area }
            }
            RequestPort::MemslotAdd => {
                let (start, end) = self.ram.mem_slot();
                let slot = value;
                Request::MemslotAdd { slot, start, end }
            }
            RequestPort::CreatePrimary | RequestPort::DestroyPrimary if value != 0 => {
                let port = offset;
                return Err(PortError::Value { port, value });
            }
            RequestPort::CreatePrimary => {
                let wire = self.ram.create_surface();
                let shape = SurfaceShape::primary(&wire).map_err(|error| {
                    tracing::debug!("primary surface refused: {error}");
                    PortError::NoPrimary {
                        width: wire.width.get(),
                        height: wire.height.get(),
                        stride: wire.stride.get(),
                    }
                })?;
                Request::CreatePrimary(shape)
            }
            RequestPort::DestroyPrimary => Request::DestroyPrimary,
            RequestPort::DestroySurface => Request::DestroySurface(value.into()),
            RequestPort::DestroyAllSurfaces => Request::DestroyAllSurfaces,
            RequestPort::FlushSurfaces => Request::FlushSurfaces,
            RequestPort::MonitorsConfig => Request::MonitorsConfig(self.ram.monitors_config()),
            RequestPort::SetMode => Request::SetMode(value),
        })
    }

    /// Does what the pending asynchronous port asked for, and says so; nothing if there is none.
    pub(super) fn perform_pending(&self, core: &mut Core) {
        let Some(request) = self.pending.lock().clone() else {
            return;
        };
        let result = self.perform(core, &request);
        *self.pending.lock() = None;
        match result {
            Ok(()) => self.interrupts.raise(&self.ram, interrupts::IO_CMD),
            Err(error) => {
                self.guest_bug(&error);
                // A driver that waits for it is not to wait forever.
                self.interrupts.raise(&self.ram, interrupts::IO_CMD);
            }
        }
    }

    fn perform(&self, core: &mut Core, request: &Request) -> Result<(), PortError> {
        match request {
            Request::MemslotAdd { slot, start, end } => {
                core.slots.add(*slot, *start, *end, &self.placed_bars())?;
            }
            Request::CreatePrimary(shape) => self.create_primary(core, *shape, Mode::Native)?,
            Request::SetMode(place) => self.set_compat_mode(core, *place)?,
            Request::DestroyPrimary => {
                self.drain(core);
                self.destroy_primary(core);
            }
            Request::DestroySurface(id) => {
                if *id >= self.config.surfaces {
                    return Err(PortError::SurfaceId(*id));
                }
                self.drain(core);
                core.destroy_surface(*id);
            }
            Request::DestroyAllSurfaces => {
                self.drain(core);
                core.destroy_surfaces();
                self.destroy_primary(core);
            }
            Request::UpdateArea { surface, area } => {
                self.drain(core);
                let [left, top, right, bottom] = *area;
                let area = Rect {
                    left,
                    top,
                    right,
                    bottom,
                };
                self.update_area(core, *surface, area)?;
            }
            Request::FlushSurfaces => {
                self.drain(core);
                self.write_back(core);
            }
            Request::MonitorsConfig(address) => self.set_monitors(core, *address),
        }
        Ok(())
    }

    fn destroy_primary(&self, core: &mut Core) {
        if self.mode().has_primary() {
            core.note(|recorder, _| recorder.destroy_primary());
            self.set_mode(core, Mode::Undefined);
            self.set_cursor(CursorState::default());
        }
    }

    /// Begins anew in the mode at `place` of the ROM's list, as the first drivers wanted it: 32 bits
    /// whatever the mode says, with the lowest row first, and guest-physical addresses.
    fn set_compat_mode(&self, core: &mut Core, place: u8) -> Result<(), PortError> {
        let (width, height, bits) = self.rom.mode(place).ok_or(PortError::NoMode(place))?;
        let bars = self.placed_bars();
        let bar = bars.iter().find(|bar| bar.bar == super::BAR_RAM);
        let bar = bar.ok_or(PortError::NoBar)?;
        self.hard_reset(core);
        core.slots.add_physical(bar);
        let shape = SurfaceShape::compat(width, height, GuestAddress(bar.base));
        let mode = if bits == 16 {
            Mode::Compat16
        } else {
            Mode::Compat
        };
        self.create_primary(core, shape, mode)?;
        self.rom.set_mode(place);
        Ok(())
    }

    fn create_primary(
        &self,
        core: &mut Core,
        shape: SurfaceShape,
        mode: Mode,
    ) -> Result<(), PortError> {
        let (len, most) = (shape.len(), self.config.vgamem);
        if len > most {
            return Err(PortError::PrimaryTooLarge { len, most });
        }
        let place = core.slots.resolve(shape.data, len);
        let place = place.map_err(CommandError::from)?;
        if self.mode().has_primary() {
            tracing::debug!("the guest replaces its primary surface without destroying it first");
            core.note(|recorder, _| recorder.destroy_primary());
        }
        let canvas = self.primary_canvas(&shape, Some(&place).filter(|_| shape.keep));
        core.note(|recorder, _| recorder.create_primary(&shape, &place));
        self.set_mode(core, mode);
        self.screen.write().replace(canvas, Some(shape));
        self.news.layout();
        Ok(())
    }

    /// A primary surface, all of which is news, with the picture that is at this place in guest memory.
    pub(super) fn primary_canvas(&self, shape: &SurfaceShape, picture: Option<&Place>) -> Canvas {
        let memory = self.screen.write().spare_memory();
        let mut canvas = Canvas::on_screen(shape.format, shape.size(), memory);
        if let Some(place) = picture {
            shape.load(&mut canvas, place);
        }
        canvas.damage(canvas.area());
        canvas
    }

    /// Writes what a surface has of `area` back into guest memory. Like the reference it forgives old
    /// drivers that ask for nothing, and others that ask for a surface that is gone or for more than it
    /// has.
    pub(super) fn update_area(
        &self,
        core: &mut Core,
        surface: u32,
        area: Rect,
    ) -> Result<(), PortError> {
        if area.left == area.right || area.top == area.bottom {
            return Ok(());
        }
        let inside = area.left >= 0 && area.top >= 0;
        if !inside || area.left > area.right || area.top > area.bottom {
            return Err(PortError::Area { surface, area });
        }
        if surface >= self.config.surfaces {
            return Err(PortError::SurfaceId(surface));
        }
        let screen = self.screen.read();
        let found = if surface == 0 {
            screen.canvas.as_ref().zip(screen.shape.as_ref())
        } else {
            let surface = core.surfaces.with_shape(surface);
            surface.map(|surface| (&surface.canvas, &surface.shape))
        };
        let Some((canvas, shape)) = found else {
            core.log_once("update area", &format!("surface {surface} is not there"));
            return Ok(());
        };
        let area = area.intersection(canvas.area());
        let place = core.slots.resolve(shape.data, shape.len());
        let columns = area.left as u32..area.right as u32;
        let rows = area.top as u32..area.bottom as u32;
        shape.store(&place.map_err(CommandError::from)?, canvas, columns, rows);
        Ok(())
    }

    /// Writes every surface back into guest memory, as far as it is still there.
    pub(super) fn write_back(&self, core: &Core) {
        let screen = self.screen.read();
        let primary = screen.canvas.as_ref().zip(screen.shape.as_ref());
        let others = core.surfaces.all().map(|s| (&s.canvas, &s.shape));
        for (canvas, shape) in primary.into_iter().chain(others) {
            if let Ok(place) = core.slots.resolve(shape.data, shape.len()) {
                shape.store(&place, canvas, 0..shape.width, 0..shape.height);
            }
        }
    }
}
