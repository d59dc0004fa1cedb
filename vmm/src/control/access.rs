//! Tickets and sessions: what the control loop does about them.

use std::sync::Arc;

use caraway_spice::{CONFIG_TICKET, Password, Server, TicketError};

use super::display::Display;
use crate::access::{
    AddedTicket, NewTicket, Revocation, Revoked, RevokedSessions, SessionList, Termination,
    TicketInfo, TicketList, TicketState,
};
use crate::command::{ApiError, ErrorCode, Viewer};
use crate::config::spice::Secret;
use crate::events::{Event, EventLog};
use crate::vv;

/// Bytes of the reason that a viewer is told.
const LONGEST_REASON: usize = 256;

/// The machine's door.
pub(super) struct Access<'a> {
    pub(super) server: Option<&'a Arc<Server>>,
    pub(super) display: &'a Display,
    pub(super) events: &'a EventLog,
}

impl Access<'_> {
    fn server(&self) -> Result<&Server, ApiError> {
        self.server.map(|server| &**server).ok_or_else(|| {
            ApiError::new(ErrorCode::NoDisplay, "the machine has no SPICE server")
                .hint("give its config `spice` with `listen`")
        })
    }

    pub(super) fn add(&self, new: NewTicket) -> Result<AddedTicket, ApiError> {
        let server = self.server()?;
        let password = match &new.secret {
            None => Password::generate(),
            Some(secret) => given(secret)?,
        };
        let added = server.add_ticket(caraway_spice::NewTicket {
            id: new.id,
            label: new.label,
            password: password.clone(),
            lifetime: new.expires_in.map(|span| span.0),
            uses: new.uses,
            permissions: new.permissions.into(),
        });
        let ticket = TicketInfo::from(added.map_err(refused)?);
        self.events.emit(Event::TicketAdded {
            id: ticket.id.clone(),
            label: ticket.label.clone(),
        });
        let made = new.secret.is_none();
        let secret = made.then(|| password.reveal().to_owned());
        let file = |secret: &String| -> Result<String, ApiError> {
            let mut viewer = self.titled(&ticket.label)?;
            viewer.password = Some(Secret::new(secret));
            Ok(vv::file(&viewer))
        };
        Ok(AddedTicket {
            vv: secret.as_ref().map(file).transpose()?,
            secret,
            ticket,
        })
    }

    pub(super) fn tickets(&self) -> Result<TicketList, ApiError> {
        let tickets = self.server()?.tickets().map_err(refused)?;
        Ok(TicketList {
            tickets: tickets.into_iter().map(Into::into).collect(),
        })
    }

    pub(super) fn revoke(&self, revocation: &Revocation) -> Result<Revoked, ApiError> {
        let Revocation { id, sessions } = revocation;
        let end = *sessions == RevokedSessions::End;
        let revoked = self.server()?.revoke_ticket(id, end).map_err(refused)?;
        self.events.emit(Event::TicketRevoked { id: id.clone() });
        Ok(Revoked {
            sessions: revoked as u64,
        })
    }

    pub(super) fn sessions(&self) -> Result<SessionList, ApiError> {
        let sessions = self.server()?.info().sessions;
        Ok(SessionList {
            sessions: sessions.into_iter().map(Into::into).collect(),
        })
    }

    pub(super) fn terminate(&self, termination: &Termination) -> Result<(), ApiError> {
        let reason = termination.reason.as_deref().unwrap_or("by the host");
        if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
            let message = "the reason is not fit to be shown";
            let hint = format!("use at most {LONGEST_REASON} bytes without control characters");
            let error = ApiError::new(ErrorCode::BadRequest, message);
            return Err(error.path("reason").hint(hint));
        }
        let session = termination.session;
        if self.server()?.terminate(session, reason) {
            return Ok(());
        }
        let error = ApiError::new(
            ErrorCode::NotFound,
            format!("there is no session {session}"),
        );
        Err(error
            .path("session")
            .hint("`display.session.list` has all of them"))
    }

    /// What a viewer must know to connect with this ticket, or as anybody does.
    pub(super) fn viewer(&self, ticket: Option<&str>) -> Result<Viewer, ApiError> {
        let Some(id) = ticket else {
            return self.display.viewer();
        };
        let all = self.tickets()?.tickets;
        let found = all.into_iter().find(|ticket| ticket.id == id);
        let found = found.ok_or_else(|| refused(TicketError::Unknown(id.to_owned())))?;
        if found.state != TicketState::Valid {
            let message = format!("the ticket \"{id}\" opens no session any more");
            return Err(ApiError::new(ErrorCode::Conflict, message).hint("add another"));
        }
        let mut viewer = self.titled(&found.label)?;
        if id != CONFIG_TICKET {
            viewer.password = None;
        }
        Ok(viewer)
    }

    /// As the display's viewer, with a label in its title.
    fn titled(&self, label: &str) -> Result<Viewer, ApiError> {
        let mut viewer = self.display.viewer()?;
        if !label.is_empty() {
            viewer.title = format!("{} ({label})", viewer.title);
        }
        Ok(viewer)
    }
}

fn given(secret: &Secret) -> Result<Password, ApiError> {
    let bad = |message: String| {
        let error = ApiError::new(ErrorCode::BadRequest, message);
        error
            .path("secret")
            .hint("use 1 to 60 bytes, none of them zero")
    };
    if secret.reveal().is_empty() {
        return Err(bad("the secret is empty".to_owned()));
    }
    Password::new(secret.reveal()).map_err(|error| bad(error.to_string()))
}

fn refused(error: TicketError) -> ApiError {
    let (code, path, hint) = match &error {
        TicketError::NotAsked => (
            ErrorCode::WrongState,
            None,
            "give the config's `spice` \"auth\": \"ticket\", or a `password`",
        ),
        TicketError::BadId(_) => (ErrorCode::BadRequest, Some("id"), "choose another"),
        TicketError::BadLabel => (ErrorCode::BadRequest, Some("label"), "choose another"),
        TicketError::IdTaken(_) => (
            ErrorCode::Conflict,
            Some("id"),
            "choose another, or revoke that one first",
        ),
        TicketError::PasswordTaken => (
            ErrorCode::Conflict,
            Some("secret"),
            "choose another, or leave it out to have one made",
        ),
        TicketError::Full(_) => (
            ErrorCode::Conflict,
            None,
            "tickets with `expires_in` or `uses` go by themselves",
        ),
        TicketError::Unknown(_) => (
            ErrorCode::NotFound,
            Some("id"),
            "`display.ticket.list` has all of them",
        ),
    };
    let refusal = ApiError::new(code, error.to_string()).hint(hint);
    match path {
        Some(path) => refusal.path(path),
        None => refusal,
    }
}
