//! Sound: what the guest plays, for all clients to hear, and what one client records.
//!
//! A program implements [`AudioSource`] and [`AudioSink`] for its sound device, or uses the
//! [`Speaker`] and the [`Microphone`] that are here. Samples are signed 16-bit numbers, the channels
//! of a moment side by side.

mod backlog;
mod hub;
mod jack;
mod microphone;
pub(crate) mod opus;
mod speaker;

use std::sync::Weak;
use std::time::Duration;

pub(crate) use hub::{Listening, Loudspeaker, Recorder, Recording};
pub use microphone::Microphone;
pub use speaker::Speaker;

/// How samples are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    channels: u8,
    rate: u32,
}

impl AudioFormat {
    /// Two channels at 48 kHz: what every client takes, and Opus too.
    pub const STEREO: Self = Self {
        channels: 2,
        rate: 48_000,
    };

    /// One or two channels, 8,000 to 192,000 samples a second; `None` for anything else.
    #[must_use]
    pub fn new(channels: u8, rate: u32) -> Option<Self> {
        let possible = (1..=2).contains(&channels) && (8_000..=192_000).contains(&rate);
        possible.then_some(Self { channels, rate })
    }

    /// Channels: 1 or 2.
    #[must_use]
    pub fn channels(self) -> u8 {
        self.channels
    }

    /// Samples a second in each channel.
    #[must_use]
    pub fn rate(self) -> u32 {
        self.rate
    }

    /// Samples of all channels in this time, in whole moments.
    pub(crate) fn samples_in(self, time: Duration) -> usize {
        let moments = u128::from(self.rate) * time.as_millis() / 1000;
        usize::try_from(moments).unwrap_or(usize::MAX / 2) * usize::from(self.channels)
    }

    /// How long this many samples of all channels take, in milliseconds.
    pub(crate) fn milliseconds(self, samples: usize) -> u32 {
        let moments = (samples / usize::from(self.channels)) as u64;
        (moments * 1000 / u64::from(self.rate)) as u32
    }
}

/// How loud a guest's sound device is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Left (or the only one), right; 65,535 is full.
    pub levels: [u16; 2],
    /// Silent, whatever the levels.
    pub muted: bool,
}

/// What a sound device does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AudioState {
    /// It plays or records in this format; `None` while it does nothing.
    pub format: Option<AudioFormat>,
    /// What clients shall set their own device to; `None` leaves that to them.
    pub volume: Option<Volume>,
    /// How much sound a client shall keep before it plays it, so that video can keep up; zero leaves
    /// that to the client. Means nothing for a sink.
    pub latency: Duration,
}

/// Told by an [`AudioSource`] or [`AudioSink`] of what happens to it. Calls only note what happened:
/// they never wait for a client.
pub trait AudioListener: Send + Sync {
    /// Its state is this now.
    fn changed(&self, state: AudioState);
    /// A source plays these samples, in the format of its state, after those before.
    fn played(&self, samples: &[i16]);
}

/// What a guest plays.
pub trait AudioSource: Send + Sync {
    /// What it does now.
    fn state(&self) -> AudioState;
    /// Tells `listener` of everything from now on, for as long as somebody else holds it.
    fn listen(&self, listener: Weak<dyn AudioListener>);
}

/// What a guest records from.
pub trait AudioSink: Send + Sync {
    /// What it wants now.
    fn state(&self) -> AudioState;
    /// The client recorded these samples, in the format that the state asked for. Must not wait.
    fn recorded(&self, samples: &[i16]);
    /// Tells `listener` when the state changes, for as long as somebody else holds it.
    fn listen(&self, listener: Weak<dyn AudioListener>);
}
