//! Pixels in memory that a server can show.

use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use crate::geometry::{Point, Rect, Size};
use crate::source::{
    CursorImage, CursorState, DisplayObserver, DisplaySource, Head, Layout, Update,
};

/// A display for programs that draw themselves: a rectangle of pixels, monitors and a cursor.
///
/// ```
/// use caraway_spice::{Framebuffer, Rect, Size};
///
/// let screen = Framebuffer::new(Size { width: 640, height: 480 });
/// let area = Rect { left: 10, top: 10, right: 20, bottom: 20 };
/// screen.fill(area, 0x00ff_8000);
/// assert_eq!(screen.pixel(15, 15), Some(0x00ff_8000));
/// ```
pub struct Framebuffer {
    canvas: RwLock<Canvas>,
    cursor: Mutex<CursorState>,
    observers: Mutex<Vec<Weak<dyn DisplayObserver>>>,
}

struct Canvas {
    size: Size,
    generation: u64,
    heads: Vec<Head>,
    /// 0x00RRGGBB, rows without gaps.
    pixels: Vec<u32>,
    /// Outside of this they are black.
    drawn: Rect,
}

impl Canvas {
    fn new(size: Size, generation: u64) -> Self {
        let size = Size {
            width: size.width.min(Framebuffer::MAX_SIDE),
            height: size.height.min(Framebuffer::MAX_SIDE),
        };
        let count = size.width as usize * size.height as usize;
        Self {
            size,
            generation,
            heads: vec![Head {
                id: 0,
                area: Rect::of_size(size),
            }],
            pixels: vec![0; count],
            drawn: Rect::default(),
        }
    }

    /// The pixels of `area`, which is inside, row by row.
    fn rows(&mut self, area: Rect) -> impl Iterator<Item = &mut [u32]> {
        let columns = area.left as usize..area.right as usize;
        self.pixels
            .chunks_exact_mut(self.size.width.max(1) as usize)
            .skip(area.top as usize)
            .take(area.height() as usize)
            .filter_map(move |row| row.get_mut(columns.clone()))
    }
}

impl Framebuffer {
    /// Pixels of a side at most; larger sizes are cut.
    pub const MAX_SIDE: u32 = 16_384;

    /// A black screen of one monitor, without a cursor.
    #[must_use]
    pub fn new(size: Size) -> Arc<Self> {
        Arc::new(Self {
            canvas: RwLock::new(Canvas::new(size, 1)),
            cursor: Mutex::default(),
            observers: Mutex::default(),
        })
    }

    /// The size now.
    #[must_use]
    pub fn size(&self) -> Size {
        self.canvas.read().size
    }

    /// Starts again with a black screen of another size and one monitor.
    pub fn set_size(&self, size: Size) {
        {
            let mut canvas = self.canvas.write();
            *canvas = Canvas::new(size, canvas.generation + 1);
        }
        self.tell(|observer| observer.layout_changed());
    }

    /// Says which part each monitor shows; parts outside of the screen are cut.
    pub fn set_heads(&self, heads: &[Head]) {
        {
            let mut canvas = self.canvas.write();
            let bounds = Rect::of_size(canvas.size);
            let cut = |head: &Head| Head {
                id: head.id,
                area: head.area.intersection(bounds),
            };
            canvas.heads = heads
                .iter()
                .map(cut)
                .filter(|head| !head.area.is_empty())
                .collect();
        }
        self.tell(|observer| observer.layout_changed());
    }

    /// Makes `area` one colour, 0x00RRGGBB.
    pub fn fill(&self, area: Rect, colour: u32) {
        self.draw(area, |_, _| colour);
    }

    /// Asks `colour` for every pixel of `area` by its column and row: 0x00RRGGBB. Parts outside of
    /// the screen are not asked for.
    pub fn draw(&self, area: Rect, colour: impl Fn(u32, u32) -> u32) {
        let mut canvas = self.canvas.write();
        let area = area.intersection(Rect::of_size(canvas.size));
        if area.is_empty() {
            return;
        }
        for (y, row) in (area.top as u32..).zip(canvas.rows(area)) {
            for (x, pixel) in (area.left as u32..).zip(row) {
                *pixel = colour(x, y) & 0x00ff_ffff;
            }
        }
        self.tell_update(&mut canvas, Update::Pixels(area));
    }

    /// Copies `pixels`, rows of `area.width()` pixels without gaps, to `area`. `false`, and nothing
    /// drawn, if `area` is not inside of the screen or the number of pixels is another.
    #[must_use]
    pub fn blit(&self, area: Rect, pixels: &[u32]) -> bool {
        let count = u64::from(area.width()) * u64::from(area.height());
        let mut canvas = self.canvas.write();
        let inside = Rect::of_size(canvas.size).contains(area);
        if area.is_empty() || !inside || count != pixels.len() as u64 {
            return false;
        }
        let source = pixels.chunks_exact(area.width() as usize);
        for (row, source) in canvas.rows(area).zip(source) {
            for (pixel, source) in row.iter_mut().zip(source) {
                *pixel = source & 0x00ff_ffff;
            }
        }
        self.tell_update(&mut canvas, Update::Pixels(area));
        true
    }

