//! A sound device to record from.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::jack::Jack;
use super::{AudioFormat, AudioListener, AudioSink, AudioState, Volume};

/// An [`AudioSink`] for whoever wants samples. Keeps the newest half second of what was not read yet.
#[derive(Default)]
pub struct Microphone {
    jack: Jack,
    recorded: Mutex<VecDeque<i16>>,
}

/// What is kept for a reader that is late.
const KEPT: Duration = Duration::from_millis(500);

impl Microphone {
    /// One that does not record.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on a client shall record in this format.
    pub fn start(&self, format: AudioFormat) {
        self.recorded.lock().clear();
        self.jack.change(|state| state.format = Some(format));
    }

    /// From now on no client shall record.
    pub fn stop(&self) {
        self.jack.change(|state| state.format = None);
    }

    /// Takes the oldest recorded samples, and says how many these were.
    pub fn read(&self, samples: &mut [i16]) -> usize {
        let mut recorded = self.recorded.lock();
        let count = samples.len().min(recorded.len());
        for (sample, recorded) in samples.iter_mut().zip(recorded.drain(..count)) {
            *sample = recorded;
        }
        count
    }

    /// Sets how loud clients shall record.
    pub fn set_volume(&self, volume: Option<Volume>) {
        self.jack.change(|state| state.volume = volume);
    }
}

impl AudioSink for Microphone {
    fn state(&self) -> AudioState {
        self.jack.state()
    }

    fn recorded(&self, samples: &[i16]) {
        let Some(format) = self.jack.state().format else {
            return;
        };
        let most = format.samples_in(KEPT);
        let newest = &samples[samples.len().saturating_sub(most)..];
        let mut recorded = self.recorded.lock();
        let excess = (recorded.len() + newest.len()).saturating_sub(most);
        recorded.drain(..excess);
        recorded.extend(newest);
    }

    fn listen(&self, listener: Weak<dyn AudioListener>) {
        self.jack.listen(listener);
    }
}

impl fmt::Debug for Microphone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Microphone")
            .field("state", &self.jack.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reader_gets_the_newest() {
        let microphone = Microphone::new();
        microphone.start(AudioFormat::new(1, 8000).expect("it is possible"));
        microphone.recorded(&[1; 4000]);
        microphone.recorded(&[2; 3000]);
        let mut samples = [0; 5000];
        assert_eq!(microphone.read(&mut samples), 4000);
        assert_eq!((samples[999], samples[1000], samples[3999]), (1, 2, 2));
    }

    #[test]
    fn nothing_is_recorded_while_it_is_stopped() {
        let microphone = Microphone::new();
        microphone.recorded(&[1; 100]);
        assert_eq!(microphone.read(&mut [0; 100]), 0);
    }
}
