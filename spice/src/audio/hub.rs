//! Between a sound device and its clients: all of them hear it, and one is recorded.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::backlog::{Backlog, Piece};
use super::{AudioFormat, AudioListener, AudioSink, AudioSource, AudioState};
use crate::clock::MediaClock;

/// Lets all clients hear one source.
pub(crate) struct Loudspeaker {
    clock: MediaClock,
    inner: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    state: AudioState,
    ears: Vec<Arc<Ear>>,
}

/// One client that listens.
#[derive(Default)]
pub(crate) struct Ear {
    backlog: Mutex<Option<Backlog>>,
    /// Rung for every change, and by the channel's own reader.
    pub(crate) wake: Notify,
}

impl Loudspeaker {
    pub(crate) fn new(source: &dyn AudioSource, clock: MediaClock) -> Arc<Self> {
        let loudspeaker = Arc::new(Self {
            clock,
            inner: Mutex::default(),
        });
        let listener: Weak<dyn AudioListener> = Arc::<Self>::downgrade(&loudspeaker);
        source.listen(listener);
        loudspeaker.changed(source.state());
        loudspeaker
    }

    pub(crate) fn state(&self) -> AudioState {
        self.inner.lock().state
    }

    /// Adds a client, until the guard is dropped.
    pub(crate) fn listen(self: &Arc<Self>) -> Listening {
        let mut room = self.inner.lock();
        let ear = Arc::new(Ear::default());
        let now = self.clock.media_time();
        let format = room.state.format;
        *ear.backlog.lock() = format.map(|format| Backlog::new(format, now));
        room.ears.push(ear.clone());
        Listening {
            loudspeaker: self.clone(),
            ear,
        }
    }
}

impl AudioListener for Loudspeaker {
    fn changed(&self, state: AudioState) {
        let now = self.clock.media_time();
        let mut room = self.inner.lock();
        let before = std::mem::replace(&mut room.state, state);
        for ear in &room.ears {
            // What was played before an end is still heard, what was played before another
            // beginning is not.
            if let Some(format) = state.format.filter(|_| before.format != state.format) {
                *ear.backlog.lock() = Some(Backlog::new(format, now));
            }
            ear.wake.notify_one();
        }
    }

    fn played(&self, samples: &[i16]) {
        let now = self.clock.media_time();
        for ear in &self.inner.lock().ears {
            if let Some(backlog) = &mut *ear.backlog.lock() {
                backlog.push(samples, now);
            }
            ear.wake.notify_one();
        }
    }
}

/// A client that listens.
pub(crate) struct Listening {
    loudspeaker: Arc<Loudspeaker>,
    pub(crate) ear: Arc<Ear>,
}

impl Listening {
    pub(crate) fn state(&self) -> AudioState {
        self.loudspeaker.state()
    }

    /// The media time of the next samples of this format.
    pub(crate) fn position(&self, format: AudioFormat) -> Option<u32> {
        let backlog = self.ear.backlog.lock();
        let backlog = backlog.as_ref();
        Some(
            backlog
                .filter(|backlog| backlog.format() == format)?
                .position(),
        )
    }

    /// Takes the next `count` samples of this format; with `all`, the last ones too.
    pub(crate) fn take(&self, format: AudioFormat, count: usize, all: bool) -> Option<Piece> {
        let mut backlog = self.ear.backlog.lock();
        let backlog = backlog.as_mut();
        backlog
            .filter(|backlog| backlog.format() == format)?
            .take(count, all)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut room = self.loudspeaker.inner.lock();
        room.ears.retain(|ear| !Arc::ptr_eq(ear, &self.ear));
    }
}

/// Has one client at a time record for one sink: the first that came, for as long as it stays.
pub(crate) struct Recorder {
    sink: Arc<dyn AudioSink>,
    inner: Mutex<Line>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Line {
    state: AudioState,
    next: u64,
    clients: VecDeque<u64>,
}

impl Recorder {
    pub(crate) fn new(sink: Arc<dyn AudioSink>) -> Arc<Self> {
        let recorder = Arc::new(Self {
            sink: sink.clone(),
            inner: Mutex::default(),
            changes: watch::Sender::new(()),
        });
        let listener: Weak<dyn AudioListener> = Arc::<Self>::downgrade(&recorder);
        sink.listen(listener);
        recorder.changed(sink.state());
        recorder
    }

    /// Puts a client at the end of the line, until the guard is dropped.
    pub(crate) fn line_up(self: &Arc<Self>) -> Recording {
        let mut line = self.inner.lock();
        line.next += 1;
        let number = line.next;
        line.clients.push_back(number);
        Recording {
            recorder: self.clone(),
            number,
        }
    }
}

impl AudioListener for Recorder {
    fn changed(&self, state: AudioState) {
        self.inner.lock().state = state;
        self.changes.send_replace(());
    }

    fn played(&self, _: &[i16]) {}
}

/// A client that records or waits to.
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    number: u64,
}

impl Recording {
    /// What this client shall do: nothing while it waits.
    pub(crate) fn state(&self) -> AudioState {
        let line = self.recorder.inner.lock();
        let mut state = line.state;
        if line.clients.front() != Some(&self.number) {
            state.format = None;
        }
        state
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.recorder.changes.subscribe()
    }

    /// Hands on what it recorded, if it is its turn.
    pub(crate) fn recorded(&self, samples: &[i16]) {
        if self.state().format.is_some() {
            self.recorder.sink.recorded(samples);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut line = self.recorder.inner.lock();
        line.clients.retain(|&client| client != self.number);
        drop(line);
        self.recorder.changes.send_replace(());
    }
}
