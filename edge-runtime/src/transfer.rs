//! A bundle on its way to a board, in chunks that are known by their digests: what is there already is not sent again.
//!
//! Both sides talk over a pipe. The sender writes a [`Plan`] as a line of JSON; the receiver answers with the chunks it
//! lacks ([`Answer::Missing`]); the sender writes those, each behind its number and length (big-endian, 32 bits); the
//! receiver answers each ([`Answer::Have`]) and, when the whole has its digest and is on the disk, says where it lies
//! ([`Answer::Complete`]). The pipe may break anywhere: a chunk counts as there when its bytes in the partial file have
//! its digest, so nothing else is remembered, and a torn write is a chunk to send again.

use crate::bundle::{MAX_MANIFEST, MAX_TOTAL};
use crate::file::{self, Disk, System};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Schema identifier of a plan.
pub const SCHEMA: &str = "excon.transfer/1";
/// Bytes of a chunk; the last one may be shorter.
pub const CHUNK: usize = 64 << 10;
/// Longest plan that is read: a digest in quotes for each chunk of the largest bundle.
const LONGEST: u64 = 1024 + 72 * (MAX_TOTAL + 2 * MAX_MANIFEST).div_ceil(CHUNK as u64);

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Bytes in all.
    pub size: u64,
    /// SHA-256 of the whole, lower-case hex: the name it has on its way.
    pub sha256: String,
    /// SHA-256 of each chunk.
    pub chunks: Vec<String>,
}

/// What the receiver says, a line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The numbers of the chunks to send.
    Missing(Vec<u32>),
    /// This chunk has come.
    Have(u32),
    /// All of it is here, in this file.
    Complete(PathBuf),
}

impl Plan {
    /// The plan for these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            schema: SCHEMA.into(),
            size: bytes.len() as u64,
            sha256: file::digest(bytes),
            chunks: bytes.chunks(CHUNK).map(file::digest).collect(),
        }
    }

    fn validate(&self) -> std::result::Result<(), &'static str> {
        let digest = |s: &String| s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let sound = self.schema == SCHEMA && digest(&self.sha256) && self.chunks.iter().all(digest);
        let bounded = (1..=MAX_TOTAL + 2 * MAX_MANIFEST).contains(&self.size);
        if !sound || !bounded || self.chunks.len() as u64 != self.size.div_ceil(CHUNK as u64) {
            return Err("it is no plan of a bundle");
        }
        Ok(())
    }

    /// Bytes of a chunk.
    fn length(&self, chunk: usize) -> usize {
        (self.size - (chunk * CHUNK) as u64).min(CHUNK as u64) as usize
    }
}

/// Writes one chunk for [`receive`].
///
/// # Errors
/// When the pipe is broken.
pub fn send_chunk(to: &mut impl Write, bytes: &[u8], chunk: u32) -> io::Result<()> {
    let at = chunk as usize * CHUNK;
    let part = &bytes[at..bytes.len().min(at + CHUNK)];
    to.write_all(&chunk.to_be_bytes())?;
    to.write_all(&(part.len() as u32).to_be_bytes())?;
    to.write_all(part)?;
    to.flush()
}

/// Receives into `folder`, going on with what an earlier call left there. Other partial files are removed, so that
/// transfers that are never finished do not fill a board. With `ask_only` nothing is written: the answer says what
/// would have to be sent.
///
/// # Errors
/// [`Error::Data`] when what comes is not what the plan says or ends early; what came is kept. [`Error::Write`] when the
/// folder or the answer cannot be written.
pub fn receive(mut from: impl BufRead, mut to: impl Write, folder: &Path, ask_only: bool) -> Result<Option<PathBuf>> {
    let wrong = |reason: &str| Error::Data { what: "transfer", reason: reason.into() };
    let mut line = Vec::new();
    from.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(|e| wrong(&e.to_string()))?;
    let plan: Plan = serde_json::from_slice(&line).map_err(|e| wrong(&format!("the plan: {e}")))?;
    plan.validate().map_err(wrong)?;
    let place = folder.join(format!("{}.excon", plan.sha256));
    let partial = folder.join(format!("{}.part", plan.sha256));
    let failed = |source| Error::Write { path: partial.clone(), source };
    let mut answer = |answer: Answer| -> Result<()> {
        let said = |source| Error::Write { path: "the sender's pipe".into(), source };
        let mut line = serde_json::to_vec(&answer).map_err(|e| said(e.into()))?;
        line.push(b'\n');
        to.write_all(&line).and_then(|()| to.flush()).map_err(said)
    };
    let present = if place.is_file() { &place } else { &partial };
    let mut missing = missing(&plan, present);
    if ask_only {
        answer(Answer::Missing(missing))?;
        return Ok(None);
    }
    if !missing.is_empty() || present != &place {
        fs::create_dir_all(folder).map_err(failed)?;
        sweep(folder, &partial).map_err(failed)?;
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&partial);
        let mut file = options.map_err(failed)?;
        file.set_len(plan.size).map_err(failed)?;
        answer(Answer::Missing(missing.clone()))?;
        while !missing.is_empty() {
            let received = chunk(&mut from, &plan, &missing);
            let (number, bytes) = match received {
                Ok(received) => received,
                Err(reason) => {
                    // What has come stays, also over a power cut.
                    file.sync_all().map_err(failed)?;
                    return Err(wrong(&format!("{reason}; {} chunks are missing. Send it again", missing.len())));
                }
            };
            let write = |file: &mut File| {
                file.seek(SeekFrom::Start(u64::from(number) * CHUNK as u64))?;
                file.write_all(&bytes)
            };
            write(&mut file).map_err(failed)?;
            missing.retain(|&m| m != number);
            answer(Answer::Have(number))?;
        }
        file.sync_all().map_err(failed)?;
        let whole = System.read(&partial, plan.size).map_err(failed)?;
        if file::digest(&whole) != plan.sha256 {
            fs::remove_file(&partial).map_err(failed)?;
            return Err(wrong("the whole has another digest than the plan says. Send it again"));
        }
        fs::rename(&partial, &place).map_err(failed)?;
        System.sync_folder(folder).map_err(failed)?;
    } else {
        answer(Answer::Missing(Vec::new()))?;
    }
    answer(Answer::Complete(place.clone()))?;
    Ok(Some(place))
}

