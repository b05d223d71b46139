//! A board of another architecture, in qemu: flashed over ssh, asked, watched, its power cut in the middle of installs.
//! `EXCON_EMULATED_BOARD` names the folder that boards/emulated/make.sh filled; without it the story is skipped.

use crate::{Run, excon_command, excon_edge, tiny};
use serde_json::Value;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What an emulated board may take to boot on a busy machine.
const BOOT: Duration = Duration::from_secs(240);

struct Machine {
    folder: tempfile::TempDir,
    assembled: PathBuf,
    port: u16,
    running: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Machine {
    fn start() -> Option<Self> {
        let Some(assembled) = std::env::var_os("EXCON_EMULATED_BOARD").map(PathBuf::from) else {
            eprintln!("skipped: EXCON_EMULATED_BOARD names no folder made by boards/emulated/make.sh");
            return None;
        };
        if Command::new("qemu-system-aarch64").arg("--version").output().is_err() {
            eprintln!("skipped: no qemu-system-aarch64 on this machine (apt-get install qemu-system-arm)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let here = folder.path();
        let key = here.join("id");
        fs::copy(assembled.join("id"), &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "Host board\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {here}/id\n IdentitiesOnly yes\n \
             UserKnownHostsFile {here}/known_hosts\n StrictHostKeyChecking accept-new\n ConnectTimeout 10\n LogLevel ERROR\n",
            here = here.display()
        );
        fs::write(here.join("ssh_config"), config).unwrap();
        fs::write(here.join("ssh"), format!("#!/bin/sh\nexec ssh -F {}/ssh_config \"$@\"\n", here.display())).unwrap();
        fs::set_permissions(here.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let running = power(&assembled, here, port);
        let mut machine = Self { folder, assembled, port, running };
        machine.wait();
        Some(machine)
    }

    /// Waits for the first login.
    fn wait(&mut self) {
        let begun = Instant::now();
        while !self.ssh("true").output().unwrap().status.success() {
            let ended = self.running.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.path().join("console")).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < BOOT, "the board does not come up: {}", log());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Takes the power away: what the board has not waited for is lost.
    fn cut(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }

    fn boot(&mut self) {
        self.running = power(&self.assembled, self.folder.path(), self.port);
        self.wait();
    }

    fn ssh(&self, line: &str) -> Command {
        let mut command = Command::new(self.folder.path().join("ssh"));
        command.args(["board", line]).stdin(Stdio::null());
        command
    }

    /// A line for the board's shell, and what it left.
    fn run(&self, line: &str) -> Run {
        finished(self.ssh(line))
    }

    fn excon(&self, arguments: &[&str]) -> Command {
        let mut command = excon_command(self.folder.path(), arguments);
        command.env("EXCON_SSH", self.folder.path().join("ssh"));
        command
    }

    fn flash(&self, bundle: &str) -> Value {
        let run = finished(self.excon(&["flash", bundle, "--to", "board", "--format", "json"])).expect(0);
        run.json()["boards"][0]["outcome"].clone()
    }

    /// The version of the bundle that is active there.
    fn active(&self) -> u64 {
        let status = self.run("excon-edge status active --format json").expect(0).json();
        status["manifest"]["version"].as_u64().unwrap_or_else(|| panic!("nothing is active: {status}"))
    }
}

fn power(assembled: &Path, folder: &Path, port: u16) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/emulated/start.sh");
    let console = File::create(folder.join("console")).unwrap();
    let mut command = Command::new(script);
    command.arg(assembled).arg(folder.join("disk")).arg(port.to_string());
    command.stdin(Stdio::null()).stderr(console.try_clone().unwrap()).stdout(console).spawn().unwrap()
}

fn finished(mut command: Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn an_arm_board_is_flashed_asked_watched_and_survives_power_cuts() {
    let Some(mut board) = Machine::start() else { return };
    let here = board.folder.path().to_path_buf();
    for version in 1..=6 {
        tiny::versioned(true, 60, version).seal(here.join(format!("{version}.excon"))).unwrap();
    }
    fs::create_dir(here.join("frames")).unwrap();
    for seed in 0..8 {
        fs::write(here.join(format!("frames/{seed}.png")), tiny::png(&tiny::picture(seed, 0.5))).unwrap();
    }
    assert_eq!(board.flash("1.excon")["ending"], "committed");
    assert_eq!(board.active(), 1);

    // Another architecture, the same answers: int8 gives the same codes, the head runs in f32.
    let packed = Command::new("tar").args(["cf", "-", "frames"]).current_dir(&here).output().unwrap().stdout;
    fs::write(here.join("frames.tar"), packed).unwrap();
    let mut unpack = board.ssh("cd /tmp && tar xf -");
    assert!(unpack.stdin(File::open(here.join("frames.tar")).unwrap()).status().unwrap().success());
    let there = board.run("cd /tmp && excon-edge predict active frames/0.png frames/1.png --format json").expect(0);
    let same = excon_edge(&here, &["predict", "1.excon", "frames/0.png", "frames/1.png", "--format", "json"]).expect(0);
    let answers = |run: &Run| -> Vec<Value> { run.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect() };
    for (one, other) in answers(&there).iter().zip(&answers(&same)) {
        assert_eq!((&one["class"], &one["label"]), (&other["class"], &other["label"]));
        let confidence = |answer: &Value| answer["confidence"].as_f64().unwrap();
        assert!((confidence(one) - confidence(other)).abs() < 1e-4, "{one} and {other}");
    }
    assert_eq!(answers(&there).len(), 2);

    let watched = board.run("cd /tmp && excon-edge watch active frames --state /var/lib/excon/state --format json");
    assert!(watched.code == 0 && watched.stdout.lines().count() >= 8, "{}{}", watched.stdout, watched.stderr);
    let served = board
        .run(
            "cd /tmp && { excon-edge serve active --addr 127.0.0.1:8000 2>serve.log & } && \
             for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; wget -q -O- http://127.0.0.1:8000/v2/health/ready && break; done; \
             wget -q -O- http://127.0.0.1:8000/v2; kill $!",
        )
        .expect(0);
    assert!(served.stdout.contains("\"excon-edge\""), "{}", served.stdout);

    // The power goes at three moments of an install; what comes back is the old bundle or the new one, and works.
    let mut active = 1;
    for (version, moment) in [(2, 2_500), (3, 5_000), (4, 8_000)] {
        let bundle = format!("{version}.excon");
        let mut flashing = board.excon(&["flash", &bundle, "--to", "board"]);
        let mut flashing = flashing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        board.cut();
        let _ = flashing.kill();
        let _ = flashing.wait();
        board.boot();
        let back = board.active();
        assert!(back == active || back == version, "{active} ran, {version} was being installed, {back} came back");
        board.run("cd /tmp && excon-edge status").expect(0);
        let ending = board.flash(&bundle)["ending"].clone();
        assert!(ending == "committed" || ending == "active_already", "{ending}");
        active = version;
        assert_eq!(board.active(), active);
    }
    board.run("excon-edge rollback").expect(0);
    assert_eq!(board.active(), 3);
}
