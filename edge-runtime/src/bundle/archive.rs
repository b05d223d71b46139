//! The container: an uncompressed tar in which every byte but the members' contents is determined.
//!
//! Layout: `manifest.json`, `manifest.json.sha256`, `manifest.json.minisig` where it is signed, then the manifest's
//! files in order of name. Headers are ustar,
//! mode 0644, owner 0, time 0; padding and the closing 1,024 bytes are zero; nothing follows. Equal members give
//! equal bytes, and a reader can refuse whatever is not exactly what a writer would have written: links, devices,
//! paths, extra members, a flipped bit in a header. Public `tar` and `sha256sum -c` read it.

use super::{
    FileEntry, MANIFEST, MANIFEST_DIGEST, MANIFEST_SIGNATURE, MAX_MANIFEST, MAX_SIGNATURE, Manifest, Members, Trust,
};
use crate::file;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// Why a container was not read: the system failed, or the content is refused.
pub(super) enum Refusal {
    System(io::Error),
    Content(String),
    Untrusted(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Content("it ends too early".into()),
            _ => Self::System(error),
        }
    }
}

/// Line in the format of `sha256sum` that guards the manifest.
pub(super) fn digest_line(manifest_bytes: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", file::digest(manifest_bytes))
}

/// Checks the manifest against its digest line and parses it.
pub(super) fn parse_manifest(bytes: &[u8], digest: &[u8]) -> Result<Manifest, Refusal> {
    if digest != digest_line(bytes).as_bytes() {
        return Err(Refusal::Content(format!("{MANIFEST} does not match {MANIFEST_DIGEST}")));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| Refusal::Content(format!("{MANIFEST}: {e}")))?;
    manifest.validate().map_err(|reason| Refusal::Content(format!("{MANIFEST}: {reason}")))?;
    Ok(manifest)
}

/// Checks one member against its entry.
pub(super) fn verify(name: &str, bytes: &[u8], entry: &FileEntry) -> Result<(), Refusal> {
    if bytes.len() as u64 != entry.size || file::digest(bytes) != entry.sha256 {
        return Err(Refusal::Content(format!("{name} does not match its digest in {MANIFEST}")));
    }
    Ok(())
}

/// The one header a member of this name and size may have.
fn header(name: &str, size: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// Writes a container of members by name, in the order they are to stand.
pub(super) fn write<'a>(to: &mut impl Write, members: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<()> {
    for (name, bytes) in members {
        to.write_all(&header(name, bytes.len() as u64)?)?;
        to.write_all(bytes)?;
        to.write_all(&[0; BLOCK][..padding(bytes.len() as u64)])?;
    }
    to.write_all(&[0; 2 * BLOCK])
}

/// Reads and verifies a container of `length` bytes. No more is read or reserved than the manifest declares.
/// The signature is checked before the manifest is parsed.
pub(super) fn read(from: &mut impl Read, length: u64, trust: &Trust) -> Result<Members, Refusal> {
    let start = block(from)?;
    let size = tar::Header::from_byte_slice(&start)
        .entry_size()
        .ok()
        .filter(|&size| size <= MAX_MANIFEST && header(MANIFEST, size).is_ok_and(|h| h == start))
        .ok_or_else(|| Refusal::Content(format!("it does not start with {MANIFEST} as a bundle does")))?;
    let manifest_bytes = content(from, MANIFEST, size)?;
    let digest_line = member(from, MANIFEST_DIGEST, digest_line(&[]).len() as u64)?;
    let next = block(from)?;
    let signed = tar::Header::from_byte_slice(&next).entry_size().ok();
    let signed = signed
        .filter(|&size| size <= MAX_SIGNATURE && header(MANIFEST_SIGNATURE, size).is_ok_and(|header| header == next));
    let signature = signed.map(|size| content(from, MANIFEST_SIGNATURE, size)).transpose()?;
    let signed = trust.check(&manifest_bytes, signature.as_deref()).map_err(Refusal::Untrusted)?;
    let manifest = parse_manifest(&manifest_bytes, &digest_line)?;

    let sizes = signature.iter().map(|s| s.len() as u64).chain(manifest.files.values().map(|f| f.size));
    let sizes = [size, digest_line.len() as u64].into_iter().chain(sizes);
    let expected = sizes.map(|s| BLOCK as u64 + s + padding(s) as u64).sum::<u64>() + 2 * BLOCK as u64;
    if expected != length {
        return Err(Refusal::Content(format!("it has {length} bytes where its manifest makes {expected}")));
    }
    let mut files = BTreeMap::new();
    // Without a signature, the header that was read in its place is the first file's.
    let mut ahead = signature.is_none().then_some(next);
    for (name, entry) in &manifest.files {
        let start = match ahead.take() {
            Some(start) => start,
            None => block(from)?,
        };
        let bytes = member_behind(start, from, name, entry.size)?;
        verify(name, &bytes, entry)?;
        files.insert(name.clone(), bytes);
    }
    let mut end = [0; 2 * BLOCK];
    from.read_exact(&mut end)?;
    if end.iter().any(|&b| b != 0) {
        return Err(Refusal::Content("its end is damaged".into()));
    }
    Ok(Members { manifest_bytes, signature, signed, manifest, files })
}

fn block(from: &mut impl Read) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    from.read_exact(&mut block)?;
    Ok(block)
}

fn member(from: &mut impl Read, name: &str, size: u64) -> Result<Vec<u8>, Refusal> {
    let start = block(from)?;
    member_behind(start, from, name, size)
}

fn member_behind(start: [u8; BLOCK], from: &mut impl Read, name: &str, size: u64) -> Result<Vec<u8>, Refusal> {
    if header(name, size)? != start {
        return Err(Refusal::Content(format!("{name} does not stand where its manifest says")));
    }
    content(from, name, size)
}

fn content(from: &mut impl Read, name: &str, size: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    from.take(size).read_to_end(&mut bytes)?;
    let mut pad = [0; BLOCK];
    let pad = &mut pad[..padding(size)];
    from.read_exact(pad)?;
    if bytes.len() as u64 != size || pad.iter().any(|&b| b != 0) {
        return Err(Refusal::Content(format!("{name} is cut short or followed by stray bytes")));
    }
    Ok(bytes)
}