    /// Copies what is on the screen to `to`, from the rectangle of the same size whose top left corner
    /// is `from`; the two may overlap. Clients that have the pixels are told to copy them too, which
    /// costs a line of text or a window no more bytes than a dot. `false`, and nothing copied, if
    /// one of them is not inside of the screen.
    #[must_use]
    pub fn copy(&self, from: Point, to: Rect) -> bool {
        let mut canvas = self.canvas.write();
        let bounds = Rect::of_size(canvas.size);
        let far = |a: i32, b: u32| i64::from(a) + i64::from(b);
        let inside = from.x >= 0
            && from.y >= 0
            && far(from.x, to.width()) <= bounds.right.into()
            && far(from.y, to.height()) <= bounds.bottom.into();
        if to.is_empty() || !bounds.contains(to) || !inside {
            return false;
        }
        let stride = canvas.size.width as usize;
        let start = |x: i32, y: i32| y as usize * stride + x as usize;
        let width = to.width() as usize;
        let copy_row = |row: i32| {
            let source = start(from.x, from.y + row);
            let target = start(to.left, to.top + row);
            canvas.pixels.copy_within(source..source + width, target);
        };
        let rows = 0..to.bottom - to.top;
        // A row must be read before it is written.
        if from.y < to.top {
            rows.rev().for_each(copy_row);
        } else {
            rows.for_each(copy_row);
        }
        self.tell_update(&mut canvas, Update::Copy { from, to });
        true
    }

    /// The colour of a pixel, 0x00RRGGBB; `None` outside of the screen.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> Option<u32> {
        let canvas = self.canvas.read();
        let inside = x < canvas.size.width && y < canvas.size.height;
        let index = y as usize * canvas.size.width as usize + x as usize;
        canvas.pixels.get(index).copied().filter(|_| inside)
    }

    /// Gives the cursor another shape, or none.
    pub fn set_cursor(&self, image: Option<CursorImage>) {
        {
            let mut cursor = self.cursor.lock();
            cursor.visible = image.is_some();
            cursor.image = image.map(Arc::new);
        }
        self.tell(|observer| observer.cursor_changed());
    }

    /// Moves the cursor.
    pub fn move_cursor(&self, position: Point) {
        self.cursor.lock().position = position;
        self.tell(|observer| observer.cursor_changed());
    }

    /// Shows or hides the cursor.
    pub fn show_cursor(&self, visible: bool) {
        self.cursor.lock().visible = visible;
        self.tell(|observer| observer.cursor_changed());
    }

    /// Tells of new pixels while nobody can read them, so that copies are known when they can be.
    fn tell_update(&self, canvas: &mut RwLockWriteGuard<'_, Canvas>, update: Update) {
        let (Update::Pixels(area) | Update::Copy { to: area, .. }) = update;
        canvas.drawn = canvas.drawn.union(area);
        self.tell(|observer| observer.updated(&[update]));
    }

    fn tell(&self, what: impl Fn(&dyn DisplayObserver)) {
        self.observers
            .lock()
            .retain(|observer| match observer.upgrade() {
                Some(observer) => {
                    what(&*observer);
                    true
                }
                None => false,
            });
    }
}

impl DisplaySource for Framebuffer {
    fn layout(&self) -> Layout {
        let canvas = self.canvas.read();
        let is_there = !canvas.pixels.is_empty();
        Layout {
            primary: is_there.then_some(canvas.size),
            heads: if is_there {
                canvas.heads.clone()
            } else {
                Vec::new()
            },
            max_heads: 4,
            generation: canvas.generation,
        }
    }

    fn read(&self, generation: u64, area: Rect, pixels: &mut [u8]) -> bool {
        let canvas = self.canvas.read();
        let inside = area.intersection(Rect::of_size(canvas.size)) == area && !area.is_empty();
        let length = u64::from(area.width()) * u64::from(area.height()) * 4;
        if generation != canvas.generation || !inside || length != pixels.len() as u64 {
            return false;
        }
        let columns = area.left as usize..area.right as usize;
        let rows = canvas
            .pixels
            .chunks_exact(canvas.size.width as usize)
            .skip(area.top as usize)
            .filter_map(|row| row.get(columns.clone()));
        for (out, row) in pixels.chunks_exact_mut(columns.len() * 4).zip(rows) {
            for (out, pixel) in out.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                *out = pixel.to_le_bytes();
            }
        }
        true
    }

    fn drawn(&self) -> Rect {
        self.canvas.read().drawn
    }

    fn cursor(&self) -> CursorState {
        self.cursor.lock().clone()
    }

    fn observe(&self, observer: Weak<dyn DisplayObserver>) {
        self.observers.lock().push(observer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 4,
        height: 3,
    };

    #[test]
    fn what_is_drawn_is_read() {
        let screen = Framebuffer::new(SIZE);
        let area = Rect {
            left: 1,
            top: 1,
            right: 3,
            bottom: 3,
        };
        assert!(screen.blit(area, &[1, 2, 3, 4]));
        let mut bytes = [9; 16];
        assert!(screen.read(1, area, &mut bytes));
        assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!((screen.pixel(2, 2), screen.pixel(0, 0)), (Some(4), Some(0)));
        assert_eq!(screen.drawn(), area);
    }

    #[test]
    fn reads_of_another_generation_or_place_are_refused() {
        let screen = Framebuffer::new(SIZE);
        let whole = Rect::of_size(SIZE);
        let mut bytes = [9; 48];
        assert!(!screen.read(2, whole, &mut bytes));
        assert!(!screen.read(1, Rect { right: 5, ..whole }, &mut bytes));
        assert!(!screen.read(1, whole, &mut bytes[1..]));
        screen.set_size(SIZE);
        assert!(!screen.read(1, whole, &mut bytes));
        assert!(screen.read(2, whole, &mut bytes));
    }

    #[test]
    fn drawing_outside_is_cut_and_blits_outside_are_refused() {
        let screen = Framebuffer::new(SIZE);
        let outside = Rect {
            left: -5,
            top: -5,
            right: 50,
            bottom: 1,
        };
        screen.fill(outside, 7);
        assert_eq!((screen.pixel(3, 0), screen.pixel(3, 1)), (Some(7), Some(0)));
        assert!(!screen.blit(outside, &[0; 330]));
    }
}
