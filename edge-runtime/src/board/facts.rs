//! What is found on a board: release files, device tree, libraries, clocks, power mode, memory, disk, time.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that was found. What is absent could not be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Architecture of this program.
    pub architecture: String,
    /// The device tree's model.
    pub model: Option<String>,
    /// The device tree's compatible entries.
    pub compatible: Vec<String>,
    /// Name of the operating system.
    pub system: Option<String>,
    /// Version of NVIDIA's board support, such as `36.4.3`.
    pub l4t: Option<String>,
    /// Version of the C library.
    pub glibc: Option<String>,
    /// NVIDIA's libraries.
    pub libraries: Vec<Library>,
    /// The processors.
    pub cpus: Vec<Cpu>,
    /// The graphics unit's clock and its maximum, MHz.
    pub gpu_mhz: Option<[u32; 2]>,
    /// Power mode: number and name.
    pub power_mode: Option<(u32, Option<String>)>,
    /// Hottest sensor, °C.
    pub temperature: Option<f64>,
    /// Raspberry Pi: the firmware's throttling bits.
    pub throttled: Option<u32>,
    /// Memory in all and available, MiB.
    pub memory_mib: Option<[u64; 2]>,
    /// Free space where the slots are, MiB.
    pub disk_mib: Option<u64>,
    /// The slots' root, and why it cannot be written; none when it can.
    pub unwritable: Option<String>,
    /// The clock, seconds since 1970.
    pub clock: u64,
    /// Whether the clock was set from the network since the start.
    pub clock_synchronised: bool,
    /// Latest signing time this board has accepted, seconds since 1970.
    pub signed_at: u64,
}

/// A shared library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// `tensorrt`, `cuda` or `cudnn`.
    pub name: String,
    /// Version, from the file's name.
    pub version: String,
}

/// One processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its policy, such as `schedutil`.
    pub governor: Option<String>,
    /// Highest clock it may take now, and the one it was built for, MHz.
    pub limit_mhz: [u32; 2],
}

