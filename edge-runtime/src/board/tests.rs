//! Boards that are folders.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use std::path::Path;

fn put(root: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// An Orin Nano with JetPack 6.2 in a slow mode, as a folder.
fn orin(root: &Path) {
    let machine = std::env::consts::ARCH;
    let libraries = format!("usr/lib/{machine}-linux-gnu");
    put(
        root,
        &[
            ("proc/device-tree/model", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0"),
            ("proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"),
            ("etc/os-release", "NAME=Ubuntu\nPRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\n"),
            ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64\n"),
            (
                &format!("lib/{machine}-linux-gnu/libc.so.6"),
                "\x7fELF GNU C Library (Ubuntu GLIBC 2.35) stable release version 2.35.\n",
            ),
            (&format!("{libraries}/libnvinfer.so.10"), ""),
            (&format!("{libraries}/libnvinfer.so.10.3.0"), ""),
            ("usr/local/cuda/lib64/libcudart.so.12.6.68", ""),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "729600\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1728000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n"),
            ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
            ("sys/class/devfreq/17000000.gpu/max_freq", "1020000000\n"),
            ("sys/class/devfreq/17000000.gpu/available_frequencies", "306000000 1020000000\n"),
            ("var/lib/nvpmodel/status", "pmode:0001\n"),
            ("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\nCPU 1\n< POWER_MODEL ID=1 NAME=7W >\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48500\n"),
            ("sys/class/thermal/thermal_zone1/temp", "51250\n"),
            ("proc/meminfo", "MemTotal:        7802880 kB\nMemFree: 1 kB\nMemAvailable:    5120000 kB\n"),
        ],
    );
}

const PROFILE: &str = r#"
schema = "excon.profile/1"
name = "orin"
title = "Orin"
architecture = "ARCH"
model = ["orin nano"]
compatible = ["nvidia,tegra234"]
sources = ["a test"]
[[module]]
part = "p3767-0005"
memory_gb = 8
[[release]]
name = "JetPack 6.1 - 6.2"
l4t = ["36.4.0", "36.4.9"]
tensorrt = "10.3.0"
cuda = "12.6"
cudnn = "9.3.0"
glibc = "2.35"
"#;

fn profile() -> Profile {
    Profile::parse(&PROFILE.replace("ARCH", std::env::consts::ARCH)).unwrap()
}

fn grade(all: &[Finding], subject: &str) -> Grade {
    all.iter().find(|f| f.subject == subject).unwrap_or_else(|| panic!("{subject} is not in {all:#?}")).grade
}

#[test]
fn a_jetson_is_read_and_what_slows_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    orin(folder.path());
    let facts = Facts::probe(folder.path(), &folder.path().join("var/lib/excon"));
    assert_eq!(facts.l4t.as_deref(), Some("36.4.3"));
    assert_eq!(facts.glibc.as_deref(), Some("2.35"));
    assert_eq!(
        (facts.library("tensorrt"), facts.library("cuda"), facts.library("cudnn")),
        (Some("10.3.0"), Some("12.6.68"), None)
    );
    assert_eq!(facts.power_mode, Some((1, Some("7W".into()))));
    assert_eq!((facts.temperature, facts.gpu_mhz), (Some(51.25), Some([1020, 1020])));
    assert_eq!(facts.memory_mib, Some([7620, 5000]));
    assert!(facts.disk_mib.is_some() && facts.unwritable.is_none());
    assert_eq!(fs::read_dir(folder.path().join("var/lib")).unwrap().count(), 1, "looking leaves nothing behind");

    let all = findings(&facts, Some(&profile()));
    for (subject, wanted) in [
        ("board", Grade::Good),
        ("JetPack", Grade::Good),
        ("tensorrt", Grade::Good),
        ("cuda", Grade::Good),
        ("cudnn", Grade::Notice),
        ("glibc", Grade::Good),
        ("CPU clock", Grade::Notice),
        ("GPU clock", Grade::Good),
        ("slots", Grade::Good),
    ] {
        assert_eq!(grade(&all, subject), wanted, "{subject}");
    }
    assert!(all.iter().all(|f| (f.grade == Grade::Good) == f.mend.is_empty()), "what is not good can be mended");
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts, "facts travel");
}

#[test]
fn another_board_an_unknown_release_and_a_wrong_clock_are_told() {
    let folder = tempfile::tempdir().unwrap();
    orin(folder.path());
    put(
        folder.path(),
        &[
            ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
            ("etc/nv_tegra_release", "# R40 (release), REVISION: 1.0, GCID\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
        ],
    );
    let mut facts = Facts::probe(folder.path(), folder.path());
    facts.clock = 86_400;
    facts.unwritable = Some("read-only".into());
    facts.memory_mib = Some([3900, 20]);
    facts.disk_mib = Some(3);
    facts.temperature = Some(91.0);
    let all = findings(&facts, Some(&profile()));
    for (subject, wanted) in [
        ("board", Grade::Bad),
        ("JetPack", Grade::Notice),
        ("module", Grade::Notice),
        ("power supply", Grade::Bad),
        ("memory", Grade::Bad),
        ("disk", Grade::Bad),
        ("slots", Grade::Bad),
        ("temperature", Grade::Notice),
        ("clock", Grade::Notice),
    ] {
        assert_eq!(grade(&all, subject), wanted, "{subject}");
    }
    // A machine of which nothing can be read is a machine too.
    let empty = tempfile::tempdir().unwrap();
    let facts = Facts::probe(empty.path(), empty.path());
    assert!(findings(&facts, None).iter().all(|f| f.grade == Grade::Good));
}

#[test]
fn profiles_that_say_nonsense_are_refused() {
    let cases = [
        ("excon.profile/1", "excon.profile/2", "schema"),
        ("\"orin\"", "\"Orin Nano\"", "name must"),
        ("ARCH", "mips", "architecture"),
        ("[\"a test\"]", "[]", "sources"),
        ("\"10.3.0\"", "\"ten\"", "numbers with dots"),
        ("\"36.4.9\"", "\"36.3.0\"", "runs backwards"),
        ("memory_gb = 8", "memory_gb = 0", "positive"),
        ("sources", "unverified = [\"colour\"]\nsources", "no field"),
        ("title", "colour = 1\ntitle", "unknown field"),
    ];
    for (from, to, words) in cases {
        let text = PROFILE.replacen(from, to, 1).replace("ARCH", std::env::consts::ARCH);
        let message = Profile::parse(&text).unwrap_err().to_string();
        assert!(message.contains(words), "{from} → {to}: {message}");
    }
}
