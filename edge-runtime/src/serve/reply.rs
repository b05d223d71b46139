//! How the service says no, and how it takes bodies in: every refusal is JSON with a sentence, and bytes are counted
//! before they are read.

use super::Shared;
use super::queue::Refused;
use crate::Error;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// Seconds after which to come again, when there was no room: a queue is emptied in far less.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not answered.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Refusal {
    /// A request that cannot be understood.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: reason.into() }
    }

    /// Something that is not here.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, reason: reason.into() }
    }

    /// No room at the moment.
    pub fn busy(reason: &str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, reason: reason.into() }
    }

    /// The time is over.
    pub fn late() -> Self {
        let reason = "no answer within the request's deadline; ask less often, or allow more with --deadline-ms";
        Self { status: StatusCode::GATEWAY_TIMEOUT, reason: reason.into() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Picture { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, reason: error.to_string() }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::busy("the queue is full; come again"),
            Refused::Closed => Self::busy("the service is about to end"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(&serde_json::json!({ "error": self.reason }));
        *response.status_mut() = self.status;
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// A JSON answer.
pub fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => typed("application/json", bytes),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Bytes of a media type.
pub fn typed(media: &'static str, bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], bytes).into_response()
}

/// A body and the room it takes; the room is free again when it is dropped.
pub struct Taken {
    /// The bytes.
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Reads a body whole, within its limit, the room for all bodies, and the deadline.
///
/// # Errors
/// 413 when it is too large, 503 when there is no room, 408 when it does not come in time, 415 when it is compressed.
pub async fn take(shared: &Shared, headers: &HeaderMap, body: Body, deadline: Instant) -> Result<Taken, Refusal> {
    let refuse = |status, reason: String| Err(Refusal { status, reason });
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken".into());
    }
    let most = shared.settings.body;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let length: usize = length.unwrap_or(most);
    let too_large = || format!("the body is larger than {most} bytes; see --max-body");
    if length > most {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, too_large());
    }
    let room = shared.bodies.clone().try_acquire_many_owned(length.div_ceil(1024) as u32);
    let Ok(room) = room else { return Err(Refusal::busy("too many bodies are under way; come again")) };
    match tokio::time::timeout_at(deadline.into(), to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(Taken { bytes, _room: room }),
        // Also what a client that left before the end gets, whom no answer reaches.
        Ok(Err(_)) => refuse(StatusCode::PAYLOAD_TOO_LARGE, too_large()),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".into()),
    }
}
