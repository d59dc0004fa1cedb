//! Pieces of a screen, as the messages that draw them.

use std::sync::Arc;

use super::super::draw;
use crate::codec::{Codec, Encoder, Pixels, parts};
use crate::geometry::{Point, Rect};
use crate::source::DisplaySource;
use crate::wire::Message;

/// How pixels are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Exactly, as one image.
    AsOne,
    /// Exactly. What is on the page around a photograph and the photograph are images of their own.
    Exactly,
    /// The same, but a photograph may be a lossy image.
    Hastily,
}

/// Pixels that are to be sent.
pub(super) struct Piece {
    pub(super) source: Arc<dyn DisplaySource>,
    /// Of the surface that they are on.
    pub(super) generation: u64,
    pub(super) area: Rect,
    pub(super) codec: Codec,
    pub(super) how: How,
    /// Bytes that they may take.
    pub(super) limit: usize,
    /// The number of their first image.
    pub(super) image: u64,
}

/// A message that draws pixels.
pub(super) struct Drawing {
    pub(super) message: Message,
    pub(super) area: Rect,
    pub(super) is_exact: bool,
}

/// The messages that draw a piece as it was at one moment.
#[derive(Default)]
pub(super) struct Drawings {
    /// Those that are sent: clients may be told to repeat what is in them.
    pub(super) accepted: Vec<Drawing>,
    /// One that is not sent, as it takes too much …
    pub(super) refused: Option<Drawing>,
    /// … and what comes after it.
    pub(super) left: Vec<Rect>,
}

impl Piece {
    /// Numbers of images that a piece needs at most.
    pub(super) const IMAGES: u64 = 5;

    /// What draws it; `None` if the pixels are gone.
    pub(super) fn encode(&self, encoder: &mut Encoder) -> Option<Drawings> {
        let area = self.area;
        let read = |pixels: &mut [u8]| self.source.read(self.generation, area, pixels);
        let pixels = encoder.pixels(area.width(), area.height(), read)?;
        let mut drawings = Drawings::default();
        let parts = self.parts(&pixels);
        if let [whole] = parts[..] {
            let drawing = self.draw(0, whole, pixels, encoder);
            drawings.add(drawing, self.limit, encoder);
            return Some(drawings);
        }
        for (index, part) in (0..).zip(parts) {
            let copy = |bytes: &mut [u8]| {
                pixels.copy_part(part, bytes);
                true
            };
            if drawings.refused.is_some() {
                drawings.left.push(self.place(part));
            } else {
                let pixels = encoder.pixels(part.width(), part.height(), copy)?;
                let drawing = self.draw(index, part, pixels, encoder);
                drawings.add(drawing, self.limit, encoder);
            }
        }
        Some(drawings)
    }

    /// What of it goes as an image of its own.
    fn parts(&self, pixels: &Pixels) -> Vec<Rect> {
        let is_ours = matches!(self.codec, Codec::Auto | Codec::AutoLz);
        if self.how == How::AsOne || !is_ours || pixels.solid().is_some() {
            return vec![Rect::of_size(pixels.size())];
        }
        parts(pixels)
    }

    /// Where a part of it is on the surface.
    fn place(&self, part: Rect) -> Rect {
        part.shifted(Point {
            x: self.area.left,
            y: self.area.top,
        })
    }

    /// The message that draws the pixels of a part.
    fn draw(&self, index: u64, part: Rect, pixels: Pixels, encoder: &mut Encoder) -> Drawing {
        let area = self.place(part);
        if let Some(message) = draw::fill(area, &pixels) {
            encoder.recycle(pixels);
            return Drawing {
                message,
                area,
                is_exact: true,
            };
        }
        let may_be_lossy = self.how == How::Hastily;
        let lossy = may_be_lossy
            .then(|| encoder.encode_lossy(&pixels))
            .flatten();
        let is_exact = lossy.is_none();
        let image = match lossy {
            Some(image) => {
                encoder.recycle(pixels);
                image
            }
            None => encoder.encode(self.codec, pixels),
        };
        Drawing {
            message: draw::copy(area, &image, self.image + index),
            area,
            is_exact,
        }
    }
}

impl Drawings {
    /// Takes one more, unless that makes more bytes than `limit`.
    fn add(&mut self, drawing: Drawing, limit: usize, encoder: &mut Encoder) {
        let before = self.accepted.iter().map(|drawing| drawing.message.len());
        if before.sum::<usize>() + drawing.message.len() > limit {
            self.refused = Some(drawing);
        } else {
            encoder.sent();
            self.accepted.push(drawing);
        }
    }
}
