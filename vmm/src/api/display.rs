//! `display.*`: what the guest shows, and who looks.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::Params;
use crate::command::{ApiError, Command, DisplayInfo, ErrorCode, TextScreen, TlsInfo};
use crate::config::units::Span;
use crate::picture::encode_png;

/// The longest time that `display.wait` waits for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Listeners, sessions, channels, heads and the mouse mode.
#[utoipa::path(get, path = "/api/v1/display.info", tag = "display",
    responses((status = 200, body = DisplayInfo), (status = "default", body = ApiError)))]
pub(super) async fn info(State(api): State<Api>) -> Result<Json<DisplayInfo>, ApiError> {
    api.control.call(Command::DisplayInfo).await.map(Json)
}

/// Which head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HeadParams {
    /// The head, from 0; 0 if not given.
    #[serde(default)]
    head: u32,
}

/// The picture of a head as a PNG.
#[utoipa::path(get, path = "/api/v1/display.screenshot", tag = "display", params(HeadParams),
    responses((status = 200, content_type = "image/png", body = Vec<u8>),
        (status = "default", body = ApiError)))]
pub(super) async fn screenshot(
    State(api): State<Api>,
    Params(params): Params<HeadParams>,
) -> Result<impl IntoResponse, ApiError> {
    let head = params.head;
    let picture = api
        .control
        .call(|reply| Command::Screenshot { head, reply })
        .await?;
    // A large picture takes a while; the viewers on this thread do not wait for it.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut file = Vec::new();
        encode_png(&picture, &mut file).map(|()| file)
    });
    let broken = |cause: String| ApiError {
        causes: vec![cause],
        ..ApiError::new(ErrorCode::Internal, "the picture could not be encoded")
    };
    let file = encoded
        .await
        .map_err(|error| broken(error.to_string()))?
        .map_err(|error| broken(error.to_string()))?;
    Ok(([(CONTENT_TYPE, "image/png")], file))
}

/// The VGA text cells as text; 409 outside of text mode.
#[utoipa::path(get, path = "/api/v1/display.text", tag = "display",
    responses((status = 200, body = TextScreen), (status = 409, body = ApiError),
        (status = "default", body = ApiError)))]
pub(super) async fn text(State(api): State<Api>) -> Result<Json<TextScreen>, ApiError> {
    api.control.call(Command::DisplayText).await.map(Json)
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitParams {
    /// For how long the picture must stay the same; 500ms if not given.
    #[param(value_type = Option<String>, example = "500ms")]
    stable: Option<Span>,
    /// How long to wait for that at most; 30s if not given.
    #[param(value_type = Option<String>, example = "30s")]
    timeout: Option<Span>,
}

/// How the waiting went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waited {
    /// Milliseconds from the request to this answer.
    pub waited_ms: u64,
    /// A number that is another one whenever the picture is.
    pub stamp: u64,
}

/// Answers when the picture has not changed for a while; 504 if it never comes to rest.
#[utoipa::path(get, path = "/api/v1/display.wait", tag = "display", params(WaitParams),
    responses((status = 200, body = Waited), (status = 504, body = ApiError),
        (status = "default", body = ApiError)))]
pub(super) async fn wait(
    State(api): State<Api>,
    Params(params): Params<WaitParams>,
) -> Result<Json<Waited>, ApiError> {
    let stable = params
        .stable
        .map_or(Duration::from_millis(500), |span| span.0);
    let timeout = params
        .timeout
        .map_or(Duration::from_secs(30), |span| span.0);
    if stable > LONGEST || timeout > LONGEST {
        let error = ApiError::new(ErrorCode::BadRequest, "that is too long to wait");
        return Err(error.path("?").hint("use at most 60m"));
    }
    let pause = (stable / 8).clamp(Duration::from_millis(5), Duration::from_millis(100));
    let begin = Instant::now();
    let mut stamp = api.control.call(Command::DisplayStamp).await?;
    let mut since = Instant::now();
    loop {
        if since.elapsed() >= stable {
            let waited_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Ok(Json(Waited { waited_ms, stamp }));
        }
        if begin.elapsed() >= timeout {
            let message = format!(
                "the picture did not rest for {} within {}",
                Span(stable),
                Span(timeout)
            );
            let error = ApiError::new(ErrorCode::Timeout, message);
            return Err(
                error.hint("something on the screen keeps moving; wait for less, or longer")
            );
        }
        tokio::time::sleep(pause).await;
        let now = api.control.call(Command::DisplayStamp).await?;
        if now != stamp {
            stamp = now;
            since = Instant::now();
        }
    }
}

/// Whose connection file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VvParams {
    /// The id of the ticket to connect with. The viewer asks for its secret, which is not kept.
    #[serde(default)]
    ticket: Option<String>,
}

/// The connection file of virt-viewer, with the config's password if that is what to connect with.
#[utoipa::path(get, path = "/api/v1/display.vv", tag = "display", params(VvParams),
    responses((status = 200, content_type = "application/x-virt-viewer", body = String),
        (status = "default", body = ApiError)))]
pub(super) async fn vv(
    State(api): State<Api>,
    Params(VvParams { ticket }): Params<VvParams>,
) -> Result<impl IntoResponse, ApiError> {
    let viewer = |reply| Command::Viewer { ticket, reply };
    let viewer = api.control.call(viewer).await?;
    Ok((
        [(CONTENT_TYPE, "application/x-virt-viewer")],
        crate::vv::file(&viewer),
    ))
}

/// Reads the certificate's files again: new connections are shown what is in them, those that are
/// there go on. If a file is not what it should be, nothing changes.
#[utoipa::path(put, path = "/api/v1/display.tls.reload", tag = "display",
    responses((status = 200, body = TlsInfo), (status = 409, body = ApiError),
        (status = "default", body = ApiError)))]
pub(super) async fn tls_reload(State(api): State<Api>) -> Result<Json<TlsInfo>, ApiError> {
    api.control.call(Command::TlsReload).await.map(Json)
}
