//! Which films one client sees as streams.

use std::time::Duration;

use tokio::time::Instant;

use super::motion::Film;
use super::pace::{Pace, Report, Size};
use crate::geometry::Rect;

/// How a client takes streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ability {
    /// Pictures may have another size and place than the stream (`STREAM_DATA_SIZED`).
    pub(crate) sized: bool,
    /// It tells how it fares (`STREAM_REPORT`).
    pub(crate) reports: bool,
}

/// The streams of one client.
///
/// A film becomes a stream if that costs less: its pictures at a good quality less than half of what its
/// pixels cost this client exactly, or, if the link can't carry those, a third less. What they cost
/// exactly is known, as they were sent so until now.
#[derive(Debug)]
pub(crate) struct Streams {
    /// `None` for clients that can't decode any.
    ability: Option<Ability>,
    streams: Vec<Stream>,
    /// Films that were not worth a stream, and when to try again.
    refused: Vec<Refused>,
    last_report: u32,
}

/// A film that the client sees as a stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The stream's number: the smallest that was free.
    pub(crate) id: u32,
    pub(crate) film: Film,
    /// Where the client shows pictures that say nothing else.
    pub(crate) began_at: Rect,
    /// Number of the reports on it.
    pub(crate) report_id: u32,
    pub(crate) playing: bool,
    pub(crate) pace: Pace,
    /// When it is looked at whether it is like a photograph still, and how often it was not.
    look_at: Instant,
    doubts: u32,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    film: u32,
    until: Instant,
    wait: Duration,
}

/// What [`Streams`] must know of what the client has.
pub(crate) trait Knowledge {
    /// What a pixel of an area costs exactly, in bytes.
    fn density(&self, area: Rect) -> f64;
    /// Whether something is new in an area.
    fn is_damaged(&self, area: Rect) -> bool;
}

/// What to do about films.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Act {
    /// Make a picture of a film, and ask [`Streams::judge`] whether it becomes a stream.
    Try(Film),
    /// There is something new in its area: send a picture.
    Show { stream: u32 },
    /// The film pauses: no picture is to be shown, and what it covers to be sent exactly.
    Pause { stream: u32 },
    /// The film goes on.
    Resume { stream: u32 },
    /// The stream is over; what it covered is to be sent exactly.
    End { stream: u32 },
    /// Nothing, until then or until something changes.
    Wait(Option<Instant>),
}

/// What an exact pixel costs in a film that is worth looking at closer: no picture costs less than half
/// of it.
const CHEAP: f64 = 0.1;
/// Between two tries to make a stream of the same film.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LAST_WAIT: Duration = Duration::from_secs(8);
/// When a stream is looked at again, as another thing may move where the film was, and how often it must
/// be found to be none.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const DOUBTS: u32 = 2;
/// How much of the link exact pixels may take before they are too much for it.
const TOO_MUCH: f64 = 0.7;

/// What a film costs a client, in bytes a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) exact: f64,
    pub(crate) stream: f64,
    /// What the link carries, if that is known.
    pub(crate) link: Option<f64>,
    /// Its pixels are like those of a photograph.
    pub(crate) is_gradual: bool,
}

impl Costs {
    /// Whether a film is better sent as a stream.
    fn favour_stream(self) -> bool {
        let too_much = self.link.is_some_and(|link| self.exact > link * TOO_MUCH);
        let gain = if too_much { 1.5 } else { 2.0 };
        // What is not gradual is text, which pictures blur, or noise, whose pictures are so large that
        // what is typed meanwhile has to wait for them.
        self.is_gradual && self.stream * gain < self.exact
    }
}

impl Streams {
    pub(crate) fn new(ability: Option<Ability>) -> Self {
        Self {
            ability,
            streams: Vec::new(),
            refused: Vec::new(),
            last_report: 0,
        }
    }

    pub(crate) fn ability(&self) -> Option<Ability> {
        self.ability
    }

