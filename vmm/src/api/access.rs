//! `display.ticket.*` and `display.session.*`: who may look, and who does.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Body;
use crate::access::{
    AddedTicket, NewTicket, Revocation, Revoked, SessionList, Termination, TicketList,
};
use crate::command::{ApiError, Command};

/// Adds a ticket; those that are there stay as they are. A secret that is made here is told in the
/// answer, and never again.
#[utoipa::path(put, path = "/api/v1/display.ticket.add", tag = "display", request_body = NewTicket,
    responses((status = 200, body = AddedTicket), (status = "default", body = ApiError)))]
pub(super) async fn add(
    State(api): State<Api>,
    Body(ticket): Body<NewTicket>,
) -> Result<Json<AddedTicket>, ApiError> {
    let add = |reply| Command::AddTicket { ticket, reply };
    api.control.call(add).await.map(Json)
}

/// All tickets, and those that lapsed lately.
#[utoipa::path(get, path = "/api/v1/display.ticket.list", tag = "display",
    responses((status = 200, body = TicketList), (status = "default", body = ApiError)))]
pub(super) async fn tickets(State(api): State<Api>) -> Result<Json<TicketList>, ApiError> {
    api.control.call(Command::Tickets).await.map(Json)
}

/// Lets a ticket open no session any more.
#[utoipa::path(put, path = "/api/v1/display.ticket.revoke", tag = "display",
    request_body = Revocation,
    responses((status = 200, body = Revoked), (status = "default", body = ApiError)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Body(ticket): Body<Revocation>,
) -> Result<Json<Revoked>, ApiError> {
    let revoke = |reply| Command::RevokeTicket { ticket, reply };
    api.control.call(revoke).await.map(Json)
}

/// Who is connected, by which ticket and for what.
#[utoipa::path(get, path = "/api/v1/display.session.list", tag = "display",
    responses((status = 200, body = SessionList), (status = "default", body = ApiError)))]
pub(super) async fn sessions(State(api): State<Api>) -> Result<Json<SessionList>, ApiError> {
    api.control.call(Command::Sessions).await.map(Json)
}

/// Ends a session, whose viewer is told the reason.
#[utoipa::path(put, path = "/api/v1/display.session.terminate", tag = "display",
    request_body = Termination,
    responses((status = 200), (status = "default", body = ApiError)))]
pub(super) async fn terminate(
    State(api): State<Api>,
    Body(session): Body<Termination>,
) -> Result<(), ApiError> {
    let terminate = |reply| Command::Terminate { session, reply };
    api.control.call(terminate).await
}
