//! Films on a display channel: makes of them the streams that [`Streams`] decides on.

use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use crate::channel::stream;
use crate::codec::{Jpeg, Pixels, is_gradual};
use crate::geometry::{Rect, Size};
use crate::link::message::Capabilities;
use crate::pool;
use crate::protocol::display as id;
use crate::session::Ending;
use crate::video::motion::Film;
use crate::video::pace;
use crate::video::streams::{Ability, Act, Costs, Knowledge};

/// How a client takes streams. One that names no codecs is from the time when there was only one.
pub(super) fn ability(capabilities: &Capabilities) -> Option<Ability> {
    let has_mjpeg = !capabilities.has(id::CAP_MULTI_CODEC) || capabilities.has(id::CAP_CODEC_MJPEG);
    has_mjpeg.then(|| Ability {
        sized: capabilities.has(id::CAP_SIZED_STREAM),
        reports: capabilities.has(id::CAP_STREAM_REPORT),
    })
}

impl Sender<'_> {
    /// What is to be done about films now.
    pub(super) fn next_film(&self) -> Act {
        let Some(screen) = &self.screen else {
            return Act::Wait(None);
        };
        let view = &self.shared.view;
        if view.viewer.has_copies() {
            // They go ahead of everything.
            return Act::Wait(None);
        }
        let now = Instant::now();
        let films = view.films(screen.generation, screen.size, now);
        let mut client = self.shared.client.lock();
        client.streams.next(&films, now, &*view.viewer)
    }

    pub(super) async fn follow_film(&mut self, act: Act) -> Result<(), Ending> {
        match act {
            Act::Try(film) => self.try_film(film).await?,
            Act::Show { stream } => self.show_picture(stream).await?,
            Act::Pause { stream } => {
                self.shared.client.lock().streams.set_playing(stream, false);
                // A picture that the client shows late must not cover what is exact by then.
                self.send(stream::show(stream, false)).await?;
            }
            Act::Resume { stream } => {
                self.shared.client.lock().streams.set_playing(stream, true);
                self.send(stream::show(stream, true)).await?;
            }
            Act::End { stream } => {
                self.shared
                    .client
                    .lock()
                    .streams
                    .end(stream, Instant::now());
                self.send(stream::destroy(stream)).await?;
            }
            Act::Wait(_) => {}
        }
        let playing = self.shared.client.lock().streams.playing();
        if playing.is_empty() {
            self.picture = Vec::new();
        }
        self.shared.view.viewer.set_films(playing);
        // Other clients' turn, and input's.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Ends all streams, as their surface goes.
    pub(super) async fn end_films(&mut self) -> Result<(), Ending> {
        let ended = self.shared.client.lock().streams.end_all();
        for stream in ended {
            self.send(stream::destroy(stream)).await?;
        }
        Ok(())
    }

    /// Makes a stream of a film if it is worth one.
    async fn try_film(&mut self, film: Film) -> Result<(), Ending> {
        let jpeg = self.encode_picture(film.area, pace::FIRST_QUALITY).await?;
        let gradual = self.is_gradual(film.area);
        let now = Instant::now();
        let (stream, ability) = {
            let mut client = self.shared.client.lock();
            let link = client.flight.rate();
            let ability = client.streams.ability();
            let stream = match (&jpeg, gradual) {
                (Some(jpeg), Some(is_gradual)) => {
                    let costs = self.costs(film, jpeg.len(), link, is_gradual);
                    client.streams.judge(film, costs, now).cloned()
                }
                _ => {
                    client.streams.refuse(film.id, now);
                    None
                }
            };
            (stream, ability)
        };
        let Some(stream) = stream else { return Ok(()) };
        self.send(stream::create(stream.id, film.area)).await?;
        if ability.is_some_and(|ability| ability.reports) {
            self.send(stream::ask_reports(stream.id, stream.report_id))
                .await?;
        }
        // The first picture, by the way of all others.
        self.shared.view.viewer.add_damage(film.area);
        Ok(())
    }

    fn costs(&self, film: Film, picture: usize, link: Option<f64>, is_gradual: bool) -> Costs {
        Costs {
            exact: self.shared.view.viewer.density(film.area) * film.churn,
            stream: picture as f64 * film.rate,
            link,
            is_gradual,
        }
    }

    /// Sends what is new of a film as a picture.
    async fn show_picture(&mut self, id: u32) -> Result<(), Ending> {
        let stream = self.shared.client.lock().streams.get(id).cloned();
        let Some(stream) = stream else { return Ok(()) };
        let area = stream.film.area;
        let playing = self.shared.client.lock().streams.playing();
        // Before it is read, so that what is drawn meanwhile is in the next picture.
        if !self.shared.view.viewer.begin_picture(playing, area) {
            return Ok(());
        }
        // The next one is due so long after this, however long encoding takes.
        let begun = Instant::now();
        let jpeg = self.encode_picture(area, stream.pace.quality()).await?;
        let Some(jpeg) = jpeg else { return Ok(()) };
        let (size, lead) = {
            let mut client = self.shared.client.lock();
            let link = client.flight.rate();
            let streams = &mut client.streams;
            streams.look(id, begun, || self.is_gradual(area).unwrap_or(false));
            let size = streams.encoded(id, jpeg.len(), link, begun);
            (size, streams.get(id).map(|stream| stream.pace.lead()))
        };
        if size != Some(pace::Size::Fits) {
            self.shared.view.viewer.add_damage(area);
            return Ok(());
        }
        let sized = (area != stream.began_at).then_some(area);
        let lead = lead.unwrap_or_default().as_millis();
        let lead = u32::try_from(lead).unwrap_or(0);
        let picture = stream::Picture {
            stream: id,
            time: self.context.server.media_time().wrapping_add(lead),
            area: sized,
        };
        self.send(stream::data(picture, &jpeg)).await
    }

    /// The pixels of `area` as they are now, as JPEG; `None` if they are gone. All threads that have nothing
    /// else to do help.
    async fn encode_picture(&mut self, area: Rect, quality: u8) -> Result<Option<Vec<u8>>, Ending> {
        let Some(screen) = &self.screen else {
            return Ok(None);
        };
        let size = Size {
            width: area.width(),
            height: area.height(),
        };
        let Some(jpeg) = Jpeg::new(size, quality) else {
            return Ok(None);
        };
        let (source, generation) = (Arc::clone(self.shared.view.source()), screen.generation);
        let mut picture = std::mem::take(&mut self.picture);
        let read = move || {
            picture.resize(jpeg.bytes(), 0);
            let is_there = source.read(generation, area, &mut picture);
            is_there.then_some(picture)
        };
        let Some(picture) = pool::run(area.pixels(), read).await? else {
            self.shared.view.viewer.recheck_layout();
            return Ok(None);
        };
        let picture = Arc::new(picture);
        let encode = |band| {
            let picture = Arc::clone(&picture);
            pool::start(move || jpeg.encode(band, &picture))
        };
        let encoding: Vec<_> = (0..jpeg.bands()).map(encode).collect();
        let mut bands = Vec::with_capacity(encoding.len());
        for band in encoding {
            bands.extend(band.done().await?);
        }
        // Nobody else looks at it any more.
        self.picture = Arc::into_inner(picture).unwrap_or_default();
        Ok(jpeg.join(&bands))
    }

    /// Whether what was read last, of this area, is like a photograph.
    fn is_gradual(&self, area: Rect) -> Option<bool> {
        let pixels = Pixels::new(area.width(), area.height(), &self.picture);
        pixels.map(|pixels| is_gradual(&pixels))
    }
}
