//! Fetching from a server on this machine: resume, damage, refusals, and what a folder remembers.
#![allow(clippy::unwrap_used)]

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// How the server behaves; every field may change between requests.
#[derive(Clone, Default)]
struct Manner {
    content: Vec<u8>,
    /// Tag of this version; none sends no validator.
    tag: Option<&'static str>,
    /// The connection is cut after so many bytes of a body.
    cut: Option<usize>,
    /// Requests for a part are answered with the whole.
    no_parts: bool,
    /// Answers with this status and nothing else.
    status: Option<&'static str>,
}

/// A server on this machine, and the `Range` headers it was asked with.
struct Server {
    address: String,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/archive.tar.gz", listener.local_addr().unwrap());
        let (manner, asked) = (Arc::new(Mutex::new(manner)), Arc::new(Mutex::new(Vec::new())));
        let server = Self { address, manner: manner.clone(), asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let manner = manner.lock().unwrap().clone();
                // A client that has gone away is no failure of the server.
                let _ = answer(stream.unwrap(), &manner, &asked);
            }
        });
        server
    }

    fn asked(&self) -> Vec<Option<String>> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, m: &Manner, asked: &Mutex<Vec<Option<String>>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let (mut range, mut if_range) = (None, None);
    for line in lines.by_ref() {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { if line.is_empty() { break } else { continue } };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_string()),
            "if-range" => if_range = Some(value.to_string()),
            _ => {}
        }
    }
    asked.lock().unwrap().push(range.clone());
    if let Some(status) = m.status {
        return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let same = if_range.is_none() || if_range.as_deref() == m.tag;
    let start =
        range.filter(|_| same && !m.no_parts).and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let tag = m.tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let total = m.content.len();
    let body = match start {
        Some(start) if start >= total => {
            return write!(
                stream,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(start) => {
            let range = format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
            write!(stream, "HTTP/1.1 206 Partial Content\r\n{tag}{range}")?;
            &m.content[start..]
        }
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\n{tag}")?;
            &m.content[..]
        }
    };
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body[..m.cut.unwrap_or(body.len()).min(body.len())])?;
    stream.shutdown(Shutdown::Both)
}

/// A data set of two files, one with a published checksum and one without, and its archive.
fn set() -> (Set, Vec<u8>) {
    let pictures: Vec<u8> = (0..40_000u32).map(|i| (i * i % 251) as u8).collect();
    let expected = [
        Expected {
            name: "a.bin",
            bytes: Some(40_000),
            md5: Some(Box::leak(hex(&Md5::digest(&pictures)).into_boxed_str())),
        },
        Expected { name: "names.txt", bytes: None, md5: None },
    ];
    let set = Set {
        name: "toy",
        about: "",
        address: "http://127.0.0.1:9/nothing-listens-here",
        folder: "toy-bin",
        download: 0,
        files: Box::leak(Box::new(expected)),
        pictures: None,
        corrupted: false,
    };
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("toy-bin/a.bin", pictures.as_slice()), ("toy-bin/names.txt", b"cat\ndog\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content).unwrap();
    }
    (set, archive.into_inner().unwrap())
}

fn fetch(set: &Set, folder: &TempDir, from: &str) -> Result<Checked> {
    set.fetch(folder.path(), Some(from), &mut |_| {})
}

/// Names in a folder, hidden ones too.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_set_is_fetched_whole_checked_and_remembered() {
    let (set, content) = set();
    let server = Server::start(Manner { content, tag: Some("\"1\""), ..Manner::default() });
    let folder = TempDir::new().unwrap();
    let mut steps = Vec::new();
    let checked = set.fetch(folder.path(), Some(&server.address), &mut |step| steps.push(step)).unwrap();
    assert_eq!((checked.files, checked.bytes, checked.published, checked.as_recorded), (2, 40_008, 1, Some(true)));
    assert!(checked.is_sound() && checked.folder == set.place(folder.path()));
    assert!(matches!(steps.last(), Some(Step::Unpacking(2, 2))));
    assert!(steps.iter().any(|s| matches!(s, Step::Downloading(_, Some(_)))));
    assert_eq!(listing(folder.path()), ["toy-bin"], "nothing is left under way");
    assert_eq!(listing(&checked.folder), [RECORD, "a.bin", "names.txt"]);
    // Once it is there, nothing is asked for.
    assert_eq!(fetch(&set, &folder, &server.address).unwrap(), checked);
    assert_eq!(server.asked().len(), 1);
    // A file without a published checksum is held to the first download.
    std::fs::write(checked.folder.join("names.txt"), "cat\ncow\n").unwrap();
    let changed = set.check(&checked.folder).unwrap();
    assert_eq!((changed.as_recorded, changed.is_sound()), (Some(false), false));
    std::fs::remove_file(checked.folder.join(RECORD)).unwrap();
    let unknown = set.check(&checked.folder).unwrap();
    assert_eq!((unknown.as_recorded, unknown.published, unknown.is_sound()), (None, 1, true));
    std::fs::write(checked.folder.join("a.bin"), vec![0; 40_000]).unwrap();
    assert!(set.check(&checked.folder).unwrap().faults[0].contains("not the published"));
    assert!(fetch(&set, &folder, &server.address).unwrap_err().to_string().contains("Move it away"));
}

#[test]
fn a_line_that_breaks_again_and_again_is_resumed_where_it_broke() {
    let (set, content) = set();
    for tag in [Some("\"1\""), None] {
        let length = content.len();
        let server = Server::start(Manner { content: content.clone(), tag, cut: Some(9_000), ..Manner::default() });
        let folder = TempDir::new().unwrap();
        assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
        let asked = server.asked();
        assert_eq!(asked.len(), length.div_ceil(9_000));
        assert_eq!(asked[0], None);
        assert_eq!(asked[2], Some("bytes=18000-".into()));
    }
}

