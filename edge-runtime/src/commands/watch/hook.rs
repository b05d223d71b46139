//! `--on-alarm`: a command that is run once an alarm rings, with the alarm as JSON on its standard input.
//!
//! The command line goes to `sh -c` as the user wrote it; nothing of the alarm is put into it. It runs beside the watch,
//! one at a time, for at most [`LIMIT`]; then it and what it has started are killed. That it fails is a warning.

use excon_edge::source::Stop;
use serde::Serialize;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time a command may run.
pub const LIMIT: Duration = Duration::from_secs(30);
/// What is left to it once the watch is to end.
const GRACE: Duration = Duration::from_secs(5);
/// Alarms that may wait for their turn.
const WAITING: usize = 8;

/// See the module's first paragraph.
pub struct Hook {
    alarms: SyncSender<Vec<u8>>,
    failures: Receiver<String>,
    thread: JoinHandle<()>,
}

impl Hook {
    /// Ready to run the command; `quiet` keeps what it prints from the terminal.
    pub fn new(command: &str, quiet: bool, stop: Stop) -> std::io::Result<Self> {
        let (alarms, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let (fails, failures) = channel();
        let command = command.to_string();
        let work = move || {
            while let Ok(json) = waiting.recv() {
                let failed = match run(&command, quiet, &json, &stop) {
                    Ok(Some(status)) if status.success() => continue,
                    Ok(Some(status)) => format!("--on-alarm ended with {status}"),
                    Ok(None) => format!("--on-alarm did not end within {} s and was killed", LIMIT.as_secs()),
                    Err(error) => format!("--on-alarm could not be run: {error}"),
                };
                // Whoever would hear of it has left.
                let _ = fails.send(failed);
            }
        };
        let thread = std::thread::Builder::new().name("on-alarm".into()).spawn(work)?;
        Ok(Self { alarms, failures, thread })
    }

    /// Has the command run with this on its standard input; false when too many wait for it already.
    pub fn ring(&self, alarm: &impl Serialize) -> bool {
        serde_json::to_vec(alarm).is_ok_and(|json| self.alarms.try_send(json).is_ok())
    }

    /// A failure that was not told yet.
    pub fn failure(&self) -> Option<String> {
        self.failures.try_recv().ok()
    }

    /// Waits for the command that runs, and for those that wait; gives the failures that were not told yet.
    pub fn end(self) -> Vec<String> {
        drop(self.alarms);
        let _ = self.thread.join();
        self.failures.try_iter().collect()
    }
}

/// How it ended; none when it had to be killed.
fn run(command: &str, quiet: bool, json: &[u8], stop: &Stop) -> std::io::Result<Option<ExitStatus>> {
    let (stdout, stderr) = match quiet {
        true => (Stdio::null(), Stdio::null()),
        // Standard output is the watch's data.
        false => (Stdio::from(std::io::stderr()), Stdio::inherit()),
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    let mut child = shell.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Far less than a pipe holds, and whether it is read is the command's business.
        let _ = stdin.write_all(json).and_then(|()| stdin.write_all(b"\n"));
    }
    let (begun, mut told) = (Instant::now(), None);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if stop.is_set() && told.is_none() {
            told = Some(Instant::now());
        }
        if begun.elapsed() > LIMIT || told.is_some_and(|t| t.elapsed() > GRACE) {
            kill(&mut child)?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the command with all that it has started.
fn kill(child: &mut Child) -> std::io::Result<()> {
    let group = child.id().to_string();
    let _ = Command::new("sh").args(["-c", "kill -9 \"-$0\"", &group]).stderr(Stdio::null()).status();
    child.kill()?;
    child.wait().map(|_| ())
}
