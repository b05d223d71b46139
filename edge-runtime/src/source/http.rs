//! A camera on the network: JPEG pictures over plain HTTP (`multipart/x-mixed-replace`), with reconnection.
//!
//! The client speaks just enough HTTP/1.1 to read an endless answer: no redirects, no TLS, basic authentication from the
//! address. Pictures are found by their markers, see [`Splitter`], so part headers may say what they like. A connection
//! that says nothing for a while counts as lost. Between attempts the wait doubles from half a second to half a
//! minute, and starts anew once a picture has come; so an address of single pictures is asked twice a second.

use super::chunked::Chunked;
use super::{Item, Source, Splitter, Stop};
use crate::{Error, Result};
use base64::Engine as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(5);
/// How long one read waits before the wish to end is looked at.
const LOOK: Duration = Duration::from_millis(200);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Largest head of an answer, bytes.
const HEAD: usize = 32 << 10;

/// An `http://` address in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    /// `host:port`, for the socket and for the `Host` field.
    host: String,
    path: String,
    /// `user:password`, when given.
    user: Option<String>,
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(decoded(user)?), host),
            None => (None, authority),
        };
        // A colon inside brackets belongs to an IPv6 address.
        let named = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let host = match named {
            Some((name, port)) => format!("{name}:{}", port.parse::<u16>().ok()?),
            None => format!("{host}:80"),
        };
        let graphic = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if host.starts_with(':') || !graphic(&host) || !graphic(path) {
            return None;
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        Some(Self { host, path, user })
    }

    /// Without user and password.
    fn shown(&self) -> String {
        format!("http://{}{}", self.host.strip_suffix(":80").unwrap_or(&self.host), self.path)
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| (b? as char).to_digit(16);
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// How far the body of an answer is.
enum Body {
    /// To the end of the connection.
    Endless,
    /// So many bytes more.
    Counted(u64),
    /// Chunk by chunk.
    Chunked(Chunked),
}

impl Body {
    fn over(&self) -> bool {
        match self {
            Self::Endless => false,
            Self::Counted(left) => *left == 0,
            Self::Chunked(chunked) => chunked.over(),
        }
    }
}

/// An answer under way.
struct Connection {
    stream: TcpStream,
    body: Body,
    /// One picture and no stream of them: asked for again and again.
    single: bool,
    /// Body bytes that came with the head.
    begun: Vec<u8>,
}

/// See the module's first paragraph.
pub struct Http {
    address: Address,
    connection: Option<Connection>,
    splitter: Splitter,
    number: u64,
    stall: Duration,
    wait: Duration,
    /// Lost and not found again: said once.
    lost: bool,
    /// To be said with the next turn.
    trouble: Option<Error>,
}

impl Http {
    /// Connects. A camera that is not there at the start is an error; one that leaves later, or says nothing for as long
    /// as `stall`, is asked anew until it answers.
    ///
    /// # Errors
    /// [`Error::Source`] when this is no address it can use; [`Error::Unreachable`] when there is no stream of pictures.
    pub fn open(text: &str, stall: Duration) -> Result<Self> {
        let reason = "give an address like http://camera:8080/stream; for other schemes, put a program in front, as in \
                      `curl -sN https://… | excon-edge watch BUNDLE -`";
        let refused = || Error::Source { name: "this address".into(), reason: reason.into() };
        let address = Address::parse(text).ok_or_else(refused)?;
        let connection = connect(&address, stall, &Stop::new()).map_err(|reason| unreachable(&address, reason))?;
        Ok(Self {
            address,
            connection: Some(connection),
            splitter: Splitter::default(),
            number: 0,
            stall,
            wait: FIRST_WAIT,
            lost: false,
            trouble: None,
        })
    }

    /// The address without user and password.
    pub fn shown(&self) -> String {
        self.address.shown()
    }

    /// More of the body into the splitter; an error when the connection is over.
    fn read(&mut self, stop: &Stop) -> std::result::Result<(), String> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.body.over() {
            return Err("it ended its answer".into());
        }
        let mut bytes = std::mem::take(&mut connection.begun);
        if bytes.is_empty() {
            bytes.resize(64 << 10, 0);
            let read = patient(&mut connection.stream, &mut bytes, self.stall, stop)?;
            bytes.truncate(read);
        }
        match &mut connection.body {
            Body::Endless => self.splitter.push(&bytes),
            Body::Counted(left) => {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
                self.splitter.push(&bytes);
            }
            Body::Chunked(chunked) => {
                let mut data = Vec::new();
                if !chunked.take(&bytes, &mut data) {
                    return Err("its answer is garbled".into());
                }
                self.splitter.push(&data);
            }
        }
        Ok(())
    }
}

