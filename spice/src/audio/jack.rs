//! What [`Speaker`](super::Speaker) and [`Microphone`](super::Microphone) have in common: a state
//! and those who listen.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{AudioListener, AudioState};

#[derive(Default)]
pub(super) struct Jack {
    state: Mutex<AudioState>,
    listeners: Mutex<Vec<Weak<dyn AudioListener>>>,
}

impl Jack {
    pub(super) fn state(&self) -> AudioState {
        *self.state.lock()
    }

    /// Changes the state, and tells the listeners if that made a difference.
    pub(super) fn change(&self, change: impl FnOnce(&mut AudioState)) {
        let (before, now) = {
            let mut state = self.state.lock();
            let before = *state;
            change(&mut state);
            (before, *state)
        };
        if before != now {
            for listener in self.listeners() {
                listener.changed(now);
            }
        }
    }

    pub(super) fn listen(&self, listener: Weak<dyn AudioListener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    pub(super) fn listeners(&self) -> Vec<Arc<dyn AudioListener>> {
        self.listeners
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}