    /// What to do next.
    pub(crate) fn next(&mut self, films: &[Film], now: Instant, known: &impl Knowledge) -> Act {
        let Some(ability) = self.ability else {
            let first = self.streams.first();
            return first.map_or(Act::Wait(None), |stream| Act::End { stream: stream.id });
        };
        let mut wake = None;
        let mut wait = |until: Instant| wake = Some(wake.unwrap_or(until).min(until));
        for stream in &mut self.streams {
            let id = stream.id;
            let Some(&film) = films.iter().find(|film| film.id == stream.film.id) else {
                return Act::End { stream: id };
            };
            let is_another = film.area != stream.film.area && !ability.sized;
            if is_another || stream.doubts >= DOUBTS {
                return Act::End { stream: id };
            }
            stream.film = film;
            match (film.moving, stream.playing) {
                (true, false) => return Act::Resume { stream: id },
                (false, true) => return Act::Pause { stream: id },
                (false, false) => {}
                (true, true) if !known.is_damaged(film.area) => wait(film.still_at()),
                (true, true) if stream.pace.due() <= now => return Act::Show { stream: id },
                (true, true) => wait(stream.pace.due().min(film.still_at())),
            }
        }
        self.refused
            .retain(|refused| films.iter().any(|film| film.id == refused.film));
        for film in films.iter().filter(|film| film.moving) {
            let is_stream = self.streams.iter().any(|stream| stream.film.id == film.id);
            let mut refused = self.refused.iter();
            let refused = refused.find(|refused| refused.film == film.id);
            if is_stream || refused.is_some_and(|refused| refused.until > now) {
                continue;
            }
            if known.density(film.area) < CHEAP {
                self.refuse(film.id, now);
            } else {
                return Act::Try(*film);
            }
        }
        Act::Wait(wake)
    }

    /// Whether a film becomes a stream; which it is from here on.
    pub(crate) fn judge(&mut self, film: Film, costs: Costs, now: Instant) -> Option<&Stream> {
        if !costs.favour_stream() {
            self.refuse(film.id, now);
            return None;
        }
        self.refused.retain(|refused| refused.film != film.id);
        let is_taken = |id: &u32| self.streams.iter().any(|stream| stream.id == *id);
        let id = (0..).find(|id| !is_taken(id))?;
        self.last_report = self.last_report.wrapping_add(1);
        self.streams.push(Stream {
            id,
            film,
            began_at: film.area,
            report_id: self.last_report,
            playing: true,
            pace: Pace::new(now),
            look_at: now + LOOK_AGAIN,
            doubts: 0,
        });
        self.streams.last()
    }

