//! Keys and signatures in minisign's format: made here, checked on the board, and by the public `minisign` as well.
//!
//! The trusted comment says when a bundle was signed and when it expires, in seconds since 1970; it is signed too. A
//! key may be protected by a password, as minisign does it.

use crate::{Error, Result};
use excon_edge::bundle::{Members, Trust};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes a key pair: `NAME.key` for the signer, readable by its owner alone, and `NAME.pub` for the boards. Neither is
/// written over.
///
/// # Errors
/// [`Error::Key`] when a file is there already or no key can be made, [`excon_edge::Error::Write`] when it cannot be
/// written.
pub fn make(name: &Path, password: Option<String>) -> Result<(PathBuf, PathBuf)> {
    let (secret, public) = (with_extension(name, "key"), with_extension(name, "pub"));
    if let Some(path) = [&secret, &public].into_iter().find(|p| p.exists()) {
        let reason = "it is there already, and boards may depend on it. Choose another name".into();
        return Err(Error::Key { path: path.clone(), reason });
    }
    let failed = |e: minisign::PError| Error::Key { path: secret.clone(), reason: e.to_string() };
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    };
    let pair = pair.map_err(failed)?;
    let comment = format!("excon secret key of {}", file_name(name));
    let key = pair.sk.to_box(Some(&comment)).map_err(failed)?.into_string();
    write_new(&secret, key.as_bytes(), 0o600)?;
    let key = pair.pk.to_box().map_err(failed)?.into_string();
    write_new(&public, key.as_bytes(), 0o644)?;
    Ok((secret, public))
}

/// `dir/name` with `.key`, whatever dots the name has.
fn with_extension(name: &Path, extension: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(format!(".{extension}"));
    path.into()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let _ = mode;
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| excon_edge::Error::Write { path: path.into(), source }.into())
}

/// A key that can sign.
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

impl SigningKey {
    /// Opens a secret key: one of ours or of `minisign -G`. The password is asked for when the key has one.
    ///
    /// # Errors
    /// [`Error::Key`] when it is no secret key or the password is wrong.
    pub fn open(path: &Path, password: impl FnOnce() -> Result<String>) -> Result<Self> {
        let failed = |reason: String| Error::Key { path: path.into(), reason };
        let text = fs::read_to_string(path).map_err(|e| failed(format!("{e}. Make one with: excon keys new")))?;
        let parse = || SecretKeyBox::from_string(&text).map_err(|e| failed(e.to_string()));
        let secret = match parse()?.into_unencrypted_secret_key() {
            Ok(secret) => secret,
            Err(e) if e.to_string().contains("encrypted") => {
                parse()?.into_secret_key(Some(password()?)).map_err(|e| failed(e.to_string()))?
            }
            // Unprotected keys of the C tool carry no checksum, and this library wants one.
            Err(e) => {
                let advice = "it is no secret key, or one of `minisign -G -W`, which carries no checksum. \
                              Make one with a password, or with: excon keys new";
                return Err(failed(format!("{e}; {advice}")));
            }
        };
        let public = PublicKey::from_secret_key(&secret).map_err(|e| failed(e.to_string()))?;
        Ok(Self { secret, public })
    }

    /// The public half, the line of base64 that pins it.
    pub fn public(&self) -> String {
        self.public.to_base64()
    }

    /// Signs a bundle in place; a signature it has is replaced. `expires` is in seconds since 1970. The result has been
    /// checked as a board would.
    ///
    /// # Errors
    /// When the bundle cannot be opened or written; it is then as it was.
    pub fn sign(&self, file: &Path, expires: Option<u64>) -> Result<Members> {
        let members = Members::open(file, &Trust::anyone())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let manifest = &members.manifest;
        // Fields are separated by blanks, so a name's own must go.
        let name: String = manifest.name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        let mut comment = format!("timestamp:{now} model:{name} version:{}", manifest.version);
        comment += &expires.map(|at| format!(" expires:{at}")).unwrap_or_default();
        let failed = |reason: String| Error::Key { path: file.into(), reason };
        let untrusted = "signature of manifest.json; minisign -Vm manifest.json checks it";
        let signature = minisign::sign(
            Some(&self.public),
            &self.secret,
            members.manifest_bytes.as_slice(),
            Some(&comment),
            Some(untrusted),
        );
        let signature = signature.map_err(|e| failed(e.to_string()))?.into_string().into_bytes();
        let signed = Members { signature: Some(signature), ..members };
        signed.write(file)?;
        let mut trust = Trust::anyone();
        trust.pin("signer".into(), &self.public())?;
        Ok(Members::open(file, &trust)?)
    }
}
