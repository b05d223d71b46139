//! The service's own addresses: a picture in, everything the board knows about it out; the monitor's state; metrics.

use super::Shared;
use super::access::Ticket;
use super::pool::{self, Seen, Work};
use super::reply::{self, Refusal};
use crate::accuracy::{Accuracy, Observed};
use crate::page;
use crate::shift::{Alarm, ChannelReading, Likeness, Promise, State as MonitorState};
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Side of an overlay, pixels, at least.
const VIEWABLE: usize = 448;

/// What may stand behind the `?` of `/v1/predict`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Also give the map as a PNG over the picture.
    #[serde(default)]
    overlay: bool,
    /// Show the picture to the monitor.
    #[serde(default = "yes")]
    watch: bool,
}

fn yes() -> bool {
    true
}

/// `POST /v1/predict`: the body is a JPEG or a PNG.
pub async fn predict(
    State(shared): State<Arc<Shared>>,
    Extension(ticket): Extension<Ticket>,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Query(options) = options.map_err(|e| Refusal::bad(e.body_text()))?;
    if options.overlay && !shared.explains() {
        return Err(Refusal::bad("this network has no class-activation map; leave overlay out"));
    }
    let taken = reply::take(&shared, &headers, body, ticket.deadline).await?;
    let work = Work::Encoded(taken.bytes.clone());
    let seen = pool::ask(&shared, work, 1, &ticket.id, options.watch, ticket.deadline).await?;
    let Some(seen) = seen.first() else { return Err(Refusal::late()) };
    let overlay = match &seen.picture {
        Some(picture) if options.overlay => {
            let (_, mixed) = page::overlay(&page::enlarged(picture, VIEWABLE), &seen.prediction.cam);
            Some(base64::engine::general_purpose::STANDARD.encode(page::png(&mixed)?))
        }
        _ => None,
    };
    Ok(reply::json(&answer(&shared, &ticket.id, seen, overlay)))
}

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    id: &'a str,
    model: &'a str,
    version: u64,
    label: &'a str,
    class: usize,
    confidence: f64,
    probabilities: BTreeMap<&'a str, f64>,
    prediction_set: Option<Vec<&'a str>>,
    coverage: Option<f64>,
    abstains: bool,
    completeness: f64,
    /// `null` where the network has none.
    map: Option<MapValues<'a>>,
    /// A PNG in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<String>,
    /// What the monitor made of the picture; `null` when it was not shown.
    monitor: Option<Watched<'a>>,
}

#[derive(Serialize)]
struct MapValues<'a> {
    width: usize,
    height: usize,
    values: &'a [f32],
}

#[derive(Serialize)]
struct Watched<'a> {
    state: MonitorState,
    frame: u64,
    log_r: f64,
    log_limit: f64,
    fault: Option<&'static str>,
    alarm: Option<&'a Alarm>,
}

fn answer<'a>(shared: &'a Shared, id: &'a str, seen: &'a Seen, overlay: Option<String>) -> Answer<'a> {
    let manifest = &shared.bundle.manifest;
    let (labels, prediction) = (&manifest.labels, &seen.prediction);
    let names = |set: &Vec<usize>| set.iter().map(|&k| labels[k].as_str()).collect();
    let map = &prediction.cam;
    Answer {
        schema: "excon.answer/1",
        id,
        model: &manifest.name,
        version: manifest.version,
        label: &prediction.label,
        class: prediction.class,
        confidence: prediction.confidence,
        probabilities: labels.iter().map(String::as_str).zip(prediction.probabilities.iter().copied()).collect(),
        prediction_set: prediction.prediction_set.as_ref().map(names),
        coverage: manifest.calibration.conformal.as_ref().map(|c| 1.0 - c.alpha),
        abstains: prediction.abstains,
        completeness: prediction.completeness,
        map: shared.explains().then_some(MapValues { width: map.width, height: map.height, values: &map.values }),
        overlay,
        monitor: seen.observation.as_ref().map(|o| Watched {
            state: o.state,
            frame: o.raw_frames,
            log_r: o.log_r,
            log_limit: o.log_limit,
            fault: o.fault.map(|f| f.words()),
            alarm: o.alarm.as_ref(),
        }),
    }
}

/// `GET /v1/status`.
pub async fn status(State(shared): State<Arc<Shared>>) -> Response {
    #[derive(Serialize)]
    struct Status<'a> {
        schema: &'static str,
        model: &'a str,
        version: u64,
        digest: &'a str,
        engine: &'a str,
        uptime_seconds: f64,
        queued_pictures: usize,
        state: MonitorState,
        effective_frames: u64,
        raw_frames: u64,
        sensor_faults: u64,
        log_r: f64,
        log_limit: f64,
        alarm: Option<Alarm>,
        looks_like: Vec<Likeness>,
        slow_drift: bool,
        accuracy: Accuracy,
        labels: Option<Observed>,
        channels: Vec<ChannelReading>,
        promise: Promise,
    }
    let standing = shared.watcher.standing();
    let (manifest, now) = (&shared.bundle.manifest, standing.observation);
    reply::json(&Status {
        schema: "excon.service-status/1",
        model: &manifest.name,
        version: manifest.version,
        digest: &shared.bundle.digest,
        engine: shared.predictor.engine().name(),
        uptime_seconds: shared.started.0.elapsed().as_secs_f64(),
        queued_pictures: shared.queue.len(),
        state: now.state,
        effective_frames: now.effective_frames,
        raw_frames: now.raw_frames,
        sensor_faults: standing.faults,
        log_r: now.log_r,
        log_limit: now.log_limit,
        alarm: now.alarm,
        looks_like: standing.looks_like,
        slow_drift: now.slow_drift,
        accuracy: standing.accuracy,
        labels: standing.labels,
        channels: now.channels,
        promise: standing.promise,
    })
}

/// What may stand behind the `?` of `/v1/acknowledge`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// Take what was seen since the alarm as the new reference.
    #[serde(default)]
    accept: bool,
}

/// `POST /v1/acknowledge`: a program gets JSON, the live page's button is sent back to the page.
pub async fn acknowledge(
    State(shared): State<Arc<Shared>>,
    options: Result<Query<Acknowledgement>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(options) = options.map_err(|e| Refusal::bad(e.body_text()))?;
    let work = {
        let shared = shared.clone();
        move || shared.watcher.acknowledge(options.accept)
    };
    // It waits for the disk.
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| Refusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: format!("the answer to the alarm failed: {e}"),
    })?;
    let answered = done.map_err(|e| match e {
        crate::Error::Data { .. } => Refusal { status: StatusCode::CONFLICT, reason: e.to_string() },
        e => Refusal::from(e),
    })?;
    let browser = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("text/html"));
    if browser {
        return Ok(Redirect::to("/").into_response());
    }
    Ok(reply::json(&serde_json::json!({
        "schema": "excon.acknowledge/1",
        "acknowledged": answered.alarm,
        "notices": answered.notices,
        "slow_drift": answered.slow_drift,
        "accepted": options.accept && answered.alarm.is_some(),
        "promise": shared.watcher.standing().promise.sentence,
    })))
}

/// `GET /metrics`.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.text(shared.queue.len());
    reply::typed("application/openmetrics-text; version=1.0.0; charset=utf-8", text.into_bytes())
}
