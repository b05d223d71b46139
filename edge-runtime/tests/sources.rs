//! `watch` on every kind of source, as a user meets it: the real command, real pipes, sockets, signals and kills.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod tiny;
mod watching;

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use watching::{Watch, done, in_folder, jpeg, png};

/// Writes frames `NAME_000.png`, … of one brightness; gives their paths.
fn frames(folder: &Path, name: &str, seeds: std::ops::Range<u64>, brightness: f32) -> Vec<String> {
    fs::create_dir_all(folder).unwrap();
    let write = |(index, seed)| {
        let path = folder.join(format!("{name}_{index:03}.png"));
        fs::write(&path, png(seed, brightness)).unwrap();
        path.display().to_string()
    };
    seeds.enumerate().map(write).collect()
}

/// Waits until the state on disk holds so many frames.
fn until_saved(folder: &Path, frames: u64) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < watching::PATIENCE {
        let (_, status, _) = done(folder, &["status", "tiny.excon", "--state", "kept", "--format", "json"]);
        if status[0]["monitor"]["raw_frames"] == frames {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the state never holds {frames} frames");
}

fn pictures(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|f| f["picture"].as_str().unwrap()).collect()
}

#[test]
fn a_list_on_standard_input_is_taken_whole() {
    in_folder(|folder| {
        let mut paths = frames(&folder.join("photos"), "a", 20_000..20_020, 0.5);
        paths.insert(3, "photos/missing.png".into());
        let mut watch = Watch::start(folder, "-", &["--independent", "--queue", "1"]);
        watch.give(format!("{}\r\n\n", paths.join("\n")).as_bytes());
        let left = watch.end();
        assert_eq!((left.code, left.frames.len()), (Some(0), 20));
        assert_eq!((&left.summary["frames"], &left.summary["unreadable"]), (&21.into(), &1.into()));
        assert_eq!((&left.summary["dropped"], &left.summary["interrupted"]), (&0.into(), &false.into()));
        assert!(left.stderr.contains("photos/missing.png"), "{}", left.stderr);

        // A file that holds the list, or the list's pictures, is the same.
        fs::write(folder.join("list.txt"), paths.join("\n")).unwrap();
        let (_, lines, _) = done(folder, &["watch", "tiny.excon", "list.txt", "--independent", "--format", "json"]);
        assert_eq!(lines[..20], left.frames[..]);
    });
}

#[test]
fn jpeg_streams_survive_garbage_and_torn_pictures() {
    in_folder(|folder| {
        let whole = jpeg(20_001, 0.5);
        let part = b"\r\n--b\r\nContent-Type: image/jpeg\r\n\r\n";
        let stream = [
            &jpeg(20_000, 0.5)[..],
            b"garbage \xff\x00\xff between",
            &whole[..whole.len() / 2],
            part,
            &jpeg(20_002, 0.5),
            part,
            &jpeg(20_003, 0.5),
            &whole[..whole.len() - 1],
        ]
        .concat();
        let mut watch = Watch::start(folder, "-", &["--every-frame", "--independent"]);
        for part in stream.chunks(97) {
            watch.give(part);
        }
        let left = watch.end();
        assert_eq!(pictures(&left.frames), ["stdin#1", "stdin#3", "stdin#4"], "{}", left.stderr);
        assert_eq!((left.code, &left.summary["unreadable"], &left.summary["frames"]), (Some(0), &2.into(), &5.into()));
        assert!(left.stderr.contains("stdin#2"), "{}", left.stderr);

        // The same frames as files give the same answers.
        fs::write(folder.join("photo.jpg"), jpeg(20_003, 0.5)).unwrap();
        let (_, alone, _) = done(folder, &["predict", "tiny.excon", "photo.jpg", "--format", "json"]);
        assert_eq!(alone[0]["confidence"], left.frames[2]["confidence"]);

        let mut forced = Watch::start(folder, "-", &["--input", "mjpeg", "--every-frame"]);
        forced.give(b"text that looks like a list\n");
        forced.give(&whole);
        assert_eq!(forced.end().frames.len(), 1);
    });
}

