//! How often a stream's pictures are sent, how good they are, and when the client shall show them.

use std::time::Duration;

use tokio::time::Instant;

/// Qualities that a picture may have, and the one it is tried with.
const QUALITIES: std::ops::RangeInclusive<u8> = 25..=85;
pub(crate) const FIRST_QUALITY: u8 = 80;
/// Between two pictures at least: a little less than at 30 a second, so that a picture which comes a
/// moment early is not put off, and the next one with it.
const INTERVAL: Duration = Duration::from_millis(30);
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of a picture at most, so that no message is over 4 MiB.
const MAX_PICTURE: usize = 4 * 1024 * 1024 - 1024;
/// What of the link pictures may take, at most and if the client gets them late.
const SHARES: std::ops::RangeInclusive<f64> = 0.2..=0.8;
/// Bytes a second that a link carries of which nothing is known: 10 Mbit/s.
const UNKNOWN_RATE: f64 = 1_250_000.0;
/// Bits of a pixel at most, and bits a second at least, where a rate of bits is asked for and no quality.
const MAX_PIXEL_BITS: f64 = 0.25;
const MIN_BITS: f64 = 128_000.0;
/// How long before its time a picture should be there, by the client's clock.
const EARLY: Duration = Duration::from_millis(20);
/// From when a picture is sent to when it is to be shown, at first and at most.
const FIRST_LEAD: Duration = Duration::from_millis(60);
const MAX_LEAD: Duration = Duration::from_millis(500);

/// What a client tells of the pictures that it got (`SPICE_MSGC_DISPLAY_STREAM_REPORT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) frames: u32,
    /// Of them, those that came too late to be shown.
    pub(crate) drops: u32,
    /// Milliseconds that the last one came before its time.
    pub(crate) early_ms: i32,
}

impl Report {
    /// What a client says of a stream that it has no decoder for.
    pub(crate) fn is_refusal(self) -> bool {
        self.frames == 0 && self.drops == u32::MAX
    }
}

/// The pace of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    quality: u8,
    due: Instant,
    share: f64,
    lead: Duration,
    /// How long the last picture is on its way.
    way: Duration,
}

/// Whether a picture of so many bytes is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Fits,
    /// It is far too large, and can be made smaller.
    TooLarge,
    /// It is too large for any message, and can't be made smaller.
    Impossible,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            quality: FIRST_QUALITY,
            due: now,
            share: *SHARES.end(),
            lead: FIRST_LEAD,
            way: Duration::ZERO,
        }
    }

    /// The next picture's quality.
    pub(crate) fn quality(&self) -> u8 {
        self.quality
    }

    /// When the next picture may be sent.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// How long after it is sent the last picture is to be shown.
    pub(crate) fn lead(&self) -> Duration {
        self.lead + self.way
    }

    /// A picture that was begun then takes so many bytes, of a film that makes so many a second, on a link that carries
    /// `link` bytes a second if that is known. Settles the next one's quality and time.
    pub(crate) fn encoded(
        &mut self,
        bytes: usize,
        film_rate: f64,
        link: Option<f64>,
        begun: Instant,
    ) -> Size {
        let carries = self.carries(link);
        let pictures = pictures(film_rate);
        let excess = bytes as f64 * pictures / carries;
        let before = self.quality;
        // Twice the bytes are about twenty steps of quality.
        let step = (20.0 * excess.log2()).round();
        let step = if bytes > MAX_PICTURE {
            step.clamp(10.0, 40.0)
        } else if (0.6..=1.1).contains(&excess) {
            0.0
        } else {
            step.clamp(-3.0, 40.0)
        };
        let quality = f64::from(before) - step;
        self.quality = quality.clamp((*QUALITIES.start()).into(), (*QUALITIES.end()).into()) as u8;
        let is_too_large = excess > 3.0 || bytes > MAX_PICTURE;
        if is_too_large && self.quality < before {
            return Size::TooLarge;
        }
        self.followed(bytes, link, begun)
    }

    /// The same of a picture whose size is its encoder's affair, which knows [`Pace::bits`].
    pub(crate) fn followed(&mut self, bytes: usize, link: Option<f64>, begun: Instant) -> Size {
        if bytes > MAX_PICTURE {
            return Size::Impossible;
        }
        self.way = seconds(bytes as f64 / known(link));
        self.due = begun + seconds(bytes as f64 / self.carries(link)).max(INTERVAL);
        Size::Fits
    }

    /// Bits a second for a film of so many pixels that makes so many pictures a second.
    pub(crate) fn bits(&self, pixels: u64, film_rate: f64, link: Option<f64>) -> u32 {
        let most = pixels as f64 * pictures(film_rate) * MAX_PIXEL_BITS;
        (self.carries(link) * 8.0).min(most).max(MIN_BITS) as u32
    }

    /// Bytes a second that its pictures may take.
    fn carries(&self, link: Option<f64>) -> f64 {
        known(link) * self.share
    }

    /// The client tells how it fares.
    pub(crate) fn reported(&mut self, report: Report) {
        let early = Duration::from_millis(report.early_ms.max(0).unsigned_abs().into());
        let late = Duration::from_millis(report.early_ms.min(0).unsigned_abs().into());
        if report.drops > 0 || report.early_ms < 0 {
            self.lead = (self.lead + late + EARLY).min(MAX_LEAD);
            self.share = (self.share * 0.85).max(*SHARES.start());
        } else {
            // Slowly, as a picture that comes a little too late is not shown at all.
            self.share = (self.share * 1.05).min(*SHARES.end());
            if early < EARLY {
                self.lead = (self.lead + (EARLY - early)).min(MAX_LEAD);
            } else {
                self.lead = self.lead.saturating_sub((early - EARLY) / 8);
            }
        }
    }
}

