//! Bytes that wait to be read, never more than there is room for.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A queue of at most `N` entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bounded<T, const N: usize>(VecDeque<T>);

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T, const N: usize> Bounded<T, N> {
    /// Adds all of `items`, or none of them if there is no room for all.
    pub(super) fn push_all(&mut self, items: impl ExactSizeIterator<Item = T>) -> bool {
        let fits = items.len() <= self.room();
        if fits {
            self.0.extend(items);
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.0.pop_front()
    }

    pub(super) fn room(&self) -> usize {
        N.saturating_sub(self.0.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it holds more than it may: only one from a snapshot can.
    pub(super) fn is_over(&self) -> bool {
        self.0.len() > N
    }
}
