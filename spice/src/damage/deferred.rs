//! Copies whose source the client does not have yet.

use super::Move;
use crate::geometry::Rect;

/// Copies that wait at most.
const MAX: usize = 16;

/// Copies that the client can make once it has their sources. Until then their targets are damaged, but
/// wait: the same pixels need not be sent twice. Source and target are both as they were when the copy
/// was made; whoever changes one of them ends that.
///
/// No target is the source of another, so that none waits for itself.
#[derive(Debug, Default)]
pub(super) struct Deferred(Vec<Move>);

impl Deferred {
    /// Lets a copy wait, if it can.
    pub(super) fn add(&mut self, copy: Move) {
        let apart = |a: Rect, b: Rect| a.intersection(b).is_empty();
        let (from, to) = (copy.source(), copy.to);
        let fits = |other: &Move| {
            apart(other.to, to) && apart(other.to, from) && apart(other.source(), to)
        };
        if self.0.len() < MAX && apart(from, to) && self.0.iter().all(fits) {
            self.0.push(copy);
        }
    }

    /// These pixels are others now.
    pub(super) fn changed(&mut self, area: Rect) {
        self.forget(|copy| {
            let has_any = |rect: Rect| !rect.intersection(area).is_empty();
            has_any(copy.to) || has_any(copy.source())
        });
    }

    /// Gives up the copies that are like this.
    pub(super) fn forget(&mut self, is_like: impl Fn(Move) -> bool) {
        self.0.retain(|copy| !is_like(*copy));
    }

    /// Whether this damage waits for a copy.
    pub(super) fn hold(&self, damage: Rect) -> bool {
        self.0.iter().any(|copy| copy.to.contains(damage))
    }

    /// Takes a copy whose source the client has.
    pub(super) fn take(&mut self, has: impl Fn(Rect) -> bool) -> Option<Move> {
        let ready = self.0.iter().position(|copy| has(copy.source()))?;
        Some(self.0.remove(ready))
    }
}
