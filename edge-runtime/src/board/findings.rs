//! What the facts mean: for each thing its state, why it matters, and what mends it.

use super::facts::Facts;
use super::profile::{Profile, version};
use serde::{Deserialize, Serialize};

/// A clock before this is one that was never set: 1 January 2026, before any bundle was sealed.
const EARLIEST: u64 = 1_767_225_600;
/// Less free space than a few bundles need, MiB.
const LITTLE_DISK: u64 = 64;
/// Less memory than the runtime with a usual network takes, MiB.
const LITTLE_MEMORY: u64 = 128;
/// From here on boards slow themselves down, °C.
const HOT: f64 = 85.0;

/// How a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Works, and is worth knowing.
    Notice,
    /// Will not work, or not safely.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it stands.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// Why it matters; empty where all is good.
    pub why: String,
    /// What mends it; empty where nothing needs to.
    pub mend: String,
}

fn good(subject: &str, found: impl Into<String>) -> Finding {
    Finding {
        subject: subject.into(),
        grade: Grade::Good,
        found: found.into(),
        why: String::new(),
        mend: String::new(),
    }
}

fn not(grade: Grade, subject: &str, found: impl Into<String>, why: &str, mend: impl Into<String>) -> Finding {
    Finding { subject: subject.into(), grade, found: found.into(), why: why.into(), mend: mend.into() }
}

/// Judges facts, against a profile where one is given.
pub fn findings(facts: &Facts, profile: Option<&Profile>) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(profile) = profile {
        all.extend(identity(facts, profile));
        all.extend(release(facts, profile));
        all.extend(installed_memory(facts, profile));
    } else {
        let found = facts.model.clone().unwrap_or_else(|| facts.architecture.clone());
        all.push(good("board", format!("{found}; no profile to compare with")));
    }
    all.extend(speed(facts));
    all.extend(heat(facts));
    all.extend(room(facts));
    all.push(clock(facts));
    all
}

fn identity(facts: &Facts, profile: &Profile) -> Vec<Finding> {
    let mut all = Vec::new();
    let why = "engines, libraries and clocks are another board's";
    if facts.architecture != profile.architecture {
        let found = format!("{}, where {} has {}", facts.architecture, profile.title, profile.architecture);
        all.push(not(Grade::Bad, "architecture", found, why, "use the profile that fits: excon boards list"));
    }
    let model = facts.model.clone().unwrap_or_default();
    let lower = model.to_lowercase();
    let named = profile.model.is_empty() || profile.model.iter().any(|m| lower.contains(m.as_str()));
    let compatible = profile.compatible.is_empty() || profile.compatible.iter().any(|c| facts.compatible.contains(c));
    if profile.model.is_empty() && profile.compatible.is_empty() {
        all.push(good("board", format!("any {}", profile.architecture)));
    } else if named && compatible {
        all.push(good("board", model));
    } else {
        let found = if model.is_empty() { "no device tree names this machine".into() } else { model };
        let mend = "use the profile that fits: excon boards list";
        all.push(not(Grade::Bad, "board", format!("{found}, not {}", profile.title), why, mend));
    }
    all
}

fn release(facts: &Facts, profile: &Profile) -> Vec<Finding> {
    if profile.releases.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    let Some(l4t) = &facts.l4t else {
        let why = "without NVIDIA's board support there is neither CUDA nor TensorRT";
        let mend = "flash JetPack with NVIDIA's SDK Manager; the CPU engine works without";
        return vec![not(Grade::Notice, "JetPack", "no /etc/nv_tegra_release", why, mend)];
    };
    let Some(release) = profile.releases.iter().find(|r| r.covers(l4t)) else {
        let names: Vec<&str> = profile.releases.iter().map(|r| r.name.as_str()).collect();
        let why = "nobody has written down what this release brings";
        let mend = format!("known for this board: {}", names.join(", "));
        return vec![not(Grade::Notice, "JetPack", format!("L4T {l4t}"), why, mend)];
    };
    all.push(good("JetPack", format!("{}, L4T {l4t}", release.name)));
    let wanted = [("tensorrt", &release.tensorrt), ("cuda", &release.cuda), ("cudnn", &release.cudnn)];
    for (name, wanted) in wanted {
        match facts.library(name) {
            Some(found)
                if version(found).starts_with(&version(wanted)) || version(wanted).starts_with(&version(found)) =>
            {
                all.push(good(name, found));
            }
            Some(found) => {
                let why = "an engine is built for one version; mixed ones fail when it is loaded";
                let mend = "sudo apt-get install --reinstall nvidia-jetpack";
                all.push(not(
                    Grade::Notice,
                    name,
                    format!("{found}, where {} brings {wanted}", release.name),
                    why,
                    mend,
                ));
            }
            None => {
                let why = "the graphics unit cannot be used; the CPU engine works without";
                all.push(not(Grade::Notice, name, "not found", why, "sudo apt-get install nvidia-jetpack"));
            }
        }
    }
    match &facts.glibc {
        Some(found) if version(found) < version(&release.glibc) => {
            let why = "programs built for this release do not start";
            let mend = "build excon-edge against an older glibc: see docs/boards.md";
            all.push(not(Grade::Bad, "glibc", format!("{found}, expected {}", release.glibc), why, mend));
        }
        Some(found) => all.push(good("glibc", found)),
        None => {}
    }
    all
}

