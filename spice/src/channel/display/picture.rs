//! Pictures of films: read from the source, and encoded by the threads that do that.

use std::collections::HashMap;
use std::sync::Arc;

use super::Sender;
use crate::codec::{Jpeg, Pixels, is_gradual};
use crate::geometry::Rect;
use crate::pool;
use crate::session::Ending;
use crate::video::encoder::Encoder;
use crate::video::pace;
use crate::video::streams::Stream;

/// What is kept from picture to picture.
#[derive(Default)]
pub(super) struct Films {
    /// The last picture as it was read.
    picture: Vec<u8>,
    /// Of the streams whose pictures refer to those before them, by their numbers.
    encoders: HashMap<u32, Encoder>,
}

impl Films {
    /// Whether what was read last, of this area, is like a photograph.
    pub(super) fn is_gradual(&self, area: Rect) -> Option<bool> {
        let pixels = Pixels::new(area.width(), area.height(), &self.picture);
        pixels.map(|pixels| is_gradual(&pixels))
    }

    /// No stream plays for now.
    pub(super) fn forget_picture(&mut self) {
        self.picture = Vec::new();
    }

    /// The last picture of a stream is not sent.
    pub(super) fn lost(&mut self, stream: u32) {
        if let Some(encoder) = self.encoders.get_mut(&stream) {
            encoder.lost();
        }
    }

    /// A stream is over, for the client at least.
    pub(super) fn end(&mut self, stream: u32) {
        self.encoders.remove(&stream);
    }
}

impl Sender<'_> {
    /// Reads the pixels of `area` as they are now; `false` if they are gone.
    pub(super) async fn read_picture(&mut self, area: Rect) -> Result<bool, Ending> {
        let Some(screen) = &self.screen else {
            return Ok(false);
        };
        let (source, generation) = (Arc::clone(self.shared.view.source()), screen.generation);
        let mut picture = std::mem::take(&mut self.films.picture);
        let read = move || {
            picture.resize(area.width() as usize * area.height() as usize * 4, 0);
            let is_there = source.read(generation, area, &mut picture);
            is_there.then_some(picture)
        };
        let Some(picture) = pool::run(area.pixels(), read).await? else {
            self.shared.view.viewer.recheck_layout();
            return Ok(false);
        };
        self.films.picture = picture;
        Ok(true)
    }

    /// What was read last, of this area, as JPEG. All threads that have nothing else to do help.
    pub(super) async fn encode_jpeg(
        &mut self,
        area: Rect,
        quality: u8,
    ) -> Result<Option<Vec<u8>>, Ending> {
        let Some(jpeg) = Jpeg::new(area.size(), quality) else {
            return Ok(None);
        };
        let picture = Arc::new(std::mem::take(&mut self.films.picture));
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
        self.films.picture = Arc::into_inner(picture).unwrap_or_default();
        Ok(jpeg.join(&bands))
    }

    /// What was read last as the next picture of a stream. If there can be none, the stream's codec is struck off,
    /// and what the picture was to show is damage again.
    pub(super) async fn encode_next(
        &mut self,
        stream: &Stream,
        library: caraway_video::Codec,
    ) -> Result<Option<Vec<u8>>, Ending> {
        let (area, rate) = (stream.area, pace::pictures(stream.film.rate));
        let link = self.shared.client.lock().flight.rate();
        let bits = stream.pace.bits(area.pixels(), rate, link);
        let encoder = self.films.encoders.remove(&stream.id);
        let picture = std::mem::take(&mut self.films.picture);
        let encode = move || {
            let opened = encoder.map_or_else(
                || Encoder::open(library, area.size(), rate, bits),
                Result::Ok,
            );
            let encoded = opened.and_then(|mut encoder| {
                let encoded = encoder.encode(&picture, bits)?;
                Ok((encoder, encoded))
            });
            (picture, encoded)
        };
        let encoded;
        (self.films.picture, encoded) = pool::run(area.pixels(), encode).await?;
        match encoded {
            Ok((encoder, encoded)) => {
                self.films.encoders.insert(stream.id, encoder);
                Ok(encoded)
            }
            Err(error) => {
                tracing::warn!(%error, "a film goes on in another codec");
                self.shared.client.lock().streams.strike(stream.codec);
                self.shared.view.viewer.add_damage(area);
                Ok(None)
            }
        }
    }
}
