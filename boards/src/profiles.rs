//! The board profiles that ship with the tool, and those that a user adds.

use crate::{Error, Result};
use excon_edge::board::{Facts, Profile};
use std::path::Path;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each shipped profile, in the order they are shown.
        pub const SHIPPED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../profiles/", $name, ".toml")))),*];
    };
}

shipped![
    "jetson-nano",
    "jetson-tx2",
    "jetson-xavier-nx",
    "jetson-agx-xavier",
    "jetson-orin-nano",
    "jetson-orin-nx",
    "jetson-agx-orin",
    "jetson-agx-thor",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "generic-aarch64",
    "generic-x86-64",
];

/// All profiles by their text: the shipped ones, and the `.toml` files of a folder, which replace those of their name.
///
/// # Errors
/// [`Error::Profile`] when a file cannot be read or says nonsense.
pub fn all(own: Option<&Path>) -> Result<Vec<(Profile, String)>> {
    let parse = |name: &str, text: String| {
        let profile = Profile::parse(&text);
        let profile = profile.map_err(|e| Error::Profile { name: name.into(), reason: e.to_string() })?;
        Ok((profile, text))
    };
    let mut all: Vec<_> = SHIPPED.iter().map(|(name, text)| parse(name, text.to_string())).collect::<Result<_>>()?;
    let Some(own) = own else { return Ok(all) };
    let failed =
        |path: &Path, e: std::io::Error| Error::Profile { name: path.display().to_string(), reason: e.to_string() };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(own).map_err(|e| failed(own, e))? {
        paths.push(entry.map_err(|e| failed(own, e))?.path());
    }
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "toml")) {
        let text = std::fs::read_to_string(path).map_err(|e| failed(path, e))?;
        let (profile, text) = parse(&path.display().to_string(), text)?;
        all.retain(|(p, _)| p.name != profile.name);
        all.push((profile, text));
    }
    Ok(all)
}

/// A profile by its name.
///
/// # Errors
/// [`Error::Profile`] when there is none, with the names that there are.
pub fn named(name: &str, own: Option<&Path>) -> Result<(Profile, String)> {
    let all = all(own)?;
    let names: Vec<String> = all.iter().map(|(p, _)| p.name.clone()).collect();
    all.into_iter().find(|(p, _)| p.name == name).ok_or_else(|| Error::Profile {
        name: name.into(),
        reason: format!("there is no such profile. There are: {}", names.join(", ")),
    })
}

/// The profile that a board's own files speak for: by its device tree, or the generic one of its architecture.
pub fn matching(facts: &Facts, all: &[(Profile, String)]) -> Option<Profile> {
    let model = facts.model.clone().unwrap_or_default().to_lowercase();
    let fits = |p: &&Profile| {
        p.architecture == facts.architecture
            && p.model.iter().any(|m| model.contains(m.as_str()))
            && (p.compatible.is_empty() || p.compatible.iter().any(|c| facts.compatible.contains(c)))
    };
    // The longest name is the closest: `orin nano` before `orin`.
    let closest = |p: &&Profile| p.model.iter().filter(|m| model.contains(m.as_str())).map(String::len).max();
    let profiles = || all.iter().map(|(p, _)| p);
    let generic = |p: &&Profile| p.model.is_empty() && p.architecture == facts.architecture;
    profiles().filter(fits).max_by_key(closest).or_else(|| profiles().find(generic)).cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_file_is_a_sound_profile_of_its_name_and_is_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
            assert_eq!(Profile::read(&path).unwrap().name, stem);
            assert!(SHIPPED.iter().any(|(name, _)| *name == stem), "{stem} is not shipped");
            files += 1;
        }
        assert_eq!(files, SHIPPED.len());
    }

    #[test]
    fn a_release_is_the_same_on_every_board() {
        let mut seen = BTreeMap::new();
        for (profile, _) in all(None).unwrap() {
            for release in profile.releases {
                let name = release.name.clone();
                let first = seen.entry(name).or_insert_with(|| release.clone());
                assert_eq!(*first, release, "{}", profile.name);
            }
        }
        assert!(seen.len() >= 7);
    }

    #[test]
    fn boards_are_known_by_their_device_tree() {
        let all = all(None).unwrap();
        let find = |architecture: &str, model: &str, compatible: &str| {
            let facts = Facts {
                architecture: architecture.into(),
                model: Some(model.into()).filter(|m: &String| !m.is_empty()),
                compatible: vec![compatible.into()],
                ..Facts::default()
            };
            matching(&facts, &all).unwrap().name
        };
        let tegra234 = "nvidia,tegra234";
        assert_eq!(find("aarch64", "NVIDIA Jetson Orin Nano Developer Kit", tegra234), "jetson-orin-nano");
        assert_eq!(find("aarch64", "NVIDIA Jetson AGX Orin Developer Kit", tegra234), "jetson-agx-orin");
        assert_eq!(find("aarch64", "NVIDIA Jetson Nano Developer Kit", "nvidia,tegra210"), "jetson-nano");
        assert_eq!(find("aarch64", "NVIDIA Jetson Xavier NX Developer Kit", "nvidia,tegra194"), "jetson-xavier-nx");
        assert_eq!(find("aarch64", "Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712"), "raspberry-pi-5");
        assert_eq!(find("aarch64", "Some Board", "vendor,chip"), "generic-aarch64");
        assert_eq!(find("x86_64", "", ""), "generic-x86-64");
    }

    #[test]
    fn a_users_folder_adds_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let text = SHIPPED[0].1.replace("title = \"", "title = \"Our ");
        std::fs::write(folder.path().join("ours.toml"), &text).unwrap();
        let (profile, _) = named("jetson-nano", Some(folder.path())).unwrap();
        assert!(profile.title.starts_with("Our "));
        assert_eq!(all(Some(folder.path())).unwrap().len(), SHIPPED.len());
        assert!(named("jetson", None).unwrap_err().to_string().contains("jetson-orin-nx"));
    }
}
