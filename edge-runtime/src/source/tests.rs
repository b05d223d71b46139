#![allow(clippy::unwrap_used)]
use super::chunked::Chunked;
use super::*;
use ::image::codecs::jpeg::JpegEncoder;
use proptest::prelude::*;
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// A JPEG whose pixels depend on the seed.
fn jpeg(seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let rgb: Vec<u8> = (0..16 * 12 * 3).map(|i| (i as u8).wrapping_mul(seed | 1)).collect();
    JpegEncoder::new(&mut bytes).encode(&rgb, 16, 12, ::image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn pieces(stream: &[u8], step: usize) -> Vec<Piece> {
    let mut splitter = Splitter::default();
    let mut pieces = Vec::new();
    for part in stream.chunks(step) {
        splitter.push(part);
        pieces.extend(std::iter::from_fn(|| splitter.piece()));
    }
    while let Some(piece) = splitter.piece().or_else(|| splitter.rest()) {
        pieces.push(piece);
    }
    pieces
}

#[test]
fn pictures_are_found_between_anything() {
    let part = b"\r\n--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 7\r\n\r\n";
    let stream = [&part[..], &jpeg(1), part, b"\xff\xff\xd8 garbage \x00\xff", &jpeg(2), &jpeg(3), part].concat();
    let found = pieces(&stream, 4096);
    assert_eq!(found, [1, 2, 3].map(|seed| Piece::Picture(jpeg(seed))));
    for step in [1, 2, 3, 7, 100] {
        assert_eq!(pieces(&stream, step), found, "in parts of {step}");
    }
}

#[test]
fn a_thumbnail_belongs_to_its_picture() {
    let (inner, outer) = (jpeg(1), jpeg(2));
    let mut segment = vec![0xff, 0xe1];
    segment.extend((inner.len() as u16 + 2).to_be_bytes());
    let with = [&outer[..2], &segment, &inner, &outer[2..]].concat();
    assert_eq!(pieces(&[with.clone(), outer.clone()].concat(), 50), [Piece::Picture(with), Piece::Picture(outer)]);
}

#[test]
fn png_pictures_come_between_others() {
    let png = crate::page::png(&Picture { width: 3, height: 2, rgb: vec![9; 18] }).unwrap();
    let stream = [&png[..], b"\x89PNG", &jpeg(1), &png, &png[..png.len() - 3], &png].concat();
    let whole = |bytes: &[u8]| Piece::Picture(bytes.to_vec());
    for step in [1, 5, 1000] {
        let found = pieces(&stream, step);
        assert_eq!(found[..3], [whole(&png), whole(&jpeg(1)), whole(&png)], "in parts of {step}");
        assert!(matches!(&found[3..], [Piece::Broken(_), last] if *last == whole(&png)), "{:?}", &found[3..]);
    }
}

#[test]
fn a_stream_without_a_picture_is_said() {
    let mut none = Pictures::new(Cursor::new(b"nothing".repeat(9)), "pipe", true);
    assert!(matches!(none.next(&Stop::new()), Some(Item::Trouble(Error::Source { .. }))));
    assert!(none.next(&Stop::new()).is_none());
    assert!(Pictures::new(Cursor::new(b""), "pipe", true).next(&Stop::new()).is_none());
}

#[test]
fn a_broken_picture_costs_one_picture() {
    let whole = jpeg(5);
    // Cut at every byte behind its first three, and followed by a good one.
    let mut joined = 0;
    for cut in 3..whole.len() {
        let found = pieces(&[&whole[..cut], &jpeg(6)].concat(), 64);
        // Where an application's torn segment lacks just what the next picture begins with, the two become one.
        let Some(Piece::Picture(last)) = found.last() else { panic!("cut at {cut}: {}", found.len()) };
        assert!(found.len() <= 2 && last.ends_with(&jpeg(6)[20..]), "cut at {cut}: {}", found.len());
        joined += usize::from(found.len() == 1);
    }
    assert!(joined < 18, "{joined}: the application's segment has 18 bytes");
    assert!(matches!(pieces(&whole[..40], 64)[..], [Piece::Broken(_)]), "the end of the stream");
    assert_eq!(pieces(b"nothing at all", 3), []);
}

#[test]
fn what_never_ends_is_given_up() {
    let mut splitter = Splitter::default();
    splitter.push(&jpeg(1)[..]);
    splitter.piece().unwrap();
    let endless = jpeg(1);
    splitter.push(&endless[..endless.len() - 2]);
    let zeros = vec![0; 1 << 20];
    let given_up = (0..40).any(|_| {
        splitter.push(&zeros);
        matches!(splitter.piece(), Some(Piece::Broken(_)))
    });
    assert!(given_up, "within 40 MiB");
    splitter.push(&jpeg(2));
    assert_eq!(splitter.piece(), Some(Piece::Picture(jpeg(2))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_in_any_parts_give_the_same(
        noise in prop::collection::vec(prop::sample::select(vec![0xffu8, 0xd8, 0xd9, 0xda, 0xe1, 0, 1, 2, 9]), 0..400),
        step in 1usize..50,
    ) {
        let stream = [&noise[..], &jpeg(9), &noise].concat();
        prop_assert_eq!(pieces(&stream, step), pieces(&stream, stream.len()));
    }

    #[test]
    fn chunks_come_off_in_any_parts(data in prop::collection::vec(any::<u8>(), 1..300), size in 1usize..60, step in 1usize..40) {
        let mut coded = Vec::new();
        for chunk in data.chunks(size) {
            coded.extend(format!("{:x};note=\"x\"\r\n", chunk.len()).bytes());
            coded.extend(chunk);
            coded.extend(b"\r\n");
        }
        coded.extend(b"0\r\n\r\n");
        let (mut chunked, mut out) = (Chunked::new(), Vec::new());
        for part in coded.chunks(step) {
            prop_assert!(chunked.take(part, &mut out));
        }
        prop_assert!(chunked.over());
        prop_assert_eq!(out, data);
    }
}

#[test]
fn garbled_chunks_are_refused() {
    for garbled in ["zz\r\n", "5\r\nhelloX", "fffffffffff\r\n"] {
        assert!(!Chunked::new().take(garbled.as_bytes(), &mut Vec::new()), "{garbled}");
    }
}

#[test]
fn forms_are_told_by_their_beginning() {
    assert_eq!(Form::of(b"photos/a.jpg\nphotos/b.jpg\n"), Form::List);
    assert_eq!(Form::of("Fotos/große.jpg\r\n".as_bytes()), Form::List);
    assert_eq!(Form::of(b""), Form::List);
    assert_eq!(Form::of(&jpeg(1)), Form::Pictures);
    assert_eq!(Form::of(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"), Form::Pictures);
    assert_eq!(Form::of(b"\x00\x01garbage"), Form::Pictures);
}

#[test]
fn raw_frames_are_cut_by_their_size() {
    let format: RawFormat = "2x1:bgr".parse().unwrap();
    let bytes = [[1, 2, 3], [4, 5, 6], [7, 8, 9]].concat();
    let mut raw = Raw::new(Cursor::new(bytes), format, "pipe", true);
    let Some(Item::Frame(first)) = raw.next(&Stop::new()) else { panic!("a frame") };
    assert_eq!(first.name, "pipe#1");
    assert_eq!(first.picture().unwrap(), Picture { width: 2, height: 1, rgb: vec![3, 2, 1, 6, 5, 4] });
    let Some(Item::Frame(torn)) = raw.next(&Stop::new()) else { panic!("a frame") };
    assert!(torn.picture().unwrap_err().to_string().contains("pipe#2"));
    assert!(raw.next(&Stop::new()).is_none());

    let gray: RawFormat = "3x2:gray".parse().unwrap();
    assert_eq!((gray.bytes(), gray.picture(vec![7; 6]).rgb), (6, vec![7; 18]));
    for bad in ["640", "640x", "0x4", "640x480:yuv", "99999x2", "16000x16000"] {
        assert!(bad.parse::<RawFormat>().is_err(), "{bad}");
    }
}

/// Gives numbered frames as fast as they are asked for.
struct Numbers {
    next: u64,
    end: u64,
    live: bool,
}

impl Source for Numbers {
    fn next(&mut self, _: &Stop) -> Option<Item> {
        let number = self.next;
        self.next += 1;
        (number < self.end).then(|| Item::Frame(Frame::new(number.to_string(), Ok(Content::Encoded(vec![])))))
    }

    fn live(&self) -> bool {
        self.live
    }
}

fn numbers(live: bool, limits: Limits) -> Feed {
    Feed::start(Box::new(Numbers { next: 0, end: 100, live }), limits, Stop::new()).unwrap()
}

fn names(feed: &Feed) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match feed.next(Duration::from_secs(20)) {
            Next::Item(Item::Frame(frame)) => names.push(frame.name),
            Next::End => return names,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_live_source_that_nobody_keeps_up_with_loses_its_oldest_frames() {
    let feed = numbers(true, Limits { depth: 3, ..Limits::default() });
    while feed.dropped() < 97 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(names(&feed), ["97", "98", "99"]);
    assert_eq!((feed.dropped(), feed.late(), feed.live()), (97, 0, true));
}

#[test]
fn from_files_and_where_it_is_asked_for_every_frame_is_taken() {
    for (live, every) in [(false, false), (true, true)] {
        let feed = numbers(live, Limits { depth: 2, every, deadline: None });
        assert_eq!(names(&feed).len(), 100);
        assert_eq!(feed.dropped(), 0);
    }
}

#[test]
fn late_frames_are_left_out_and_counted() {
    let feed = numbers(true, Limits { depth: 200, every: false, deadline: Some(Duration::ZERO) });
    assert_eq!(names(&feed), [""; 0]);
    assert_eq!((feed.dropped(), feed.late()), (0, 100));
}

#[test]
fn a_wish_to_end_frees_a_source_that_waits_for_room() {
    let stop = Stop::new();
    let source = Numbers { next: 0, end: u64::MAX, live: false };
    let feed = Feed::start(Box::new(source), Limits { depth: 1, ..Limits::default() }, stop.clone()).unwrap();
    assert!(matches!(feed.next(Duration::from_secs(20)), Next::Item(_)));
    stop.set();
    while !matches!(feed.next(Duration::from_secs(20)), Next::End) {}
}

fn next_name(folder: &mut Folder, stop: &Stop) -> String {
    match folder.next(stop) {
        Some(Item::Frame(frame)) => frame.name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_followed_folder_waits_for_halves_and_keeps_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("b.jpg", &jpeg(1));
    put(".c.jpg", &jpeg(1));
    put("notes.txt", b"no picture");
    let mut source = Folder::open(folder.path(), None, true).unwrap();
    let stop = Stop::new();
    assert_eq!(next_name(&mut source, &stop), "b.jpg");

    let half = jpeg(2);
    put("c.jpg", &half[..half.len() / 2]);
    put("d.jpg", &jpeg(3));
    let path = folder.path().to_path_buf();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        fs::write(path.join("c.jpg"), half).unwrap();
    });
    let Some(Item::Frame(frame)) = source.next(&stop) else { panic!("a frame") };
    assert_eq!(frame.name, "c.jpg", "not d.jpg, which was whole before");
    assert_eq!(frame.picture().unwrap().width, 16, "whole");
    writer.join().unwrap();
    assert_eq!(next_name(&mut source, &stop), "d.jpg");

    put("a.jpg", &jpeg(4));
    put("e.jpg", &jpeg(5));
    let said = [source.next(&stop), source.next(&stop)];
    assert!(matches!(&said[0], Some(Item::Trouble(Error::Picture { name, .. })) if name == "a.jpg"), "{said:?}");
    assert!(matches!(&said[1], Some(Item::Frame(frame)) if frame.name == "e.jpg"));

    // One that nobody goes on writing to is given as it is.
    put("f.jpg", &jpeg(6)[..50]);
    let Some(Item::Frame(torn)) = source.next(&stop) else { panic!("a frame") };
    assert!(torn.picture().is_err());
    stop.set();
    assert!(source.next(&stop).is_none());
}

#[test]
fn a_folder_goes_on_behind_a_name_and_may_be_empty_only_when_followed() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Folder::open(folder.path(), None, false).is_err());
    assert!(Folder::open(folder.path(), None, true).is_ok());
    for name in ["a.jpg", "b.JPEG", "c.png"] {
        fs::write(folder.path().join(name), jpeg(1)).unwrap();
    }
    let stop = Stop::new();
    let mut rest = Folder::open(folder.path(), Some("a.jpg"), false).unwrap();
    assert_eq!(rest.expected(), Some(2));
    assert_eq!([next_name(&mut rest, &stop), next_name(&mut rest, &stop)], ["b.JPEG", "c.png"]);
    assert!(rest.next(&stop).is_none());
}

#[test]
fn places_are_told_apart_and_options_belong_to_theirs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("clip.mjpeg"), [jpeg(1), jpeg(2)].concat()).unwrap();
    let file = Place::of(&folder.path().join("clip.mjpeg")).unwrap();
    let mut source = file.open(&Options::default(), None).unwrap();
    let stop = Stop::new();
    let Some(Item::Frame(first)) = source.next(&stop) else { panic!("a frame") };
    assert_eq!((first.name.as_str(), source.live()), ("clip.mjpeg#1", false));

    assert_eq!(Place::of(Path::new("-")).unwrap(), Place::Stdin);
    let camera = Place::of(Path::new("http://me:secret@camera/")).unwrap();
    assert_eq!(camera.to_string(), "http://camera/");
    for bad in ["https://camera/", "rtsp://camera/"] {
        assert_eq!(Place::of(Path::new(bad)).unwrap_err().exit_code(), 64, "{bad}");
    }
    assert_eq!(Place::of(Path::new("nowhere/at/all")).unwrap_err().exit_code(), 65);
    let follow = Options { follow: true, ..Options::default() };
    assert_eq!(file.open(&follow, None).err().unwrap().exit_code(), 64);
    let form = Options { form: Some(Form::Pictures), ..Options::default() };
    assert_eq!(Place::Folder(folder.path().into()).open(&form, None).err().unwrap().exit_code(), 64);
}
