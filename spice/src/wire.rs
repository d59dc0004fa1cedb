//! Reading and writing messages: bytes, frames, and the halves of a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::time::timeout;

use crate::geometry::Rect;
use crate::session::Ending;

/// How long a client may take no byte of what is sent to it, or be silent when it is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A connection, whatever carries it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub(crate) type BoxedStream = Box<dyn Stream>;

/// The bytes ended before the value did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truncated;

/// Takes little-endian values off the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Truncated> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }
}

/// How messages are framed, as the link agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Type and size, 6 bytes.
    Mini,
    /// Serial, type, size and the place of sub-messages (of which neither side sends any), 18 bytes.
    Full,
}

impl Framing {
    const fn header_len(self) -> usize {
        match self {
            Self::Mini => 6,
            Self::Full => FULL_HEADER,
        }
    }
}

const FULL_HEADER: usize = 18;

/// A message to a client. Room for the longest header is kept before the body, so that both leave
/// in one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    kind: u16,
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16) -> Self {
        Self::with_capacity(kind, 64)
    }

    /// With room for a body of `capacity` bytes.
    pub(crate) fn with_capacity(kind: u16, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(FULL_HEADER + capacity);
        bytes.resize(FULL_HEADER, 0);
        Self { kind, bytes }
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i16(self, value: i16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Top, left, bottom, right: the wire's order.
    pub(crate) fn rect(self, rect: Rect) -> Self {
        self.i32(rect.top)
            .i32(rect.left)
            .i32(rect.bottom)
            .i32(rect.right)
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - FULL_HEADER
    }

    /// Header and body.
    fn frame(&mut self, framing: Framing, serial: u64) -> &[u8] {
        let size = u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes();
        let kind = self.kind.to_le_bytes();
        let start = FULL_HEADER - framing.header_len();
        let frame = &mut self.bytes[start..];
        match framing {
            Framing::Mini => {
                frame[..2].copy_from_slice(&kind);
                frame[2..6].copy_from_slice(&size);
            }
            Framing::Full => {
                frame[..8].copy_from_slice(&serial.to_le_bytes());
                frame[8..10].copy_from_slice(&kind);
                frame[10..14].copy_from_slice(&size);
                frame[14..18].fill(0);
            }
        }
        frame
    }
}

/// Bytes that went each way on a channel.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

/// The half of a connection that a client talks on.
pub(crate) struct MessageReader {
    half: BufReader<ReadHalf<BoxedStream>>,
    framing: Framing,
    limit: u32,
    body: Vec<u8>,
    traffic: Arc<Traffic>,
}

impl MessageReader {
    pub(crate) fn new(
        half: ReadHalf<BoxedStream>,
        framing: Framing,
        limit: u32,
        traffic: Arc<Traffic>,
    ) -> Self {
        let half = BufReader::with_capacity(1024, half);
        Self {
            half,
            framing,
            limit,
            body: Vec::new(),
            traffic,
        }
    }

    /// The next message: its type and its body, no longer than the limit.
    pub(crate) async fn next(&mut self) -> Result<(u16, &[u8]), Ending> {
        let mut header = [0; FULL_HEADER];
        let header = &mut header[..self.framing.header_len()];
        // A connection may end between two messages, but not inside of one.
        match self.half.read(header).await? {
            0 => return Err(Ending::Closed),
            got => self.half.read_exact(&mut header[got..]).await?,
        };
        let mut fields = Reader(header);
        if self.framing == Framing::Full {
            let _serial = fields.u64();
        }
        let (Ok(kind), Ok(size)) = (fields.u16(), fields.u32()) else {
            return Err(Ending::Vanished);
        };
        if size > self.limit {
            return Err(Ending::Oversized {
                kind,
                size,
                limit: self.limit,
            });
        }
        self.body.resize(size as usize, 0);
        self.half.read_exact(&mut self.body).await?;
        let total = header.len() + self.body.len();
        self.traffic
            .received
            .fetch_add(total as u64, Ordering::Relaxed);
        Ok((kind, &self.body))
    }
}

/// The half of a connection that the server talks on.
pub(crate) struct MessageWriter {
    half: WriteHalf<BoxedStream>,
    framing: Framing,
    serial: u64,
    traffic: Arc<Traffic>,
    /// A message is partly written, so that no other may follow it.
    torn: bool,
}

impl MessageWriter {
    pub(crate) fn new(
        half: WriteHalf<BoxedStream>,
        framing: Framing,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            half,
            framing,
            serial: 0,
            traffic,
            torn: false,
        }
    }

    /// Writes a message; waits while the socket is full, but no longer than [`PATIENCE`] for a byte
    /// to leave. As a rule one write and no copy: header and body are in one piece.
    pub(crate) async fn send(&mut self, mut message: Message) -> Result<(), Ending> {
        self.serial += 1;
        let frame = message.frame(self.framing, self.serial);
        self.torn = true;
        let mut rest = frame;
        while !rest.is_empty() {
            // The timer is not touched unless the socket is full.
            let written = timeout(PATIENCE, self.half.write(rest)).await;
            match written.map_err(|_| Ending::Silent)?? {
                0 => return Err(Ending::Vanished),
                count => rest = &rest[count..],
            }
        }
        let flushed = timeout(PATIENCE, self.half.flush()).await;
        flushed.map_err(|_| Ending::Silent)??;
        self.torn = false;
        self.traffic
            .sent
            .fetch_add(frame.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a [`MessageWriter::send`] was given up in the middle.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    pub(crate) async fn close(&mut self) {
        let _ = self.half.shutdown().await;
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Vanished,
            io::ErrorKind::TimedOut => Self::Silent,
            kind => Self::Socket {
                error: kind.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};
    use tokio::join;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn a_mini_frame_is_type_size_body() {
        let mut message = Message::new(0x0102).u32(0x0304_0506);
        assert_eq!(
            message.frame(Framing::Mini, 9),
            [2, 1, 4, 0, 0, 0, 6, 5, 4, 3]
        );
    }

    #[test]
    fn a_full_frame_has_serial_and_no_sub_messages() {
        let mut message = Message::new(7).u8(1);
        let expected = [9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(message.frame(Framing::Full, 9), expected);
    }

    /// A writer, and the other end of its connection, which holds `room` bytes.
    fn writer(room: usize) -> (MessageWriter, DuplexStream) {
        let (ours, theirs) = duplex(room);
        let stream: BoxedStream = Box::new(ours);
        let (_, half) = split(stream);
        (
            MessageWriter::new(half, Framing::Mini, Arc::default()),
            theirs,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_at_the_deadline() {
        let (mut writer, _theirs) = writer(100);
        let start = Instant::now();

        let sent = writer.send(Message::new(1).bytes(&[7; 200])).await;

        assert_eq!(sent, Err(Ending::Silent));
        assert_eq!(start.elapsed(), PATIENCE);
        assert!(writer.is_torn());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_waited_for() {
        let (mut writer, mut theirs) = writer(100);
        let start = Instant::now();
        let read = async {
            let mut byte = [0];
            for _ in 0..206 {
                sleep(PATIENCE / 2).await;
                theirs.read_exact(&mut byte).await?;
            }
            io::Result::Ok(())
        };

        let (sent, read) = join!(writer.send(Message::new(1).bytes(&[7; 200])), read);

        assert_eq!((sent, read.is_ok()), (Ok(()), true));
        assert!(start.elapsed() > PATIENCE * 50);
    }

    #[test]
    fn a_reader_never_passes_the_end() {
        let mut reader = Reader(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.u32(), Err(Truncated));
        assert_eq!(reader.u8(), Ok(3));
        assert_eq!(reader.bytes(1), Err(Truncated));
    }
}
