//! Labels over HTTP: the true classes of frames that were seen, late and for a part of them.

use super::Shared;
use super::access::Ticket;
use super::reply::{self, Refusal};
use crate::accuracy::{Labelled, parse_csv};
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The request's id, or the frame's name.
    name: String,
    /// One of the bundle's labels.
    class: String,
}

/// `POST /v1/labels`: a JSON list of `{"name": …, "class": …}`, or with `Content-Type: text/csv` lines of `name,class`.
pub async fn give(
    State(shared): State<Arc<Shared>>,
    Extension(ticket): Extension<Ticket>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let taken = reply::take(&shared, &headers, body, ticket.deadline).await?;
    let csv =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("text/csv"));
    let labels = if csv { rows(&taken.bytes)? } else { list(&taken.bytes)? };
    let work = {
        let shared = shared.clone();
        move || shared.watcher.label(&labels)
    };
    // It waits for the disk.
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: format!("the labels were not taken: {e}"),
    })?;
    let labelled = done.map_err(|e| match e {
        crate::Error::Data { .. } => Refusal::bad(e.to_string()),
        e => Refusal::from(e),
    })?;
    let Labelled { taken, changed, duplicates, unknown, unknown_names } = labelled;
    let standing = shared.watcher.standing();
    Ok(reply::json(&json!({
        "schema": "excon.label/1",
        "taken": taken,
        "changed": changed,
        "duplicates": duplicates,
        "unknown": unknown,
        "unknown_names": unknown_names,
        "accuracy": standing.accuracy,
        "labels": standing.labels,
    })))
}

/// `GET /v1/labels`: the frames that a label may still come for, the oldest first.
pub async fn waiting(State(shared): State<Arc<Shared>>) -> Response {
    let names: Vec<String> =
        shared.watcher.keeper().with(|s| s.about.accuracy.labels.waiting().map(String::from).collect());
    reply::json(&json!({ "schema": "excon.waiting/1", "frames": names }))
}

fn list(bytes: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let named: Vec<Named> = serde_json::from_slice(bytes)
        .map_err(|e| Refusal::bad(format!("a JSON list of {{\"name\": …, \"class\": …}} is expected: {e}")))?;
    Ok(named.into_iter().map(|n| (n.name, n.class)).collect())
}

fn rows(bytes: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|e| Refusal::bad(format!("the lines are not UTF-8: {e}")))?;
    parse_csv(text).map_err(|e| Refusal::bad(e.to_string()))
}
