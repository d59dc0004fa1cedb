//! Why a connection does not become a channel.

use std::io;
use std::time::Duration;

use crate::protocol::{ChannelKind, LinkResult};
use crate::ticket::Lapse;

/// Why a connection did not become a channel: words for people, a code for programs, and what the
/// client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not speak SPICE")]
    BadMagic,
    #[error("it speaks SPICE {major}.{minor}; this server speaks 2.2")]
    BadVersion { major: u32, minor: u32 },
    #[error("its link message of {size} bytes is out of bounds")]
    BadSize { size: u32 },
    #[error("its link message is malformed")]
    BadCapabilities,
    #[error("it asks for the {kind} channel without TLS, which that channel wants")]
    NeedSecured { kind: ChannelKind },
    #[error("it asks for authentication {mechanism}; this server has tickets only (1)")]
    UnknownMechanism { mechanism: u32 },
    #[error("wrong password")]
    WrongTicket,
    #[error("its ticket \"{id}\" {lapse}")]
    LapsedTicket { id: String, lapse: Lapse },
    #[error("it sent too many wrong passwords; it has to wait for {} more seconds", .wait.as_secs() + 1)]
    LockedOut { wait: Duration },
    #[error("there is no session {id:#x}")]
    NoSuchSession { id: u32 },
    #[error("there is no channel of type {kind} with number {id}")]
    NoSuchChannel { kind: u8, id: u8 },
    #[error("its ticket does not allow the {kind} channel")]
    NotPermitted { kind: ChannelKind },
    #[error("its session has too many channels already")]
    TooManyChannels,
    #[error("there are {limit} sessions already, as many as are allowed")]
    TooManySessions { limit: usize },
    #[error("somebody is connected, and the display is for one at a time")]
    Occupied,
    #[error("too many connections are being made at once")]
    TooManyLinks,
    #[error("so many connections are being made that there was no key for it in time")]
    NoKey,
    #[error("it took too long to {stage}")]
    TooSlow { stage: &'static str },
    #[error("it does not speak TLS, and this port speaks nothing else")]
    NotTls,
    #[error("it speaks TLS, and this port does not")]
    UnexpectedTls,
    #[error("the TLS handshake failed: {reason}")]
    TlsFailed { reason: String },
    #[error("a web page of {origin:?} may not connect; spice.origins can allow it")]
    ForeignPage { origin: String },
    #[error("its HTTP is broken: {reason}")]
    BadHttp { reason: String },
    #[error("it left in the middle of the link")]
    Vanished,
    #[error("the server shuts down")]
    Unavailable,
}

impl Refusal {
    /// The word for programs, which stays, and what the client is told in SPICE; nothing if it
    /// listens to something else or not at all, or is one of too many.
    fn row(&self) -> (&'static str, Option<LinkResult>) {
        use LinkResult as Says;
        match self {
            Self::BadMagic => ("not-spice", Some(Says::InvalidMagic)),
            Self::BadVersion { .. } => ("wrong-version", Some(Says::VersionMismatch)),
            Self::BadSize { .. } => ("bad-size", Some(Says::InvalidData)),
            Self::BadCapabilities => ("bad-capabilities", Some(Says::InvalidData)),
            Self::NeedSecured { .. } => ("need-secured", Some(Says::NeedSecured)),
            Self::UnknownMechanism { .. } => ("unknown-mechanism", Some(Says::Error)),
            Self::WrongTicket => ("wrong-ticket", Some(Says::PermissionDenied)),
            Self::LapsedTicket { lapse, .. } => {
                let word = match lapse {
                    Lapse::Expired => "expired-ticket",
                    Lapse::Used => "used-ticket",
                    Lapse::Revoked => "revoked-ticket",
                };
                (word, Some(Says::PermissionDenied))
            }
            Self::LockedOut { .. } => ("locked-out", Some(Says::PermissionDenied)),
            Self::NoSuchSession { .. } => ("no-such-session", Some(Says::BadConnectionId)),
            Self::NoSuchChannel { .. } => ("no-such-channel", Some(Says::ChannelNotAvailable)),
            Self::NotPermitted { .. } => ("not-permitted", Some(Says::ChannelNotAvailable)),
            Self::TooManyChannels => ("too-many-channels", Some(Says::ChannelNotAvailable)),
            Self::TooManySessions { .. } => ("too-many-sessions", Some(Says::Error)),
            Self::Occupied => ("occupied", Some(Says::Error)),
            Self::NoKey => ("no-key", Some(Says::Error)),
            Self::Unavailable => ("shutting-down", Some(Says::Error)),
            Self::NotTls => ("not-tls", Some(Says::NeedSecured)),
            Self::UnexpectedTls => ("unexpected-tls", None),
            Self::TlsFailed { .. } => ("tls-failed", None),
            Self::ForeignPage { .. } => ("foreign-page", None),
            Self::BadHttp { .. } => ("bad-http", None),
            Self::TooManyLinks => ("too-many-links", None),
            Self::TooSlow { .. } => ("too-slow", None),
            Self::Vanished => ("vanished", None),
        }
    }