impl Facts {
    /// Looks at the board whose file system begins at `root`, and whose slots are in `slots`.
    pub fn probe(root: &Path, slots: &Path) -> Self {
        let at = |path: &str| root.join(path);
        let strings = |path: &str| {
            let bytes = fs::read(at(path)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.split('\0').map(str::trim).filter(|s| !s.is_empty()).map(String::from).collect::<Vec<_>>()
        };
        let (disk_mib, unwritable) = place(slots);
        Self {
            architecture: std::env::consts::ARCH.into(),
            model: strings("proc/device-tree/model").into_iter().next(),
            compatible: strings("proc/device-tree/compatible"),
            system: line_value(&at("etc/os-release"), "PRETTY_NAME=").map(|v| v.trim_matches('"').into()),
            l4t: fs::read_to_string(at("etc/nv_tegra_release")).ok().and_then(|text| l4t(&text)),
            glibc: glibc(root),
            libraries: libraries(root),
            cpus: cpus(&at("sys/devices/system/cpu")),
            gpu_mhz: gpu(&at("sys/class/devfreq")),
            power_mode: power_mode(root),
            temperature: temperature(&at("sys/class/thermal")),
            throttled: text(&at("sys/devices/platform/soc/soc:firmware/get_throttled"))
                .and_then(|t| u32::from_str_radix(t.trim_start_matches("0x"), 16).ok()),
            memory_mib: memory(&at("proc/meminfo")),
            disk_mib,
            unwritable,
            clock: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            clock_synchronised: at("run/systemd/timesync/synchronized").exists(),
            signed_at: crate::slot::Slots::at(slots).state().map_or(0, |state| state.signed_at),
        }
    }

    /// Version of one of the libraries.
    pub fn library(&self, name: &str) -> Option<&str> {
        self.libraries.iter().find(|l| l.name == name).map(|l| l.version.as_str())
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// What follows a prefix on the first line that has it.
fn line_value(path: &Path, prefix: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().find_map(|line| line.strip_prefix(prefix)).map(|v| v.trim().into())
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

/// `# R36 (release), REVISION: 4.3, …` as `36.4.3`.
fn l4t(text: &str) -> Option<String> {
    let major = text.split_once('R')?.1.split_whitespace().next()?;
    let minor = text.split_once("REVISION:")?.1.split(',').next()?.trim();
    let version = format!("{major}.{minor}");
    version.chars().all(|c| c.is_ascii_digit() || c == '.').then_some(version)
}

/// The C library says its version in a sentence of its own.
fn glibc(root: &Path) -> Option<String> {
    const WORDS: &[u8] = b"GNU C Library";
    const VERSION: &[u8] = b"release version ";
    let machine = std::env::consts::ARCH;
    let places = [format!("lib/{machine}-linux-gnu/libc.so.6"), "lib64/libc.so.6".into(), "lib/libc.so.6".into()];
    let bytes = places.iter().find_map(|place| fs::read(root.join(place)).ok())?;
    let at = bytes.windows(WORDS.len()).position(|w| w == WORDS)?;
    let rest = &bytes[at..bytes.len().min(at + 200)];
    let at = rest.windows(VERSION.len()).position(|w| w == VERSION)? + VERSION.len();
    let digits = rest[at..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.');
    let version = String::from_utf8(digits.copied().collect()).ok()?;
    Some(version.trim_end_matches('.').into())
}

/// The longest version in the names `libnvinfer.so.10.3.0`, … of each library.
fn libraries(root: &Path) -> Vec<Library> {
    let machine = std::env::consts::ARCH;
    let folders = [
        format!("usr/lib/{machine}-linux-gnu"),
        format!("usr/lib/{machine}-linux-gnu/nvidia"),
        "usr/local/cuda/lib64".into(),
        "usr/lib".into(),
    ];
    let files: Vec<String> = folders.iter().flat_map(|folder| names(&root.join(folder))).filter_map(name).collect();
    let wanted = [("tensorrt", "libnvinfer.so."), ("cuda", "libcudart.so."), ("cudnn", "libcudnn.so.")];
    let found = wanted.into_iter().filter_map(|(name, prefix)| {
        let versions = files.iter().filter_map(|file| file.strip_prefix(prefix));
        let version = versions.max_by_key(|v| v.split('.').count())?.to_string();
        Some(Library { name: name.into(), version })
    });
    found.collect()
}

fn name(path: PathBuf) -> Option<String> {
    path.file_name().map(|n| n.to_string_lossy().into_owned())
}

fn cpus(folder: &Path) -> Vec<Cpu> {
    let is_cpu = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let read = |path: PathBuf| {
        let mhz = |file: &str| number(&path.join("cpufreq").join(file)).map(|khz| (khz / 1000) as u32);
        let limit_mhz = [mhz("scaling_max_freq")?, mhz("cpuinfo_max_freq")?];
        Some(Cpu { governor: text(&path.join("cpufreq/scaling_governor")), limit_mhz })
    };
    names(folder).into_iter().filter(is_cpu).filter_map(read).collect()
}

/// Jetson's GPU is a devfreq device called after its generation: `…gpu`, `gv11b`, `ga10b`, `gp10b`, `gm20b`.
fn gpu(folder: &Path) -> Option<[u32; 2]> {
    let known = ["gpu", "gv11b", "ga10b", "gp10b", "gm20b"];
    let is_gpu = |p: &PathBuf| name(p.clone()).is_some_and(|n| known.iter().any(|k| n.contains(k)));
    let device = names(folder).into_iter().find(is_gpu)?;
    let mhz = |file: &str| number(&device.join(file)).map(|hz| (hz / 1_000_000) as u32);
    let frequencies = text(&device.join("available_frequencies"));
    let built = frequencies.and_then(|all| all.split_whitespace().filter_map(|hz| hz.parse::<u64>().ok()).max());
    let limit = mhz("max_freq")?;
    Some([limit, built.map_or(limit, |hz| (hz / 1_000_000) as u32)])
}

/// `nvpmodel` keeps the mode as `pmode:0002`; its names stand in its configuration.
fn power_mode(root: &Path) -> Option<(u32, Option<String>)> {
    let mode = line_value(&root.join("var/lib/nvpmodel/status"), "pmode:")?.parse().ok()?;
    let configuration = fs::read_to_string(root.join("etc/nvpmodel.conf")).unwrap_or_default();
    let wanted = format!("ID={mode} ");
    let line = configuration.lines().find(|line| line.contains("POWER_MODEL") && line.contains(&wanted));
    let name = line.and_then(|line| line.split_once("NAME=")).map(|(_, n)| n.trim_end_matches(['>', ' ']).to_string());
    Some((mode, name))
}

fn temperature(folder: &Path) -> Option<f64> {
    let zones = names(folder).into_iter().filter_map(|zone| number(&zone.join("temp")));
    zones.max().map(|milli| milli as f64 / 1000.0)
}

fn memory(path: &Path) -> Option<[u64; 2]> {
    let mib = |prefix| {
        let value = line_value(path, prefix)?;
        value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
    };
    Some([mib("MemTotal:")?, mib("MemAvailable:")?])
}

/// Free space, and what stands against writing, in the nearest folder that exists.
fn place(slots: &Path) -> (Option<u64>, Option<String>) {
    let Some(folder) = slots.ancestors().find(|path| path.is_dir()) else { return (None, None) };
    #[cfg(unix)]
    let free = rustix::fs::statvfs(folder).ok().map(|s| (s.f_bavail * s.f_frsize) >> 20);
    #[cfg(not(unix))]
    let free = None;
    let written = tempfile::Builder::new().prefix(crate::file::PARTIAL).tempfile_in(folder);
    (free, written.err().map(|e| format!("{}: {e}", folder.display())))
}
