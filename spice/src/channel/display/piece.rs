//! Pieces of a screen, as the messages that draw them.

use std::sync::Arc;

use super::super::draw;
use crate::codec::{Codec, Encoder, Known, MOST_UNKNOWN, Palette, Pixels, is_gradual, parts};
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
    /// What the client has to forget before, to have room for what it is to keep of it.
    pub(super) before: Option<Message>,
}

/// What a piece is drawn by: what the client keeps, and then images of the rest.
struct Plan {
    known: Vec<Known>,
    new: Vec<Rect>,
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
    /// Numbers of images that a piece needs at most: four around a photograph, and those in it.
    pub(super) const IMAGES: u64 = 4 + MOST_UNKNOWN as u64;

    /// What draws it; `None` if the pixels are gone.
    pub(super) fn encode(&self, encoder: &mut Encoder) -> Option<Drawings> {
        let area = self.area;
        let read = |pixels: &mut [u8]| self.source.read(self.generation, area, pixels);
        let pixels = encoder.pixels(area.width(), area.height(), read)?;
        let mut drawings = Drawings::default();
        let plan = self.plan(&pixels, encoder);
        if let ([], [whole]) = (&plan.known[..], &plan.new[..]) {
            self.draw(0, *whole, pixels, encoder, &mut drawings);
            return Some(drawings);
        }
        for known in plan.known {
            let area = self.place(known.part);
            drawings
                .accepted
                .push(Drawing::exact(draw::known(area, known), area));
        }
        for (index, part) in (0..).zip(plan.new) {
            let copy = |bytes: &mut [u8]| {
                pixels.copy_part(part, bytes);
                true
            };
            if drawings.refused.is_some() {
                drawings.left.push(self.place(part));
            } else {
                let pixels = encoder.pixels(part.width(), part.height(), copy)?;
                self.draw(index, part, pixels, encoder, &mut drawings);
            }
        }
        encoder.recycle(pixels);
        Some(drawings)
    }

    fn plan(&self, pixels: &Pixels, encoder: &mut Encoder) -> Plan {
        let is_ours = matches!(self.codec, Codec::Auto | Codec::AutoLz);
        if self.how == How::AsOne || !is_ours || pixels.solid().is_some() {
            return Plan::of_new(vec![Rect::of_size(pixels.size())]);
        }
        let mut new = parts(pixels);
        if !encoder.knows_any() || (new.len() == 1 && !is_gradual(pixels)) {
            return Plan::of_new(new);
        }
        // The photograph is the last one.
        let photograph = new.pop().unwrap_or_default();
        let (known, unknown) = encoder.known(pixels, photograph);
        new.extend(unknown);
        Plan { known, new }
    }

    /// Where a part of it is on the surface.
    fn place(&self, part: Rect) -> Rect {
        part.shifted(Point {
            x: self.area.left,
            y: self.area.top,
        })
    }

    /// Draws the pixels of a part, unless that makes more bytes than there may be.
    fn draw(
        &self,
        index: u64,
        part: Rect,
        pixels: Pixels,
        encoder: &mut Encoder,
        drawings: &mut Drawings,
    ) {
        let area = self.place(part);
        if let Some(colour) = pixels.solid() {
            encoder.recycle(pixels);
            drawings.add(Drawing::exact(draw::fill(area, colour), area), self.limit);
            return;
        }
        let id = self.image + index;
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
        let drawing = Drawing {
            is_exact,
            ..Drawing::exact(draw::copy(area, &image, id), area)
        };
        if let Some(drawing) = drawings.add(drawing, self.limit) {
            encoder.sent();
            let images = encoder.keep(id);
            drawing.before = match image.palette {
                Some(Palette::New { forgets, .. }) => forgets.map(draw::forget_palette),
                _ => (!images.is_empty()).then(|| draw::forget(&images)),
            };
        }
    }
}

impl Plan {
    fn of_new(new: Vec<Rect>) -> Self {
        let known = Vec::new();
        Self { known, new }
    }
}

impl Drawing {
    fn exact(message: Message, area: Rect) -> Self {
        Self {
            message,
            area,
            is_exact: true,
            before: None,
        }
    }
}

impl Drawings {
    /// Takes one more, unless that makes more bytes than `limit`.
    fn add(&mut self, drawing: Drawing, limit: usize) -> Option<&mut Drawing> {
        let before = self.accepted.iter().map(|drawing| drawing.message.len());
        if before.sum::<usize>() + drawing.message.len() > limit {
            self.refused = Some(drawing);
            return None;
        }
        self.accepted.push(drawing);
        self.accepted.last_mut()
    }
}
