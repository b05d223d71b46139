//! ONNX Runtime and OpenVINO as judges: a Python process runs an ONNX file, pictures go in and outputs come back over pipes.
//!
//! The script is part of this program; the interpreter is the one that `EXCON_PYTHON` names, else `python3`. What is not
//! installed is [`excon_edge::Error::Unavailable`] and says what to install. The process computes on one thread, holds one
//! file, and is ended with the [`Peer`]; should this program be killed, its input ends and it with it.

use crate::export;
use crate::import::{Imported, Scores};
use excon_edge::engine::{Engine, Outputs, Shapes};
use excon_edge::{Error, Result};
use serde_json::json;
use std::borrow::Cow;
use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Environment variable that names the Python interpreter.
pub const PYTHON: &str = "EXCON_PYTHON";
const SCRIPT: &str = include_str!("peer.py");
/// Kept of what the process complains of, bytes.
const COMPLAINT: usize = 4096;
/// How long a process that stopped answering may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer, bytes: more than any network here has outputs.
const LONGEST: u64 = 1 << 34;

/// Another runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// ONNX Runtime, its CPU provider.
    OnnxRuntime,
    /// OpenVINO, its CPU plugin, floats in 32 bits.
    OpenVino,
}

impl Runtime {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OnnxRuntime, Self::OpenVino];

    /// Its package, which is also what it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "openvino",
        }
    }
}

/// One ONNX file in another runtime.
pub struct Peer {
    runtime: Runtime,
    name: String,
    input: [usize; 3],
    outputs: usize,
    process: Mutex<Process>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("name", &self.name).field("input", &self.input).finish_non_exhaustive()
    }
}

impl Peer {
    /// Starts a process with the bytes of an ONNX file whose one input takes pictures of the shape `input` (channels, height,
    /// width; the file may want channels last). `outputs` are what [`Peer::run`] gives.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without interpreter or package, [`Error::Engine`] where the runtime refuses the file.
    pub fn start(runtime: Runtime, file: &[u8], input: [usize; 3], outputs: &[&str]) -> Result<Self> {
        let mut process = Process::start(runtime)?;
        let asked = json!({ "engine": runtime.name(), "input": input, "outputs": outputs }).to_string();
        let lengths = ((asked.len() as u32).to_le_bytes(), (file.len() as u64).to_le_bytes());
        let said = process.ask(&[&lengths.0, asked.as_bytes(), &lengths.1, file], 1)?.swap_remove(0);
        let name = String::from_utf8_lossy(&said).into_owned();
        Ok(Self { runtime, name, input, outputs: outputs.len(), process: Mutex::new(process) })
    }

    /// All outputs of some pictures (planar, `n × C × H × W`), each with the values of the pictures one after the other.
    ///
    /// # Errors
    /// When the length is no multiple of one input, the runtime fails, or the process has ended.
    pub fn run(&self, images: &[f32]) -> Result<Vec<Vec<f32>>> {
        let one = self.input.iter().product::<usize>().max(1);
        if !images.len().is_multiple_of(one) {
            return Err(self.fail(format!("{} values are no multiple of one input's {one}", images.len())));
        }
        let count = (images.len() / one) as u32;
        let bytes: Vec<u8> = images.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = process.ask(&[&count.to_le_bytes(), &bytes], self.outputs)?;
        let floats = |bytes: Vec<u8>| bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(answers.into_iter().map(floats).collect())
    }

    fn fail(&self, reason: String) -> Error {
        Error::Engine { engine: self.runtime.name().into(), reason }
    }
}

/// An ONNX file in another runtime, as an engine.
#[derive(Debug)]
pub struct PeerEngine {
    peer: Peer,
    shapes: Shapes,
    /// `x · scale + shift` that the file begins with and the pictures already have.
    input: Option<([f64; 3], [f64; 3])>,
    scores: Scores,
}

impl PeerEngine {
    /// Starts one with a file of ours: outputs `logits` and `features`.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn start(runtime: Runtime, file: &[u8], shapes: Shapes) -> Result<Self> {
        let peer = Peer::start(runtime, file, shapes.input, &[export::LOGITS, export::FEATURES])?;
        Ok(Self { peer, shapes, input: None, scores: Scores::Logits })
    }

    /// Starts one with another program's file, which was imported: as it is, but fed as the imported network is. Where it
    /// ends in a softmax, its logits are logarithms of that; it gives no map.
    ///
    /// # Errors
    /// As [`Peer::start`].
    pub fn foreign(runtime: Runtime, file: &[u8], imported: &Imported) -> Result<Self> {
        let network = &imported.network;
        let shapes = Shapes { input: network.input_shape(), classes: network.classes(), features: [0; 3] };
        let peer = Peer::start(runtime, file, shapes.input, &[&imported.output])?;
        Ok(Self { peer, shapes, input: imported.input, scores: imported.scores })
    }

    /// The pictures as the file itself wants them.
    fn fed<'a>(&self, images: &'a [f32]) -> Cow<'a, [f32]> {
        let Some((scale, shift)) = self.input else { return images.into() };
        let plane = (self.shapes.input[1] * self.shapes.input[2]).max(1);
        let before = |(at, value): (usize, &f32)| {
            let channel = at / plane % 3;
            ((f64::from(*value) - shift[channel]) / scale[channel]) as f32
        };
        images.iter().enumerate().map(before).collect()
    }
}

