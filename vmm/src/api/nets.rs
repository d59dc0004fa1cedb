//! `net.*`: network cards.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command};
use crate::config::net::Net;
use crate::device::DeviceName;
use crate::nets::{LimitChange, LinkChange, NetInfo, NetList};

/// All network cards: address, link, limits, and what passed.
#[utoipa::path(get, path = "/api/v1/net.info", tag = "net",
    responses((status = 200, body = NetList), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<NetList>, ApiError> {
    api.control.call(Command::Nets).await.map(Json)
}

/// Add a card while the machine runs, in a free slot of `hotplug`; what the guest makes of it is an
/// event, `device.accepted` or `device.refused`.
#[utoipa::path(put, path = "/api/v1/net.add", tag = "net",
    request_body(content = Object, description = "An entry of the config's `nets`."),
    responses((status = 200, body = NetInfo), (status = "default", body = ApiError)))]
pub(super) async fn add(
    State(api): State<Api>,
    Body(net): Body<Net>,
) -> Result<Json<NetInfo>, ApiError> {
    let net = Box::new(net);
    let add = |reply| Command::AddNet { net, reply };
    api.control.call(add).await.map(Json)
}

/// Ask the guest to let a card go that was added while it ran. When it has, there is an event
/// `device.removed`; asked again within five seconds, Linux keeps the card.
#[utoipa::path(put, path = "/api/v1/net.remove", tag = "net", request_body = DeviceName,
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Body(net): Body<DeviceName>,
) -> Result<StatusCode, ApiError> {
    let remove = |reply| Command::RemoveNet { net, reply };
    api.control.call(remove).await?;
    Ok(StatusCode::NO_CONTENT)
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
