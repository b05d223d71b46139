//! Slots under everything that can happen to a disk, and what they refuse.
#![allow(clippy::unwrap_used)]

mod power_cut;
mod simulated;
mod trouble;

use super::*;
use crate::bundle::{FileEntry, GOLDEN, MODEL, REFERENCE, Signed};
use sha2::{Digest, Sha256};

const ROOT: &str = "/excon";

fn terms() -> Terms {
    Terms { older: true, other_model: false, now: 0 }
}

/// A verified bundle of a version: sizes on both sides of a sector and a page, contents of its own.
fn members(version: u64) -> Members {
    let fill = |size: usize, salt: u64| (0..size as u64).map(move |i| ((i * 31 + version * 97 + salt) % 251) as u8 + 1);
    let files = [(MODEL, 5_000), (REFERENCE, 1_100), (GOLDEN, 300)];
    let files = files.map(|(name, size)| (name.to_string(), fill(size, size as u64).collect::<Vec<u8>>()));
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let entry = |bytes: &Vec<u8>| FileEntry { size: bytes.len() as u64, sha256: hex(bytes) };
    let mut manifest = crate::tiny::manifest(false, 12, "test");
    manifest.version = version;
    manifest.files = files.iter().map(|(name, bytes)| (name.clone(), entry(bytes))).collect();
    let manifest_bytes = serde_json::to_vec_pretty(&manifest).unwrap();
    Members { manifest_bytes, signature: None, signed: Signed::default(), manifest, files: files.into() }
}
