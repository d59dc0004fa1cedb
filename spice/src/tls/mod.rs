//! TLS: the certificate that new connections are shown, and which channels insist on it.
//!
//! A program loads an [`Identity`], makes a [`Tls`] of it and gives that to each listener that is to
//! speak TLS ([`Listener::secured`](crate::Listener::secured)). [`Tls::replace`] changes the
//! certificate for connections to come; those that are there keep theirs.

mod identity;
mod subject;

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;

pub use identity::{Identity, TlsError, TlsFault, TlsFile};

use crate::protocol::ChannelKind;

/// What new TLS connections are shown.
pub struct Tls {
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS 1.2 and 1.3 with this certificate.
    #[must_use]
    pub fn new(identity: &Identity) -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(identity.config()),
        })
    }

    /// Shows another certificate from the next connection on.
    pub fn replace(&self, identity: &Identity) {
        *self.current.write() = identity.config();
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Which channels are for secured connections only. A client that asks for one of them on a plain
/// TCP connection is told to come back by TLS (`SPICE_LINK_ERR_NEED_SECURED`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SecureChannels {
    /// No channel insists.
    #[default]
    None,
    /// Every channel does.
    All,
    /// These do.
    Only(Vec<ChannelKind>),
}

impl SecureChannels {
    /// Whether a channel of this kind insists.
    #[must_use]
    pub fn contains(&self, kind: ChannelKind) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }
}