/// Bytes a second of a link.
fn known(link: Option<f64>) -> f64 {
    link.unwrap_or(UNKNOWN_RATE).max(1.0)
}

/// Pictures a second that are sent of a film which makes so many.
pub(crate) fn pictures(film_rate: f64) -> f64 {
    film_rate.clamp(1.0, 1.0 / INTERVAL.as_secs_f64())
}

/// So many seconds, but no more than pictures can be apart.
fn seconds(seconds: f64) -> Duration {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or(MAX_INTERVAL);
    time.min(MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: f64 = 1_000_000.0;

    /// Sends a second of a film whose pictures take as many bytes as their quality makes them.
    fn second(pace: &mut Pace, full: f64, link: f64) -> usize {
        let mut now = Instant::now();
        let end = now + Duration::from_secs(1);
        let mut bytes = 0;
        while now < end {
            let size = (full * (f64::from(pace.quality()) / 20.0).exp2() / 16.0) as usize;
            if pace.encoded(size, 30.0, Some(link), now) == Size::Fits {
                bytes += size;
                now = pace.due();
            }
        }
        bytes
    }

    fn report(drops: u32, early_ms: i32) -> Report {
        Report {
            frames: 30,
            drops,
            early_ms,
        }
    }

    #[test]
    fn a_film_takes_its_share_of_a_slow_link_and_is_worse_for_it() {
        let mut pace = Pace::new(Instant::now());
        second(&mut pace, 150_000.0, LINK);

        let bytes = second(&mut pace, 150_000.0, LINK) as f64;

        assert!((0.45 * LINK..0.9 * LINK).contains(&bytes), "{bytes}");
        assert!(pace.quality() < FIRST_QUALITY);
    }

    #[test]
    fn a_film_on_a_fast_link_is_as_good_as_it_can_be() {
        let mut pace = Pace::new(Instant::now());
        second(&mut pace, 150_000.0, 1e9);
        assert_eq!(pace.quality(), *QUALITIES.end());
    }

    #[test]
    fn a_picture_that_would_block_the_link_is_made_smaller_first() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.encoded(400_000, 30.0, Some(LINK), now), Size::TooLarge);
        assert_eq!(pace.quality(), 40);
    }

    #[test]
    fn a_picture_that_cannot_be_made_smaller_is_sent_and_the_next_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        while pace.encoded(400_000, 30.0, Some(LINK), now) == Size::TooLarge {}
        assert_eq!(pace.quality(), *QUALITIES.start());
        assert_eq!(pace.due(), now + Duration::from_millis(500));
    }

    #[test]
    fn a_picture_that_no_message_holds_is_given_up() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        while pace.encoded(5 << 20, 30.0, Some(1e12), now) == Size::TooLarge {}
        assert_eq!(
            pace.encoded(5 << 20, 30.0, Some(1e12), now),
            Size::Impossible
        );
    }

    #[test]
    fn bits_are_a_share_of_the_link_and_no_more_than_the_film_can_use() {
        let mut pace = Pace::new(Instant::now());
        let full_hd = 1920 * 1080;
        assert_eq!(pace.bits(full_hd, 30.0, Some(LINK)), 6_400_000);
        assert_eq!(pace.bits(full_hd, 30.0, None), 8_000_000);
        assert_eq!(pace.bits(full_hd, 30.0, Some(1e9)), 15_552_000);
        assert_eq!(pace.bits(full_hd, 30.0, Some(100.0)), 128_000);
        pace.reported(report(1, -1));
        assert_eq!(pace.bits(full_hd, 30.0, Some(LINK)), 5_440_000);
    }

    #[test]
    fn a_picture_of_any_quality_is_sent_and_the_next_waits_for_it() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.followed(400_000, Some(LINK), now), Size::Fits);
        assert_eq!(pace.due(), now + Duration::from_millis(500));
        assert_eq!(pace.followed(5 << 20, Some(1e12), now), Size::Impossible);
    }

    #[test]
    fn a_picture_is_not_to_be_shown_before_it_can_be_there() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.encoded(30_000, 30.0, Some(LINK), now);
        assert_eq!(pace.lead(), FIRST_LEAD + Duration::from_millis(30));
    }

    #[test]
    fn late_pictures_are_sent_with_more_lead_and_take_less_of_the_link() {
        let mut pace = Pace::new(Instant::now());
        let before = pace.clone();
        pace.reported(report(3, -50));
        assert_eq!(pace.lead(), before.lead() + Duration::from_millis(70));
        assert!(pace.share < before.share);
    }

    #[test]
    fn pictures_that_come_too_early_are_sent_with_less_lead() {
        let mut pace = Pace::new(Instant::now());
        let mut lead = 60i32;
        for _ in 0..60 {
            // A link without delay, so that the lead is all there is.
            pace.reported(report(0, lead));
            lead = pace.lead().as_millis() as i32;
        }
        assert!((19..30).contains(&lead), "{lead}");
    }
}
