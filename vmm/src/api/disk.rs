//! `disk.*`: disks while they run.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::extract::Body;
use crate::command::{ApiError, Command};
use crate::config::disk::Disk;
use crate::device::DeviceName;
use crate::disk::{DiskInfo, DiskLimit, DiskList, DiskResize};

/// All disks.
#[utoipa::path(get, path = "/api/v1/disk.list", tag = "disk",
    responses((status = 200, body = DiskList), (status = "default", body = ApiError)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<DiskList>, ApiError> {
    api.control.call(Command::Disks).await.map(Json)
}

/// Adds a disk while the machine runs, in a free slot of `hotplug`; what the guest makes of it is an
/// event, `device.accepted` or `device.refused`.
#[utoipa::path(put, path = "/api/v1/disk.add", tag = "disk",
    request_body(content = Object, description = "An entry of the config's `disks`."),
    responses((status = 200, body = DiskInfo), (status = "default", body = ApiError)))]
pub(super) async fn add(
    State(api): State<Api>,
    Body(disk): Body<Disk>,
) -> Result<Json<DiskInfo>, ApiError> {
    let disk = Box::new(disk);
    let command = |reply| Command::AddDisk { disk, reply };
    api.control.call(command).await.map(Json)
}

/// Asks the guest to let a disk go that was added while it ran. When it has, there is an event
/// `device.removed`; asked again within five seconds, Linux keeps the disk.
#[utoipa::path(put, path = "/api/v1/disk.remove", tag = "disk", request_body = DeviceName,
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Body(disk): Body<DeviceName>,
) -> Result<StatusCode, ApiError> {
    let command = |reply| Command::RemoveDisk { disk, reply };
    api.control.call(command).await?;
    Ok(StatusCode::NO_CONTENT)
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
