//! The cache of built plans: one file a network, which says whom it was built for and is used by nobody else.
//!
//! `DIGEST.plan` is `excon.plan/1 SHA-256`, a line of JSON ([`About`]), then TensorRT's own bytes; it is written beside and
//! renamed. A plan is only right for one network, TensorRT, compute capability, device, driver and shim: when one
//! of these has changed it is [`Found::Stale`] and has to be built anew. The digest guards against damage. It does not
//! guard against malice: TensorRT trusts a plan's bytes, so the folder must be writable by its owner alone.

use super::api::{Device, Version, dotted};
use crate::{Error, Result, file};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const SCHEMA: &str = "excon.plan/1";
/// Plans kept: those of two slots, and of as many files beside.
const KEPT: usize = 4;
/// Larger than any plan of a network that a bundle can hold.
const LARGEST: u64 = 2 << 30;

/// What a plan is right for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// SHA-256 of the network as the parser was given it.
    pub model: String,
    /// TensorRT's version.
    pub tensorrt: Version,
    /// The device's name.
    pub device: String,
    /// Its compute capability.
    pub capability: [u32; 2],
    /// The driver's CUDA version.
    pub driver: u32,
    /// ABI of the shim.
    pub abi: u32,
    /// Whether layers before the head may compute in 16-bit float.
    pub half: bool,
    /// Deep-learning accelerator.
    pub dla_core: Option<u32>,
}

impl Key {
    /// For a network on a device.
    pub fn new(model: &str, tensorrt: Version, device: &Device, half: bool, dla_core: Option<u32>) -> Self {
        Self {
            model: model.into(),
            tensorrt,
            device: device.name.clone(),
            capability: device.capability,
            driver: device.driver,
            abi: super::abi::ABI,
            half,
            dla_core,
        }
    }

    /// What a plan with this key was built for and the other key is not, in words.
    fn difference(&self, now: &Self) -> Option<String> {
        let capability = |[major, minor]: [u32; 2]| format!("{major}.{minor}");
        let pairs = [
            ("network", self.model.clone(), now.model.clone()),
            ("TensorRT", dotted(self.tensorrt), dotted(now.tensorrt)),
            ("device", self.device.clone(), now.device.clone()),
            ("compute capability", capability(self.capability), capability(now.capability)),
            ("driver", self.driver.to_string(), now.driver.to_string()),
            ("shim", self.abi.to_string(), now.abi.to_string()),
            ("half precision", self.half.to_string(), now.half.to_string()),
            ("accelerator", format!("{:?}", self.dla_core), format!("{:?}", now.dla_core)),
        ];
        let (what, built, now) = pairs.into_iter().find(|(_, built, now)| built != now)?;
        Some(format!("it was built for {what} {built}, and this is {now}"))
    }
}

/// Who built a plan, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What it is right for.
    pub key: Key,
    /// `tensorrt` or `trtexec`.
    pub builder: String,
    /// How long it took.
    pub seconds: f64,
    /// Layers of the network as parsed; 0 where the builder does not say.
    pub layers: u32,
    /// Of these, those that the accelerator can run.
    pub dla_layers: u32,
}

/// A built plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Who built it.
    pub about: About,
    /// TensorRT's bytes.
    pub bytes: Vec<u8>,
}

impl Plan {
    /// SHA-256 of the bytes, lower-case hex: names the engine that constants are fitted on. Two builds of one network
    /// choose different kernels and differ in it.
    pub fn digest(&self) -> String {
        file::digest(&self.bytes)
    }

    /// Writes the plan, and removes the oldest where there are many.
    ///
    /// # Errors
    /// [`Error::Write`]; a plan that was there before is untouched.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = path(folder, &self.about.key.model);
        let failed = |source| Error::Write { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut body = serde_json::to_vec(&self.about).map_err(|e| failed(e.into()))?;
        body.push(b'\n');
        body.extend(&self.bytes);
        file::replace(&path, &[format!("{SCHEMA} {}\n", file::digest(&body)).as_bytes(), &body].concat())?;
        forget_old(folder);
        Ok(path)
    }
}

/// What the cache holds for a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A plan that is right here.
    Valid(Box<Plan>),
    /// None.
    Absent,
    /// One that is not, and why.
    Stale(String),
}

