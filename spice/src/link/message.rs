//! The structures of the link stage (spice-protocol `protocol.h`).

use crate::link::Refusal;
use crate::link::keys::{PUBLIC_KEY_LEN, PublicKey};
use crate::protocol::{LinkResult, MAGIC, MAJOR, MINOR, common_cap};
use crate::wire::{Framing, Reader, Truncated};

/// Bytes of `SpiceLinkHeader`.
pub(crate) const HEADER_LEN: usize = 16;
/// Bytes of `SpiceLinkMess` without capabilities.
const MESSAGE_LEN: u32 = 18;
/// Bytes of `SpiceLinkMess` with capabilities at most; the reference server's limit.
const MAX_MESSAGE_LEN: u32 = 4096;
/// Bytes of `SpiceLinkReply` without capabilities.
const REPLY_LEN: u32 = 178;

/// Checks `SpiceLinkHeader` and returns how many bytes follow it.
pub(crate) fn parse_header(bytes: &[u8; HEADER_LEN]) -> Result<usize, Refusal> {
    if !bytes.starts_with(&MAGIC) {
        return Err(Refusal::BadMagic);
    }
    let mut fields = Reader(&bytes[MAGIC.len()..]);
    let (major, minor, size) = (|| Ok((fields.u32()?, fields.u32()?, fields.u32()?)))()
        .map_err(|Truncated| Refusal::BadCapabilities)?;
    // Within a major version, peers settle what they can do by capabilities.
    if major != MAJOR {
        return Err(Refusal::BadVersion { major, minor });
    }
    if !(MESSAGE_LEN..=MAX_MESSAGE_LEN).contains(&size) {
        return Err(Refusal::BadSize { size });
    }
    Ok(size as usize)
}

/// `SpiceLinkMess`: what a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkMessage {
    pub(crate) connection_id: u32,
    pub(crate) channel_type: u8,
    pub(crate) channel_id: u8,
    pub(crate) common: Capabilities,
    pub(crate) channel: Capabilities,
}

/// Capability words; the bits of those that are not there are 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Capabilities(pub(crate) Vec<u32>);

impl Capabilities {
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }

    #[cfg(fuzzing)]
    pub(crate) fn words(&self) -> &[u32] {
        &self.0
    }

    pub(crate) fn has(&self, bit: u32) -> bool {
        self.word((bit / 32) as usize) & (1 << (bit % 32)) != 0
    }
}

impl LinkMessage {
    /// Parses what follows the header. Capabilities may be any number of words, anywhere behind the
    /// fixed part, but inside of the message.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::fields(bytes).map_err(|Truncated| Refusal::BadCapabilities)
    }

    fn fields(bytes: &[u8]) -> Result<Self, Truncated> {
        let mut fields = Reader(bytes);
        let connection_id = fields.u32()?;
        let channel_type = fields.u8()?;
        let channel_id = fields.u8()?;
        let common = fields.u32()? as usize;
        let channel = fields.u32()? as usize;
        let offset = fields.u32()? as usize;
        let mut words = Reader(bytes.get(offset..).ok_or(Truncated)?);
        // `bytes` is short, so a length that lies fails before anything large is reserved.
        let mut take = |count: usize| {
            let bytes = words.bytes(count.checked_mul(4).ok_or(Truncated)?)?;
            let words = bytes.as_chunks::<4>().0.iter();
            Ok(Capabilities(
                words.map(|&word| u32::from_le_bytes(word)).collect(),
            ))
        };
        Ok(Self {
            connection_id,
            channel_type,
            channel_id,
            common: take(common)?,
            channel: take(channel)?,
        })
    }

    pub(crate) fn framing(&self) -> Framing {
        if self.common.word(0) & common_cap::MINI_HEADER != 0 {
            Framing::Mini
        } else {
            Framing::Full
        }
    }

    /// Whether the client says which way of authentication it takes.
    pub(crate) fn selects_auth(&self) -> bool {
        self.common.word(0) & common_cap::AUTH_SELECTION != 0
    }
}

/// Header and `SpiceLinkReply` that let the client go on to its ticket.
pub(crate) fn welcome(public_key: &PublicKey, channel_caps: &[u32]) -> Vec<u8> {
    let common = [common_cap::OURS];
    let words = [&common, channel_caps].concat();
    let counts = [common.len() as u32, channel_caps.len() as u32, REPLY_LEN];
    reply(LinkResult::Ok, public_key, counts, &words)
}

/// Header and `SpiceLinkReply` that end a link: everything but the error is zero, as clients and
/// proxies expect of it.
pub(crate) fn refuse(error: LinkResult) -> Vec<u8> {
    reply(error, &[0; PUBLIC_KEY_LEN], [0; 3], &[])
}

fn reply(
    error: LinkResult,
    public_key: &PublicKey,
    counts_and_offset: [u32; 3],
    caps: &[u32],
) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let size = REPLY_LEN + 4 * caps.len() as u32;
    [
        &MAGIC,
        words(&[MAJOR, MINOR, size, error as u32]).as_slice(),
        public_key,
        &words(&counts_and_offset),
        &words(caps),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(common: &[u32], channel: &[u32], offset: u32) -> Vec<u8> {
        let mut bytes = vec![7, 0, 0, 0, 2, 1];
        for word in [common.len() as u32, channel.len() as u32, offset] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(
            common
                .iter()
                .chain(channel)
                .flat_map(|word| word.to_le_bytes()),
        );
        bytes
    }

    #[test]
    fn capabilities_of_several_words_are_read() {
        let parsed = LinkMessage::parse(&message(&[9, 1], &[0, 0, 4], 18)).expect("it is legal");
        assert_eq!(
            (parsed.connection_id, parsed.channel_type, parsed.channel_id),
            (7, 2, 1)
        );
        assert_eq!(parsed.framing(), Framing::Mini);
        assert!(parsed.common.has(32) && parsed.channel.has(66) && !parsed.channel.has(1000));
    }

    #[test]
    fn counts_that_reach_past_the_message_are_refused() {
        let mut bytes = message(&[9], &[], 18);
        for (at, value) in [
            (6, 2u32),
            (6, u32::MAX),
            (10, u32::MAX),
            (14, 19),
            (14, u32::MAX),
        ] {
            let good = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(LinkMessage::parse(&bytes), Err(Refusal::BadCapabilities));
            bytes = good;
        }
    }

    #[test]
    fn a_refusal_has_the_full_length_and_nothing_but_the_error() {
        for (result, number) in [
            (LinkResult::PermissionDenied, 7),
            (LinkResult::NeedSecured, 5),
        ] {
            let bytes = refuse(result);
            assert_eq!(bytes.len(), 16 + 178);
            assert_eq!(bytes[12..16], 178u32.to_le_bytes());
            assert_eq!(bytes[16], number);
            assert!(bytes[17..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_welcome_has_key_and_capabilities() {
        let bytes = welcome(&[5; PUBLIC_KEY_LEN], &[0xf]);
        assert_eq!(bytes.len(), 16 + 178 + 8);
        assert_eq!(bytes[12..16], 186u32.to_le_bytes());
        assert_eq!(bytes[194..], [11, 0, 0, 0, 15, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LinkMessage::parse(&bytes);
            if let Some(header) = bytes.first_chunk() {
                let _ = parse_header(header);
            }
        }
    }
}
