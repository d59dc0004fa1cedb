//! A sound device to play on.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::jack::Jack;
use super::{AudioFormat, AudioListener, AudioSource, AudioState, Volume};

/// An [`AudioSource`] for whoever has samples: play at the speed of the format, in pieces of some
/// 10 ms. Nothing is kept; who does not listen misses it.
#[derive(Default)]
pub struct Speaker {
    jack: Jack,
}

impl Speaker {
    /// A silent one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on samples of this format are played.
    pub fn start(&self, format: AudioFormat) {
        self.jack.change(|state| state.format = Some(format));
    }

    /// Plays these samples; they go nowhere while it is stopped.
    pub fn play(&self, samples: &[i16]) {
        if self.jack.state().format.is_some() {
            for listener in self.jack.listeners() {
                listener.played(samples);
            }
        }
    }

    /// From now on nothing is played.
    pub fn stop(&self) {
        self.jack.change(|state| state.format = None);
    }

    /// Sets how loud it is.
    pub fn set_volume(&self, volume: Option<Volume>) {
        self.jack.change(|state| state.volume = volume);
    }

    /// Sets how much sound clients keep; see [`AudioState::latency`].
    pub fn set_latency(&self, latency: Duration) {
        self.jack.change(|state| state.latency = latency);
    }
}

impl AudioSource for Speaker {
    fn state(&self) -> AudioState {
        self.jack.state()
    }

    fn listen(&self, listener: Weak<dyn AudioListener>) {
        self.jack.listen(listener);
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaker")
            .field("state", &self.jack.state())
            .finish_non_exhaustive()
    }
}
