//! Requests into types, with errors that name the place.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::command::{ApiError, ErrorCode};

/// The JSON body of a request; the type of content does not matter.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|e| unreadable(&e))?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let parsed: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let refusal = ApiError::new(ErrorCode::BadRequest, error.inner().to_string());
            let refusal = match error.path().to_string() {
                whole if whole == "." => refusal,
                path => refusal.path(path),
            };
            refusal.hint("/api/v1/openapi.json says what this verb takes")
        })?;
        json.end()
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        Ok(Self(parsed))
    }
}

fn unreadable(error: &BytesRejection) -> ApiError {
    let code = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        _ => ErrorCode::BadRequest,
    };
    ApiError::new(code, error.body_text())
}

/// The parameters after `?`.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(parsed)) => Ok(Self(parsed)),
            Err(error) => Err(ApiError::new(ErrorCode::BadRequest, error.body_text())
                .path("?")
                .hint("/api/v1/openapi.json says what this verb takes")),
        }
    }
}