#[test]
fn raw_frames_are_the_same_pictures() {
    in_folder(|folder| {
        let picture = tiny::picture(20_000, 0.5);
        fs::write(folder.join("photo.png"), tiny::png(&picture)).unwrap();
        let (_, alone, _) = done(folder, &["predict", "tiny.excon", "photo.png", "--format", "json"]);
        let bgr: Vec<u8> = picture.rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        for (form, bytes) in [("20x16", &picture.rgb), ("20x16:bgr", &bgr)] {
            let mut watch = Watch::start(folder, "-", &["--raw", form, "--every-frame"]);
            watch.give(bytes);
            watch.give(&bytes[..100]);
            let left = watch.end();
            assert_eq!((left.frames.len(), &left.summary["unreadable"]), (1, &1.into()));
            assert_eq!(left.frames[0]["confidence"], alone[0]["confidence"], "{form}");
        }
        let (code, _, said) = done(folder, &["watch", "tiny.excon", "-", "--raw", "wide"]);
        assert!(code == 64 && said.contains("640x480"), "{said}");
    });
}

#[test]
fn late_frames_of_a_live_source_are_left_out_and_counted() {
    in_folder(|folder| {
        let one = jpeg(20_000, 0.5);
        let many = one.repeat(4_000);
        let mut watch = Watch::start(folder, "-", &["--queue", "2"]);
        watch.give(&many);
        let left = watch.end();
        let number = |name: &str| left.summary[name].as_u64().unwrap();
        assert_eq!(number("frames") + number("dropped"), 4_000);
        assert!(number("dropped") > 0, "reading is faster than looking");
        assert_eq!(left.frames.last().unwrap()["picture"], "stdin#4000", "the newest is never the one that goes");
        assert_eq!(left.frames.last().unwrap()["dropped"], left.summary["dropped"]);

        let mut watch = Watch::start(folder, "-", &["--queue", "1000", "--deadline-ms", "0"]);
        watch.give(&one.repeat(100));
        let left = watch.end();
        assert_eq!((&left.summary["late"], &left.summary["frames"]), (&100.into(), &0.into()));

        let mut recorded = Watch::start(folder, "-", &["--queue", "2", "--every-frame"]);
        recorded.give(&one.repeat(300));
        assert_eq!(recorded.end().summary["frames"], 300);
        fs::write(folder.join("clip.mjpeg"), one.repeat(300)).unwrap();
        let (_, lines, _) = done(folder, &["watch", "tiny.excon", "clip.mjpeg", "--queue", "2", "--format", "json"]);
        assert_eq!(lines.last().unwrap()["frames"], 300, "a file is waited for");
    });
}

#[test]
fn a_signal_ends_it_cleanly() {
    in_folder(|folder| {
        for signal in ["-TERM", "-INT"] {
            let kept = format!("kept{signal}");
            let mut live = Watch::start(folder, "-", &["--state", &kept, "--every-frame"]);
            (0..5).for_each(|i| live.give(&jpeg(20_000 + i, 0.5)));
            live.frames(5);
            live.signal(signal);
            let stdin_stays_open = live.says("watching stdin");
            assert!(stdin_stays_open.contains("tiny version 3"));
            let left = live.end();
            assert_eq!((left.code, &left.summary["frames"]), (Some(0), &5.into()), "{}", left.stderr);
            let (_, status, _) = done(folder, &["status", "tiny.excon", "--state", &kept, "--format", "json"]);
            assert_eq!(status[0]["monitor"]["raw_frames"], 5);
        }

        // A list has an end, and it was not reached.
        let paths = frames(&folder.join("photos"), "a", 20_000..20_003, 0.5);
        let mut list = Watch::start(folder, "-", &["--state", "kept"]);
        list.give(format!("{}\n", paths.join("\n")).as_bytes());
        list.frames(3);
        list.signal("-TERM");
        let left = list.end();
        assert_eq!((left.code, &left.summary["interrupted"]), (Some(130), &true.into()));
    });
}

