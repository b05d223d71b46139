//! Who may ask: the token, and protection of a browser's user from other pages.
//!
//! Without a token, everyone who reaches the address may ask, so the two ways by which a foreign web page makes a
//! browser ask in its stead are closed: requests must name the service by an IP address or `localhost` (against DNS
//! rebinding), and, with or without a token, what changes something must not come from another origin. Liveness and
//! readiness tell nothing and are open.

use super::Shared;
use super::reply::Refusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const REQUEST_ID: &str = "x-request-id";
const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Bearer realm=\"excon-edge\""),
    HeaderValue::from_static("Basic realm=\"excon-edge: any name, the token as password\""),
];

/// The request's name and the time by which it must be answered.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Given by the caller, or made here.
    pub id: String,
    /// When the answer is due.
    pub deadline: Instant,
}

/// What a caller has to show. Only digests are compared, so that time tells nothing of the token.
pub struct Access {
    token: Option<[u8; 32]>,
}

impl Access {
    /// With a token, or open.
    pub fn new(token: Option<&str>) -> Self {
        Self { token: token.map(|t| Sha256::digest(t).into()) }
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let refuse = |status, reason: &str| Err(Refusal { status, reason: reason.into() });
        if matches!(path, "/v2/health/live" | "/v2/health/ready") {
            return Ok(());
        }
        let host = text(headers, header::HOST).unwrap_or_default();
        match self.token {
            Some(token) if shown(headers).is_none_or(|t| <[u8; 32]>::from(Sha256::digest(t)) != token) => {
                return refuse(StatusCode::UNAUTHORIZED, "show the token: `Authorization: Bearer TOKEN`");
            }
            None if !host.is_empty() && !names_no_domain(host) => {
                let reason = "without a token, call the service by its IP address or localhost";
                return refuse(StatusCode::MISDIRECTED_REQUEST, reason);
            }
            _ => {}
        }
        let origin = text(headers, header::ORIGIN);
        let same = |origin: &str| origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
        if method != Method::GET && method != Method::HEAD && origin.is_some_and(|o| !same(o)) {
            return refuse(StatusCode::FORBIDDEN, "a page of another origin may not ask this");
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The token of either scheme.
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, value) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let colon = pair.iter().position(|&b| b == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn names_no_domain(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Every request passes here: name, deadline, permission, count.
pub async fn gate(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let id = request.headers().get(REQUEST_ID).and_then(|v| v.to_str().ok());
    let id = id.filter(|id| (1..=128).contains(&id.len())).map_or_else(|| made(&shared, number), String::from);
    let route = route(request.uri().path());
    let ticket = Ticket { id: id.clone(), deadline: begun + shared.settings.deadline };
    let mut response = match shared.access.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => {
            request.extensions_mut().insert(ticket);
            next.run(request).await
        }
        Err(refusal) => {
            let unknown = refusal.status == StatusCode::UNAUTHORIZED;
            let mut response = refusal.into_response();
            if unknown {
                for challenge in CHALLENGES {
                    response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
                }
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    shared.metrics.request(route, response.status().as_u16(), begun.elapsed());
    response
}

/// A name for a request: unique in this process, and across restarts by its start.
fn made(shared: &Shared, number: u64) -> String {
    let start = shared.started.1.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    format!("{start:x}-{number:x}")
}

/// A few fixed names, so that garbage makes no new time series.
fn route(path: &str) -> &'static str {
    match path {
        "/" | "/live" => "live",
        "/metrics" => "metrics",
        "/v1/predict" => "predict",
        "/v1/status" => "status",
        "/v1/acknowledge" => "acknowledge",
        "/v1/labels" => "labels",
        path if path.starts_with("/frames/") => "live",
        path if path.starts_with("/v2/health/") => "health",
        path if path.starts_with("/v2/") && path.ends_with("/infer") => "infer",
        path if path == "/v2" || path.starts_with("/v2/models/") => "metadata",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(access: &Access, method: Method, path: &str, pairs: &[(&'static str, &str)]) -> u16 {
        let header =
            |(n, v): &(&'static str, &str)| (header::HeaderName::from_static(n), HeaderValue::from_str(v).unwrap());
        let headers = pairs.iter().map(header).collect();
        access.check(&method, path, &headers).map_or_else(|r| r.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_token_is_shown_in_either_scheme_or_refused() {
        let access = Access::new(Some("0123456789abcdef"));
        let with = |value: &str| ask(&access, Method::GET, "/v1/status", &[("authorization", value)]);
        assert_eq!(with("Bearer 0123456789abcdef"), 200);
        assert_eq!(with("basic dXNlcjowMTIzNDU2Nzg5YWJjZGVm"), 200);
        for wrong in ["Bearer 0123456789abcdeF", "Bearer", "Basic !", "Basic dXNlcg==", "Digest x", ""] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(ask(&access, Method::GET, "/metrics", &[]), 401);
        assert_eq!(ask(&access, Method::GET, "/v2/health/live", &[]), 200);
        assert_eq!(ask(&access, Method::GET, "/v2/health/../..", &[]), 401);
    }

    #[test]
    fn foreign_pages_cannot_ask_through_a_browser() {
        let open = Access::new(None);
        let host = |host: &str| ask(&open, Method::GET, "/", &[("host", host)]);
        for own in ["127.0.0.1:8080", "localhost", "[::1]:8080", "192.168.0.7"] {
            assert_eq!(host(own), 200, "{own}");
        }
        for foreign in ["attacker.example", "localhost.attacker.example:8080", "127.0.0.1.attacker.example", "[::1"] {
            assert_eq!(host(foreign), 421, "{foreign}");
        }
        let post = |origin: &str| {
            ask(&open, Method::POST, "/v1/acknowledge", &[("host", "localhost:8080"), ("origin", origin)])
        };
        assert_eq!(post("http://localhost:8080"), 200);
        assert_eq!((post("http://attacker.example"), post("null"), post("http://localhost:81")), (403, 403, 403));
    }
}
