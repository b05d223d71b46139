//! Where TensorRT lives on a board: one folder with the compiled shim and the plans, and the device behind it.

use super::api::{Device, Library};
use super::plan::{self, Found, Key};
use super::{Master, TensorRtEngine, told, unavailable};
use crate::bundle::{Bundle, MODEL, Precision};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Name of the target whose float network may compute in 16 bits.
pub const HALF_TARGET: &str = "tensorrt-fp16";
const SHIM: &str = "libexcon_tensorrt.so";

/// The folder.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

/// TensorRT on a device, ready to build and to load.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The library.
    pub library: Library,
    /// Number of the device.
    pub index: u32,
    /// The device.
    pub device: Device,
}

impl Home {
    /// TensorRT's folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The compiled shim.
    pub fn shim(&self) -> PathBuf {
        self.folder.join(SHIM)
    }

    /// Folder of the plans.
    pub fn plans(&self) -> PathBuf {
        self.folder.join("plans")
    }

    /// Whether a shim was ever compiled here. Cheap: nothing is loaded.
    pub fn is_set_up(&self) -> bool {
        self.shim().is_file()
    }

    /// Whether there is a plan for a network, right or not. Cheap: nothing is loaded.
    pub fn has_plan(&self, master: &Master) -> bool {
        plan::path(&self.plans(), &master.digest).is_file()
    }

    /// Loads TensorRT and asks for the device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no shim, it cannot be loaded, or there is no device.
    pub fn ready(&self) -> Result<Ready> {
        if !self.is_set_up() {
            let place = self.shim();
            return Err(unavailable(format!(
                "{} is not there. Compile it: excon-edge tensorrt setup",
                place.display()
            )));
        }
        let library = Library::open(&self.shim()).map_err(told)?;
        let device = library.device(0).map_err(told)?;
        Ok(Ready { library, index: 0, device })
    }
}

/// A bundle's network, and how it would be built here.
#[derive(Debug, Clone)]
pub struct Job {
    /// The network in the parser's form.
    pub master: Master,
    /// Whether layers before the head may compute in 16-bit float.
    pub half: bool,
    /// What a reader should know.
    pub note: Option<String>,
}

impl Job {
    /// A bundle's network in the parser's form.
    ///
    /// # Errors
    /// [`Error::Bundle`] when it is not one that TensorRT takes.
    pub fn master(bundle: &Bundle) -> Result<Master> {
        let refused = |reason| Error::Bundle { path: bundle.path.join(MODEL), reason };
        Master::new(&bundle.model).map_err(refused)
    }
}

impl Ready {
    /// How a bundle would be built here.
    ///
    /// # Errors
    /// As [`Job::master`]; [`Error::Refused`] when the device has no 8-bit integers and the network is made of them.
    pub fn job(&self, bundle: &Bundle) -> Result<Job> {
        let master = Job::master(bundle)?;
        let (name, [major, minor]) = (&self.device.name, self.device.capability);
        if master.int8 && !self.device.has_int8() {
            let reason = format!(
                "it is made of 8-bit integers, and {name} (compute capability {major}.{minor}) has none. \
                 Seal one for it: excon convert --target {HALF_TARGET}"
            );
            return Err(Error::Refused { path: bundle.path.clone(), reason });
        }
        let wanted = bundle.manifest.precision == Precision::Float && bundle.manifest.target == HALF_TARGET;
        let half = wanted && self.library.version()[0] < 11;
        let note = (wanted && !half).then(|| {
            "TensorRT 11 takes half precision only from a file that says so layer by layer: this one runs in 32 bits".into()
        });
        Ok(Job { master, half, note })
    }

    /// The plan that the cache holds for a job.
    pub fn cached(&self, home: &Home, job: &Job, dla_core: Option<u32>) -> Found {
        let key = self.key(job, dla_core);
        let found = plan::find(&home.plans(), &key);
        // Who opens an engine does not say how it was built: with the accelerator or without are both right.
        match (&found, dla_core) {
            (Found::Stale(_), None) => {
                let others = (0..2).map(|core| plan::find(&home.plans(), &self.key(job, Some(core))));
                others.into_iter().find(|other| matches!(other, Found::Valid(_))).unwrap_or(found)
            }
            _ => found,
        }
    }

    /// The key of a job's plan.
    pub fn key(&self, job: &Job, dla_core: Option<u32>) -> Key {
        Key::new(&job.master.digest, self.library.version(), &self.device, job.half, dla_core)
    }

    /// Loads a plan as an engine.
    ///
    /// # Errors
    /// [`Error::Engine`] when TensorRT refuses it, or it is not the job's network.
    pub fn load(&self, job: &Job, plan: &plan::Plan) -> Result<TensorRtEngine> {
        TensorRtEngine::load(self, job, plan)
    }
}