/// Looks for the plan of a key.
pub fn find(folder: &Path, key: &Key) -> Found {
    match read(&path(folder, &key.model)) {
        Ok(None) => Found::Absent,
        Ok(Some(plan)) => match plan.about.key.difference(key) {
            None => Found::Valid(Box::new(plan)),
            Some(why) => Found::Stale(why),
        },
        Err(why) => Found::Stale(why),
    }
}

/// Seconds that the last build here took: the estimate for the next.
pub fn last_build(folder: &Path) -> Option<f64> {
    let newest = plans(folder).into_iter().next_back()?;
    let (about, _) = header(&newest).ok()?;
    Some(about.seconds)
}

/// Where the plan of a network is kept.
pub(super) fn path(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("{}.plan", &model[..model.len().min(16)]))
}

/// Plans, the oldest first.
fn plans(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let is_plan = |path: &PathBuf| path.extension().is_some_and(|e| e == "plan");
    let mut found: Vec<_> = entries.filter(is_plan).collect();
    found.sort_by_key(|path| (fs::metadata(path).and_then(|m| m.modified()).ok(), path.clone()));
    found
}

fn forget_old(folder: &Path) {
    let plans = plans(folder);
    for old in plans.iter().take(plans.len().saturating_sub(KEPT)) {
        // One that stays costs space and nothing else.
        let _ = fs::remove_file(old);
    }
}

fn read(path: &Path) -> std::result::Result<Option<Plan>, String> {
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("it cannot be read: {e}")),
        Ok(_) => {}
    }
    let (about, bytes) = header(path)?;
    Ok(Some(Plan { about, bytes }))
}

fn header(path: &Path) -> std::result::Result<(About, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    read.map_err(|e| format!("it cannot be read: {e}"))?;
    let torn = || "it is torn or damaged".to_string();
    let line = |bytes: &[u8]| bytes.iter().position(|&b| b == b'\n').ok_or_else(torn);
    let end = line(&bytes)?;
    let body = bytes.split_off(end + 1);
    match std::str::from_utf8(&bytes[..end]).ok().and_then(|first| first.split_once(' ')) {
        Some((SCHEMA, sum)) if sum == file::digest(&body) => {}
        Some((SCHEMA, _)) => return Err(torn()),
        _ => return Err(format!("its schema is not {SCHEMA}")),
    }
    let end = line(&body)?;
    let about = serde_json::from_slice(&body[..end]).map_err(|e| e.to_string())?;
    Ok((about, body[end + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(model: &str) -> Plan {
        let capability = [8, 7];
        let device = Device { name: "Orin".into(), capability, driver: 12_020, integrated: true, memory: 1 << 33 };
        let key = Key::new(&model.repeat(64), [10, 3, 0], &device, false, None);
        let about = About { key, builder: "tensorrt".into(), seconds: 84.0, layers: 30, dla_layers: 0 };
        Plan { about, bytes: format!("plan of {model}\n").into_bytes() }
    }

    /// What an error must say, and the change of the key that leads to it.
    type Change = (&'static str, fn(&mut Key));

    #[test]
    fn a_plan_is_found_by_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (one, place) = (plan("a"), folder.path());
        assert_eq!((find(place, &one.about.key), last_build(place)), (Found::Absent, None));
        let path = one.write(place).unwrap();
        assert_eq!(find(place, &one.about.key), Found::Valid(Box::new(one.clone())));
        assert_eq!(last_build(place), Some(84.0));
        let changes: [Change; 6] = [
            ("TensorRT 10.3.0, and this is 8.6.1", |k| k.tensorrt = [8, 6, 1]),
            ("compute capability 8.7, and this is 7.2", |k| k.capability = [7, 2]),
            ("driver", |k| k.driver += 1),
            ("device Orin", |k| k.device = "Xavier".into()),
            ("shim", |k| k.abi += 1),
            ("half precision", |k| k.half = true),
        ];
        for (words, change) in changes {
            let mut key = one.about.key.clone();
            change(&mut key);
            match find(place, &key) {
                Found::Stale(why) => assert!(why.contains(words), "expected `{words}` in {why}"),
                other => panic!("{words}: {other:?}"),
            }
        }
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(matches!(find(place, &one.about.key), Found::Stale(_)), "cut at {cut}");
        }
    }

    #[test]
    fn old_plans_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        for model in ["a", "b", "c", "d", "e", "f"] {
            plan(model).write(folder.path()).unwrap();
        }
        assert_eq!(plans(folder.path()).len(), KEPT);
        assert!(matches!(find(folder.path(), &plan("f").about.key), Found::Valid(_)));
    }
}