#[test]
fn a_network_camera_may_stall_end_and_come_back() {
    in_folder(|folder| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://me:secret@{}/stream?fps=5", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let mut kept = Vec::new();
            for turn in 0..5u64 {
                let (mut stream, _) = listener.accept().unwrap();
                asked.push(watching::head(&mut stream));
                let multipart = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n";
                let part = |seed: u64| {
                    let jpeg = jpeg(20_000 + seed, 0.5);
                    let head = format!("--b\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
                    [head.as_bytes(), &jpeg, b"\r\n"].concat()
                };
                let mut say = |bytes: &[u8]| stream.write_all(bytes).unwrap();
                match turn {
                    // Two pictures, half of a third, and silence.
                    0 => {
                        say(multipart.as_bytes());
                        say(b"\r\n");
                        say(&part(0));
                        say(&part(1));
                        say(&part(2)[..200]);
                        kept.push(stream);
                    }
                    1 => say(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
                    // In chunks, then the end of the answer.
                    2 => {
                        say(multipart.as_bytes());
                        say(b"Transfer-Encoding: chunked\r\n\r\n");
                        for chunk in [part(3), part(4)].concat().chunks(100) {
                            say(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                        }
                        say(b"0\r\n\r\n");
                    }
                    // Closed without a word.
                    3 => {}
                    _ => {
                        say(multipart.as_bytes());
                        say(b"\r\n");
                        say(&part(5));
                        kept.push(stream);
                    }
                }
            }
            (asked, kept)
        });
        let mut watch = Watch::start(folder, &address, &["--stall-ms", "300", "--every-frame"]);
        let seen = pictures(watch.frames(5)).join(" ");
        assert!(seen.contains("/stream?fps=5#1 ") && !seen.contains("secret"), "{seen}");
        watch.signal("-TERM");
        let left = watch.end();
        let (asked, _kept) = server.join().unwrap();
        assert!(asked.iter().all(|a| a.starts_with("GET /stream?fps=5 HTTP/1.1\r\n")));
        assert!(asked[0].contains("Authorization: Basic bWU6c2VjcmV0\r\n"), "{}", asked[0]);
        assert_eq!((left.code, &left.summary["unreadable"]), (Some(0), &1.into()), "{}", left.stderr);
        assert!(left.stderr.contains("said nothing for 0.3 s") && !left.stderr.contains("secret"), "{}", left.stderr);
    });
}

#[test]
fn an_address_of_single_pictures_is_asked_again_and_again() {
    in_folder(|folder| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/snapshot.jpg", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for seed in 20_000.. {
                let (mut stream, _) = listener.accept().unwrap();
                watching::head(&mut stream);
                let jpeg = jpeg(seed, 0.5);
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
                let _ = stream.write_all(&[head.as_bytes(), &jpeg].concat());
                // Not closed, whatever was asked for.
                kept.push(stream);
            }
        });
        let mut watch = Watch::start(folder, &address, &[]);
        watch.frames(3);
        watch.signal("-TERM");
        let left = watch.end();
        assert_eq!((left.code, &left.summary["unreadable"]), (Some(0), &0.into()));
        assert!(!left.stderr.contains("trying again"), "{}", left.stderr);
    });
}

