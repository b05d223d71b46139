//! One file over HTTP, resumed after every interruption: of the line, of the process, of the machine.
//!
//! What has arrived lies beside its place as `NAME.partial`, with the server's mark for this version of the file in
//! `NAME.mark`. A later request asks for the rest of exactly that version; a server that has another one sends it whole.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

/// Requests in a row that bring nothing new before it is given up.
const ATTEMPTS: u32 = 5;
/// Longest time for the body of one request; what is missing then is asked for by the next.
const BODY: Duration = Duration::from_secs(120);
/// Longest time to wait for a connection, and for the head of an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Largest file that is fetched, bytes.
const LARGEST: u64 = 64 << 30;

/// Begins the mark of a file that the server tells nothing of but its length.
const LENGTH: &str = "length ";

/// Fetches `address` to `place`; `seen` hears of bytes that are there and, where known, of how many there will be.
///
/// # Errors
/// [`Error::Unreachable`] when the server cannot be reached, says no, or the line breaks too often; what has arrived is
/// kept. The runtime's write error when the disk refuses.
pub fn download(address: &str, place: &Path, seen: &mut dyn FnMut(u64, Option<u64>)) -> Result<()> {
    let transfer = Transfer::new(address, place);
    let (mut idle, mut most) = (0, transfer.have());
    loop {
        let failed = match transfer.request(seen)? {
            Outcome::Whole => return transfer.finish(),
            Outcome::Broken(reason) => reason,
        };
        idle = if transfer.have() > most { 0 } else { idle + 1 };
        most = most.max(transfer.have());
        if idle == ATTEMPTS {
            return Err(transfer.unreachable(failed));
        }
        std::thread::sleep(Duration::from_millis(100 << idle));
    }
}

/// How one request ended, where it is worth another.
enum Outcome {
    Whole,
    Broken(String),
}

struct Transfer<'a> {
    address: &'a str,
    place: &'a Path,
    partial: PathBuf,
    mark: PathBuf,
    agent: Agent,
}

impl<'a> Transfer<'a> {
    fn new(address: &'a str, place: &'a Path) -> Self {
        let beside = |ending: &str| {
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            place.with_file_name(format!("{name}.{ending}"))
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_recv_body(Some(BODY))
            .user_agent(concat!("excon/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { address, place, partial: beside("partial"), mark: beside("mark"), agent: config.into() }
    }

    fn have(&self) -> u64 {
        std::fs::metadata(&self.partial).map_or(0, |m| m.len())
    }

    fn unreachable(&self, reason: impl Into<String>) -> Error {
        Error::Unreachable { address: self.address.into(), reason: reason.into() }
    }

    fn cannot(&self, source: std::io::Error) -> Error {
        excon_edge::Error::Write { path: self.partial.clone(), source }.into()
    }

    fn request(&self, seen: &mut dyn FnMut(u64, Option<u64>)) -> Result<Outcome> {
        let mark = std::fs::read_to_string(&self.mark).unwrap_or_default();
        // Without a mark there is no telling whether the rest would belong to it.
        let have = if mark.is_empty() { 0 } else { self.have() };
        let mut request = self.agent.get(self.address).header("Accept-Encoding", "identity");
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
            if !mark.starts_with(LENGTH) {
                request = request.header("If-Range", &mark);
            }
        }
        let mut answer = match request.call() {
            Ok(answer) => answer,
            Err(e @ (ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Tls(_))) => {
                return Err(self.unreachable(e.to_string()));
            }
            Err(e) => return Ok(Outcome::Broken(e.to_string())),
        };
        let (start, total) = match answer.status() {
            StatusCode::OK => (0, number(answer.headers(), "content-length")),
            StatusCode::PARTIAL_CONTENT => match range(answer.headers()) {
                Some((start, total)) if start == have && mark_agrees(&mark, total) => (start, Some(total)),
                _ => return self.start_over("the server sent another part than was asked for"),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => return self.start_over("the server has no such part"),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Outcome::Broken(format!("the server says {status}")));
            }
            status => return Err(self.unreachable(format!("the server says {status}"))),
        };
        if total.is_some_and(|total| total > LARGEST) {
            return Err(self.unreachable(format!("it is larger than {LARGEST} bytes")));
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.partial).map_err(|e| self.cannot(e))?;
        if start == 0 {
            file.set_len(0).map_err(|e| self.cannot(e))?;
            std::fs::write(&self.mark, version(answer.headers(), total)).map_err(|e| self.cannot(e))?;
        }
        let mut body = answer.body_mut().as_reader();
        self.copy(&mut body, &mut file, start, total, seen)
    }

    fn copy(
        &self,
        body: &mut dyn Read,
        file: &mut File,
        start: u64,
        total: Option<u64>,
        seen: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Outcome> {
        let (mut have, mut buffer) = (start, vec![0u8; 1 << 16]);
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&buffer[..n]).map_err(|e| self.cannot(e))?;
                    have += n as u64;
                    if have > total.unwrap_or(LARGEST) {
                        return Err(self.unreachable("it sends more than it announced"));
                    }
                    seen(have, total);
                }
                Err(e) => return Ok(Outcome::Broken(e.to_string())),
            }
        }
        match total {
            Some(total) if have < total => Ok(Outcome::Broken(format!("the line broke after {have} of {total} bytes"))),
            _ => Ok(Outcome::Whole),
        }
    }

    fn start_over(&self, reason: &str) -> Result<Outcome> {
        let _ = std::fs::remove_file(&self.mark); // It may never have been written.
        Ok(Outcome::Broken(reason.into()))
    }

    fn finish(&self) -> Result<()> {
        let sync = File::open(&self.partial).and_then(|file| file.sync_all());
        sync.and_then(|()| std::fs::rename(&self.partial, self.place)).map_err(|e| self.cannot(e))?;
        let _ = std::fs::remove_file(&self.mark); // It says nothing any more.
        Ok(())
    }
}

/// What tells one version of the file from another: a strong entity tag, else the date, else the length.
fn version(headers: &HeaderMap, total: Option<u64>) -> String {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(String::from);
    let named = text("etag").filter(|tag| !tag.starts_with("W/")).or_else(|| text("last-modified"));
    named.or(total.map(|total| format!("{LENGTH}{total}"))).unwrap_or_default()
}

/// Whether a part of a file of this length belongs to the version that was begun.
fn mark_agrees(mark: &str, total: u64) -> bool {
    mark.strip_prefix(LENGTH).is_none_or(|length| length.parse() == Ok(total))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and total length of `bytes FIRST-LAST/TOTAL`.
fn range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (part, total) = headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((part.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()?))
}
