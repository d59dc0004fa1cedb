//! Tickets: who may connect, for how long, and what for.
//!
//! A ticket is a password with an end, a number of uses and permissions. A server has a set of them,
//! and each may come and go without the others. A *use* is a session: a client proves the ticket of
//! its main channel, and whatever channels it opens later prove the same one, which then counts as
//! long as the session lives, even if no new session could be had with it any more.

mod password;
mod permissions;
mod set;

use std::num::NonZeroU32;
use std::time::Duration;

pub use password::{Password, PasswordError};
pub use permissions::Permissions;
pub(crate) use set::{Presented, Recognised, Ticket, TicketSet};

/// What a client must know to connect.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nothing: whoever reaches the socket is let in. What it sends is not even decrypted.
    #[default]
    None,
    /// A ticket. The first one has this password, neither end nor limit, and [`CONFIG_TICKET`] as
    /// its id.
    Password(Password),
    /// A ticket; there is none until one is [added](crate::Server::add_ticket).
    Tickets,
}

/// The id of the ticket that a server has from its start.
pub const CONFIG_TICKET: &str = "config";

/// A ticket to be added.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// What it is called, 1 to 64 letters, digits, `-`, `_` or `.`; `ticket-N` if not given.
    pub id: Option<String>,
    /// Whose it is, for people: at most 256 bytes without control characters.
    pub label: String,
    /// What a client must send.
    pub password: Password,
    /// For how long new sessions can be had with it; for ever if not given.
    pub lifetime: Option<Duration>,
    /// How many sessions can be had with it, one after the other or at once; any number if not
    /// given.
    pub uses: Option<NonZeroU32>,
    /// What its sessions may do.
    pub permissions: Permissions,
}

impl NewTicket {
    /// A ticket without end or limit, for everything.
    #[must_use]
    pub fn new(password: Password) -> Self {
        Self {
            id: None,
            label: String::new(),
            password,
            lifetime: None,
            uses: None,
            permissions: Permissions::ALL,
        }
    }
}

/// Why a ticket does not open a new session any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lapse {
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// As many sessions as it allows have been opened.
    #[error("is used up")]
    Used,
    /// It was taken back.
    #[error("was revoked")]
    Revoked,
}

/// A ticket at one moment, without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketInfo {
    /// What it is called.
    pub id: String,
    /// Whose it is.
    pub label: String,
    /// What its sessions may do.
    pub permissions: Permissions,
    /// Why it opens no session any more; `None` if it does.
    pub lapse: Option<Lapse>,
    /// For how long it still does; `None` if for ever. Zero after its end.
    pub expires_in: Option<Duration>,
    /// How many sessions can still be had with it; `None` if any number.
    pub uses_left: Option<u32>,
    /// How many sessions were opened with it.
    pub used: u64,
}

/// Why a ticket could not be added or revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The server asks for none.
    #[error("this server lets everybody in and asks for no ticket")]
    NotAsked,
    /// The id is malformed.
    #[error("{0:?} is not an id for a ticket: use 1 to 64 letters, digits, `-`, `_` or `.`")]
    BadId(String),
    /// The label is too long or has control characters.
    #[error("the label is not fit to be shown: use at most 256 bytes without control characters")]
    BadLabel,
    /// The id is a valid ticket's already.
    #[error("there is a valid ticket \"{0}\" already")]
    IdTaken(String),
    /// Another valid ticket has the same password.
    #[error("another valid ticket has this password already")]
    PasswordTaken,
    /// There are as many valid tickets as a server can have.
    #[error("there are {0} valid tickets already; revoke some")]
    Full(usize),
    /// There is no ticket of this id.
    #[error("there is no ticket \"{0}\"")]
    Unknown(String),
}
