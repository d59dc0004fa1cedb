//! Stills that the client shows as lossy images until there is time for exact pixels.
//!
//! A lossy image counts for what it shows: its pixels are not damaged, may be copied, and what they are
//! copied to is lossy as well. Once nothing else is to be sent for a while, all that is lossy is damage
//! of a last kind ([`Tile::refines`]), which is sent exactly, and only while there is no other.

use std::time::Duration;

use tokio::time::Instant;

use super::{Damage, Move};
use crate::geometry::Rect;

/// So long after the last lossy image, exact pixels follow: who scrolls on or looks at the next picture
/// does so sooner, mostly.
const SETTLED: Duration = Duration::from_millis(250);

impl Damage {
    /// A lossy image of `piece` was sent in so many bytes.
    pub(crate) fn sent_lossy(&mut self, piece: Rect, bytes: usize, now: Instant) {
        self.learn(piece, bytes, false);
        self.charge(piece, bytes, now);
        self.mark_lossy(piece);
        self.refine_at = Some(now + SETTLED);
    }

    /// Bytes that all damage is likely to take if it is sent exactly.
    pub(crate) fn exact_bytes(&self) -> f64 {
        (self.tiles.iter())
            .filter(|tile| !tile.refines)
            .map(|tile| f64::from(self.exact_density(tile)) * tile.damage.pixels() as f64)
            .sum()
    }

    /// The client shows a lossy image there.
    fn mark_lossy(&mut self, area: Rect) {
        for index in self.tiles.touched(area) {
            let part = area.intersection(self.tiles.area(index));
            if let Some(tile) = self.tiles.get_mut(index) {
                tile.lossy = tile.lossy.union(part);
            }
        }
    }

    /// The client gets these pixels anew. What it copies there until then, it copies after it has them.
    pub(super) fn forget_lossy(&mut self, piece: Rect) {
        for index in self.tiles.touched(piece) {
            if let Some(tile) = self.tiles.get_mut(index) {
                tile.lossy = tile.lossy.without(piece);
            }
        }
    }

    /// The client makes a copy of what is lossy, too; nothing else of the target is as it was.
    pub(super) fn clear_for_copy(&mut self, copy: Move) {
        let lossy = self.tiles.touched(copy.source());
        let lossy = lossy.filter_map(|index| Some(self.tiles.get(index)?.lossy));
        let lossy: Vec<Rect> = lossy
            .map(|rect| copy.carried(rect))
            .filter(|rect| !rect.is_empty())
            .collect();
        self.clear(copy.to);
        for area in lossy {
            self.mark_lossy(area);
        }
    }

    /// Makes damage of what is lossy, when it is time to. Otherwise, when that will be.
    pub(super) fn refine(&mut self, now: Instant) -> Option<Instant> {
        let due = self.refine_at?;
        if now < due {
            return Some(due);
        }
        self.refine_at = None;
        for tile in self.tiles.iter_mut().filter(|tile| !tile.lossy.is_empty()) {
            // What is damaged already, on a film for instance, is not shown at all.
            tile.refines = tile.damage.is_empty();
            self.damaged += usize::from(tile.refines);
            tile.damage = tile.damage.union(std::mem::take(&mut tile.lossy));
        }
        None
    }
}
