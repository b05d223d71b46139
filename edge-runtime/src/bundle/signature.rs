//! Who sealed a bundle: a detached Ed25519 signature of the manifest in minisign's format, and the keys a board trusts.
//!
//! The signature covers `manifest.json` byte for byte; the manifest's digests cover every other member. When a key is
//! pinned, the signature is checked before anything but those bytes is looked at, so that a stranger's bundle never
//! reaches a parser. What the signer says about time (`timestamp`, `expires`) stands in minisign's trusted comment,
//! which the signature covers too: `minisign -V` shows it.

use super::MANIFEST_SIGNATURE;
use crate::{Error, Result};
use minisign_verify::{PublicKey, Signature};
use std::fs;
use std::path::Path;

/// Largest signature file, bytes: two comments and two lines of base64.
pub const MAX_SIGNATURE: u64 = 4096;

/// What the signer says, under the signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// When it was signed, seconds since 1970, by the signer's clock.
    pub at: Option<u64>,
    /// From when on a board must not install it any more, seconds since 1970.
    pub expires: Option<u64>,
    /// Name of the pinned key that fits: the file's name; none where no key is pinned and nothing was checked.
    pub by: Option<String>,
}

/// The keys whose bundles are accepted; none accepts all.
#[derive(Clone, Default)]
pub struct Trust {
    keys: Vec<(String, PublicKey)>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Trust {
    /// Trusts whatever is undamaged.
    pub fn anyone() -> Self {
        Self::default()
    }

    /// The keys in a folder, minisign's `.pub` files; a folder that is not there pins none.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Refused`] when a file is no key: a pin that cannot be read must not become no pin.
    pub fn pinned(folder: &Path) -> Result<Self> {
        let failed = |path: &Path, source| Error::Read { path: path.into(), source };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::anyone()),
            Err(e) => return Err(failed(folder, e)),
        };
        let mut trust = Self::anyone();
        for entry in entries {
            let path = entry.map_err(|e| failed(folder, e))?.path();
            if path.extension().is_none_or(|e| e != "pub") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|e| failed(&path, e))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let reason = "it is no public key of minisign. Pin the `.pub` file that `excon keys new` wrote".into();
            trust.pin(name, &text).map_err(|_| Error::Refused { path, reason })?;
        }
        trust.keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(trust)
    }

    /// Adds a key: the text of a `.pub` file, or its line of base64 alone.
    ///
    /// # Errors
    /// [`Error::Data`] when it is no key.
    pub fn pin(&mut self, name: String, text: &str) -> Result<()> {
        let key = PublicKey::decode(text).or_else(|_| PublicKey::from_base64(text.trim()));
        let key = key.map_err(|e| Error::Data { what: "public key", reason: e.to_string() })?;
        self.keys.push((name, key));
        Ok(())
    }

    /// Whether a signature is demanded.
    pub fn is_pinned(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Names of the pinned keys.
    pub fn names(&self) -> Vec<&str> {
        self.keys.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Checks a manifest's signature. Without a pinned key only its form is checked, and what it says is not believed.
    pub(super) fn check(&self, manifest: &[u8], signature: Option<&[u8]>) -> std::result::Result<Signed, String> {
        let Some(signature) = signature else {
            return match self.is_pinned() {
                true => Err("it is not signed, and this board accepts signed bundles only. Sign it: excon sign".into()),
                false => Ok(Signed::default()),
            };
        };
        let text = std::str::from_utf8(signature).map_err(|_| format!("{MANIFEST_SIGNATURE} is no text"))?;
        let signature = Signature::decode(text).map_err(|e| format!("{MANIFEST_SIGNATURE}: {e}"))?;
        if !self.is_pinned() {
            return Ok(Signed::default());
        }
        let fits = |(_, key): &&(String, PublicKey)| key.verify(manifest, &signature, false).is_ok();
        let Some((name, _)) = self.keys.iter().find(fits) else {
            let names = self.names().join(", ");
            return Err(format!("its signature is by none of the pinned keys ({names}), or it was changed since"));
        };
        let mut signed = Signed { by: Some(name.clone()), ..Signed::default() };
        for field in signature.trusted_comment().split_ascii_whitespace() {
            let number = |text: &str| {
                text.parse().map(Some).map_err(|_| format!("{MANIFEST_SIGNATURE}: `{field}` is no time in seconds"))
            };
            match field.split_once(':') {
                Some(("timestamp", seconds)) => signed.at = number(seconds)?,
                Some(("expires", seconds)) => signed.expires = number(seconds)?,
                _ => {}
            }
        }
        Ok(signed)
    }
}
