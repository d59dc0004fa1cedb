//! What one client has still to hear.

use std::collections::VecDeque;
use std::time::Duration;

use super::AudioFormat;

/// Samples on their way to one client: never more than [`Backlog::MOST`], and the newest ones.
#[derive(Debug)]
pub(super) struct Backlog {
    format: AudioFormat,
    samples: VecDeque<i16>,
    /// The media time at which the last of them is over.
    end: u32,
}

/// A piece to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The media time at which it begins.
    pub(crate) time: u32,
    pub(crate) samples: Vec<i16>,
}

impl Backlog {
    /// A client that is this far behind skips to [`Backlog::KEPT`], so that it hears one gap and not
    /// a gap in each piece.
    const MOST: Duration = Duration::from_millis(200);
    const KEPT: Duration = Duration::from_millis(100);
    /// Milliseconds that the samples' own time may differ from the clock's. It goes by their number,
    /// as devices hand them over in bursts, and never backwards, which clients dislike.
    const DRIFT: u32 = 100;

    /// An empty one, `now` being the media time.
    pub(super) fn new(format: AudioFormat, now: u32) -> Self {
        Self {
            format,
            samples: VecDeque::new(),
            end: now,
        }
    }

    pub(super) fn format(&self) -> AudioFormat {
        self.format
    }

    /// Appends what is played now.
    pub(super) fn push(&mut self, samples: &[i16], now: u32) {
        let channels = usize::from(self.format.channels);
        let whole = samples.len() / channels * channels;
        let most = self.format.samples_in(Self::MOST);
        let newest = &samples[whole.saturating_sub(most)..whole];
        self.samples.extend(newest);
        if self.samples.len() > most {
            let kept = self.format.samples_in(Self::KEPT);
            self.samples.drain(..self.samples.len() - kept);
        }
        let ahead = self.end.wrapping_sub(now).wrapping_add(Self::DRIFT);
        let begin = if ahead < 2 * Self::DRIFT {
            self.end
        } else if ahead < u32::MAX / 2 {
            now.wrapping_add(Self::DRIFT)
        } else {
            now.wrapping_sub(Self::DRIFT)
        };
        self.end = begin.wrapping_add(self.format.milliseconds(whole));
    }

    /// The media time of the next piece.
    pub(super) fn position(&self) -> u32 {
        self.end
            .wrapping_sub(self.format.milliseconds(self.samples.len()))
    }

    /// Takes the next `count` samples. With `all`, the last ones too, filled up with silence.
    pub(super) fn take(&mut self, count: usize, all: bool) -> Option<Piece> {
        let there = self.samples.len();
        if there == 0 || (there < count && !all) {
            return None;
        }
        let time = self.position();
        let mut samples: Vec<i16> = self.samples.drain(..count.min(there)).collect();
        samples.resize(count, 0);
        Some(Piece { time, samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog() -> Backlog {
        Backlog::new(AudioFormat::STEREO, 1000)
    }

    #[test]
    fn pieces_come_in_order_with_the_time_they_were_played() {
        let mut backlog = backlog();
        let samples: Vec<i16> = (0..1920).collect();
        backlog.push(&samples, 1000);
        let first = backlog.take(960, false);
        assert_eq!(
            first.map(|piece| (piece.time, piece.samples[0])),
            Some((1000, 0))
        );
        let second = backlog.take(960, false);
        assert_eq!(
            second.map(|piece| (piece.time, piece.samples[0])),
            Some((1010, 960))
        );
        assert_eq!(backlog.take(960, false), None);
    }

    #[test]
    fn who_is_late_skips_to_the_newest() {
        let mut backlog = backlog();
        for n in 0..21 {
            backlog.push(&[n; 960], 1000 + u32::from(n.unsigned_abs()) * 10);
        }
        let piece = backlog.take(960, false);
        assert_eq!(
            piece.map(|piece| (piece.time, piece.samples[0])),
            Some((1110, 11))
        );
        assert!(backlog.samples.len() < 9600);
    }

    #[test]
    fn time_goes_by_the_samples_and_stays_near_the_clock() {
        let mut backlog = backlog();
        let mut before = 1000;
        // In bursts of four, three times as fast as they should, then after a pause.
        let bursts = (0..400).map(|n| 1000 + n / 4 * 13).chain(5000..5100);
        for now in bursts {
            backlog.push(&[0; 960], now);
            let Some(piece) = backlog.take(960, false) else {
                continue;
            };
            assert!(
                piece.time >= before,
                "{before} then {} at {now}",
                piece.time
            );
            assert!(piece.time.abs_diff(now) <= 100, "{} at {now}", piece.time);
            before = piece.time;
        }
    }

    #[test]
    fn a_flood_at_once_is_bounded() {
        let mut backlog = backlog();
        backlog.push(&vec![1; 1_000_001], 0);
        assert!(backlog.samples.len() <= 19_200);
    }

    #[test]
    fn the_end_is_filled_up_with_silence() {
        let mut backlog = backlog();
        backlog.push(&[5; 100], 0);
        assert_eq!(backlog.take(960, false), None);
        let piece = backlog.take(960, true).map(|piece| piece.samples);
        let expected = [vec![5; 100], vec![0; 860]].concat();
        assert_eq!(piece, Some(expected));
        assert_eq!(backlog.take(960, true), None);
    }
}
