//! VGA mode: ports and window for the machine's buses, and keeping the canvas up to date.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caraway_devices::BusDevice;
use caraway_spice::Size;

use super::{Core, Mode, Qxl};
use crate::canvas::{Canvas, PixelFormat};
use crate::command::MAX_SIDE;
use crate::text::{self, TextScreen};
use crate::vga::PORT_BASE;

/// How often somebody who looks sees a new picture.
const REFRESH_NANOS: u64 = 30_000_000;
/// What is seen before any firmware ran: the size of the usual text mode.
const INITIAL: Size = Size {
    width: 720,
    height: 400,
};

/// The VGA ports, 0x3b0 to 0x3df.
struct Ports(Arc<Qxl>);

/// The VBE ports, 0x1ce to 0x1d1.
struct VbePorts(Arc<Qxl>);

/// The window, 0xa0000 to 0xbffff.
struct Window(Arc<Qxl>);

impl BusDevice for Ports {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut vga = self.0.vga.lock();
        for (port, byte) in (PORT_BASE.saturating_add(offset as u16)..).zip(data) {
            *byte = vga.read_port(port);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut vga = self.0.vga.lock();
        for (port, byte) in (PORT_BASE.saturating_add(offset as u16)..).zip(data) {
            vga.write_port(port, *byte);
        }
    }
}

impl BusDevice for VbePorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let value = self.0.vga.lock().read_vbe(offset).to_le_bytes();
        for (to, from) in data.iter_mut().zip(value) {
            *to = from;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // The registers are words; other accesses mean nothing.
        if let Ok(value) = data.try_into() {
            self.0
                .vga
                .lock()
                .write_vbe(offset, u16::from_le_bytes(value));
        }
    }
}

impl BusDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut vga = self.0.vga.lock();
        for (at, byte) in (offset..).zip(data) {
            *byte = vga.read_window(at);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut vga = self.0.vga.lock();
        for (at, byte) in (offset..).zip(data) {
            vga.write_window(at, *byte);
        }
    }
}

impl Qxl {
    /// The legacy I/O ports: first port, number of ports, and who answers there.
    #[must_use]
    pub fn vga_ports(self: &Arc<Self>) -> [(u16, u16, Arc<dyn BusDevice>); 2] {
        [
            (PORT_BASE, 0x30, Arc::new(Ports(Arc::clone(self)))),
            (
                crate::vga::VBE_BASE,
                4,
                Arc::new(VbePorts(Arc::clone(self))),
            ),
        ]
    }

    /// The legacy frame buffer window: guest-physical address, length in bytes, and who answers
    /// there.
    #[must_use]
    pub fn vga_window(self: &Arc<Self>) -> (u64, u64, Arc<dyn BusDevice>) {
        (
            0xa_0000,
            crate::vga::WINDOW_LEN,
            Arc::new(Window(Arc::clone(self))),
        )
    }

    /// Whether [`refresh`](Self::refresh) is worth calling every 30 ms: somebody looks, and the
    /// guest is in a VGA mode, where only looking tells what changed.
    #[must_use]
    pub fn wants_refresh(&self) -> bool {
        self.mode() == Mode::Vga && self.clients_present.load(Ordering::SeqCst)
    }

    /// In a VGA mode, brings the canvas up to date and tells the observers what changed. The
    /// display thread calls this while [`wants_refresh`](Self::wants_refresh).
    pub fn refresh(&self) {
        self.redraw(&mut self.core.lock());
        self.tell_observers();
    }

    /// Brings the canvas up to date if nobody else does and it is old.
    pub(super) fn refresh_if_stale(&self) {
        if self.mode() != Mode::Vga || self.clients_present.load(Ordering::SeqCst) {
            return;
        }
        let last = self.refreshed.load(Ordering::SeqCst);
        if last == 0 || self.clock.now().saturating_sub(last) >= REFRESH_NANOS {
            self.redraw(&mut self.core.lock());
            // The observers may be asking just now, so the display thread tells them.
            self.wake();
        }
    }

    fn redraw(&self, core: &mut Core) {
        if self.mode() != Mode::Vga {
            return;
        }
        self.refreshed
            .store(self.clock.now().max(1), Ordering::SeqCst);
        let picture = self.vga.lock().picture();
        let mut screen = self.screen.write();
        let size = match (picture.size(), screen.size()) {
            (Some(own), _) => Size {
                width: own.width.clamp(1, MAX_SIDE),
                height: own.height.clamp(1, MAX_SIDE),
            },
            // A screen that is off stays as large as it was.
            (None, Some(current)) => current,
            (None, None) => INITIAL,
        };
        if screen.size() != Some(size) {
            let memory = screen.spare_memory();
            let mut canvas = Canvas::on_screen(PixelFormat::Xrgb, size, memory);
            canvas.damage(canvas.area());
            screen.replace(canvas, None);
            core.view.forget();
            self.news.layout();
        }
        if let Some(canvas) = screen.canvas.as_mut() {
            core.view.draw(&picture, &self.memory, canvas);
        }
    }

    /// The text screen; `None` outside of text modes.
    #[must_use]
    pub fn text(&self) -> Option<TextScreen> {
        if self.mode() != Mode::Vga {
            return None;
        }
        let mode = self.vga.lock().text_mode()?;
        Some(text::screen(&mode, &self.memory))
    }
}
