//! Films on a display channel: makes of them the streams that [`Streams`] decides on.

use tokio::time::Instant;

use super::Sender;
use crate::channel::stream;
use crate::link::message::Capabilities;
use crate::protocol::display as id;
use crate::session::Ending;
use crate::video::codec::Codecs;
use crate::video::motion::Film;
use crate::video::pace;
use crate::video::streams::{Ability, Act, Costs, Knowledge, Stream};

/// How a client takes streams.
pub(super) fn ability(capabilities: &Capabilities) -> Ability {
    // The browser console is the one client that has no monitors. It takes VP8, but can not hide it.
    let hides = capabilities.has(id::CAP_MONITORS_CONFIG);
    Ability {
        codecs: match hides {
            true => Codecs::of(capabilities),
            false => Codecs::of_browser(capabilities),
        },
        sized: capabilities.has(id::CAP_SIZED_STREAM),
        reports: capabilities.has(id::CAP_STREAM_REPORT),
        hides,
    }
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
            Act::Pause { stream } => self.set_playing(stream, false).await?,
            Act::Resume { stream } => self.set_playing(stream, true).await?,
            Act::End { stream } => {
                let now = Instant::now();
                let ended = self.shared.client.lock().streams.end(stream, now);
                self.films.end(stream);
                if ended.is_some_and(|stream| stream.is_open()) {
                    self.send(stream::destroy(stream)).await?;
                }
            }
            Act::Wait(_) => {}
        }
        let playing = self.shared.client.lock().streams.playing();
        if playing.is_empty() {
            self.films.forget_picture();
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
            self.films.end(stream.id);
            if stream.is_open() {
                self.send(stream::destroy(stream.id)).await?;
            }
        }
        Ok(())
    }

    /// Lets a stream pause, or go on.
    async fn set_playing(&mut self, id: u32, playing: bool) -> Result<(), Ending> {
        let stream = {
            let streams = &mut self.shared.client.lock().streams;
            streams.set_playing(id, playing);
            streams.get(id).cloned()
        };
        let Some(stream) = stream else { return Ok(()) };
        // What is exact meanwhile is nothing that pictures refer to.
        self.films.lost(id);
        // A picture that the client shows late must not cover what is exact by then.
        if stream.hides {
            self.send(stream::show(id, playing)).await
        } else if playing {
            self.begin(&stream).await
        } else {
            self.films.end(id);
            self.send(stream::destroy(id)).await
        }
    }

    /// Tells the client of a stream.
    async fn begin(&mut self, stream: &Stream) -> Result<(), Ending> {
        self.send(stream::create(stream.id, stream.codec, stream.began_at))
            .await?;
        if self.shared.client.lock().streams.has_reports() {
            self.send(stream::ask_reports(stream.id, stream.report_id))
                .await?;
        }
        Ok(())
    }

    /// Makes a stream of a film if it is worth one.
    async fn try_film(&mut self, film: Film) -> Result<(), Ending> {
        let jpeg = match self.read_picture(film.area).await? {
            true => self.encode_jpeg(film.area, pace::FIRST_QUALITY).await?,
            false => None,
        };
        let gradual = self.films.is_gradual(film.area);
        let now = Instant::now();
        let stream = {
            let mut client = self.shared.client.lock();
            let link = client.flight.rate();
            let codec = client.streams.codec(&film);
            match (&jpeg, gradual, codec, &self.screen) {
                (Some(jpeg), Some(is_gradual), Some(codec), Some(screen)) => {
                    let costs = Costs {
                        exact: self.shared.view.viewer.density(film.area) * film.churn,
                        stream: jpeg.len() as f64 * codec.share_of_jpeg() * film.rate,
                        link,
                        is_gradual,
                    };
                    let streams = &mut client.streams;
                    streams.judge(film, screen.size, costs, now).cloned()
                }
                _ => {
                    client.streams.refuse(film.id, now);
                    None
                }
            }
        };
        let Some(stream) = stream else { return Ok(()) };
        self.begin(&stream).await?;
        // The first picture, by the way of all others.
        self.shared.view.viewer.add_damage(stream.area);
        Ok(())
    }

    /// Sends what is new of a film as a picture.
    async fn show_picture(&mut self, id: u32) -> Result<(), Ending> {
        let stream = self.shared.client.lock().streams.get(id).cloned();
        let Some(stream) = stream else { return Ok(()) };
        let area = stream.area;
        let playing = self.shared.client.lock().streams.playing();
        // Before it is read, so that what is drawn meanwhile is in the next picture.
        if !self.shared.view.viewer.begin_picture(playing, area) {
            return Ok(());
        }
        // The next one is due so long after this, however long encoding takes.
        let begun = Instant::now();
        if !self.read_picture(area).await? {
            return Ok(());
        }
        let encoded = match stream.codec.library() {
            None => self.encode_jpeg(area, stream.pace.quality()).await?,
            Some(library) => self.encode_next(&stream, library).await?,
        };
        let Some(encoded) = encoded else {
            return Ok(());
        };
        let (size, lead) = {
            let mut client = self.shared.client.lock();
            let link = client.flight.rate();
            let streams = &mut client.streams;
            streams.look(id, begun, || self.films.is_gradual(area).unwrap_or(false));
            let size = streams.encoded(id, encoded.len(), link, begun);
            (size, streams.get(id).map(|stream| stream.pace.lead()))
        };
        if size != Some(pace::Size::Fits) {
            self.films.lost(id);
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
        self.send(stream::data(picture, &encoded)).await
    }
}
