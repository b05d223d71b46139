//! The opened shim, and the devices behind it.

use super::{Abi, Fault, FaultKind, Result, abi, call, text};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Major, minor, patch.
pub type Version = [u32; 3];

/// `10.3.0`.
pub fn dotted(version: Version) -> String {
    version.map(|part| part.to_string()).join(".")
}

/// TensorRT and CUDA, opened through a compiled shim.
#[derive(Clone)]
pub struct Library {
    pub(super) abi: Arc<Abi>,
    path: PathBuf,
    built: Version,
    loaded: Version,
}

impl Library {
    /// Opens the shim at `path`, and through it the libraries it was linked with. Needs no device.
    ///
    /// # Errors
    /// [`FaultKind::Library`] when something cannot be loaded, or another TensorRT is loaded than the shim was compiled for.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |reason| Fault::new(FaultKind::Library, format!("{}: {reason}", path.display()));
        let abi = Abi::open(path).map_err(fail)?;
        let (mut built, mut loaded) = ([0i32; 3], [0i32; 3]);
        // SAFETY: it writes three numbers to each.
        unsafe { (abi.versions)(built.as_mut_ptr(), loaded.as_mut_ptr()) };
        let [built, loaded] = [built, loaded].map(|v| v.map(|part| part.max(0) as u32));
        if built[..2] != loaded[..2] {
            let (built, loaded) = (dotted(built), dotted(loaded));
            return Err(fail(format!("it was compiled for TensorRT {built}, and {loaded} is installed")));
        }
        Ok(Self { abi: Arc::new(abi), path: path.into(), built, loaded })
    }

    /// Where the shim is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version that is loaded.
    pub fn version(&self) -> Version {
        self.loaded
    }

    /// The version of the headers the shim was compiled with.
    pub fn compiled_for(&self) -> Version {
        self.built
    }

    /// Number of CUDA devices, at least 1.
    ///
    /// # Errors
    /// [`FaultKind::NoDevice`] when there is none or CUDA does not answer.
    pub fn devices(&self) -> Result<u32> {
        let mut count = 0;
        // SAFETY: it writes one number and the message.
        call(|to, room| unsafe { (self.abi.device_count)(&mut count, to, room) })?;
        match u32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(Fault::new(FaultKind::NoDevice, "CUDA finds no device")),
        }
    }

    /// Describes a device.
    ///
    /// # Errors
    /// As [`Library::devices`].
    pub fn device(&self, index: u32) -> Result<Device> {
        self.devices()?;
        let mut raw = abi::Device { name: [0; 128], capability: [0; 2], driver: 0, integrated: 0, memory: 0 };
        // SAFETY: it fills one structure and the message.
        call(|to, room| unsafe { (self.abi.device)(index as i32, &mut raw, to, room) })?;
        Ok(Device {
            name: text(&raw.name),
            capability: raw.capability.map(|part| part.max(0) as u32),
            driver: raw.driver.max(0) as u32,
            integrated: raw.integrated != 0,
            memory: raw.memory,
        })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.path).field("version", &self.loaded).finish_non_exhaustive()
    }
}

/// A CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Compute capability: major, minor.
    pub capability: [u32; 2],
    /// The driver's CUDA version as CUDA numbers it: 12020 is 12.2.
    pub driver: u32,
    /// Whether it shares the processor's memory.
    pub integrated: bool,
    /// Bytes.
    pub memory: u64,
}

impl Device {
    /// Whether it computes with 8-bit integers: from compute capability 6.1 on, but for 6.2. The Nano's 5.3 and the TX2's
    /// 6.2 do not.
    pub fn has_int8(&self) -> bool {
        let capability = (self.capability[0], self.capability[1]);
        capability >= (6, 1) && capability != (6, 2)
    }
}
