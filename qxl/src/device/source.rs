//! The display as a server reads it.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use super::{Qxl, interrupts};
use crate::canvas::{Canvas, PixelFormat};
use caraway_spice::{
    ClientCapabilities, CursorState, DisplayObserver, DisplaySource, HeadRequest, Layout, Rect,
    Size,
};

/// The pixels of one monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// Pixels across and down.
    pub size: Size,
    /// Four bytes a pixel: blue, green, red, nothing; rows from the top without gaps.
    pub pixels: Vec<u8>,
}

impl Qxl {
    /// What monitor `head` (counted from 0 in the layout) shows now; `None` if there is no such
    /// monitor or nothing to see.
    #[must_use]
    pub fn screenshot(&self, head: usize) -> Option<Screenshot> {
        let layout = self.layout();
        let area = layout.heads.get(head)?.area;
        let size = Size {
            width: area.width(),
            height: area.height(),
        };
        let mut pixels = vec![0; size.width as usize * size.height as usize * 4];
        let read = self.read(layout.generation, area, &mut pixels);
        read.then_some(Screenshot { size, pixels })
    }
}

impl DisplaySource for Qxl {
    fn layout(&self) -> Layout {
        self.refresh_if_stale();
        self.screen.read().layout(self.config.heads)
    }

    fn read(&self, generation: u64, area: Rect, pixels: &mut [u8]) -> bool {
        let screen = self.screen.read();
        let Some(canvas) = screen.canvas.as_ref() else {
            return false;
        };
        let (width, height) = (area.width() as usize, area.height() as usize);
        let inside = !area.is_empty() && area.intersection(canvas.area()) == area;
        if screen.generation != generation || !inside || pixels.len() != width * height * 4 {
            return false;
        }
        let rows = (area.top as u32..).zip(pixels.chunks_exact_mut(width * 4));
        for (y, row) in rows {
            match canvas.row(area.left as u32, y, area.width()) {
                Some(from) => show(canvas.format(), from, row),
                None => return false,
            }
        }
        true
    }

    fn drawn(&self) -> Rect {
        // Zeros are black in every format.
        let screen = self.screen.read();
        screen
            .canvas
            .as_ref()
            .map_or(Rect::default(), Canvas::drawn)
    }

    fn cursor(&self) -> CursorState {
        self.cursor.lock().clone()
    }

    fn observe(&self, observer: Weak<dyn DisplayObserver>) {
        self.observers.lock().push(observer);
    }

    fn clients_changed(&self, clients: ClientCapabilities) {
        // Who comes first finds a picture.
        self.refresh_if_stale();
        self.clients_present
            .store(clients.present, Ordering::SeqCst);
        let core = self.core.lock();
        if self.rom.set_clients(clients.present, clients.bits) {
            self.interrupts.raise(&self.ram, interrupts::CLIENT);
        }
        drop(core);
        // Whoever comes wants to see something now.
        self.wake();
    }

    fn request_heads(&self, heads: &[HeadRequest]) -> bool {
        self.wish_for_heads(heads)
    }
}

/// Turns a row of pixels into blue, green, red and nothing.
fn show(format: PixelFormat, pixels: &[u32], row: &mut [u8]) {
    for (to, pixel) in row.as_chunks_mut().0.iter_mut().zip(pixels) {
        let pixel = match format {
            PixelFormat::Xrgb | PixelFormat::Argb => *pixel,
            other => other.to_argb(*pixel),
        };
        *to = (pixel & 0x00ff_ffff).to_le_bytes();
    }
}
