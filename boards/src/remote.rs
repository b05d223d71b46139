//! A board at the other end of the system's own `ssh`: its configuration, agent and known hosts decide who is reached
//! and how; nothing of that is ours. A board is asked by running `excon-edge` there.

use crate::{Error, Result};
use excon_edge::slot;
use excon_edge::transfer::{self, Answer, Plan};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long an ended ssh's last words are waited for.
const WORDS: Duration = Duration::from_secs(2);

/// How a board is reached.
#[derive(Debug, Clone)]
pub struct Board {
    /// What `ssh` is given: `user@host`, or a name of its configuration.
    pub address: String,
    /// The program, `ssh` unless `EXCON_SSH` names another.
    pub ssh: OsString,
    /// `excon-edge` as the board's shell finds it.
    pub edge: String,
    /// Folder of the slots there.
    pub root: String,
    /// Never ask for a password: for boards that are reached beside each other.
    pub batch: bool,
    /// A connection that says nothing for so long is given up.
    pub stall: Duration,
}

/// What a command there left.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: u8,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// How one transfer ended that did not succeed.
enum Cut {
    /// It may go on from where it is; so many chunks came.
    Again(String, u32),
    /// It makes no sense to try again.
    Final(Error),
}

impl Board {
    /// A board at an address, with everything else as usual.
    ///
    /// # Errors
    /// [`Error::Unreachable`] for an address that `ssh` would take for an option.
    pub fn at(address: &str) -> Result<Self> {
        if address.is_empty() || address.starts_with('-') || address.contains(char::is_whitespace) {
            let reason = "it is no address. Give user@host, or a name of your ssh configuration".into();
            return Err(Error::Unreachable { board: address.into(), reason });
        }
        Ok(Self {
            address: address.into(),
            ssh: std::env::var_os("EXCON_SSH").unwrap_or_else(|| "ssh".into()),
            edge: "excon-edge".into(),
            root: slot::ROOT.into(),
            batch: false,
            stall: Duration::from_secs(30),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ssh);
        command.args(["-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]);
        if self.batch {
            command.args(["-o", "BatchMode=yes"]);
        }
        // What is behind the address goes through the board's shell.
        let words = [&self.edge, "--root", &self.root].into_iter().skip(1);
        let words = std::iter::once(self.edge.as_str()).chain(arguments.iter().copied()).chain(words);
        let line: Vec<String> = words.map(quoted).collect();
        command.arg("--").arg(&self.address).arg(line.join(" "));
        command
    }

    /// Runs `excon-edge` there with `--root` and these arguments.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when ssh fails, [`Error::Board`] when there is no `excon-edge`.
    pub fn run(&self, arguments: &[&str]) -> Result<Said> {
        let output =
            self.command(arguments).stdin(Stdio::null()).output().map_err(|e| self.unreachable(&no_ssh(&e)))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        match output.status.code() {
            Some(255) | None => Err(self.unreachable(last_line(&stderr))),
            Some(127) => Err(self.no_edge()),
            Some(code) => Ok(Said { code: u8::try_from(code).unwrap_or(70), stdout, stderr }),
        }
    }

    /// Runs `excon-edge … --format json` there and reads the last line. Exit code 1, a check that said no, has one too.
    ///
    /// # Errors
    /// As [`Board::run`]; [`Error::Board`] when the command failed there.
    pub fn ask(&self, arguments: &[&str]) -> Result<(u8, serde_json::Value)> {
        let said = self.run(&[arguments, &["--format", "json"]].concat())?;
        let line = said.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        match line {
            Some(value) if said.code <= 1 => Ok((said.code, value)),
            _ => {
                let reason = last_line(&said.stderr).trim_start_matches("error: ");
                let reason = if reason.is_empty() { "excon-edge gave no answer; is it an older one?" } else { reason };
                let code = if said.code == 0 { 70 } else { said.code };
                Err(Error::Board { board: self.address.clone(), reason: reason.into(), code })
            }
        }
    }

    /// The chunks of `bytes` that the board lacks.
    ///
    /// # Errors
    /// As [`Board::send`].
    pub fn missing(&self, bytes: &Arc<Vec<u8>>) -> Result<usize> {
        let mut missing = 0;
        let mut count = |answer: &Answer| {
            if let Answer::Missing(chunks) = answer {
                missing = chunks.len();
            }
        };
        match self.attempt(bytes, &["receive", "--ask-only"], &mut count) {
            Ok(_) => Ok(missing),
            Err(Cut::Final(error)) => Err(error),
            Err(Cut::Again(reason, _)) => Err(self.unreachable(&reason)),
        }
    }

    /// Sends what the board lacks and returns where it lies there. A connection that breaks or stalls is made again,
    /// and goes on where it was, until one brings nothing three times in a row.
    ///
    /// # Errors
    /// [`Error::Broken`] when that did not help; [`Error::Board`] when the board refuses.
    pub fn send(&self, bytes: &Arc<Vec<u8>>, progress: &mut dyn FnMut(&Answer)) -> Result<String> {
        let mut fruitless = 0;
        loop {
            match self.attempt(bytes, &["receive"], progress) {
                Ok(Some(path)) => return Ok(path),
                Ok(None) => fruitless += 1,
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::Again(reason, came)) => {
                    fruitless = if came > 0 { 1 } else { fruitless + 1 };
                    if fruitless >= 3 {
                        return Err(Error::Broken { board: self.address.clone(), reason });
                    }
                }
            }
            thread::sleep(Duration::from_millis(300 << fruitless));
        }
    }

    fn attempt(
        &self,
        bytes: &Arc<Vec<u8>>,
        arguments: &[&str],
        progress: &mut dyn FnMut(&Answer),
    ) -> std::result::Result<Option<String>, Cut> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| Cut::Final(self.unreachable(&no_ssh(&e))))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) = pipes else {
            return Err(Cut::Again("ssh has no pipes".into(), 0));
        };
        let mut plan = serde_json::to_vec(&Plan::of(bytes)).unwrap_or_default();
        plan.push(b'\n');
        let (say, answers) = mpsc::channel();
        let (want, wanted) = mpsc::channel::<Vec<u32>>();
        let (tell, told) = mpsc::channel();
        // The threads are not waited for: what ssh has started may hold its pipes open longer than ssh lives.
        let bytes = Arc::clone(bytes);
        thread::spawn(move || {
            // A broken pipe shows on the reading side, with the reason.
            let mut write = || -> io::Result<()> {
                stdin.write_all(&plan)?;
                let wanted = wanted.recv().unwrap_or_default();
                wanted.into_iter().try_for_each(|chunk| transfer::send_chunk(&mut stdin, &bytes, chunk))
            };
            let _ = write();
        });
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                if let Ok(answer) = serde_json::from_str::<Answer>(&line)
                    && say.send(answer).is_err()
                {
                    break;
                }
            }
        });
        thread::spawn(move || {
            let mut words = String::new();
            let _ = stderr.read_to_string(&mut words);
            let _ = tell.send(words);
        });
        let (mut came, mut place, mut want) = (0, None, Some(want));
        let stalled = loop {
            match answers.recv_timeout(self.stall) {
                Ok(answer) => {
                    progress(&answer);
                    match answer {
                        Answer::Missing(chunks) => drop(want.take().map(|want| want.send(chunks))),
                        Answer::Have(_) => came += 1,
                        Answer::Complete(path) => place = Some(path.to_string_lossy().into_owned()),
                    }
                }
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        drop(want);
        let code = end(&mut child, stalled);
        let words = told.recv_timeout(WORDS).unwrap_or_default();
        match (place, code) {
            (Some(place), _) => Ok(Some(place)),
            (None, Some(0)) => Ok(None),
            _ if stalled => Err(Cut::Again(format!("nothing came for {} s", self.stall.as_secs_f64()), came)),
            (None, Some(127)) => Err(Cut::Final(self.no_edge())),
            (None, Some(code @ (64 | 70 | 73))) => {
                let reason = last_line(&words).trim_start_matches("error: ").to_string();
                Err(Cut::Final(Error::Board { board: self.address.clone(), reason, code: code as u8 }))
            }
            _ => Err(Cut::Again(last_line(&words).to_string(), came)),
        }
    }

    fn unreachable(&self, reason: &str) -> Error {
        let reason = if reason.is_empty() { "the connection broke" } else { reason };
        Error::Unreachable { board: self.address.clone(), reason: reason.into() }
    }

    fn no_edge(&self) -> Error {
        let reason = format!(
            "there is no `{}`. Copy it there (scp excon-edge {}:), or say where it is with --edge PATH",
            self.edge, self.address
        );
        Error::Board { board: self.address.clone(), reason, code: 69 }
    }
}

/// Ends ssh; one that stalled is killed, with what it holds open.
fn end(child: &mut Child, stalled: bool) -> Option<i32> {
    if stalled {
        let _ = child.kill();
    }
    child.wait().ok()?.code()
}

fn no_ssh(error: &io::Error) -> String {
    format!("ssh does not start: {error}")
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("")
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    // A tilde is left to the shell, which knows the home.
    if !word.is_empty() && word.chars().all(|c| plain(c) || c == '~') {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_shell_there_gets_each_word_as_it_is() {
        let words = ["", "plain", "two words", "it's", "$(reboot)", "a;b", "~/bin/excon-edge"];
        let line = words.map(quoted).join(" ");
        let script = format!("printf '%s\\n' {line}");
        let output = Command::new("sh").args(["-c", &script]).env("HOME", "/home/u").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let wanted = "\nplain\ntwo words\nit's\n$(reboot)\na;b\n/home/u/bin/excon-edge\n";
        assert_eq!(said, wanted);
    }

    #[test]
    fn an_option_is_no_address() {
        for address in ["-oProxyCommand=reboot", "", "a b"] {
            assert_eq!(Board::at(address).unwrap_err().exit_code(), 69);
        }
    }
}