    /// The word for programs.
    pub(crate) fn code(&self) -> &'static str {
        self.row().0
    }

    /// What the client is told.
    pub(crate) fn result(&self) -> Option<LinkResult> {
        self.row().1
    }

    /// The id of the ticket that was presented, if there was one.
    pub(crate) fn ticket(&self) -> Option<&str> {
        match self {
            Self::LapsedTicket { id, .. } => Some(id),
            _ => None,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Vanished
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every refusal, with the number of `SPICE_LINK_ERR_*` that the client reads.
    fn all() -> Vec<(Refusal, Option<u32>)> {
        let lapsed = |lapse| Refusal::LapsedTicket {
            id: "guest".to_owned(),
            lapse,
        };
        let kind = ChannelKind::Inputs;
        vec![
            (Refusal::BadMagic, Some(2)),
            (Refusal::BadVersion { major: 1, minor: 0 }, Some(4)),
            (Refusal::BadSize { size: 0 }, Some(3)),
            (Refusal::BadCapabilities, Some(3)),
            (Refusal::UnknownMechanism { mechanism: 2 }, Some(1)),
            (Refusal::WrongTicket, Some(7)),
            (lapsed(Lapse::Expired), Some(7)),
            (lapsed(Lapse::Used), Some(7)),
            (lapsed(Lapse::Revoked), Some(7)),
            (
                Refusal::LockedOut {
                    wait: Duration::from_millis(1500),
                },
                Some(7),
            ),
            (Refusal::NoSuchSession { id: 1 }, Some(8)),
            (Refusal::NoSuchChannel { kind: 99, id: 0 }, Some(9)),
            (Refusal::NotPermitted { kind }, Some(9)),
            (Refusal::TooManyChannels, Some(9)),
            (Refusal::TooManySessions { limit: 1 }, Some(1)),
            (Refusal::Occupied, Some(1)),
            (Refusal::NoKey, Some(1)),
            (Refusal::Unavailable, Some(1)),
            (Refusal::NeedSecured { kind }, Some(5)),
            (Refusal::NotTls, Some(5)),
            (Refusal::UnexpectedTls, None),
            (
                Refusal::TlsFailed {
                    reason: "x".to_owned(),
                },
                None,
            ),
            (
                Refusal::ForeignPage {
                    origin: "x".to_owned(),
                },
                None,
            ),
            (
                Refusal::BadHttp {
                    reason: "x".to_owned(),
                },
                None,
            ),
            (Refusal::TooManyLinks, None),
            (Refusal::TooSlow { stage: "x" }, None),
            (Refusal::Vanished, None),
        ]
    }

    #[test]
    fn each_has_the_protocols_error() {
        for (refusal, number) in all() {
            let says = refusal.result().map(|result| result as u32);
            assert_eq!(says, number, "{refusal}");
        }
    }

    #[test]
    fn each_has_a_word_of_its_own() {
        let words: BTreeSet<_> = all().iter().map(|(refusal, _)| refusal.code()).collect();
        assert_eq!(words.len(), all().len());
    }

    #[test]
    fn a_lapsed_ticket_is_named() {
        let (refusal, _) = &all()[6];
        assert_eq!(refusal.to_string(), "its ticket \"guest\" has expired");
        assert_eq!(refusal.ticket(), Some("guest"));
    }

    #[test]
    fn who_is_locked_out_is_told_how_long() {
        let (refusal, _) = &all()[9];
        assert!(refusal.to_string().contains("2 more seconds"), "{refusal}");
    }
}
