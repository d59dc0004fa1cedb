//! A client's end of a connection: says what it is told to and checks what it hears.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Bytes that the connection holds each way, as a socket's buffer does.
pub const BUFFER: usize = 64 * 1024;
/// The longest message that a server may send; what proxies allow is four times that.
const LONGEST: usize = 4 << 20;
/// How long a server may take to notice that its client has gone.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Checks the frames that a server sends, whatever pieces they come in.
pub struct Frames {
    mini: bool,
    serial: u64,
    pending: Vec<u8>,
    /// The session's id, once the main channel's first message told it.
    pub session: Option<u32>,
}

impl Frames {
    /// Nothing came yet.
    pub fn new(mini: bool) -> Self {
        Self {
            mini,
            serial: 0,
            pending: Vec::new(),
            session: None,
        }
    }

    /// Whether the short header was agreed.
    pub fn is_mini(&self) -> bool {
        self.mini
    }

    /// Takes more bytes.
    ///
    /// # Panics
    /// If they are not the framing that was agreed.
    pub fn take(&mut self, bytes: &[u8]) {
        const MAIN_INIT: u16 = 103;
        self.pending.extend(bytes);
        let head = if self.mini { 6 } else { 18 };
        let mut at = 0;
        while let Some(header) = self.pending.get(at..at + head) {
            let short = if self.mini {
                header
            } else {
                self.serial += 1;
                assert_eq!(header[..8], self.serial.to_le_bytes(), "serial");
                assert_eq!(header[14..], [0; 4], "a list of sub-messages");
                &header[8..14]
            };
            let kind = u16::from_le_bytes([short[0], short[1]]);
            let size = u32::from_le_bytes([short[2], short[3], short[4], short[5]]) as usize;
            assert!(size <= LONGEST, "message {kind} of {size} bytes");
            let Some(body) = self.pending.get(at + head..at + head + size) else {
                if !self.mini {
                    self.serial -= 1;
                }
                break;
            };
            if kind == MAIN_INIT && self.session.is_none() {
                self.session = body.first_chunk().map(|id| u32::from_le_bytes(*id));
            }
            at += head + size;
        }
        self.pending.drain(..at);
    }
}

/// One channel of a client.
pub struct Channel {
    read: ReadHalf<DuplexStream>,
    write: Option<WriteHalf<DuplexStream>>,
    /// What it heard.
    pub frames: Frames,
}

impl Channel {
    /// The client's end of `stream`.
    pub fn new(stream: DuplexStream, mini: bool) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            read,
            write: Some(write),
            frames: Frames::new(mini),
        }
    }

    /// Says `bytes`, for as long as the server takes them; hears what comes meanwhile.
    pub async fn say(&mut self, bytes: &[u8]) {
        let Some(mut write) = self.write.take() else {
            return;
        };
        let said = {
            let write = write.write_all(bytes);
            tokio::select! {
                said = write => said.is_ok(),
                () = self.listen() => false,
            }
        };
        self.write = said.then_some(write);
    }

    /// Says `bytes` and hears nothing, for a moment at most.
    pub async fn shout(&mut self, bytes: &[u8]) {
        if let Some(write) = &mut self.write {
            let said = timeout(Duration::from_millis(10), write.write_all(bytes)).await;
            // What was said in part can't be followed by anything.
            if !matches!(said, Ok(Ok(()))) {
                self.write = None;
            }
        }
    }

    /// Says nothing more; the server hears the end of it.
    pub async fn end(&mut self) {
        if let Some(mut write) = self.write.take() {
            let _ = write.shutdown().await;
        }
    }

    /// Hears until the server ends the connection.
    pub async fn listen(&mut self) {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = self.read.read(&mut bytes).await {
            self.frames.take(&bytes[..count]);
        }
    }

    /// Hears for this long.
    pub async fn hear(&mut self, time: Duration) {
        let _ = timeout(time, self.listen()).await;
    }
}
