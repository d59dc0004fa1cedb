//! Numbers and headers of the agent's protocol (spice-protocol `vd_agent.h`).

use crate::wire::Reader;

/// `VD_AGENT_PROTOCOL`.
const PROTOCOL: u32 = 1;
/// `VDIChunkHeader`: port and size.
pub(super) const CHUNK_HEADER: usize = 8;
/// `VDAgentMessage`: protocol, type, opaque and size.
pub(super) const MESSAGE_HEADER: usize = 20;
/// `VD_AGENT_MAX_DATA_SIZE`: bytes of a chunk to the guest, and of an `AGENT_DATA` either way.
pub(super) const MAX_DATA: usize = 2048;
/// Bytes of a message's body that are kept until they are all there. What is longer is passed on
/// while it comes; so far reach the pieces of a file in which spice-gtk sends one, with their head.
pub(super) const HELD: u32 = 64 * 1024 + 64;
/// Bytes of a message's body at most: the 100 MiB of a clipboard that spice-gtk allows, and a head.
pub(super) const MAX_BODY: u32 = (100 << 20) + 64;

/// `VD_AGENT_*`: what a message is.
pub(super) mod kind {
    pub(in crate::agent) const MOUSE_STATE: u32 = 1;
    pub(in crate::agent) const MONITORS_CONFIG: u32 = 2;
    pub(in crate::agent) const REPLY: u32 = 3;
    pub(in crate::agent) const CLIPBOARD: u32 = 4;
    pub(in crate::agent) const DISPLAY_CONFIG: u32 = 5;
    pub(in crate::agent) const ANNOUNCE_CAPABILITIES: u32 = 6;
    pub(in crate::agent) const CLIPBOARD_GRAB: u32 = 7;
    pub(in crate::agent) const CLIPBOARD_REQUEST: u32 = 8;
    pub(in crate::agent) const CLIPBOARD_RELEASE: u32 = 9;
    pub(in crate::agent) const FILE_XFER_START: u32 = 10;
    pub(in crate::agent) const FILE_XFER_STATUS: u32 = 11;
    pub(in crate::agent) const FILE_XFER_DATA: u32 = 12;
    pub(in crate::agent) const CLIENT_DISCONNECTED: u32 = 13;
    pub(in crate::agent) const MAX_CLIPBOARD: u32 = 14;
    pub(in crate::agent) const GRAPHICS_DEVICE_INFO: u32 = 16;
}

/// Why a stream can't be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// A chunk is for neither end.
    #[error("a chunk for port {0}; there are 1 and 2")]
    Port(u32),
    /// A message is not of this protocol.
    #[error("a message of protocol {0} instead of 1")]
    Protocol(u32),
    /// A message is longer than any may be.
    #[error("message {kind} of {size} bytes, of which {MAX_BODY} are allowed")]
    TooLong {
        /// Its type.
        kind: u32,
        /// Its announced bytes.
        size: u32,
    },
    /// A message is too short, too long or says the impossible.
    #[error("message {0} is malformed")]
    Malformed(u32),
    /// A client sent a piece that is too long.
    #[error("a piece of {0} bytes, of which {MAX_DATA} are allowed")]
    Piece(usize),
    /// A client sent more than it was given tokens for.
    #[error("more data than there were tokens for")]
    Tokens,
}

/// Which end of the host a chunk is for, or from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// The clients.
    Client = 1,
    /// The server itself.
    Server = 2,
}

/// Finds the chunks in what the guest sends. A guest's chunk may be as long as a message:
/// spice-vdagentd sends each message in one.
#[derive(Debug, Default)]
pub(super) struct ChunkReader {
    header: Vec<u8>,
    port: Option<Port>,
    left: u32,
}

impl ChunkReader {
    /// The next bytes of a chunk, off the front of `input`; `None` once that is used up.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<(Port, &'a [u8])>, AgentError> {
        loop {
            if let Some(port) = self.port.filter(|_| self.left > 0) {
                let (now, later) = input.split_at(input.len().min(self.left as usize));
                *input = later;
                self.left -= now.len() as u32;
                return Ok((!now.is_empty()).then_some((port, now)));
            }
            let missing = CHUNK_HEADER - self.header.len();
            let (now, later) = input.split_at(input.len().min(missing));
            *input = later;
            self.header.extend_from_slice(now);
            if self.header.len() < CHUNK_HEADER {
                return Ok(None);
            }
            let mut fields = Reader(&self.header);
            let (port, size) = (fields.u32().unwrap_or(0), fields.u32().unwrap_or(0));
            self.header.clear();
            self.port = Some(match port {
                1 => Port::Client,
                2 => Port::Server,
                other => return Err(AgentError::Port(other)),
            });
            self.left = size;
        }
    }
}

/// What a message says before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// `VD_AGENT_*`.
    pub(super) kind: u32,
    /// Carried unread.
    pub(super) opaque: u64,
    /// Bytes of the body.
    pub(super) size: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, AgentError> {
        let mut fields = Reader(bytes);
        let mut word = || fields.u32().unwrap_or(0);
        let (protocol, kind) = (word(), word());
        let opaque = u64::from(word()) | u64::from(word()) << 32;
        let size = word();
        if protocol != PROTOCOL {
            return Err(AgentError::Protocol(protocol));
        }
        if size > MAX_BODY {
            return Err(AgentError::TooLong { kind, size });
        }
        Ok(Self { kind, opaque, size })
    }
}

/// A message on its way out; all of it, or what of it is there while the rest is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing(Vec<u8>);

impl Outgoing {
    /// A whole message.
    pub(super) fn new(kind: u32, body: &[u8]) -> Self {
        let size = body.len() as u32;
        let header = Header {
            kind,
            opaque: 0,
            size,
        };
        Self::passed(header, body, 0)
    }

    /// A message that somebody else sent, with another body and `left` bytes to follow.
    pub(super) fn passed(header: Header, body: &[u8], left: u32) -> Self {
        let mut bytes = Vec::with_capacity(MESSAGE_HEADER + body.len());
        bytes.extend(PROTOCOL.to_le_bytes());
        bytes.extend(header.kind.to_le_bytes());
        bytes.extend(header.opaque.to_le_bytes());
        bytes.extend((body.len() as u32 + left).to_le_bytes());
        bytes.extend(body);
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