    /// The film is not tried again for a while.
    pub(crate) fn refuse(&mut self, film: u32, now: Instant) {
        let mut refused = self.refused.iter_mut();
        match refused.find(|refused| refused.film == film) {
            Some(refused) => {
                refused.wait = (refused.wait * 2).min(LAST_WAIT);
                refused.until = now + refused.wait;
            }
            None => self.refused.push(Refused {
                film,
                until: now + FIRST_WAIT,
                wait: FIRST_WAIT,
            }),
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// The film pauses, or goes on.
    pub(crate) fn set_playing(&mut self, id: u32, playing: bool) {
        if let Some(stream) = self.get_mut(id) {
            stream.playing = playing;
        }
    }

    /// A picture of a stream, begun then, is encoded. The stream ends if it can't be sent.
    pub(crate) fn encoded(
        &mut self,
        id: u32,
        bytes: usize,
        link: Option<f64>,
        begun: Instant,
    ) -> Option<Size> {
        let stream = self.get_mut(id)?;
        let size = stream.pace.encoded(bytes, stream.film.rate, link, begun);
        if size == Size::Impossible {
            stream.doubts = DOUBTS;
        }
        Some(size)
    }

    /// A picture of a stream is there: whether it is like a photograph is asked now and then.
    pub(crate) fn look(&mut self, id: u32, now: Instant, is_gradual: impl FnOnce() -> bool) {
        if let Some(stream) = self.get_mut(id)
            && stream.look_at <= now
        {
            stream.look_at = now + LOOK_AGAIN;
            stream.doubts = if is_gradual() { 0 } else { stream.doubts + 1 };
        }
    }

    /// The stream is over.
    pub(crate) fn end(&mut self, id: u32, now: Instant) {
        let mut streams = self.streams.iter();
        if let Some(at) = streams.position(|stream| stream.id == id) {
            let stream = self.streams.swap_remove(at);
            if stream.doubts >= DOUBTS {
                self.refuse(stream.film.id, now);
            }
        }
    }

    /// All streams are over, as the surface is gone.
    pub(crate) fn end_all(&mut self) -> Vec<u32> {
        let ended = std::mem::take(&mut self.streams);
        self.refused.clear();
        ended.into_iter().map(|stream| stream.id).collect()
    }

    /// What is shown as pictures now.
    pub(crate) fn playing(&self) -> Vec<Rect> {
        let playing = self.streams.iter().filter(|stream| stream.playing);
        playing.map(|stream| stream.film.area).collect()
    }

    /// The client tells how it fares with a stream. Reports on streams of old are ignored.
    pub(crate) fn reported(&mut self, id: u32, report_id: u32, report: Report) {
        if report.is_refusal() {
            if self.get(id).is_some() {
                self.ability = None;
            }
        } else if let Some(stream) = self.get_mut(id)
            && stream.report_id == report_id
        {
            stream.pace.reported(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client for which a pixel costs so much, and that lacks something everywhere or nowhere.
    struct Known(f64, bool);

    impl Knowledge for Known {
        fn density(&self, _: Rect) -> f64 {
            self.0
        }
        fn is_damaged(&self, _: Rect) -> bool {
            self.1
        }
    }

    const NOISY: Known = Known(2.0, true);
    const AREA: Rect = Rect {
        left: 0,
        top: 0,
        right: 640,
        bottom: 360,
    };

    fn film(id: u32, now: Instant) -> Film {
        Film {
            id,
            area: AREA,
            moving: true,
            changed: now,
            rate: 30.0,
            churn: 30.0 * AREA.pixels() as f64,
        }
    }

    fn streams(sized: bool) -> Streams {
        Streams::new(Some(Ability {
            sized,
            reports: true,
        }))
    }

    fn costs(exact: f64, stream: f64, is_gradual: bool) -> Costs {
        Costs {
            exact,
            stream,
            link: Some(100.0),
            is_gradual,
        }
    }

    /// Streams of which the first film is one.
    fn streaming(film: Film, now: Instant) -> Streams {
        let mut streams = streams(true);
        assert!(streams.judge(film, costs(50.0, 10.0, true), now).is_some());
        streams
    }

    #[test]
    fn a_film_becomes_a_stream_where_that_is_well_cheaper() {
        let cases = [
            (costs(50.0, 24.0, true), true),
            (costs(50.0, 26.0, true), false),
            // More than the link carries.
            (costs(150.0, 95.0, true), true),
            // Text and noise never are, however much they cost.
            (costs(60.0, 1.0, false), false),
            (costs(400.0, 60.0, false), false),
        ];
        for (costs, expected) in cases {
            let now = Instant::now();
            let judged = streams(true).judge(film(1, now), costs, now).is_some();
            assert_eq!(judged, expected, "{costs:?}");
        }
    }

    #[test]
    fn a_film_that_costs_little_is_not_even_tried() {
        let now = Instant::now();
        let act = streams(true).next(&[film(1, now)], now, &Known(0.01, true));
        assert_eq!(act, Act::Wait(None));
    }

    #[test]
    fn a_film_that_was_refused_is_tried_again_later_and_later() {
        let mut now = Instant::now();
        let mut streams = streams(true);
        for wait in [500, 1000, 2000, 4000, 8000, 8000] {
            let film = film(1, now);
            assert_eq!(streams.next(&[film], now, &NOISY), Act::Try(film));
            streams.judge(film, costs(1.0, 1.0, true), now);
            let again = now + Duration::from_millis(wait);
            let before = again - Duration::from_millis(1);
            assert_eq!(streams.next(&[film], before, &NOISY), Act::Wait(None));
            now = again;
        }
    }

    #[test]
    fn a_stream_shows_what_is_new_when_it_is_due() {
        let now = Instant::now();
        let film = film(1, now);
        let mut streams = streaming(film, now);
        let show = Act::Show { stream: 0 };
        assert_eq!(streams.next(&[film], now, &NOISY), show);

        streams.encoded(0, 1000, Some(1e9), now);

        let due = now + Duration::from_millis(30);
        assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(Some(due)));
        assert_eq!(streams.next(&[film], due, &NOISY), show);
        let nothing_new = streams.next(&[film], due, &Known(2.0, false));
        assert_eq!(nothing_new, Act::Wait(Some(film.still_at())));
    }

    #[test]
    fn a_stream_pauses_and_goes_on_with_its_film_and_ends_with_it() {
        let now = Instant::now();
        let film = film(1, now);
        let paused = Film {
            moving: false,
            ..film
        };
        let mut streams = streaming(film, now);

        assert_eq!(
            streams.next(&[paused], now, &NOISY),
            Act::Pause { stream: 0 }
        );
        streams.set_playing(0, false);
        assert_eq!(streams.next(&[paused], now, &NOISY), Act::Wait(None));
        assert_eq!(streams.playing(), []);
        assert_eq!(
            streams.next(&[film], now, &NOISY),
            Act::Resume { stream: 0 }
        );
        streams.set_playing(0, true);
        assert_eq!(streams.playing(), [AREA]);
        assert_eq!(streams.next(&[], now, &NOISY), Act::End { stream: 0 });
        streams.end(0, now);
        assert_eq!(streams.next(&[], now, &NOISY), Act::Wait(None));
    }

    #[test]
    fn a_film_with_new_borders_is_the_same_stream_for_clients_that_understand_it() {
        let now = Instant::now();
        for (sized, act) in [
            (true, Act::Show { stream: 0 }),
            (false, Act::End { stream: 0 }),
        ] {
            let mut streams = streams(sized);
            streams.judge(film(1, now), costs(50.0, 10.0, true), now);
            let grown = Film {
                area: Rect { right: 700, ..AREA },
                ..film(1, now)
            };
            assert_eq!(streams.next(&[grown], now, &NOISY), act);
        }
    }

    #[test]
    fn a_stream_in_whose_place_text_moves_ends() {
        let mut now = Instant::now();
        let film = film(1, now);
        let mut streams = streaming(film, now);
        for _ in 0..DOUBTS {
            now += LOOK_AGAIN;
            streams.look(0, now, || false);
        }
        assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: 0 });
        streams.end(0, now);
        assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(None));
    }

    #[test]
    fn a_client_that_cannot_decode_gets_no_streams_any_more() {
        let now = Instant::now();
        let film = film(1, now);
        let mut streams = streaming(film, now);
        let refusal = Report {
            frames: 0,
            drops: u32::MAX,
            early_ms: 0,
        };

        streams.reported(0, 0, refusal);

        assert_eq!(streams.next(&[film], now, &NOISY), Act::End { stream: 0 });
        streams.end(0, now);
        assert_eq!(streams.next(&[film], now, &NOISY), Act::Wait(None));
    }

    #[test]
    fn streams_take_the_smallest_number_that_is_free() {
        let now = Instant::now();
        let mut streams = streams(true);
        for id in 1..=3 {
            streams.judge(film(id, now), costs(50.0, 10.0, true), now);
        }
        streams.end(1, now);
        let next = streams.judge(film(4, now), costs(50.0, 10.0, true), now);
        assert_eq!(next.map(|stream| stream.id), Some(1));
        assert_eq!(streams.end_all().len(), 3);
    }
}
