//! The other end of the API: asks a running machine through its socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::command::ApiError;

/// The most bytes of an answer that are kept; a picture of 16K by 16K fits.
const ANSWER: usize = 1 << 30;

/// A request could not be made, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke, or the answer is not HTTP.
    #[error("the machine went away while it was asked")]
    Http(#[from] hyper::Error),
    /// The answer is too long, or ended early.
    #[error("the answer could not be read")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request has a character that no path can have.
    #[error("not a request")]
    Request(#[from] hyper::http::Error),
    /// The machine refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// A connection to a machine's API socket.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// An answer that was not an error.
pub struct Answer<'a> {
    runtime: &'a Runtime,
    response: Response<Incoming>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let refused = |source| ClientError::Connect {
            path: path.to_owned(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(refused)?;
        let stream = runtime
            .block_on(UnixStream::connect(path))
            .map_err(refused)?;
        let (sender, connection) = runtime.block_on(handshake(TokioIo::new(stream)))?;
        // If it breaks, the request that waits for it says so.
        runtime.spawn(async move { connection.await.ok() });
        Ok(Self { runtime, sender })
    }

    /// Asks `verb` (with its parameters, if any) by `method`, sending `body`.
    ///
    /// # Errors
    ///
    /// The connection broke, or the machine refused.
    pub fn ask(
        &mut self,
        method: &str,
        verb: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer<'_>, ClientError> {
        let bytes = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{verb}", crate::api::ROOT))
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let response = self.runtime.block_on(self.sender.send_request(request))?;
        let status = response.status();
        let answer = Answer {
            runtime: &self.runtime,
            response,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let bytes = answer.bytes()?;
        let refusal: ApiError = serde_json::from_slice(&bytes)
            .map_err(|error| ClientError::Answer(format!("{status}: {error}").into()))?;
        Err(refusal.into())
    }
}

impl Answer<'_> {
    /// The whole answer.
    ///
    /// # Errors
    ///
    /// The connection broke, or the answer is over 1 GiB.
    pub fn bytes(self) -> Result<Vec<u8>, ClientError> {
        let body = http_body_util::Limited::new(self.response.into_body(), ANSWER);
        let collected = self
            .runtime
            .block_on(body.collect())
            .map_err(ClientError::Answer)?;
        Ok(collected.to_bytes().to_vec())
    }

    /// The next part of an answer that goes on; `None` at its end.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub fn part(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let body = self.response.body_mut();
        while let Some(frame) = self.runtime.block_on(body.frame()) {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data.to_vec()));
            }
        }
        Ok(None)
    }
}