impl Source for Http {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        while !stop.is_set() {
            if let Some(error) = self.trouble.take() {
                return Some(Item::Trouble(error));
            }
            if let Some(piece) = self.splitter.piece() {
                self.number += 1;
                (self.wait, self.lost) = (FIRST_WAIT, false);
                return Some(Item::Frame(piece.frame(&self.address.shown(), self.number)));
            }
            let failed = if self.connection.is_some() {
                self.read(stop)
            } else {
                if stop.wait(self.wait) {
                    return None;
                }
                self.wait = (2 * self.wait).min(LONGEST_WAIT);
                connect(&self.address, self.stall, stop).map(|c| self.connection = Some(c))
            };
            if let Err(reason) = failed {
                let over = self.connection.take();
                let answered = over.is_some_and(|c| c.single) && self.wait == FIRST_WAIT;
                if !answered && !std::mem::replace(&mut self.lost, true) {
                    let reason = format!("{reason}; trying again until it does");
                    self.trouble = Some(unreachable(&self.address, reason));
                }
                // What comes next is another answer.
                if let Some(piece) = std::mem::take(&mut self.splitter).rest() {
                    self.number += 1;
                    return Some(Item::Frame(piece.frame(&self.address.shown(), self.number)));
                }
            }
        }
        None
    }

    fn live(&self) -> bool {
        true
    }
}

fn unreachable(address: &Address, reason: String) -> Error {
    Error::Unreachable { name: address.shown(), reason }
}

fn connect(address: &Address, stall: Duration, stop: &Stop) -> std::result::Result<Connection, String> {
    let mut failed = "its name has no address".to_string();
    let found = address.host.to_socket_addrs().map_err(|e| e.to_string())?;
    for socket in found {
        match TcpStream::connect_timeout(&socket, CONNECT) {
            Ok(stream) => return ask(address, stream, stall, stop),
            Err(error) => failed = error.to_string(),
        }
    }
    Err(failed)
}

/// Sends the request and reads the answer's head.
fn ask(
    address: &Address,
    mut stream: TcpStream,
    stall: Duration,
    stop: &Stop,
) -> std::result::Result<Connection, String> {
    let failed = |e: std::io::Error| e.to_string();
    stream.set_read_timeout(Some(LOOK)).map_err(failed)?;
    stream.set_write_timeout(Some(CONNECT)).map_err(failed)?;
    let Address { host, path, user } = address;
    let user = user.as_ref().map_or(String::new(), |user| {
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(user))
    });
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n{user}User-Agent: excon-edge\r\nAccept: multipart/x-mixed-replace, \
         image/jpeg\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD {
            return Err("the head of its answer has no end".into());
        }
        let read = patient(&mut stream, &mut part, stall, stop)?;
        bytes.extend_from_slice(&part[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| {
        let mut fields = head.lines().skip(1).filter_map(|l| l.split_once(':'));
        fields.find(|(n, _)| n.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => {}
        "401" => return Err("it wants a user and a password: http://USER:PASSWORD@…".into()),
        "301" | "302" | "303" | "307" | "308" => {
            return Err(format!("it has moved to {}; give that address", field("location").unwrap_or_default()));
        }
        _ => return Err(format!("it says {}", head.lines().next().unwrap_or_default())),
    }
    let kind = field("content-type").unwrap_or_default();
    if kind.starts_with("text/") || kind.starts_with("application/json") {
        return Err(format!("it answers with {kind}, which is no stream of pictures"));
    }
    let chunked = field("transfer-encoding").is_some_and(|v| v.contains("chunked"));
    let length = field("content-length").and_then(|v| v.parse().ok());
    let body = match (chunked, length) {
        (true, _) => Body::Chunked(Chunked::new()),
        (false, Some(length)) => Body::Counted(length),
        (false, None) => Body::Endless,
    };
    Ok(Connection { stream, body, single: kind.starts_with("image/"), begun: bytes.split_off(end + 4) })
}

/// A read that waits as long as `stall`, or until the wish to end.
fn patient(
    stream: &mut TcpStream,
    bytes: &mut [u8],
    stall: Duration,
    stop: &Stop,
) -> std::result::Result<usize, String> {
    let begun = Instant::now();
    loop {
        match stream.read(bytes) {
            Ok(0) => return Err("it ended the connection".into()),
            Ok(read) => return Ok(read),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                if stop.is_set() {
                    return Err("it was told to end".into());
                }
                if begun.elapsed() > stall {
                    return Err(format!("it said nothing for {:.1} s", stall.as_secs_f64()));
                }
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_shown_without_secrets() {
        let address = Address::parse("http://me:p%40ss@camera:8080/stream?fps=5#top").unwrap();
        assert_eq!(address.host, "camera:8080");
        assert_eq!(address.path, "/stream?fps=5");
        assert_eq!(address.user.as_deref(), Some("me:p@ss"));
        assert_eq!(address.shown(), "http://camera:8080/stream?fps=5");
        assert_eq!(Address::parse("http://[::1]").unwrap().host, "[::1]:80");
        assert_eq!(Address::parse("http://[::1]:81/").unwrap().host, "[::1]:81");
        assert_eq!(Address::parse("http://camera?x").unwrap().path, "/?x");
        for bad in
            ["https://camera/", "http://", "http://:80/", "http://camera:none/", "http://a b/", "http://c/\r\nX: y"]
        {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