#[test]
fn a_camera_that_is_not_there_is_said_at_once() {
    in_folder(|folder| {
        let answer = |text: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}/", listener.local_addr().unwrap());
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                watching::head(&mut stream);
                stream.write_all(text.as_bytes()).unwrap();
            });
            done(folder, &["watch", "tiny.excon", &address])
        };
        let (code, _, said) = answer("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>");
        assert!(code == 69 && said.contains("text/html"), "{said}");
        let (code, _, said) = answer("HTTP/1.1 401 Unauthorized\r\n\r\n");
        assert!(code == 69 && said.contains("USER:PASSWORD"), "{said}");
        let (code, _, said) = answer("HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n");
        assert!(code == 69 && said.contains("http://elsewhere/"), "{said}");
        assert_eq!(answer("SSH-2.0-OpenSSH\r\n\r\n").0, 69);
        assert_eq!(done(folder, &["watch", "tiny.excon", "http://127.0.0.1:1/"]).0, 69);
        for usage in [&["https://camera/"][..], &["tiny.excon", "--follow"], &[".", "--raw", "2x2"]] {
            let (code, _, said) = done(folder, &[&["watch", "tiny.excon"], usage].concat());
            assert_eq!(code, 64, "{usage:?}: {said}");
        }
    });
}

#[test]
fn a_folder_is_followed_and_its_alarm_answered_meanwhile() {
    in_folder(|folder| {
        let camera = folder.join("camera");
        frames(&camera, "a", 20_000..20_010, 0.5);
        let mut watch = Watch::start(folder, "camera", &["--follow", "--state", "kept", "--independent"]);
        watch.frames(10);
        // A slow writer.
        let late = png(30_000, 0.25);
        fs::write(camera.join("b_000.png"), &late[..late.len() / 2]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        fs::write(camera.join("b_000.png"), &late).unwrap();
        // Up to the 64th, with which the state is saved.
        frames(&camera, "c", 30_001..30_054, 0.25);
        let seen = watch.frames(64);
        assert_eq!(pictures(seen)[10], "b_000.png");
        assert_eq!(seen[63]["state"], "shift");
        until_saved(folder, 64);

        let second = done(folder, &["watch", "tiny.excon", "camera", "--state", "kept"]);
        assert!(second.0 == 65 && second.2.contains("keeps its monitor here"), "{}", second.2);
        let answered = done(folder, &["acknowledge", "tiny.excon", "--state", "kept", "--accept", "--format", "json"]);
        assert_eq!((answered.0, &answered.1[0]["accepted"]), (0, &true.into()));
        watch.says("taken over");
        frames(&camera, "d", 31_000..31_005, 0.25);
        let seen = watch.frames(69);
        assert_eq!(seen[68]["state"], "healthy", "the dark is the new normal");
        watch.signal("-TERM");
        let left = watch.end();
        assert_eq!((left.code, &left.summary["unreadable"]), (Some(0), &0.into()));

        let again = done(folder, &["watch", "tiny.excon", "camera", "--state", "kept", "--format", "json"]);
        assert_eq!((again.0, again.1.len()), (0, 1), "all were seen: only a summary");
    });
}

#[test]
fn an_alarm_runs_the_command_once() {
    in_folder(|folder| {
        frames(&folder.join("photos"), "a", 30_000..30_060, 0.25);
        let watch = |hook: &str| {
            let fixed = ["watch", "tiny.excon", "photos", "--independent", "--format", "json", "--on-alarm"];
            done(folder, &[&fixed[..], &[hook]].concat())
        };
        // Its output is not the watch's data, and what stands in the alarm is no shell's business.
        let (code, lines, said) = watch("echo rang; cat >> alarms; echo \"$0 $#\"");
        assert_eq!((code, lines.len()), (1, 61), "{said}");
        assert!(said.contains("rang"), "{said}");
        let written = fs::read_to_string(folder.join("alarms")).unwrap();
        assert_eq!(written.lines().count(), 1, "once: {written}");
        let alarm: Value = serde_json::from_str(&written).unwrap();
        assert_eq!((&alarm["schema"], &alarm["model"]), (&"excon.alarm/1".into(), &"tiny".into()));
        assert_eq!(alarm["alarm"], lines[60]["alarm"]);
        assert!(alarm["words"].as_str().unwrap().starts_with("input changed: "));
        assert_eq!(alarm["frame"], format!("a_{:03}.png", alarm["alarm"]["raw_frame"].as_u64().unwrap() - 1));

        let (code, lines, said) = watch("exit 3");
        assert!(code == 1 && lines.len() == 61 && said.contains("--on-alarm ended with exit status: 3"), "{said}");
        let (code, _, said) = watch("no-such-command-here");
        assert!(code == 1 && said.contains("127"), "{said}");
        // One that does not end is killed with what it started; the end of the watch leaves it five seconds.
        let (code, _, said) = watch("sleep 300 & echo $! > child; wait");
        assert!(code == 1 && said.contains("was killed"), "{said}");
        let child = fs::read_to_string(folder.join("child")).unwrap();
        let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "still there: {state}");
    });
}

