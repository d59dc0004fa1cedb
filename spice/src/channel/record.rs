//! The record channel: what a client's microphone hears, while the guest wants it.

use parking_lot::Mutex;

use super::sound::{Numbers, from_bytes};
use super::{Context, Endless, ignore};
use crate::audio::opus::Decoder;
use crate::audio::{AudioFormat, Recording};
use crate::protocol::{audio, record as id};
use crate::session::Ending;
use crate::wire::{MessageReader, MessageWriter, Reader, Truncated};

const NUMBERS: Numbers = Numbers {
    start: id::START,
    stop: id::STOP,
    volume: id::VOLUME,
    mute: id::MUTE,
};

/// What the client was told to record, until it says that it begins.
#[derive(Default)]
struct Order {
    format: Option<AudioFormat>,
    fresh: bool,
}

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let recorder = context.server.devices().recorder.as_ref();
    let recording = recorder.ok_or(Ending::Unplugged)?.line_up();
    let order = Mutex::new(Order::default());
    tokio::select! {
        end = read(context, &recording, &order, reader) => end,
        end = write(context, &recording, &order, writer) => end,
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromClient<'a> {
    /// What follows is of this kind.
    Mode(Mode),
    /// What follows was recorded after the last start.
    StartMark,
    /// This was recorded.
    Data(&'a [u8]),
    /// Nothing that this channel knows.
    Other,
}

/// How samples are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Raw,
    Opus,
}

/// Reads a message; an error is one that says the impossible.
pub(crate) fn parse(kind: u16, body: &[u8]) -> Result<FromClient<'_>, Truncated> {
    let mut fields = Reader(body);
    let known = matches!(kind, id::C_DATA | id::C_MODE | id::C_START_MARK);
    if known {
        let _time = fields.u32()?;
    }
    Ok(match kind {
        id::C_DATA => FromClient::Data(fields.0),
        id::C_MODE => FromClient::Mode(match fields.u16()? {
            audio::MODE_RAW => Mode::Raw,
            audio::MODE_OPUS => Mode::Opus,
            _ => return Err(Truncated),
        }),
        id::C_START_MARK => FromClient::StartMark,
        _ => FromClient::Other,
    })
}

async fn read(
    context: &Context,
    recording: &Recording,
    order: &Mutex<Order>,
    reader: &mut MessageReader,
) -> Endless {
    let mut mode = Mode::Raw;
    // Of the format that the client records in, once it does.
    let mut decoder: Option<(AudioFormat, Option<Decoder>)> = None;
    loop {
        let (kind, body) = reader.next().await?;
        match parse(kind, body).map_err(context.malformed(kind))? {
            FromClient::Mode(now) => mode = now,
            FromClient::StartMark => order.lock().fresh = false,
            FromClient::Data(bytes) => {
                // Before the mark it may be of an earlier format.
                let Some(format) = Some(order.lock())
                    .filter(|order| !order.fresh)
                    .and_then(|order| order.format)
                else {
                    continue;
                };
                if decoder.as_ref().is_none_or(|(of, _)| *of != format) {
                    decoder = Some((format, Decoder::new(format)));
                }
                let samples = match (mode, &mut decoder) {
                    (Mode::Raw, _) => Some(from_bytes(bytes)),
                    (Mode::Opus, Some((_, Some(decoder)))) => decoder.decode(bytes),
                    (Mode::Opus, _) => return Err(context.malformed(kind)(Truncated)),
                };
                if let Some(samples) = samples {
                    recording.recorded(&samples);
                }
            }
            FromClient::Other => ignore(kind)?,
        }
    }
}

async fn write(
    context: &Context,
    recording: &Recording,
    order: &Mutex<Order>,
    writer: &mut MessageWriter,
) -> Endless {
    let mut changes = recording.changes();
    let mut volume = None;
    loop {
        changes.mark_unchanged();
        let state = recording.state();
        let before = order.lock().format;
        if before != state.format {
            *order.lock() = Order {
                format: state.format,
                fresh: true,
            };
            if before.is_some() {
                writer.send(NUMBERS.stop()).await?;
            }
            if let Some(format) = state.format {
                writer.send(NUMBERS.start(format)).await?;
            }
        }
        if context.capabilities.has(id::CAP_VOLUME) {
            NUMBERS
                .tell_volume(writer, &mut volume, state.volume)
                .await?;
        }
        // The recorder outlives its recordings, so there is no other end to this.
        let _ = changes.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_understood() {
        assert_eq!(
            parse(id::C_MODE, &[0, 0, 0, 0, 3, 0]),
            Ok(FromClient::Mode(Mode::Opus))
        );
        assert_eq!(
            parse(id::C_DATA, &[0, 0, 0, 0, 7]),
            Ok(FromClient::Data(&[7]))
        );
        assert_eq!(parse(id::C_START_MARK, &[0; 4]), Ok(FromClient::StartMark));
    }

    #[test]
    fn modes_that_nobody_has_are_refused() {
        for mode in [0, 2, 4, 0xff] {
            assert_eq!(parse(id::C_MODE, &[0, 0, 0, 0, mode, 0]), Err(Truncated));
        }
    }

    proptest! {
        #[test]
        fn what_is_cut_short_is_refused(kind in 101u16..104, length in 0usize..4) {
            prop_assert_eq!(parse(kind, &[1, 2, 3, 4][..length]), Err(Truncated));
        }

        #[test]
        fn any_message_is_understood_or_refused(kind in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(kind, &body);
        }
    }
}