/// The chunks whose bytes in a file are not what the plan says.
fn missing(plan: &Plan, path: &Path) -> Vec<u32> {
    let bytes = System.read(path, plan.size).unwrap_or_default();
    let has = |chunk: usize| {
        let at = chunk * CHUNK;
        bytes.get(at..at + plan.length(chunk)).is_some_and(|part| file::digest(part) == plan.chunks[chunk])
    };
    (0..plan.chunks.len()).filter(|&chunk| !has(chunk)).map(|chunk| chunk as u32).collect()
}

/// One chunk that was asked for and has its digest.
fn chunk(from: &mut impl Read, plan: &Plan, wanted: &[u32]) -> std::result::Result<(u32, Vec<u8>), String> {
    let mut word = [0; 4];
    let mut number = || from.read_exact(&mut word).map(|()| u32::from_be_bytes(word));
    let broken = |_| "the connection ended early".to_string();
    let (chunk, length) = (number().map_err(broken)?, number().map_err(broken)?);
    if !wanted.contains(&chunk) || length as usize != plan.length(chunk as usize) {
        return Err(format!("chunk {chunk} of {length} bytes was not asked for"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes).map_err(broken)?;
    match file::digest(&bytes) == plan.chunks[chunk as usize] {
        true => Ok((chunk, bytes)),
        false => Err(format!("chunk {chunk} was damaged on its way")),
    }
}

/// Removes what earlier transfers left, except `keep`.
fn sweep(folder: &Path, keep: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let ours = path.extension().is_some_and(|e| e == "part" || e == "excon");
        if ours && path != keep {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..3 * CHUNK + 700).map(|i| (i * 7 % 251) as u8).collect()
    }

    /// All that a sender would write: the plan and these chunks.
    fn stream(bytes: &[u8], chunks: &[u32]) -> Vec<u8> {
        let mut stream = serde_json::to_vec(&Plan::of(bytes)).unwrap();
        stream.push(b'\n');
        chunks.iter().for_each(|&chunk| send_chunk(&mut stream, bytes, chunk).unwrap());
        stream
    }

    fn answers(said: &[u8]) -> Vec<Answer> {
        said.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    #[test]
    fn a_transfer_cut_anywhere_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes();
        let whole = stream(&bytes, &[0, 1, 2, 3]);
        let plan = stream(&bytes, &[]).len();
        let cuts = [plan, plan + 5, plan + 8 + CHUNK, plan + 9 + CHUNK, whole.len() - 1];
        for (cut, kept) in cuts.into_iter().zip([0, 0, 1, 1, 3]) {
            let place = folder.path().join(cut.to_string());
            let error = receive(&whole[..cut], Vec::new(), &place, false).unwrap_err();
            assert!(error.to_string().contains("ended early"), "{error}");
            let mut asked = Vec::new();
            receive(stream(&bytes, &[]).as_slice(), &mut asked, &place, true).unwrap();
            let rest: Vec<u32> = (kept..4).collect();
            assert_eq!(answers(&asked), [Answer::Missing(rest.clone())]);
            let path = receive(stream(&bytes, &rest).as_slice(), Vec::new(), &place, false).unwrap().unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            let mut again = Vec::new();
            receive(stream(&bytes, &[]).as_slice(), &mut again, &place, false).unwrap();
            assert_eq!(answers(&again), [Answer::Missing(vec![]), Answer::Complete(path)]);
            assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_not_the_plan_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = bytes();
        let refused = |stream: &[u8]| receive(stream, Vec::new(), folder.path(), false).unwrap_err().to_string();
        let mut damaged = stream(&bytes, &[0]);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(refused(&damaged).contains("damaged on its way"));
        assert!(refused(&stream(&bytes, &[0, 0])).contains("was not asked for"));
        assert!(refused(b"{}\n").contains("the plan"));
        assert!(refused(b"").contains("the plan"));
        let mut plan = Plan::of(&bytes);
        plan.sha256 = "../../etc".into();
        assert!(refused(&serde_json::to_vec(&plan).unwrap()).contains("no plan"));
        plan = Plan::of(&bytes);
        plan.size = u64::MAX;
        assert!(refused(&serde_json::to_vec(&plan).unwrap()).contains("no plan"));
        // Right chunks under a wrong digest of the whole: all comes, and none of it stays.
        plan = Plan::of(&bytes);
        plan.sha256 = "0".repeat(64);
        let mut forged = serde_json::to_vec(&plan).unwrap();
        forged.push(b'\n');
        forged.extend_from_slice(&stream(&bytes, &[1, 2, 3])[stream(&bytes, &[]).len()..]);
        send_chunk(&mut forged, &bytes, 0).unwrap();
        assert!(refused(&forged).contains("another digest"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