#[test]
fn the_most_unusual_frames_are_kept_within_bounds() {
    in_folder(|folder| {
        let keep = ["--keep-unusual", "ring", "--keep", "3", "--independent", "--every-frame"];
        let ring = || {
            let mut names: Vec<String> = fs::read_dir(folder.join("ring"))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let entry = |name: &String| -> Value {
            serde_json::from_slice(&fs::read(folder.join("ring").join(name)).unwrap()).unwrap()
        };
        let mut watch = Watch::start(folder, "-", &keep);
        (0..30).for_each(|i| watch.give(&jpeg(20_000 + i, 0.5)));
        watch.give(&jpeg(7, 0.9));
        watch.frames(31);
        let left = watch.end();
        assert_eq!(left.code, Some(0), "{}", left.stderr);
        let names = ring();
        assert_eq!(names.len(), 9, "{names:?}");
        let entries: Vec<Value> = names.iter().filter(|n| n.ends_with(".json")).map(entry).collect();
        let most =
            entries.iter().max_by(|a, b| a["score"].as_f64().partial_cmp(&b["score"].as_f64()).unwrap()).unwrap();
        assert_eq!((&most["schema"], &most["frame"]), (&"excon.unusual/1".into(), &"stdin#31".into()));
        assert_eq!(
            (&most["predicted"], &most["confidence"]),
            (&left.frames[30]["label"], &left.frames[30]["confidence"])
        );
        assert!(most["time"].as_str().unwrap().ends_with('Z'));
        for name in names.iter().filter(|n| n.ends_with(".png")) {
            excon_edge::image::read(&folder.join("ring").join(name)).unwrap();
        }

        // Killed in the midst of it, again and again: always whole entries, never more than three.
        for round in 0..4u64 {
            let mut watch = Watch::start(folder, "-", &keep);
            let brightness = 0.92 + 0.01 * round as f32;
            (0..20).for_each(|i| watch.give(&jpeg(round * 100 + i, brightness)));
            watch.frames(1 + 3 * round as usize);
            watch.signal("-KILL");
            drop(watch);
        }
        let after = Watch::start(folder, "-", &keep).end();
        assert_eq!(after.code, Some(0));
        let names = ring();
        assert_eq!(names.len(), 9, "{names:?}");
        for name in names.iter().filter(|n| n.ends_with(".json")) {
            assert!(entry(name)["score"].as_f64().unwrap() >= 0.0);
        }

        let (code, _, said) = done(folder, &["watch", "tiny.excon", "-", "--keep-unusual"]);
        assert!(code == 64 && said.contains("give it a folder"), "{said}");
    });
}

/// HTTP over a plain socket: the body of an answer.
#[cfg(feature = "serve")]
fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_string()
}

