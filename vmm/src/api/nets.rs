//! `net.*`: network cards.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command};
use crate::nets::{LimitChange, LinkChange, NetInfo, NetList};

/// All network cards: address, link, limits, and what passed.
#[utoipa::path(get, path = "/api/v1/net.info", tag = "net",
    responses((status = 200, body = NetList), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<NetList>, ApiError> {
    api.control.call(Command::Nets).await.map(Json)
}

/// Put a card's cable in, or pull it.
#[utoipa::path(put, path = "/api/v1/net.link", tag = "net", request_body = LinkChange,
    responses((status = 200, body = NetInfo), (status = "default", body = ApiError)))]
pub(super) async fn link(
    State(api): State<Api>,
    Body(change): Body<LinkChange>,
) -> Result<Json<NetInfo>, ApiError> {
    let set = |reply| Command::NetLink { change, reply };
    api.control.call(set).await.map(Json)
}

/// Hold a card to other limits from now on.
#[utoipa::path(put, path = "/api/v1/net.limit", tag = "net", request_body = LimitChange,
    responses((status = 200, body = NetInfo), (status = "default", body = ApiError)))]
pub(super) async fn limit(
    State(api): State<Api>,
    Body(change): Body<LimitChange>,
) -> Result<Json<NetInfo>, ApiError> {
    let set = |reply| Command::NetLimit { change, reply };
    api.control.call(set).await.map(Json)
}
