//! The clock that audio, video and pings share.

use std::time::Instant;

/// Counts from the server's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaClock(Instant);

impl MediaClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds, wrapping: "multi-media time".
    pub(crate) fn media_time(self) -> u32 {
        self.0.elapsed().as_millis() as u32
    }

    pub(crate) fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
