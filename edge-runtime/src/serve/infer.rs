//! The Open Inference Protocol's addresses: health, metadata, inference.

use super::Shared;
use super::access::Ticket;
use super::pool::{self, Seen, Work};
use super::protocol::{self, HEADER_LENGTH, Input, Output, Values};
use super::reply::{self, Refusal};
use crate::image::Picture;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

type Parts = BTreeMap<String, String>;

/// `GET /v2`.
pub async fn server() -> Response {
    reply::json(&json!({
        "name": "excon-edge", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"],
    }))
}

/// `GET /v2/health/live`.
pub async fn live() -> Response {
    reply::json(&json!({ "live": true }))
}

/// `GET /v2/health/ready`: the engine has proved itself on the golden inputs before the service listened, so this says
/// no only while the service ends. A shift alarm does not make it unready: the answers are what is to be looked at.
pub async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    readiness(&shared, json!({}))
}

/// `GET /v2/models/MODEL[/versions/VERSION]/ready`.
pub async fn model_ready(State(shared): State<Arc<Shared>>, Path(parts): Path<Parts>) -> Result<Response, Refusal> {
    known(&shared, &parts)?;
    Ok(readiness(&shared, json!({ "name": shared.bundle.manifest.name })))
}

fn readiness(shared: &Shared, mut body: serde_json::Value) -> Response {
    let ready = !shared.stopping.load(Ordering::Relaxed);
    body["ready"] = ready.into();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, reply::json(&body)).into_response()
}

/// `GET /v2/models/MODEL[/versions/VERSION]`.
pub async fn model(State(shared): State<Arc<Shared>>, Path(parts): Path<Parts>) -> Result<Response, Refusal> {
    known(&shared, &parts)?;
    let manifest = &shared.bundle.manifest;
    let ([channels, height, width], [_, rows, columns]) = (manifest.network.input, manifest.network.features);
    let classes = manifest.labels.len();
    let tensor = |name: &str, datatype: &str, shape: &[usize]| {
        let shape: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|&d| d as i64)).collect();
        json!({ "name": name, "datatype": datatype, "shape": shape })
    };
    let mut outputs = vec![
        tensor("label", "BYTES", &[]),
        tensor("class", "INT64", &[]),
        tensor("probabilities", "FP32", &[classes]),
        tensor("logits", "FP32", &[classes]),
    ];
    if shared.explains() {
        outputs.push(tensor("map", "FP32", &[rows, columns]));
    }
    if manifest.calibration.conformal.is_some() {
        outputs.push(tensor("prediction_set", "BOOL", &[classes]));
    }
    outputs.push(tensor("abstains", "BOOL", &[]));
    Ok(reply::json(&json!({
        "name": manifest.name,
        "versions": [manifest.version.to_string()],
        "platform": "excon",
        "inputs": [tensor(&manifest.network.input_name, "FP32", &[channels, height, width])],
        "outputs": outputs,
    })))
}

/// `POST /v2/models/MODEL[/versions/VERSION]/infer`.
pub async fn infer(
    State(shared): State<Arc<Shared>>,
    Path(parts): Path<Parts>,
    Extension(ticket): Extension<Ticket>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    known(&shared, &parts)?;
    let header_length = match headers.get(HEADER_LENGTH) {
        Some(value) => {
            let number = value.to_str().ok().and_then(|v| v.parse::<usize>().ok());
            Some(number.ok_or_else(|| Refusal::bad(format!("{HEADER_LENGTH} is no number")))?)
        }
        None => None,
    };
    let taken = reply::take(&shared, &headers, body, ticket.deadline).await?;
    let manifest = &shared.bundle.manifest;
    let (name, size, most) = (&manifest.network.input_name, manifest.preprocess.size, shared.settings.batch);
    let mut request = protocol::parse(&taken.bytes, header_length, name, size, most).map_err(Refusal::bad)?;
    let own = request.timeout.map(|micros| Instant::now() + Duration::from_micros(micros));
    let deadline = own.map_or(ticket.deadline, |own| own.min(ticket.deadline));
    let work = match std::mem::replace(&mut request.input, Input::Tensor(Vec::new())) {
        Input::Tensor(values) => Work::Tensor(values),
        Input::Pictures { height, width, rgb } => {
            if (height * width) as u64 > shared.settings.pixels {
                return Err(Refusal::bad(format!("{width}×{height} pixels exceed {} in all", shared.settings.pixels)));
            }
            let pictures = rgb.chunks_exact(height * width * 3);
            Work::Pictures(pictures.map(|p| Picture { width, height, rgb: p.to_vec() }).collect())
        }
    };
    let id = request.id.clone().unwrap_or(ticket.id);
    let seen = pool::ask(&shared, work, request.count, &id, request.watch, deadline).await?;
    let outputs = outputs(&shared, &seen);
    let (bytes, header) =
        protocol::answer(&request, &id, &manifest.name, manifest.version, &outputs).map_err(Refusal::bad)?;
    let media = if header.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = reply::typed(media, bytes);
    if let Some(length) = header {
        response.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
    }
    Ok(response)
}

fn outputs(shared: &Shared, seen: &[Seen]) -> Vec<Output> {
    let n = seen.len();
    let classes = shared.bundle.manifest.labels.len();
    let [_, rows, columns] = shared.bundle.manifest.network.features;
    let all = || seen.iter().map(|s| &s.prediction);
    let output = |name, shape: &[usize], values| Output { name, shape: [&[n], shape].concat(), values };
    let mut outputs = vec![
        output("label", &[], Values::Text(all().map(|p| p.label.clone()).collect())),
        output("class", &[], Values::Integer(all().map(|p| p.class as i64).collect())),
        output(
            "probabilities",
            &[classes],
            Values::Float(all().flat_map(|p| p.probabilities.iter().map(|&v| v as f32)).collect()),
        ),
        output("logits", &[classes], Values::Float(all().flat_map(|p| p.logits.iter().copied()).collect())),
    ];
    if shared.explains() {
        let values = all().flat_map(|p| p.cam.values.iter().copied()).collect();
        outputs.push(output("map", &[rows, columns], Values::Float(values)));
    }
    let sets: Option<Vec<_>> = all().map(|p| p.prediction_set.as_ref()).collect();
    if let Some(sets) = sets.filter(|s| !s.is_empty()) {
        let member = |set: &Vec<usize>| (0..classes).map(|k| set.contains(&k)).collect::<Vec<_>>();
        outputs.push(output("prediction_set", &[classes], Values::Bool(sets.into_iter().flat_map(member).collect())));
    }
    outputs.push(output("abstains", &[], Values::Bool(all().map(|p| p.abstains).collect())));
    outputs
}

/// Whether a path names the bundle that is served.
fn known(shared: &Shared, parts: &Parts) -> Result<(), Refusal> {
    let manifest = &shared.bundle.manifest;
    let version = manifest.version.to_string();
    let fits =
        parts.get("model").is_some_and(|m| *m == manifest.name) && parts.get("version").is_none_or(|v| *v == version);
    let served = format!("`{}` version {version} is served here, and nothing else", manifest.name);
    if fits { Ok(()) } else { Err(Refusal::not_found(served)) }
}
