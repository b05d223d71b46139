//! Boards over ssh: an sshd of our own on loopback, with its own keys and port, and slots in a folder. Transfers are
//! cut and stalled by a wrapper around ssh. Skipped with a message where there is no sshd.

use crate::{Run, excon, excon_command, excon_edge, tiny};
use excon_edge::bundle::{Bundle, CalibrationSet};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A board: a folder, and an sshd that leads there.
struct Board {
    folder: tempfile::TempDir,
    sshd: Child,
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl Board {
    /// None, and a message, where no sshd can be started.
    fn start() -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let Some(sshd) = sshd else {
            eprintln!("skipped: no sshd on this machine (apt-get install openssh-server)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)).status();
            if !made.is_ok_and(|status| status.success()) {
                eprintln!("skipped: no ssh-keygen on this machine (apt-get install openssh-client)");
                return None;
            }
        }
        fs::copy(path("user.pub"), path("authorized_keys")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = folder.path().display();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/authorized_keys\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
        );
        fs::write(path("sshd_config"), server).unwrap();
        let host = fs::read_to_string(path("host.pub")).unwrap();
        fs::write(path("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let client = format!(
            "Host camera-*\n HostName 127.0.0.1\n Port {port}\n User {}\n IdentityFile {here}/user\n IdentitiesOnly yes\n \
             UserKnownHostsFile {here}/known_hosts\n StrictHostKeyChecking yes\n",
            String::from_utf8(user).unwrap().trim()
        );
        fs::write(path("ssh_config"), client).unwrap();
        // An sshd of root's wants this folder, which a service would have made.
        let _ = fs::create_dir_all("/run/sshd");
        let log = fs::File::create(path("sshd.log")).unwrap();
        let server =
            Command::new(sshd).args(["-D", "-e", "-f"]).arg(path("sshd_config")).stderr(Stdio::from(log)).spawn();
        let mut board = Self { sshd: server.unwrap(), folder };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                board.wrapper("exec ssh -F ssh_config \"$@\"");
                return Some(board);
            }
            if board.sshd.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(board.path("sshd.log")).unwrap_or_default();
        eprintln!("skipped: sshd does not start here: {log}");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What stands for `ssh`: a script that runs in the board's folder.
    fn wrapper(&self, script: &str) {
        let text = format!("#!/bin/bash\ncd {}\n{script}\n", self.folder.path().display());
        fs::write(self.path("ssh"), text).unwrap();
        fs::set_permissions(self.path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `excon` with this board's ssh, for the boards `camera-…`, whose slots are all in `root`.
    fn excon(&self, root: &str, arguments: &[&str]) -> Run {
        let edge = Path::new(env!("CARGO_BIN_EXE_excon")).with_file_name("excon-edge");
        let output = excon_command(self.folder.path(), arguments)
            .env("EXCON_SSH", self.path("ssh"))
            .env("EXCON_REMOTE_EDGE", edge)
            .env("EXCON_REMOTE_ROOT", self.path(root))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn bundle(&self, name: &str, version: u64) -> PathBuf {
        let path = self.path(&format!("{name}.excon"));
        tiny::versioned(true, 60, version).seal(&path).unwrap();
        path
    }

    /// A bundle of several megabytes that do not repeat.
    fn large_bundle(&self) -> PathBuf {
        let path = self.path("large.excon");
        let (size, count) = (tiny::SIZE, 15_000);
        let mut state = 1u64;
        let mut byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let rgb = (0..count * size * size * 3).map(&mut byte).collect();
        let mut writer = tiny::versioned(true, 60, 7);
        writer.calibration(&CalibrationSet { size, rgb, labels: vec![1; count], fit: count / 2 }).unwrap();
        writer.seal(&path).unwrap();
        path
    }
}

fn outcome(run: &Run) -> Value {
    run.json()["boards"][0]["outcome"].clone()
}

#[test]
fn a_board_is_flashed_asked_and_looked_at() {
    let Some(board) = Board::start() else { return };
    board.bundle("one", 1);
    board.bundle("two", 2);
    let flash =
        |more: &[&str]| board.excon("root", &[&["flash", "--to", "camera-1", "--format", "json"], more].concat());
    let would = outcome(&flash(&["one.excon", "--dry-run"]).expect(0));
    assert_eq!(would["ending"], "would_be_installed");
    assert!(!board.path("root").exists(), "a dry run leaves nothing");
    let first = outcome(&flash(&["one.excon"]).expect(0));
    assert_eq!((&first["ending"], &first["before"]), (&"committed".into(), &Value::Null));
    assert_eq!(outcome(&flash(&["one.excon"]).expect(0))["ending"], "active_already");
    let second = outcome(&flash(&["two.excon"]).expect(0));
    assert_eq!((&second["ending"], &second["before"][1]), (&"committed".into(), &1.into()));
    assert_eq!(fs::read_dir(board.path("root/incoming")).unwrap().count(), 0, "what was installed is not kept twice");
    // The board refuses an older one, and says so here.
    let older = flash(&["one.excon"]).expect(65);
    assert!(older.stderr.contains("is older than 2"), "{}", older.stderr);

    let status = board.excon("root", &["boards", "status", "--to", "camera-1", "--to", "camera-2"]).expect(0);
    assert_eq!(status.stdout.matches("tiny 2").count(), 2, "{}", status.stdout);
    let wrong = flash(&["two.excon", "--board", "jetson-orin-nano", "--older"]).expect(65);
    assert!(wrong.stderr.contains("not NVIDIA Jetson Orin Nano") || wrong.stderr.contains("where"), "{}", wrong.stderr);
    let doctor = board.excon("root", &["doctor", "--to", "camera-1", "--format", "json"]);
    assert!(doctor.code <= 1, "{}", doctor.stderr);
    assert!(doctor.json()["boards"][0]["findings"].as_array().unwrap().len() > 4);

    // A live trial that nobody feeds is told as what it is.
    board.bundle("three", 3);
    let live = flash(&["three.excon", "--live", "--wait", "0"]).expect(1);
    assert_eq!(outcome(&live)["ending"], "on_trial");
}

#[test]
fn a_transfer_that_is_cut_or_stalls_goes_on() {
    let Some(board) = Board::start() else { return };
    let size = fs::metadata(board.large_bundle()).unwrap().len();
    // The first time that a bundle is sent, only so many bytes go through; then the connection dies or says nothing.
    let through = |bytes: u64, end: &str| {
        board.wrapper(&format!(
            "case \"$*\" in *' receive '*) ;; *) exec ssh -F ssh_config \"$@\";; esac\n\
             [ -e once ] && {{ tee second | ssh -F ssh_config \"$@\"; exit ${{PIPESTATUS[1]}}; }}\n\
             touch once; rm -f pipe; mkfifo pipe; exec 5<&0\n\
             ssh -F ssh_config \"$@\" < pipe & ssh=$!\n\
             exec 4> pipe; stdbuf -o0 head -c {bytes} <&5 >&4; sleep 0.3; {end}"
        ));
    };
    let mut cases: Vec<(String, u64, &str)> = Vec::new();
    for percent in [1, 50, 99] {
        cases.push((format!("cut-{percent}"), size * percent / 100, "kill -9 $ssh; exit 255"));
    }
    cases.push(("stalled".into(), size / 2, "sleep 30 > /dev/null 2>&1"));
    for (name, bytes, end) in cases {
        through(bytes, end);
        let _ = fs::remove_file(board.path("once"));
        let arguments = ["flash", "large.excon", "--to", "camera-1", "--stall", "2", "--format", "json"];
        let outcome = outcome(&board.excon(&name, &arguments).expect(0));
        assert!(board.path("once").exists(), "{name}: nothing was cut");
        assert_eq!(outcome["ending"], "committed", "{name}");
        // A chunk that was under way is sent again, and the plan; nothing else that had come.
        let second = fs::metadata(board.path("second")).unwrap().len();
        assert!(second <= size - bytes + 2 * (64 << 10), "{name}: {second} of {size} bytes were sent after {bytes}");
        let slot = Bundle::open(board.path(&name).join("slots/a")).unwrap();
        assert_eq!(slot.digest, Bundle::open(board.path("large.excon")).unwrap().digest, "{name}");
    }
}

#[test]
fn a_connection_that_never_lasts_is_given_up_and_what_came_is_kept() {
    let Some(board) = Board::start() else { return };
    board.large_bundle();
    // Two connections bring something, and then none does.
    board.wrapper("case \"$*\" in *' receive '*) [ -e twice ] && exit 255; [ -e once ] && touch twice; touch once; stdbuf -o0 head -c 500000 | ssh -F ssh_config \"$@\"; exit 255;; esac; exec ssh -F ssh_config \"$@\"");
    let broken = board.excon("root", &["flash", "large.excon", "--to", "camera-1"]).expect(75);
    assert!(broken.stderr.contains("What has arrived is kept"), "{}", broken.stderr);
    let status = excon_edge(board.folder.path(), &["status", "--root", "root", "--format", "json"]).expect(0);
    assert!(status.json()["installed"]["active"].is_null());
    board.wrapper("exec ssh -F ssh_config \"$@\"");
    let size = fs::metadata(board.path("large.excon")).unwrap().len();
    let rest =
        outcome(&board.excon("root", &["flash", "large.excon", "--to", "camera-1", "--format", "json"]).expect(0));
    assert!(rest["sent"].as_u64().unwrap() < size - 500_000, "{rest}");
}

#[test]
fn unusual_frames_come_home_once_and_in_folders() {
    let Some(board) = Board::start() else { return };
    board.bundle("one", 1);
    board.excon("root", &["flash", "one.excon", "--to", "camera-1"]).expect(0);
    let frames = board.path("frames");
    fs::create_dir(&frames).unwrap();
    for seed in 0..20 {
        let brightness = if seed % 4 == 0 { 0.9 } else { 0.5 };
        fs::write(frames.join(format!("{seed:02}.png")), tiny::png(&tiny::picture(seed, brightness))).unwrap();
    }
    let root = board.path("root");
    let watch = ["watch", "active", "frames", "--root", "root", "--keep-unusual", "--keep", "3", "--independent"];
    let watched = excon_edge(board.folder.path(), &watch);
    assert!(watched.code <= 1, "{}", watched.stderr);
    let listed = excon_edge(board.folder.path(), &["unusual", "--root", "root", "--format", "json"]).expect(0);
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);

    let collect = ["boards", "collect", "--to", "camera-1", "--out", "home", "--format", "json"];
    let come = |run: Run| run.json()["boards"][0]["collected"].clone();
    let first = come(board.excon("root", &collect).expect(0));
    assert_eq!((&first["new"], &first["known"]), (&3.into(), &0.into()));
    let second = come(board.excon("root", &collect).expect(0));
    assert_eq!((&second["new"], &second["known"]), (&0.into(), &3.into()));
    let notes = fs::read_to_string(board.path("home/collected.jsonl")).unwrap();
    assert_eq!(notes.lines().count(), 3);
    for note in notes.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let file = board.path("home").join(note["file"].as_str().unwrap());
        assert_eq!(file.parent().unwrap().file_name().unwrap().to_str(), note["predicted"].as_str());
        let number = note["number"].as_u64().unwrap();
        let kept = fs::read(root.join(format!("unusual/{number:06}.png"))).unwrap();
        assert_eq!(fs::read(file).unwrap(), kept);
    }
    let none = come(board.excon("empty", &collect).expect(0));
    assert_eq!((&none["new"], &none["known"]), (&0.into(), &0.into()));
}

#[test]
fn a_fleet_stops_at_the_first_board_that_is_not_well() {
    let Some(board) = Board::start() else { return };
    board.bundle("one", 1);
    // camera-2 answers to another key than the one that is known.
    board.wrapper("case \"$*\" in *camera-2*) exec ssh -F ssh_config -o UserKnownHostsFile=/dev/null \"$@\";; *) exec ssh -F ssh_config \"$@\";; esac");
    let to = ["--to", "camera-1", "--to", "camera-2", "--to", "camera-3"];
    let run = board.excon("root", &[&["flash", "one.excon", "--format", "json"], &to[..]].concat()).expect(69);
    let boards = &run.json()["boards"];
    assert_eq!(boards[0]["outcome"]["ending"], "committed");
    assert!(boards[1]["error"].as_str().unwrap().contains("cannot reach camera-2"), "{boards}");
    assert_eq!(boards[2]["outcome"], "spared");
    let status = board.excon("root", &["boards", "status", "--to", "camera-1", "--to", "camera-2"]).expect(69);
    assert!(status.stdout.contains("tiny 1") && status.stderr.contains("1 of 2 boards"), "{}", status.stderr);

    let none = board.excon("root", &["flash", "one.excon", "--to", "camera-1", "--edge", "/no/such/edge"]).expect(69);
    assert!(none.stderr.contains("there is no `/no/such/edge`"), "{}", none.stderr);
    board.excon("root", &["flash", "one.excon", "--to=-oProxyCommand=true"]).expect(69);
    board.excon("root", &["flash", "missing.excon", "--to", "camera-1"]).expect(65);
    fs::write(board.path("file"), b"").unwrap();
    let unwritable = board.excon("file/below", &["flash", "one.excon", "--to", "camera-1"]);
    assert!(unwritable.code == 73 || unwritable.code == 65, "{}", unwritable.stderr);
}

#[test]
fn a_fleets_status_tells_the_estimated_accuracy() {
    let Some(board) = Board::start() else { return };
    let folder = board.folder.path();
    tiny::versioned(true, 150, 1).seal(board.path("one.excon")).unwrap();
    board.excon("root", &["flash", "one.excon", "--to", "camera-1"]).expect(0);
    let asked = ["boards", "status", "--to", "camera-1"];
    // The board's row without its last column, and what JSON says of the same.
    let told = |last: &str| -> (String, Value) {
        let table = board.excon("root", &asked).expect(0).stdout;
        let row =
            table.lines().find(|line| line.trim_start().starts_with("camera-1")).unwrap_or_else(|| panic!("{table}"));
        assert!(table.lines().next().unwrap().contains("accuracy"), "{table}");
        let rest = row.trim_end().strip_suffix(last).unwrap_or_else(|| panic!("{last}: {table}"));
        let json = board.excon("root", &[&asked[..], &["--format", "json"]].concat()).expect(0).json();
        (rest.trim_end().to_string(), json["boards"][0]["status"]["monitor"]["accuracy"].clone())
    };
    let watch = |seeds: std::ops::Range<u64>| {
        fs::create_dir_all(board.path("frames")).unwrap();
        for seed in seeds {
            // Neighbouring seeds make neighbouring tints; these are far apart.
            let picture = tiny::png(&tiny::picture(500_000 + 7_919 * seed, 0.5));
            fs::write(board.path(&format!("frames/{seed:03}.png")), picture).unwrap();
        }
        let state = ["--root", "root", "--state", "root/state", "--independent"];
        excon_edge(folder, &[&["watch", "active", "frames"], &state[..]].concat()).expect(0);
    };

    let (row, accuracy) = told("committed, not watched");
    assert!(row.ends_with("1.250") && accuracy.is_null(), "temperature is the last that it has to say: {row}");
    watch(0..20);
    let (row, accuracy) = told("healthy");
    assert!(row.ends_with("20   abstains") && accuracy["status"] == "abstain", "{row} and {accuracy}");
    watch(20..120);
    let (row, accuracy) = told("healthy");
    let percent = |bound: &str| format!("{:.0}", 100.0 * accuracy[bound].as_f64().unwrap());
    let expected = format!("{} % ({} to {})", percent("value"), percent("low"), percent("high"));
    assert!(row.ends_with(&expected) && accuracy["status"] == "estimate", "{row} and {accuracy}");
    assert!(accuracy["low"].as_f64() < accuracy["value"].as_f64(), "{accuracy}");
    assert!(accuracy["value"].as_f64() < accuracy["high"].as_f64(), "{accuracy}");
}

#[test]
fn bundles_are_signed_and_boards_hold_to_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny::versioned(true, 60, 1).seal(folder.join("one.excon")).unwrap();
    excon(folder, &["keys", "new", "line", "--no-password"]).expect(0);
    assert_eq!(fs::metadata(folder.join("line.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(excon(folder, &["keys", "new", "line", "--no-password"]).expect(65).stderr.contains("there already"));
    excon(folder, &["keys", "new", "other", "--no-password"]).expect(0);
    fs::create_dir_all(folder.join("root/keys")).unwrap();
    fs::copy(folder.join("line.pub"), folder.join("root/keys/line.pub")).unwrap();

    let install = ["install", "one.excon", "--root", "root", "--format", "json"];
    assert!(excon_edge(folder, &install).expect(65).stderr.contains("excon sign"));
    excon(folder, &["sign", "one.excon", "--key", "other.key"]).expect(0);
    assert!(excon_edge(folder, &install).expect(65).stderr.contains("none of the pinned keys (line)"));
    let signed = excon(folder, &["sign", "one.excon", "--key", "line.key", "--expires-in", "30", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(signed["expires"].as_u64().unwrap() - signed["signed_at"].as_u64().unwrap(), 30 * 86_400);
    assert_eq!(excon_edge(folder, &install).expect(0).json()["signed_by"], "line");
    excon(folder, &["inspect", "one.excon"]).expect(0);
    assert!(excon(folder, &["sign", "one.excon", "--key", "line.pub"]).expect(65).stderr.contains("no secret key"));
    assert!(excon(folder, &["sign", "one.excon", "--key", "none.key"]).expect(65).stderr.contains("excon keys new"));

    // With a password: the wrong one is refused, the right one signs.
    let with = |password: &str, arguments: &[&str]| {
        excon_command(folder, arguments).env("EXCON_KEY_PASSWORD", password).output().unwrap().status.code().unwrap()
    };
    assert_eq!(with("secret", &["keys", "new", "safe"]), 0);
    assert_eq!(with("guess", &["sign", "one.excon", "--key", "safe.key"]), 65);
    assert_eq!(with("secret", &["sign", "one.excon", "--key", "safe.key"]), 0);

    // The public tool agrees, in both directions.
    excon(folder, &["sign", "one.excon", "--key", "line.key"]).expect(0);
    assert!(Command::new("tar").args(["xf", "one.excon"]).current_dir(folder).status().unwrap().success());
    let minisign = |arguments: &[&str]| Command::new("minisign").args(arguments).current_dir(folder).output();
    let Ok(output) = minisign(&["-Vm", "manifest.json", "-p", "line.pub"]) else {
        return eprintln!("skipped: no minisign on this machine (apt-get install minisign)");
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("model:tiny version:1"), "{said}");
    assert!(!minisign(&["-Vm", "manifest.json", "-p", "other.pub"]).unwrap().status.success());
    let script = "printf 'secret\\nsecret\\n' | minisign -G -p public.pub -s public.key";
    assert!(Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap().status.success());
    assert_eq!(with("secret", &["sign", "one.excon", "--key", "public.key"]), 0);
    // The key is rotated: both are pinned, then the old one goes, and what was signed by it has been replaced.
    fs::copy(folder.join("public.pub"), folder.join("root/keys/public.pub")).unwrap();
    tiny::versioned(true, 60, 2).seal(folder.join("one.excon")).unwrap();
    assert_eq!(with("secret", &["sign", "one.excon", "--key", "public.key"]), 0);
    excon_edge(folder, &install).expect(0);
    fs::remove_file(folder.join("root/keys/line.pub")).unwrap();
    excon_edge(folder, &["status", "--root", "root"]).expect(0);
}

#[test]
fn the_units_are_ones_that_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/systemd");
    let edge = Path::new(env!("CARGO_BIN_EXE_excon")).with_file_name("excon-edge");
    let mut count = 0;
    for entry in fs::read_dir(units).unwrap() {
        let path = entry.unwrap().path();
        // The program has to exist where a unit says it is.
        let text = fs::read_to_string(&path).unwrap().replace("/usr/local/bin/excon-edge", edge.to_str().unwrap());
        fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        count += 1;
    }
    assert!(count >= 3);
    let names: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").args(&names).output() else {
        return eprintln!("skipped: no systemd-analyze on this machine");
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours = said.lines().filter(|line| line.contains("excon")).collect::<Vec<_>>();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
}
