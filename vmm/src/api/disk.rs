//! `disk.*`: disks while they run.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command};
use crate::disk::{DiskInfo, DiskLimit, DiskList, DiskResize};

/// All disks.
#[utoipa::path(get, path = "/api/v1/disk.list", tag = "disk",
    responses((status = 200, body = DiskList), (status = "default", body = ApiError)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<DiskList>, ApiError> {
    api.control.call(Command::Disks).await.map(Json)
}

/// Makes a disk larger, and tells the guest.
#[utoipa::path(put, path = "/api/v1/disk.resize", tag = "disk", request_body = DiskResize,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
pub(super) async fn resize(
    State(api): State<Api>,
    Body(resize): Body<DiskResize>,
) -> Result<Json<DiskInfo>, ApiError> {
    let command = |reply| Command::ResizeDisk { resize, reply };
    api.control.call(command).await.map(Json)
}

/// Changes how much the guest may do with a disk in a second.
#[utoipa::path(put, path = "/api/v1/disk.limit", tag = "disk", request_body = DiskLimit,
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
pub(super) async fn limit(
    State(api): State<Api>,
    Body(limit): Body<DiskLimit>,
) -> Result<Json<DiskInfo>, ApiError> {
    let command = |reply| Command::LimitDisk { limit, reply };
    api.control.call(command).await.map(Json)
}
