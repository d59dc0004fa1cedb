//! The API's description, made from its types.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;

use super::{access, agent, balloon, disk, display, input, nets, stream, vm};
use crate::command::ApiError;
use crate::events::Record;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Caraway",
        description = "One virtual machine's control socket: HTTP/1.1 on a Unix socket.",
    ),
    paths(
        vm::info,
        vm::pause,
        vm::resume,
        vm::reset,
        vm::power_button,
        vm::renew_generation,
        vm::shutdown,
        display::info,
        display::screenshot,
        display::text,
        display::wait,
        display::vv,
        access::add,
        access::tickets,
        access::revoke,
        access::sessions,
        access::terminate,
        display::tls_reload,
        disk::list,
        disk::add,
        disk::remove,
        disk::resize,
        disk::limit,
        nets::info,
        nets::add,
        nets::remove,
        nets::link,
        nets::limit,
        input::keys,
        input::text,
        input::pointer,
        balloon::info,
        balloon::set,
        agent::command,
        stream::events,
        stream::metrics,
        serve,
        serve_schema,
    ),
    components(schemas(ApiError, Record))
)]
struct Description;

/// The API's OpenAPI 3.1 description as JSON.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "about",
    responses((status = 200, content_type = "application/json", body = String)))]
pub(super) async fn serve() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi_json())
}

/// The JSON Schema of the config.
#[utoipa::path(get, path = "/api/v1/config.schema.json", tag = "about",
    responses((status = 200, content_type = "application/schema+json", body = String)))]
pub(super) async fn serve_schema() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/schema+json")],
        crate::config::json_schema(),
    )
}
