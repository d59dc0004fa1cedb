//! Who sends a gradual piece: GLZ or QUIC.
//!
//! A photograph is QUIC's, unless it repeats itself or what was sent before, as a film in a loop or a
//! wallpaper of a pattern does: then GLZ is shorter by far. No look at the pixels tells this cheaply, so
//! GLZ goes first, and gives up its place if it is likely to be the longer one. It goes first less often
//! while it loses.

/// Bytes a pixel of QUIC before any is known.
const QUIC: f32 = 0.7;
/// How much of what is known a new piece makes.
const WEIGHT: f32 = 0.25;
/// What zlib will make of GLZ is not known when this is decided.
const LENIENCE: f32 = 1.2;
/// What loses a little wins now and then, as later pieces may refer to it.
const GENEROUS: f32 = 2.0;
const GENEROUS_EVERY: u32 = 8;
/// How much QUIC has to itself after a loss, in pieces of the loser's size, at most.
const MOST_SKIPPED: u32 = 7;

#[derive(Debug)]
pub(super) struct Contest {
    /// Bytes a pixel of QUIC, of late.
    quic: f32,
    /// In a row.
    losses: u32,
    /// Pixels that GLZ leaves out.
    skip: usize,
}

impl Default for Contest {
    fn default() -> Self {
        Self {
            quic: QUIC,
            losses: 0,
            skip: 0,
        }
    }
}

impl Contest {
    /// Whether GLZ goes first with a piece of so many pixels: what was lost with small ones says little of
    /// a large one.
    pub(super) fn enter(&mut self, pixels: usize) -> bool {
        let enters = self.skip < pixels;
        self.skip = self.skip.saturating_sub(pixels);
        enters
    }

    /// Whether GLZ wins with so many bytes.
    pub(super) fn wins(&mut self, bytes: usize, pixels: usize) -> bool {
        let quic = self.quic * pixels as f32;
        let bytes = bytes as f32;
        if bytes <= quic * LENIENCE {
            self.losses = 0;
            return true;
        }
        self.losses = self.losses.saturating_add(1);
        self.skip = pixels.saturating_mul(self.losses.min(MOST_SKIPPED) as usize);
        bytes <= quic * GENEROUS && self.losses.is_multiple_of(GENEROUS_EVERY)
    }

    /// What QUIC made of a piece.
    pub(super) fn learn(&mut self, bytes: usize, pixels: usize) {
        let now = bytes as f32 / pixels.max(1) as f32;
        self.quic += (now - self.quic) * WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glz_wins_if_it_is_shorter_than_quic_of_late() {
        let mut contest = Contest::default();
        for _ in 0..40 {
            contest.learn(500, 1000);
        }

        assert!(contest.wins(450, 1000));
        assert!(!contest.wins(800, 1000));
    }

    #[test]
    fn who_loses_enters_less_often_until_it_wins() {
        let mut contest = Contest::default();
        let mut entered = 0;
        for _ in 0..80 {
            if contest.enter(1000) {
                entered += 1;
                contest.wins(3000, 1000);
            }
        }
        assert!((8..20).contains(&entered), "{entered}");

        while !contest.enter(1000) {}
        contest.wins(10, 1000);

        assert!(contest.enter(1000));
    }
}
