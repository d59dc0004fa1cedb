//! The inside of the server for the fuzz targets in `tests/fuzz`. Compiled with `--cfg fuzzing` only.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Server;
use crate::link::guard::{Peer, Source};
pub use crate::link::keys::FixedKey;
use crate::link::keys::{KeyStore, Keys};
use crate::link::message::{self, LinkMessage};
use crate::listener::Connection;
use crate::transport::Security;

/// Who the connections are from.
fn peer() -> Peer {
    Peer {
        name: "fuzz".to_owned(),
        source: Source::Process {
            user: 0,
            process: 0,
        },
    }
}

/// What a link message says: session, kind of channel, its number, capabilities of both sorts.
pub type Link = (u32, u8, u8, Vec<u32>, Vec<u32>);

/// The fields of a `SpiceLinkMess`.
#[must_use]
pub fn parse_link(bytes: &[u8]) -> Option<Link> {
    let link = LinkMessage::parse(bytes).ok()?;
    let words = |capabilities: &message::Capabilities| capabilities.words().to_vec();
    Some((
        link.connection_id,
        link.channel_type,
        link.channel_id,
        words(&link.common),
        words(&link.channel),
    ))
}

/// Lets `server` take links, all of them with this key, without a thread that makes others.
pub fn use_key(server: &Server, key: &FixedKey) {
    let _ = server.keys.set(Keys::Store(KeyStore::fixed(key)));
}

/// Serves a connection from its first byte to its end.
pub async fn connection(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) {
    let connection = Connection {
        stream: Box::new(stream),
        security: Security::Plain,
        peer: peer(),
    };
    server.welcome(connection, None).await;
}

/// Serves a channel to its end, as if its link had come to a good end with this link message.
/// `false` if the server does not admit it.
pub async fn channel(
    server: Arc<Server>,
    link: &[u8],
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> bool {
    let Ok(wanted) = LinkMessage::parse(link) else {
        return false;
    };
    match server.admit(&wanted, &peer(), None, Security::Plain) {
        Ok(context) => {
            server.attend(context, Box::new(stream), &wanted).await;
            true
        }
        Err(_) => false,
    }
}
