//! Which films one client sees as streams.

use std::time::Duration;

use tokio::time::Instant;

use super::codec::{Codecs, VideoCodec};
use super::motion::Film;
use super::pace::{Pace, Report, Size};
use crate::geometry::{self, Rect};

/// How a client takes streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ability {
    /// What it decodes.
    pub(crate) codecs: Codecs,
    /// Pictures may have another size and place than the stream (`STREAM_DATA_SIZED`).
    pub(crate) sized: bool,
    /// It tells how it fares (`STREAM_REPORT`).
    pub(crate) reports: bool,
    /// It hides any stream when told to (`STREAM_CLIP`); else MJPEG streams only.
    pub(crate) hides: bool,
}

/// The streams of one client.
///
/// A film becomes a stream if that costs less: its pictures at a good quality less than half of what its
/// pixels cost this client exactly, or, if the link can't carry those, a third less. What they cost
/// exactly is known, as they were sent so until now.
#[derive(Debug)]
pub(crate) struct Streams {
    ability: Ability,
    streams: Vec<Stream>,
    /// Films that were not worth a stream, and when to try again.
    refused: Vec<Refused>,
    last_report: u32,
    /// Numbers of streams that the client refused. It may refuse them again for each picture that was on its way,
    /// and that must not be taken for another stream's.
    spoiled: Vec<u32>,
}

/// A film that the client sees as a stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The stream's number: the smallest that was free.
    pub(crate) id: u32,
    pub(crate) film: Film,
    pub(crate) codec: VideoCodec,
    /// What its pictures show: the film, or a little more or less of the screen if the codec has only even sizes.
    pub(crate) area: Rect,
    /// Where the client shows pictures that say nothing else.
    pub(crate) began_at: Rect,
    /// Number of the reports on it.
    pub(crate) report_id: u32,
    pub(crate) playing: bool,
    /// While it pauses the client hides it. Else the client is told that it ends, and that one of the same number
    /// begins when it goes on.
    pub(crate) hides: bool,
    pub(crate) pace: Pace,
    /// Until then it stays what it is, if the client only likes another codec better.
    settled: Instant,
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
/// How long a stream lasts at least if a client changes its mind about codecs, so that one which does so all
/// the time does not have encoders made all the time.
const LEAST_LIFE: Duration = Duration::from_secs(2);
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

impl Stream {
    /// Whether the client knows of it.
    pub(crate) fn is_open(&self) -> bool {
        self.playing || self.hides
    }
}

impl Streams {
    pub(crate) fn new(ability: Ability) -> Self {
        Self {
            ability,
            streams: Vec::new(),
            refused: Vec::new(),
            last_report: 0,
            spoiled: Vec::new(),
        }
    }

    /// Whether the client tells how it fares.
    pub(crate) fn has_reports(&self) -> bool {
        self.ability.reports
    }

    /// What a film would be encoded as now; `None` if the client decodes nothing that does it.
    pub(crate) fn codec(&self, film: &Film) -> Option<VideoCodec> {
        self.ability.codecs.best(film.area.size())
    }

    /// The client tells what codecs it likes, by their numbers. Streams of another end soon, to begin anew.
    pub(crate) fn prefer(&mut self, wish: &[u8]) {
        self.ability.codecs.prefer(wish);
    }

    /// There is no such encoder for this client's films, as was found only now.
    pub(crate) fn strike(&mut self, codec: VideoCodec) {
        self.ability.codecs.strike(codec);
    }

    /// What to do next.
    pub(crate) fn next(&mut self, films: &[Film], now: Instant, known: &impl Knowledge) -> Act {
        let Ability { codecs, sized, .. } = &self.ability;
        let mut wake = None;
        let mut wait = |until: Instant| wake = Some(wake.unwrap_or(until).min(until));
        for stream in &mut self.streams {
            let id = stream.id;
            let Some(&film) = films.iter().find(|film| film.id == stream.film.id) else {
                return Act::End { stream: id };
            };
            let follows = *sized && stream.codec == VideoCodec::Mjpeg;
            let is_another = film.area != stream.film.area && !follows;
            let has_better = codecs.best(film.area.size()) != Some(stream.codec);
            let may_change = stream.settled <= now || !codecs.has(stream.codec);
            if is_another || has_better && may_change || stream.doubts >= DOUBTS {
                return Act::End { stream: id };
            }
            if has_better {
                wait(stream.settled);
            }
            stream.film = film;
            if follows {
                stream.area = film.area;
            }
            match (film.moving, stream.playing) {
                (true, false) => return Act::Resume { stream: id },
                (false, true) => return Act::Pause { stream: id },
                (false, false) => {}
                (true, true) if !known.is_damaged(stream.area) => wait(film.still_at()),
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
            let has_codec = self.codec(film).is_some();
            if is_stream || !has_codec || refused.is_some_and(|refused| refused.until > now) {
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

    /// Whether a film on a screen of this size becomes a stream; which it is from here on.
    pub(crate) fn judge(
        &mut self,
        film: Film,
        screen: geometry::Size,
        costs: Costs,
        now: Instant,
    ) -> Option<&Stream> {
        let codec = self.codec(&film).filter(|_| costs.favour_stream());
        let Some(codec) = codec else {
            self.refuse(film.id, now);
            return None;
        };
        let area = match codec.library() {
            None => film.area,
            Some(_) => film.area.made_even(Rect::of_size(screen)),
        };
        self.refused.retain(|refused| refused.film != film.id);
        let is_taken = |id: &u32| {
            self.spoiled.contains(id) || self.streams.iter().any(|stream| stream.id == *id)
        };
        let id = (0..).find(|id| !is_taken(id))?;
        self.last_report = self.last_report.wrapping_add(1);
        self.streams.push(Stream {
            id,
            film,
            codec,
            area,
            began_at: area,
            report_id: self.last_report,
            playing: true,
            hides: self.ability.hides || codec == VideoCodec::Mjpeg,
            pace: Pace::new(now),
            settled: now + LEAST_LIFE,
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
        let size = match stream.codec.library() {
            None => stream.pace.encoded(bytes, stream.film.rate, link, begun),
            Some(_) => stream.pace.followed(bytes, link, begun),
        };
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
    pub(crate) fn end(&mut self, id: u32, now: Instant) -> Option<Stream> {
        let mut streams = self.streams.iter();
        let at = streams.position(|stream| stream.id == id)?;
        let stream = self.streams.swap_remove(at);
        if stream.doubts >= DOUBTS {
            self.refuse(stream.film.id, now);
        }
        Some(stream)
    }

    /// All streams are over, as the surface is gone.
    pub(crate) fn end_all(&mut self) -> Vec<Stream> {
        self.refused.clear();
        std::mem::take(&mut self.streams)
    }

    /// What is shown as pictures now.
    pub(crate) fn playing(&self) -> Vec<Rect> {
        let playing = self.streams.iter().filter(|stream| stream.playing);
        playing.map(|stream| stream.area).collect()
    }

    /// The client tells how it fares with a stream. Reports on streams of old are ignored.
    pub(crate) fn reported(&mut self, id: u32, report_id: u32, report: Report) {
        if report.is_refusal() {
            // Nothing is said of the others, so the next one is tried.
            let codec = self.get(id).map(|stream| stream.codec);
            if let Some(codec) = codec
                && !self.spoiled.contains(&id)
            {
                self.spoiled.push(id);
                self.strike(codec);
            }
        } else if let Some(stream) = self.get_mut(id)
            && stream.report_id == report_id
        {
            stream.pace.reported(report);
        }
    }
}

#[cfg(test)]
mod tests;
