//! `balloon.*`: memory that the guest gives back.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::extract::Body;
use crate::balloon::{BalloonStatus, BalloonTarget};
use crate::command::{ApiError, Command};

/// What the balloon does, and what the guest says of its memory.
#[utoipa::path(get, path = "/api/v1/balloon.info", tag = "balloon",
    responses((status = 200, body = BalloonStatus), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<BalloonStatus>, ApiError> {
    api.control.call(Command::BalloonInfo).await.map(Json)
}

/// Ask the guest to keep so much of its memory and to give the rest back to the host. Answered at once;
/// `balloon.info` tells how far the guest is.
#[utoipa::path(put, path = "/api/v1/balloon.set", tag = "balloon", request_body = BalloonTarget,
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn set(
    State(api): State<Api>,
    Body(BalloonTarget { target }): Body<BalloonTarget>,
) -> Result<StatusCode, ApiError> {
    let set = api
        .control
        .call(|reply| Command::SetBalloon { target, reply });
    set.await.map(|()| StatusCode::NO_CONTENT)
}
