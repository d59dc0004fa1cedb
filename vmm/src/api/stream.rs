//! `events` and `metrics`: what happened, and how often.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use hyper::body::Frame;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::Params;
use crate::command::ApiError;
use crate::events::{Event, Follower, Record};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Replays what came after this number; if not given, only new events are sent.
    since: Option<u64>,
    /// Whether to end after the replay instead of waiting for more.
    #[serde(default)]
    replay_only: bool,
}

/// What happens to the machine, one JSON object a line, until it ends.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventParams),
    responses((status = 200, content_type = "application/x-ndjson", body = Record),
        (status = "default", body = ApiError)))]
pub(super) async fn events(
    State(api): State<Api>,
    Params(params): Params<EventParams>,
) -> impl IntoResponse {
    let mut follower = api.events.follow(params.since);
    let body = if params.replay_only {
        Body::from(lines(&follower.take()))
    } else {
        Body::new(EventStream {
            next: Some(Box::pin(next(follower))),
        })
    };
    ([(CONTENT_TYPE, "application/x-ndjson")], body)
}

/// The machine's numbers in the Prometheus text format.
#[utoipa::path(get, path = "/api/v1/metrics", tag = "events",
    responses((status = 200, content_type = "text/plain", body = String),
        (status = "default", body = ApiError)))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        api.metrics.render(),
    )
}

fn lines(records: &[Arc<Record>]) -> String {
    records.iter().map(|record| record.to_line()).collect()
}

type Batch = (Follower, Vec<Arc<Record>>);

async fn next(mut follower: Follower) -> Batch {
    let records = follower.next().await;
    (follower, records)
}

/// A body that goes on for as long as the machine does, and stops waiting when its reader goes.
struct EventStream {
    next: Option<Pin<Box<dyn Future<Output = Batch> + Send>>>,
}

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(pending) = self.next.as_mut() else {
            return Poll::Ready(None);
        };
        let (follower, records) = ready!(pending.as_mut().poll(context));
        let last = records
            .last()
            .is_none_or(|record| matches!(record.event, Event::Shutdown { .. }));
        self.next = (!last).then(|| Box::pin(next(follower)) as _);
        Poll::Ready(Some(Ok(Frame::data(lines(&records).into()))))
    }
}
