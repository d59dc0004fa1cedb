//! Ports, shared folders and USB redirection: streams of bytes, each a [`Pipe`].
//!
//! The three differ in how they begin and end. A port tells its name, and whether the machine's end
//! is open; the channel of shared folders is a port of a certain name. A USB slot has no such
//! messages: its channel is there while the machine's end is open, and the bytes say the rest.

use std::sync::Arc;

use lz4_flex::block::{compress, decompress};

use super::{Context, Endless, ignore};
use crate::pipe::{Item, Pipe, Place, PortEvent};
use crate::protocol::{port, vmc as id};
use crate::session::Ending;
use crate::transport::Security;
use crate::wire::{Message, MessageReader, MessageWriter, Reader, Truncated};

/// Fewer bytes than this are not worth compressing; the reference server's number.
const WORTH_COMPRESSING: usize = 1000;
/// The bytes that a compressed message may stand for.
const MAX_UNCOMPRESSED: u32 = 1024 * 1024 + 4096;

pub(super) async fn serve(
    context: &Context,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Endless {
    let (kind, number) = (context.channel.kind, context.channel.id);
    let devices = context.server.devices();
    if let Some(port) = devices.port(kind, number) {
        // Not open yet: that is told when the client has its turn.
        writer.send(init(&port.name, false)).await?;
        attend(context, &port.pipe, reader, writer, true).await
    } else if let Some(slot) = devices.usb_slot(number) {
        attend(context, slot, reader, writer, false).await
    } else {
        Err(Ending::Unplugged)
    }
}

/// `SPICE_MSG_PORT_INIT`. The name is behind the fixed part, which says where.
fn init(name: &str, opened: bool) -> Message {
    const NAME_AT: u32 = 9;
    let size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    Message::new(port::INIT)
        .u32(size)
        .u32(NAME_AT)
        .u8(opened.into())
        .bytes(name.as_bytes())
        .u8(0)
}

async fn attend(
    context: &Context,
    pipe: &Arc<Pipe>,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
    is_port: bool,
) -> Endless {
    let place = pipe.line_up();
    // Within the host, copying is cheaper.
    let local = context.channel.security == Security::Local;
    let compress = context.capabilities.has(id::CAP_LZ4) && !local;
    tokio::select! {
        end = read(context, &place, reader) => end,
        end = write(&place, writer, compress, is_port) => end,
    }
}

async fn read(context: &Context, place: &Place, reader: &mut MessageReader) -> Endless {
    loop {
        let (kind, body) = reader.next().await?;
        match parse(kind, body).map_err(context.malformed(kind))? {
            FromClient::Bytes(bytes) => place.send(bytes).await,
            FromClient::Compressed(bytes) => place.send(&bytes).await,
            FromClient::Break => place.send_break().await,
            FromClient::Other => ignore(kind)?,
        }
    }
}

async fn write(
    place: &Place,
    writer: &mut MessageWriter,
    compress: bool,
    is_port: bool,
) -> Endless {
    loop {
        match place.next().await {
            Item::Bytes(bytes) => writer.send(pack(&bytes, compress)).await?,
            Item::Mark(event) if is_port => {
                let event = match event {
                    PortEvent::Opened => port::EVENT_OPENED,
                    PortEvent::Closed => port::EVENT_CLOSED,
                    PortEvent::Break => port::EVENT_BREAK,
                };
                writer.send(Message::new(port::EVENT).u8(event)).await?;
            }
            Item::Mark(PortEvent::Closed) => return Err(Ending::Unplugged),
            Item::Mark(PortEvent::Opened | PortEvent::Break) => {}
        }
    }
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromClient<'a> {
    Bytes(&'a [u8]),
    Compressed(Vec<u8>),
    Break,
    /// Nothing that these channels know.
    Other,
}

/// Reads a message; an error is one that says the impossible.
pub(crate) fn parse(kind: u16, body: &[u8]) -> Result<FromClient<'_>, Truncated> {
    let mut fields = Reader(body);
    Ok(match kind {
        id::DATA => FromClient::Bytes(body),
        id::COMPRESSED_DATA => {
            let method = fields.u8()?;
            let size = fields.u32()?;
            if method != id::COMPRESSION_LZ4 || size > MAX_UNCOMPRESSED {
                return Err(Truncated);
            }
            let bytes = decompress(fields.0, size as usize).map_err(|_| Truncated)?;
            if bytes.len() != size as usize {
                return Err(Truncated);
            }
            FromClient::Compressed(bytes)
        }
        port::C_EVENT if fields.u8()? == port::EVENT_BREAK => FromClient::Break,
        _ => FromClient::Other,
    })
}

/// The message for these bytes, compressed if allowed and shorter then.
fn pack(bytes: &[u8], may_compress: bool) -> Message {
    if may_compress && bytes.len() > WORTH_COMPRESSING {
        let packed = compress(bytes);
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if packed.len() < bytes.len() {
            return Message::with_capacity(id::COMPRESSED_DATA, packed.len() + 5)
                .u8(id::COMPRESSION_LZ4)
                .u32(size)
                .bytes(&packed);
        }
    }
    Message::with_capacity(id::DATA, bytes.len()).bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn compressed(size: u32, bytes: &[u8]) -> Vec<u8> {
        [&[id::COMPRESSION_LZ4], &size.to_le_bytes()[..], bytes].concat()
    }

    #[test]
    fn a_port_tells_its_name_behind_its_state() {
        let expected = Message::new(port::INIT).bytes(b"\x04\0\0\0\x09\0\0\0\x01abc\0");
        assert_eq!(init("abc", true), expected);
    }

    #[test]
    fn a_size_that_lies_is_refused() {
        let packed = compress(&[7; 2000]);
        for size in [0, 1999, 2001, MAX_UNCOMPRESSED, u32::MAX] {
            let body = compressed(size, &packed);
            assert_eq!(parse(id::COMPRESSED_DATA, &body), Err(Truncated), "{size}");
        }
    }

    #[test]
    fn a_break_is_the_only_event_that_a_client_may_cause() {
        assert_eq!(parse(port::C_EVENT, &[2]), Ok(FromClient::Break));
        assert_eq!(parse(port::C_EVENT, &[0]), Ok(FromClient::Other));
        assert_eq!(parse(port::C_EVENT, &[]), Err(Truncated));
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let mut noise = [0; 2000];
        StdRng::seed_from_u64(7).fill(&mut noise[..]);
        assert_eq!(pack(&noise, true), Message::new(id::DATA).bytes(&noise));
        assert_eq!(
            pack(&[0; 2000], false),
            Message::new(id::DATA).bytes(&[0; 2000])
        );
        assert_ne!(
            pack(&[0; 2000], true),
            Message::new(id::DATA).bytes(&[0; 2000])
        );
    }

    proptest! {
        #[test]
        fn any_message_is_understood_or_refused(
            kind in 99u16..210,
            body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(FromClient::Compressed(bytes)) = parse(kind, &body) {
                prop_assert!(bytes.len() <= MAX_UNCOMPRESSED as usize);
            }
        }

        #[test]
        fn what_was_compressed_is_understood(bytes in prop::collection::vec(0u8..4, 1..5000)) {
            let body = compressed(bytes.len() as u32, &compress(&bytes));
            prop_assert_eq!(parse(id::COMPRESSED_DATA, &body), Ok(FromClient::Compressed(bytes)));
            prop_assert!(parse(id::COMPRESSED_DATA, &body[..body.len() - 1]).is_err());
        }
    }
}
