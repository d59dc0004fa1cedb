//! Structures byte by byte at the offsets of `qxl_dev.h`, so that they can't share a mistake with the
//! device.

use caraway_spice::Rect;

/// Bytes put together in order; numbers are little-endian.
#[derive(Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// One byte more.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Two bytes more.
    #[must_use]
    pub fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes more.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes more.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A `QXLRect`: top, left, bottom, right.
    #[must_use]
    pub fn rect(self, rect: Rect) -> Self {
        [rect.top, rect.left, rect.bottom, rect.right]
            .into_iter()
            .fold(self, |bytes, side| bytes.u32(side as u32))
    }

    /// So many zeros more.
    #[must_use]
    pub fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// These bytes more.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// How [`Heap::image`] stores a bitmap.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// `SPICE_BITMAP_FMT_*`.
    pub format: u8,
    /// Whether the topmost row is the first.
    pub top_down: bool,
    /// Bytes from row to row; more than the pixels need leaves gaps.
    pub stride: u32,
    /// Bytes of each chunk; `None` for data in one piece without chunks.
    pub chunk: Option<usize>,
}

/// Where a driver keeps its commands and what they point to: a part of memory slot 1.
pub trait Heap {
    /// Puts bytes somewhere and says at which address (`QXLPHYSICAL`).
    fn put(&self, bytes: &[u8]) -> u64;

    /// Changes bytes at an address that [`Heap::put`] gave, or after it.
    fn patch(&self, address: u64, bytes: &[u8]);

    /// A chain of chunks with `data`, of `size` bytes each.
    fn chunks(&self, data: &[u8], size: usize) -> u64 {
        let mut next = 0;
        for piece in data.chunks(size.max(1)).rev() {
            let chunk = Bytes::default()
                .u32(piece.len() as u32)
                .u64(0)
                .u64(next)
                .bytes(piece);
            next = self.put(&chunk.0);
        }
        next
    }

    /// A bitmap whose rows are `rows`, topmost first, as a `QXLImage`.
    fn image(&self, width: u32, rows: &[Vec<u8>], form: Form, palette: u64) -> u64 {
        let mut stored: Vec<Vec<u8>> = rows.to_vec();
        if !form.top_down {
            stored.reverse();
        }
        for row in &mut stored {
            row.resize(form.stride as usize, 0xee);
        }
        let data = stored.concat();
        let (direct, data) = match form.chunk {
            None => (1, self.put(&data)),
            Some(size) => (0, self.chunks(&data, size)),
        };
        let flags = direct | if form.top_down { 4 } else { 0 };
        let height = rows.len() as u32;
        let image = Bytes::default()
            .u64(0)
            .u8(0)
            .u8(0)
            .u32(width)
            .u32(height)
            .u8(form.format)
            .u8(flags)
            .u32(width)
            .u32(height)
            .u32(form.stride)
            .u64(palette)
            .u64(data);
        self.put(&image.0)
    }

    /// A clip list (`QXLClipRects`).
    fn clip(&self, rects: &[Rect]) -> u64 {
        let data = rects.iter().fold(Bytes::default(), |b, r| b.rect(*r));
        let list = Bytes::default()
            .u32(rects.len() as u32)
            .u32(data.0.len() as u32)
            .zeros(16)
            .bytes(&data.0);
        self.put(&list.0)
    }

    /// A `QXLDrawable` with this union; its id is its address.
    fn drawable(&self, kind: u8, surface: u32, bbox: Rect, clip: &[Rect], body: Bytes) -> u64 {
        let clip = if clip.is_empty() { 0 } else { self.clip(clip) };
        let drawable = Bytes::default()
            .u64(0)
            .u32(surface)
            .u8(1)
            .u8(kind)
            .u8(0)
            .zeros(16)
            .rect(bbox)
            .u32(u32::from(clip != 0))
            .u64(clip)
            .u32(0)
            .bytes(&[0xff; 12])
            .zeros(48)
            .bytes(&body.0)
            .zeros(68 - body.0.len());
        assert_eq!(drawable.0.len(), 191);
        self.command(&drawable.0)
    }

    /// A command that begins with its `QXLReleaseInfo`: its id is its address.
    fn command(&self, bytes: &[u8]) -> u64 {
        let address = self.put(bytes);
        self.patch(address, &address.to_le_bytes());
        address
    }
}
