//! What carries SPICE: plain bytes, TLS, WebSocket, and WebSocket in TLS.
//!
//! A connection's first byte tells what it begins with. TLS is taken off first; what begins with an
//! HTTP method then is a browser, which is served the console's files until it asks for a WebSocket.
//! All of this comes before the link stage and counts as part of it: it has the same limits of time
//! and of connections.

mod console;
mod http;
mod origin;
mod websocket;

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_rustls::TlsAcceptor;

pub use console::{Console, ConsoleError};
pub(crate) use http::Site;
pub use origin::{Origin, OriginError};

use crate::link::message::refuse;
use crate::link::{Refusal, part, tell, within};
use crate::protocol::LinkResult;
use crate::tls::Tls;
use crate::wire::BoxedStream;

/// What keeps others from listening to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Nothing: TCP as it is.
    Plain,
    /// It does not leave the host: a Unix socket.
    Local,
    /// TLS.
    Tls,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Local => "local",
            Self::Tls => "tls",
        })
    }
}

/// For a first byte to come.
const FIRST_TIME: Duration = Duration::from_secs(10);
/// For the handshake. Its size is limited by rustls: 64 KiB a message, a few messages.
const TLS_TIME: Duration = Duration::from_secs(10);
/// What is read to know what a connection begins with; the rest of it waits in the stream.
const PEEK: usize = 64;

/// What a connection became.
pub(crate) enum Opened {
    /// Something that is to begin with a SPICE link.
    Link(BoxedStream, Security),
    /// A browser that got its files and left.
    Served,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Spice,
    Http,
    Tls,
    /// The link stage will say that this is no SPICE.
    Other,
}

impl Beginning {
    fn of(first: u8) -> Self {
        /// `ContentType::handshake` of RFC 8446, 5.1.
        const HANDSHAKE: u8 = 22;
        match first {
            b'R' => Self::Spice,
            // CONNECT, DELETE, GET, HEAD, OPTIONS, POST or PUT or PATCH, TRACE.
            b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'T' => Self::Http,
            HANDSHAKE => Self::Tls,
            _ => Self::Other,
        }
    }
}

/// Takes off what a connection is wrapped in. On a listener with `tls`, only TLS goes on; what
/// comes plainly is told so in its own protocol.
pub(crate) async fn open(
    stream: BoxedStream,
    plainly: Security,
    tls: Option<&Tls>,
    site: Site<'_>,
) -> Result<Opened, Refusal> {
    let (beginning, mut stream) = peek(stream).await?;
    let (beginning, stream, security) = match (tls, beginning) {
        (None, Beginning::Tls) => return Err(Refusal::UnexpectedTls),
        (None, beginning) => (beginning, stream, plainly),
        (Some(tls), Beginning::Tls) => {
            let (beginning, stream) = peek(shake_hands(tls, stream).await?).await?;
            (beginning, stream, Security::Tls)
        }
        (Some(_), beginning) => {
            let answer = match beginning {
                Beginning::Http => http::WANTS_TLS.to_vec(),
                _ => refuse(LinkResult::NeedSecured),
            };
            let said = async { Ok(tell(&mut stream, &answer).await?) };
            within(FIRST_TIME, "take the answer", said).await?;
            part(&mut stream).await;
            return Err(Refusal::NotTls);
        }
    };
    if beginning != Beginning::Http {
        return Ok(Opened::Link(stream, security));
    }
    Ok(match http::serve(stream, security, site).await? {
        Some(stream) => Opened::Link(stream, security),
        None => Opened::Served,
    })
}

/// Waits for the first byte, and leaves it in the stream.
async fn peek(stream: BoxedStream) -> Result<(Beginning, BoxedStream), Refusal> {
    let mut stream = BufReader::with_capacity(PEEK, stream);
    let first = async {
        stream
            .fill_buf()
            .await?
            .first()
            .copied()
            .ok_or(Refusal::Vanished)
    };
    let first = within(FIRST_TIME, "say a word", first).await?;
    Ok((Beginning::of(first), Box::new(stream)))
}

async fn shake_hands(tls: &Tls, stream: BoxedStream) -> Result<BoxedStream, Refusal> {
    let accepted = async {
        TlsAcceptor::from(tls.current())
            .accept(stream)
            .await
            .map_err(|error| tls_refusal(&error))
    };
    Ok(Box::new(within(TLS_TIME, "shake hands", accepted).await?))
}

/// Why a handshake failed, in words that help whoever reads the log.
fn tls_refusal(error: &io::Error) -> Refusal {
    use rustls::{AlertDescription, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let reason = match inner {
        Some(Error::AlertReceived(AlertDescription::UnknownCA)) => {
            "it does not trust our certificate's CA; give it `ca` (display.vv has it)".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("it refused our certificate: {alert:?}"),
        Some(error) => error.to_string(),
        None => return Refusal::Vanished,
    };
    Refusal::TlsFailed { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        for (bytes, beginning) in [
            (&b"REDQ"[..], Beginning::Spice),
            (b"GET / HTTP/1.1", Beginning::Http),
            (b"HEAD / HTTP/1.1", Beginning::Http),
            (b"POST / HTTP/1.1", Beginning::Http),
            (b"\x16\x03\x01", Beginning::Tls),
            (b"SSH-2.0-", Beginning::Other),
            (b"\0", Beginning::Other),
        ] {
            assert_eq!(Beginning::of(bytes[0]), beginning);
        }
    }
}
