//! SPICE in the binary frames of a WebSocket (RFC 6455).
//!
//! Where frames begin and end means nothing: they carry a stream of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_sink::Sink;
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Bytes of a client's message at most; those of SPICE are shorter, and need not fit one.
const MAX_MESSAGE: usize = 128 * 1024;
/// Bytes of our messages at most.
const PIECE: usize = 64 * 1024;

/// A WebSocket as a stream of bytes.
pub(super) struct WebSocket<S> {
    frames: WebSocketStream<S>,
    /// What came and is not read yet.
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's side of a WebSocket whose handshake is done.
    pub(super) async fn new(stream: S) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(PIECE)
            .max_write_buffer_size(4 * PIECE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        Self {
            frames: WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await,
            unread: Bytes::new(),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        // A frame that breaks the protocol or is too long.
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(_))) => {
                    let error = "a text frame, where SPICE takes binary ones";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                // Pings are answered by the protocol's own code; after a close, the end comes.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.frames).poll_ready(cx)).map_err(io_error)?;
        let piece = &bytes[..bytes.len().min(PIECE)];
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        Pin::new(&mut self.frames)
            .start_send(message)
            .map_err(io_error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_close(cx).map_err(io_error)
    }
}