#[test]
fn a_process_that_died_is_resumed_and_another_version_is_not_mixed_in() {
    let (set, content) = set();
    let folder = TempDir::new().unwrap();
    let work = folder.path().join(UNDER_WAY).join("toy");
    let begin = |tag: &str| {
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(work.join("archive.partial"), &content[..30_000]).unwrap();
        std::fs::write(work.join("archive.mark"), tag).unwrap();
    };
    let server = Server::start(Manner { content: content.clone(), tag: Some("\"2\""), ..Manner::default() });
    begin("\"2\"");
    assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
    assert_eq!(server.asked(), [Some("bytes=30000-".into())]);
    // Begun from another version: the server sends it whole.
    std::fs::remove_dir_all(set.place(folder.path())).unwrap();
    begin("\"1\"");
    std::fs::write(work.join("archive.partial"), vec![7; 30_000]).unwrap();
    assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
    // A server that knows no parts, and a part that is too long.
    std::fs::remove_dir_all(set.place(folder.path())).unwrap();
    begin("\"2\"");
    server.manner.lock().unwrap().no_parts = true;
    assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
    server.manner.lock().unwrap().no_parts = false;
    std::fs::remove_dir_all(set.place(folder.path())).unwrap();
    begin("\"2\"");
    std::fs::write(work.join("archive.partial"), vec![7; content.len() + 5]).unwrap();
    assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
}

#[test]
fn what_is_not_what_was_published_never_appears() {
    let (set, content) = set();
    let mut wrong = content.clone();
    let at = wrong.len() / 2;
    wrong[at] ^= 1;
    for (content, said) in
        [(wrong, "not the published"), (content[..content.len() / 2].to_vec(), "no whole tar archive")]
    {
        let server = Server::start(Manner { content, ..Manner::default() });
        let folder = TempDir::new().unwrap();
        let text = fetch(&set, &folder, &server.address).unwrap_err().to_string();
        assert!(text.contains(said) && text.contains("--from"), "{text}");
        assert!(!set.place(folder.path()).exists());
        // The wrong archive does not stand in the way of a right one.
        server.manner.lock().unwrap().content = self::set().1;
        assert!(fetch(&set, &folder, &server.address).unwrap().is_sound());
    }
}

#[test]
fn no_network_and_no_such_file_are_said_plainly_and_keep_what_arrived() {
    let (set, content) = set();
    let folder = TempDir::new().unwrap();
    let error = set.fetch(folder.path(), None, &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 69);
    assert!(error.to_string().contains("--from FILE") && error.to_string().contains("nothing-listens-here"), "{error}");
    let server = Server::start(Manner { status: Some("404 Not Found"), content, ..Manner::default() });
    let error = fetch(&set, &folder, &server.address).unwrap_err();
    assert!(error.to_string().contains("404") && error.exit_code() == 69, "{error}");
    assert_eq!(server.asked().len(), 1, "there is no use in asking again");
    // Always cut at the start: given up after a few requests, and what arrived stays.
    *server.manner.lock().unwrap() = Manner { cut: Some(0), content: self::set().1, ..Manner::default() };
    let work = folder.path().join(UNDER_WAY).join("toy");
    std::fs::write(work.join("archive.partial"), [1, 2, 3]).unwrap();
    std::fs::write(work.join("archive.mark"), format!("length {}", self::set().1.len())).unwrap();
    assert_eq!(fetch(&set, &folder, &server.address).unwrap_err().exit_code(), 69);
    assert_eq!(std::fs::read(work.join("archive.partial")).unwrap(), [1, 2, 3]);
}

#[test]
fn an_archive_at_hand_needs_no_network_and_stays() {
    let (set, content) = set();
    let folder = TempDir::new().unwrap();
    let archive = folder.path().join("brought.tar");
    std::fs::write(&archive, &content).unwrap();
    assert!(fetch(&set, &folder, archive.to_str().unwrap()).unwrap().is_sound());
    std::fs::write(&archive, &content[..1000]).unwrap();
    std::fs::remove_dir_all(set.place(folder.path())).unwrap();
    assert!(fetch(&set, &folder, archive.to_str().unwrap()).is_err());
    assert!(archive.exists() && !set.place(folder.path()).exists());
}

#[test]
fn names_are_known_and_misspellings_answered() {
    assert_eq!(Set::named("cifar-100-c").unwrap().folder, "CIFAR-100-C");
    assert!(Set::named("cifar10").unwrap_err().to_string().contains("the nearest is cifar-10."));
    for set in SETS {
        assert!(set.address.starts_with("https://"));
        assert!(set.files.iter().filter_map(|f| f.md5).all(|md5| md5.len() == 32));
        assert!(set.files.is_sorted_by_key(|f| f.md5.is_none()), "{}", set.name);
    }
}

/// The real test files, where they are at hand, have the published checksums.
#[test]
fn the_real_files_are_the_published_ones() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let archive = shared.join("cifar100/cifar-100-binary.tar.gz");
    if !archive.exists() {
        println!("skipped: {} is not there", archive.display());
        return;
    }
    let folder = TempDir::new().unwrap();
    let checked = fetch(Set::named("cifar-100").unwrap(), &folder, archive.to_str().unwrap()).unwrap();
    assert_eq!((checked.published, checked.is_sound()), (2, true));
}