impl Engine for PeerEngine {
    fn name(&self) -> &str {
        &self.peer.name
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> Result<Outputs> {
        let mut outputs = self.peer.run(&self.fed(images))?.into_iter();
        let mut next = || outputs.next().unwrap_or_default();
        let (mut logits, features) = (next(), next());
        let count = images.len() / self.shapes.input.iter().product::<usize>().max(1);
        let map = self.shapes.features.iter().product::<usize>();
        if logits.len() != count * self.shapes.classes || features.len() != count * map {
            return Err(self.peer.fail("its outputs have other shapes than the file declares".into()));
        }
        if self.scores == Scores::Probabilities {
            // What is smaller has no logarithm.
            logits.iter_mut().for_each(|p| *p = p.max(f32::MIN_POSITIVE).ln());
        }
        Ok(Outputs { logits, features })
    }
}

/// The Python process.
struct Process {
    runtime: Runtime,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    complaint: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

impl Process {
    fn start(runtime: Runtime) -> Result<Self> {
        let python = std::env::var_os(PYTHON).filter(|p| !p.is_empty()).unwrap_or_else(|| "python3".into());
        let missing = |what: String| Error::Unavailable {
            engine: runtime.name().into(),
            reason: format!(
                "{what}. Install Python 3 and `pip install {} numpy`, or name another interpreter in {PYTHON}",
                runtime.name()
            ),
        };
        let mut child = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| missing(format!("{} cannot be started: {e}", python.display())))?;
        let (Some(requests), Some(answers), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(missing(format!("{} has no pipes", python.display())));
        };
        // Read all the time, so that the process never waits for it; the end of it is what matters.
        let complaint = Arc::new(Mutex::new(vec![]));
        let kept = complaint.clone();
        let listener = std::thread::spawn(move || {
            let mut piece = [0; 512];
            while let Ok(count @ 1..) = errors.read(&mut piece) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&piece[..count]);
                let surplus = kept.len().saturating_sub(COMPLAINT);
                kept.drain(..surplus);
            }
        });
        let answers = BufReader::new(answers);
        Ok(Self { runtime, child, requests: Some(requests), answers, complaint, listener })
    }

    /// Sends a request and reads so many answers.
    fn ask(&mut self, parts: &[&[u8]], answers: usize) -> Result<Vec<Vec<u8>>> {
        // A process that has ended may have said why before it could be asked.
        let _ = self.send(parts);
        (0..answers).map(|_| self.answer()).collect()
    }

    fn send(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        let requests = self.requests.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        parts.iter().try_for_each(|part| requests.write_all(part))?;
        requests.flush()
    }

    fn answer(&mut self) -> Result<Vec<u8>> {
        let (mut head, mut content) = ([0; 9], vec![]);
        if self.answers.read_exact(&mut head).is_err() {
            return Err(self.ended());
        }
        let [status, length @ ..] = head;
        let length = u64::from_le_bytes(length);
        let read = self.answers.by_ref().take(length.min(LONGEST)).read_to_end(&mut content);
        if read.is_err() || content.len() as u64 != length {
            return Err(self.ended());
        }
        let engine = self.runtime.name().to_string();
        let text = String::from_utf8_lossy(&content);
        match status {
            0 => Ok(content),
            2 => Err(Error::Unavailable {
                engine,
                reason: format!(
                    "its Python has no package {text}. `pip install {} numpy`, or name another interpreter in {PYTHON}",
                    self.runtime.name()
                ),
            }),
            _ => Err(Error::Engine { engine, reason: text.into_owned() }),
        }
    }

    /// What to say of a process that stopped answering.
    fn ended(&mut self) -> Error {
        self.requests = None;
        let since = Instant::now();
        while since.elapsed() < PATIENCE && !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
        let how = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        // Its last words have been read to the end, unless something that it started lives on and could still speak.
        while since.elapsed() < PATIENCE && !self.listener.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&complaint);
        let last =
            text.lines().map(str::trim).rfind(|line| !line.is_empty()).map_or(String::new(), |l| format!(": {l}"));
        let reason = format!(
            "its Python process ended before it answered ({how}){last}. Name an interpreter that can run it in {PYTHON}"
        );
        Error::Unavailable { engine: self.runtime.name().into(), reason }
    }

    /// Ends the process, whatever it is doing.
    fn end(&mut self) {
        self.requests = None;
        // Both fail where it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
