//! What the playback and the record channel have in common.

use crate::audio::{AudioFormat, Volume};
use crate::protocol::audio::FORMAT_S16;
use crate::session::Ending;
use crate::wire::{Message, MessageWriter};

/// The numbers of one of the two channels.
pub(super) struct Numbers {
    pub(super) start: u16,
    pub(super) stop: u16,
    pub(super) volume: u16,
    pub(super) mute: u16,
}

impl Numbers {
    /// A beginning; the playback channel's has a time too.
    pub(super) fn start(&self, format: AudioFormat) -> Message {
        Message::new(self.start)
            .u32(format.channels().into())
            .u16(FORMAT_S16)
            .u32(format.rate())
    }

    pub(super) fn stop(&self) -> Message {
        Message::new(self.stop)
    }

    /// Tells how loud the guest is set, if that is not what was told.
    pub(super) async fn tell_volume(
        &self,
        writer: &mut MessageWriter,
        told: &mut Option<Volume>,
        now: Option<Volume>,
    ) -> Result<(), Ending> {
        let Some(volume) = now.filter(|_| *told != now) else {
            return Ok(());
        };
        let [left, right] = volume.levels;
        let levels = Message::new(self.volume).u8(2).u16(left).u16(right);
        writer.send(levels).await?;
        writer
            .send(Message::new(self.mute).u8(volume.muted.into()))
            .await?;
        *told = now;
        Ok(())
    }
}

/// Samples as they are on the wire.
pub(super) fn to_bytes(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// Samples from the wire; half a sample at the end is none.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<i16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|&pair| i16::from_le_bytes(pair)).collect()
}
