//! The playback channel: what the guest plays, in pieces of 10 ms.
//!
//! A client that is late skips to the newest sound. The protocol has no acknowledgements here, and
//! the system's buffers hold a second and more; so every tenth of a second a ping goes along, and
//! while too many of them are unanswered nothing more is sent.

use parking_lot::Mutex;

use super::sound::{Numbers, to_bytes};
use super::{Context, Endless, ignore};
use crate::audio::opus::{Encoder, PIECE};
use crate::audio::{AudioFormat, Listening};
use crate::protocol::{audio, common, playback as id};
use crate::session::Ending;
use crate::transport::Security;
use crate::wire::{Message, MessageReader, MessageWriter, Reader};

const NUMBERS: Numbers = Numbers {
    start: id::START,
    stop: id::STOP,
    volume: id::VOLUME,
    mute: id::MUTE,
};

/// How much is on its way, in pings and the pieces since the last one.
#[derive(Debug, Default)]
struct Pace {
    asked: u32,
    answered: u32,
    pieces: u32,
}

impl Pace {
    /// Pieces between two pings: 100 ms.
    const PIECES: u32 = 10;
    /// Pings that may be unanswered: a second's sound, which a satellite link has on its way.
    const PINGS: u32 = 10;

    /// Whether another piece may go. A client that never answered is not held to it.
    fn has_room(&self) -> bool {
        self.answered == 0 || self.asked - self.answered < Self::PINGS
    }

    /// A piece is sent; `Some` is the number of the ping to go with it.
    fn sent(&mut self) -> Option<u32> {
        self.pieces += 1;
        (self.pieces >= Self::PIECES).then(|| {
            self.pieces = 0;
            // A day has a million pings: the numbers end after ten years.
            self.asked = self.asked.saturating_add(1);
            self.asked
        })
    }

    fn answer(&mut self, number: u32) {
        if number <= self.asked {
            self.answered = self.answered.max(number);
        }
    }
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let loudspeaker = context.server.devices().loudspeaker.as_ref();
    let listening = loudspeaker.ok_or(Ending::Unplugged)?.listen();
    let pace = Mutex::new(Pace::default());
    let player = Player {
        context,
        listening: &listening,
        pace: &pace,
        writer,
    };
    tokio::select! {
        end = read(context, &listening, &pace, reader) => end,
        end = player.run() => end,
    }
}

async fn read(
    context: &Context,
    listening: &Listening,
    pace: &Mutex<Pace>,
    reader: &mut MessageReader,
) -> Endless {
    loop {
        let (kind, body) = reader.next().await?;
        match kind {
            common::C_PONG => {
                let number = Reader(body).u32().map_err(context.malformed(kind))?;
                pace.lock().answer(number);
                listening.ear.wake.notify_one();
            }
            _ => ignore(kind)?,
        }
    }
}

struct Player<'a> {
    context: &'a Context,
    listening: &'a Listening,
    pace: &'a Mutex<Pace>,
    writer: &'a mut MessageWriter,
}

/// What the client was told to expect.
struct Stream {
    format: AudioFormat,
    encoder: Option<Encoder>,
    /// Samples of a piece.
    piece: usize,
}

impl Player<'_> {
    async fn run(mut self) -> Endless {
        let (mut volume, mut latency) = (None, None);
        let mut stream: Option<Stream> = None;
        loop {
            let state = self.listening.state();
            let ends = stream.as_ref().map(|stream| stream.format) != state.format;
            let mut late = false;
            if let Some(stream) = &mut stream {
                late = !self.play(stream, ends).await?;
            }
            if ends && !late {
                if stream.take().is_some() {
                    self.writer.send(NUMBERS.stop()).await?;
                }
                if let Some(format) = state.format {
                    stream = Some(self.begin(format).await?);
                }
            }
            if self.context.capabilities.has(id::CAP_VOLUME) {
                NUMBERS
                    .tell_volume(self.writer, &mut volume, state.volume)
                    .await?;
            }
            let wanted = Some(state.latency).filter(|wanted| !wanted.is_zero());
            if wanted.is_some()
                && wanted != latency
                && self.context.capabilities.has(id::CAP_LATENCY)
            {
                latency = wanted;
                let milliseconds = u32::try_from(state.latency.as_millis()).unwrap_or(u32::MAX);
                let message = Message::new(id::LATENCY).u32(milliseconds);
                self.writer.send(message).await?;
            }
            if ends && !late {
                // Something may have been played meanwhile.
                continue;
            }
            self.listening.ear.wake.notified().await;
        }
    }

    /// Tells what will come.
    async fn begin(&mut self, format: AudioFormat) -> Result<Stream, Ending> {
        let encoder = self
            .context
            .capabilities
            .has(id::CAP_OPUS)
            // Within the host, sound goes as it is.
            .then_some(self.context.channel.security)
            .filter(|security| *security != Security::Local)
            .map(|_| Encoder::new(format));
        let encoder = encoder.flatten();
        let mode = if encoder.is_some() {
            audio::MODE_OPUS
        } else {
            audio::MODE_RAW
        };
        // Not after the first piece: clients want time to go forward.
        let position = self.listening.position(format);
        let now = position.unwrap_or_else(|| self.context.server.media_time());
        // Clients make their decoder at the start, and must know the mode by then.
        self.writer
            .send(Message::new(id::MODE).u32(now).u16(mode))
            .await?;
        self.writer.send(NUMBERS.start(format).u32(now)).await?;
        Ok(Stream {
            format,
            encoder,
            piece: format.samples_in(PIECE),
        })
    }

    /// Sends what is there; `false` if the client has no room for it.
    async fn play(&mut self, stream: &mut Stream, all: bool) -> Result<bool, Ending> {
        loop {
            if !self.pace.lock().has_room() {
                return Ok(false);
            }
            let Some(piece) = self.listening.take(stream.format, stream.piece, all) else {
                return Ok(true);
            };
            let bytes = match &mut stream.encoder {
                None => Some(to_bytes(&piece.samples)),
                Some(encoder) => encoder.encode(&piece.samples),
            };
            let Some(bytes) = bytes else { continue };
            let data = Message::with_capacity(id::DATA, bytes.len() + 4)
                .u32(piece.time)
                .bytes(&bytes);
            self.writer.send(data).await?;
            let ping = self.pace.lock().sent();
            if let Some(number) = ping {
                let now = self.context.server.uptime_ns();
                let ping = Message::new(common::PING).u32(number).u64(now);
                self.writer.send(ping).await?;
            }
            // Others' turn: encoding takes a while.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_stops_answering_has_a_second_on_its_way() {
        let mut pace = Pace::default();
        let mut pieces = 0;
        while pace.has_room() && pieces < 1000 {
            if pace.sent() == Some(1) {
                pace.answer(1);
            }
            pieces += 1;
        }
        assert_eq!(pieces, 110);
        pace.answer(2);
        assert!(pace.has_room());
    }

    #[test]
    fn answers_to_nothing_change_nothing() {
        let mut pace = Pace::default();
        pace.answer(7);
        pace.answer(u32::MAX);
        assert_eq!((pace.answered, pace.has_room()), (0, true));
    }
}
