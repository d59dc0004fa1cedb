//! `agent.*`: what the QEMU guest agent does.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command};
use crate::guest_agent::{AgentAnswer, AgentCommand};

/// Have the guest's agent carry a command out, and wait for its answer. Commands that come meanwhile
/// wait for their turn, within their own time.
#[utoipa::path(put, path = "/api/v1/agent.command", tag = "agent", request_body = AgentCommand,
    responses((status = 200, body = AgentAnswer), (status = "default", body = ApiError)))]
pub(super) async fn command(
    State(api): State<Api>,
    Body(command): Body<AgentCommand>,
) -> Result<Json<AgentAnswer>, ApiError> {
    let agent = api.control.call(Command::GuestAgent).await?;
    agent.command(command).await.map(Json)
}
