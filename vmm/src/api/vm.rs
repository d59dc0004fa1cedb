//! `vm.*`: the machine as a whole.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::Params;
use crate::command::{ApiError, Command, Generation, Reply, VmInfo};
use crate::config::policy::OnResume;

type Done = Result<StatusCode, ApiError>;

async fn done(api: &Api, make: impl FnOnce(Reply<()>) -> Command) -> Done {
    api.control
        .call(make)
        .await
        .map(|()| StatusCode::NO_CONTENT)
}

/// What the machine is and does.
#[utoipa::path(get, path = "/api/v1/vm.info", tag = "vm",
    responses((status = 200, body = VmInfo), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<VmInfo>, ApiError> {
    api.control.call(Command::VmInfo).await.map(Json)
}

/// Stop all vCPUs; does nothing if they are stopped.
#[utoipa::path(put, path = "/api/v1/vm.pause", tag = "vm",
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn pause(State(api): State<Api>) -> Done {
    done(&api, Command::Pause).await
}

/// How to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResumeParams {
    /// What the guest's time does; as `clock.on_resume` of the config says if not given.
    clock: Option<OnResume>,
}

/// Let the vCPUs run; does nothing if they run.
#[utoipa::path(put, path = "/api/v1/vm.resume", tag = "vm", params(ResumeParams),
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn resume(
    State(api): State<Api>,
    Params(ResumeParams { clock }): Params<ResumeParams>,
) -> Done {
    done(&api, |reply| Command::Resume { clock, reply }).await
}

/// Start the machine anew, as its reset button would.
#[utoipa::path(put, path = "/api/v1/vm.reset", tag = "vm",
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn reset(State(api): State<Api>) -> Done {
    done(&api, Command::Reset).await
}

/// Press the ACPI power button; the guest decides what follows.
#[utoipa::path(put, path = "/api/v1/vm.power-button", tag = "vm",
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn power_button(State(api): State<Api>) -> Done {
    done(&api, Command::PowerButton).await
}

/// Give the guest another VM generation id, as after a copy of it was taken and goes on: a guest that
/// listens draws new random numbers.
#[utoipa::path(put, path = "/api/v1/vm.generation.renew", tag = "vm",
    responses((status = 200, body = Generation), (status = "default", body = ApiError)))]
pub(super) async fn renew_generation(State(api): State<Api>) -> Result<Json<Generation>, ApiError> {
    api.control.call(Command::RenewGeneration).await.map(Json)
}

/// End the machine at once, without asking the guest.
#[utoipa::path(put, path = "/api/v1/vm.shutdown", tag = "vm",
    responses((status = 204), (status = "default", body = ApiError)))]
pub(super) async fn shutdown(State(api): State<Api>) -> Done {
    done(&api, Command::Shutdown).await
}