#[test]
#[cfg(feature = "serve")]
fn the_service_stands_beside_the_watch() {
    in_folder(|folder| {
        let serve = ["--serve", "127.0.0.1:0", "--state", "kept", "--independent", "--every-frame"];
        let mut watch = Watch::start(folder, "-", &serve);
        let line = watch.says("/metrics");
        let address = line.trim_start_matches("http://").split('/').next().unwrap().to_string();
        assert!(ask(&address, "GET", "/live", b"").contains("No frame yet."));
        (0..40).for_each(|i| watch.give(&jpeg(30_000 + i, 0.25)));
        assert_eq!(watch.frames(40)[39]["state"], "shift");

        let page = ask(&address, "GET", "/", b"");
        for word in ["frame 40", "Acknowledge", "Input changed", "--state kept"] {
            assert!(page.contains(word), "{word} is not in: {page}");
        }
        let metrics = ask(&address, "GET", "/metrics", b"");
        for line in ["excon_frames_total 40", "excon_shift_alarm 1", "excon_left_out_frames_total{why=\"dropped\"} 0"] {
            assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
        }
        // What is posted is answered and is no frame of the stream.
        let posted: Value = serde_json::from_str(&ask(&address, "POST", "/v1/predict", &png(1, 0.5))).unwrap();
        assert!(posted["label"].is_string() && posted["monitor"].is_null(), "{posted}");
        let answered: Value = serde_json::from_str(&ask(&address, "POST", "/v1/acknowledge?accept=true", b"")).unwrap();
        assert_eq!(answered["accepted"], true);
        watch.says("alarm acknowledged");
        (0..5).for_each(|i| watch.give(&jpeg(31_000 + i, 0.25)));
        let seen = watch.frames(45);
        assert_eq!((&seen[44]["state"], &seen[44]["raw_frames"]), (&"healthy".into(), &45.into()));

        // An address that is taken is told, with its exit code.
        let (code, _, said) = done(folder, &["watch", "tiny.excon", "-", "--serve", &address]);
        assert!(code == 69 && said.contains("cannot listen"), "{said}");
        watch.signal("-TERM");
        let left = watch.end();
        assert_eq!(left.code, Some(0), "{}", left.stderr);
        let (_, status, _) = done(folder, &["status", "tiny.excon", "--state", "kept", "--format", "json"]);
        assert_eq!(status[0]["monitor"]["raw_frames"], 45);
    });
}

#[test]
fn the_live_view_draws_and_gives_the_terminal_back() {
    in_folder(|folder| {
        frames(&folder.join("photos"), "a", 20_000..20_012, 0.5);
        let through_a_terminal = |term: &str, more: &str| {
            let command = format!(
                "stty cols 90 rows 26; '{}' watch tiny.excon photos --view {more}",
                env!("CARGO_BIN_EXE_excon-edge")
            );
            std::process::Command::new("script")
                .args(["-qec", &command, "/dev/null"])
                .current_dir(folder)
                .env("TERM", term)
                .env_remove("COLORTERM")
                .env_remove("NO_COLOR")
                .stdin(std::process::Stdio::null())
                .output()
        };
        let Ok(said) = through_a_terminal("xterm-256color", "") else {
            return eprintln!("skipped: no `script` to make a terminal with");
        };
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        if !text.contains("\x1b[?1049h") {
            return eprintln!("skipped: `script` makes no terminal here: {text}");
        }
        let (_, after) = text.split_once("\x1b[?1049h").unwrap();
        let (view, after) = after.split_once("\x1b[?25h\x1b[?1049l").expect("the terminal is given back");
        assert!(view.contains("\x1b[48;5;") && view.contains('▀') && view.contains("luma_mean"), "{view}");
        assert!(after.contains("12 frames, 12 effective"), "{after}");
        assert!(!after.contains("\x1b[?1049h"));

        let dumb = through_a_terminal("dumb", "").unwrap();
        let text = String::from_utf8_lossy(&dumb.stdout).into_owned();
        assert!(text.contains("lines instead") && text.contains("12 frames") && !text.contains('▀'), "{text}");

        // Ctrl-C while it waits for more.
        let interrupted = through_a_terminal("xterm-256color", "--follow & sleep 2; kill -INT $!; wait $!").unwrap();
        let text = String::from_utf8_lossy(&interrupted.stdout).into_owned();
        assert!(text.contains("\x1b[?1049h") && text.contains("\x1b[?25h\x1b[?1049l"), "{text}");
        assert!(text.contains("12 frames, 12 effective"), "{text}");
    });
}
