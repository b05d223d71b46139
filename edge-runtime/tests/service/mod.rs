//! A running service for tests, and HTTP over a plain socket: what is sent is exactly what the test says.
#![allow(dead_code)]

use crate::tiny;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything takes; a test that needs it fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn in_folder(test: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    tiny::writer(true, 150).seal(folder.path().join("tiny.excon")).unwrap();
    test(folder.path());
}

pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// The Python of `EXCON_PYTHON`, when it has a module.
pub fn python(module: &str) -> Option<String> {
    let python = std::env::var("EXCON_PYTHON").ok()?;
    let said = Command::new(&python).args(["-c", &format!("import {module}")]).output().ok()?;
    said.status.success().then_some(python)
}

fn excon(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_excon-edge"));
    command.args(arguments).current_dir(folder);
    for name in ["EXCON_FORMAT", "EXCON_STATE", "EXCON_TOKEN", "EXCON_ADDR"] {
        command.env_remove(name);
    }
    command
}

/// Exit code and stderr of a command that ends by itself.
pub fn raw(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let said = excon(folder, arguments).output().unwrap();
    (said.status.code().unwrap_or(-1), String::from_utf8(said.stderr).unwrap())
}

/// The first JSON line of a command's output.
pub fn command(folder: &Path, arguments: &[&str]) -> Value {
    let said = excon(folder, arguments).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    serde_json::from_str(text.lines().next().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&said.stderr)))
}

/// A running `excon-edge serve`, killed when dropped.
pub struct Service {
    child: Child,
    pub url: String,
}

impl Service {
    pub fn start(folder: &Path, more: &[&str]) -> Self {
        let fixed = ["--format", "json", "serve", "tiny.excon", "--addr", "127.0.0.1:0"];
        let mut child = excon(folder, &[&fixed[..], more].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().expect("it says where it listens").unwrap()).unwrap();
        assert_eq!(first["event"], "listening");
        // Read on, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: first["url"].as_str().unwrap().into() }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1.trim_end_matches('/')
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        // It may refuse before it has read all: what it says then is what counts.
        let _ = stream.write_all(&request(method, path, headers, body));
        read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.ask("POST", path, &[], body)
    }

    pub fn until(&self, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "it does not come to hold");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn stop(self) {
        self.signal();
        assert_eq!(self.wait(), Some(0));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// One answer, up to the connection's end.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A refusal may be followed by a reset, for the rest of a body that nobody reads.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer with a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head, body: bytes[end + 4..].to_vec() }
}

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        pairs.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A real Prometheus scrapes the service and answers a query about it.
pub fn scraped_by_prometheus(folder: &Path, service: &Service) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: excon\n  static_configs:\n  - targets: ['{}']\n",
        service.address()
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let started = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", &format!("--web.listen-address={free}")])
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else { return skipped("no prometheus") };
    let prometheus = Service { child, url: format!("http://{free}/") };
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "Prometheus has no sample of excon_frames_total");
        std::thread::sleep(Duration::from_millis(200));
        if TcpStream::connect(prometheus.address()).is_err() {
            continue;
        }
        let said = prometheus.get("/api/v1/query?query=excon_frames_total");
        if said.code == 200 && said.json()["data"]["result"][0]["value"][1] == "1" {
            return;
        }
    }
}