fn installed_memory(facts: &Facts, profile: &Profile) -> Option<Finding> {
    let [total, _] = facts.memory_mib?;
    // The kernel and the graphics unit keep up to an eighth for themselves.
    let fits = |gb: u32| (f64::from(gb) * 1024.0 * 0.8..=f64::from(gb) * 1024.0).contains(&(total as f64));
    if profile.modules.is_empty() || profile.modules.iter().any(|m| fits(m.memory_gb)) {
        return None;
    }
    let sizes: Vec<String> = profile.modules.iter().map(|m| m.memory_gb.to_string()).collect();
    let found = format!("{total} MiB, where the modules have {} GB", sizes.join(" or "));
    let why = "it may be another module, or memory is set aside for something";
    Some(not(Grade::Notice, "module", found, why, "compare with: cat /proc/device-tree/model"))
}

fn speed(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    let why = "latencies are measured at the clocks of the moment, and will be longer here than they could be";
    if let Some(cpu) = facts.cpus.iter().min_by_key(|c| c.limit_mhz[0]) {
        let [now, built] =
            facts.cpus.iter().fold([u32::MAX, 0], |[low, high], c| [low.min(c.limit_mhz[0]), high.max(c.limit_mhz[1])]);
        let found =
            format!("{} × up to {now} MHz, {}", facts.cpus.len(), cpu.governor.as_deref().unwrap_or("no policy"));
        let slow = now * 100 < built * 95 || cpu.governor.as_deref() == Some("powersave");
        all.push(match slow {
            true if facts.power_mode.is_some() => {
                let mend = "sudo nvpmodel -m 0 && sudo jetson_clocks";
                not(Grade::Notice, "CPU clock", format!("{found}; built for {built}"), why, mend)
            }
            true => {
                let mend = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor";
                not(Grade::Notice, "CPU clock", format!("{found}; built for {built}"), why, mend)
            }
            false => good("CPU clock", found),
        });
    }
    if let Some([now, built]) = facts.gpu_mhz {
        all.push(match now * 100 < built * 95 {
            true => {
                let found = format!("up to {now} MHz; built for {built}");
                not(Grade::Notice, "GPU clock", found, why, "sudo nvpmodel -m 0 && sudo jetson_clocks")
            }
            false => good("GPU clock", format!("up to {now} MHz")),
        });
    }
    if let Some((mode, name)) = &facts.power_mode {
        all.push(good("power mode", format!("{mode} {}", name.as_deref().unwrap_or("(name unknown)"))));
    }
    all
}

fn heat(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(degrees) = facts.temperature {
        all.push(match degrees >= HOT {
            true => {
                let why = "the board slows itself down to cool";
                not(Grade::Notice, "temperature", format!("{degrees:.0} °C"), why, "check heat sink, fan and case")
            }
            false => good("temperature", format!("{degrees:.0} °C")),
        });
    }
    // Bits of the Raspberry Pi's firmware: 0 under-voltage, 1 capped, 2 throttled, 3 soft limit, now.
    if let Some(bits) = facts.throttled.filter(|bits| bits & 0xF != 0) {
        let what = if bits & 1 != 0 { "under-voltage" } else { "throttled" };
        let why = "clocks are cut, and a power supply that is too weak corrupts cards";
        let mend = "use the board's own power supply and cool it";
        all.push(not(Grade::Bad, "power supply", format!("{what} ({bits:#x})"), why, mend));
    }
    all
}

fn room(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some([total, available]) = facts.memory_mib {
        let found = format!("{available} of {total} MiB available");
        all.push(match available < LITTLE_MEMORY {
            true => {
                let why = "the engine may be killed by the system while it starts";
                not(
                    Grade::Bad,
                    "memory",
                    found,
                    why,
                    "stop what is not needed, such as the desktop: systemctl isolate multi-user.target",
                )
            }
            false => good("memory", found),
        });
    }
    if let Some(free) = facts.disk_mib {
        let found = format!("{free} MiB free");
        all.push(match free < LITTLE_DISK {
            true => {
                not(Grade::Bad, "disk", found, "an install needs room for two bundles", "remove what is not needed")
            }
            false => good("disk", found),
        });
    }
    match &facts.unwritable {
        Some(reason) => {
            let why = "nothing can be installed, and the monitor cannot keep its state";
            all.push(not(
                Grade::Bad,
                "slots",
                reason,
                why,
                "make the folder writable for this user, or give --root DIR",
            ));
        }
        None => all.push(good("slots", "writable")),
    }
    all
}

fn clock(facts: &Facts) -> Finding {
    let floor = EARLIEST.max(facts.signed_at);
    let by = if facts.clock_synchronised { "synchronised" } else { "not synchronised" };
    if facts.clock >= floor {
        return good("clock", format!("plausible, {by}"));
    }
    let found = format!("{} days behind what is known to have passed, {by}", (floor - facts.clock) / 86_400);
    let why = "logs and expiry are told by it; an expired bundle is still refused, counted from the last signature";
    not(Grade::Notice, "clock", found, why, "sudo timedatectl set-ntp true, or: sudo date -s 'YYYY-MM-DD HH:MM'")
}
