//! `excon sign`: who answers for a bundle.

use super::keys;
use crate::failure::{Failure, Result};
use crate::terminal::{self, Format};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Signs a bundle, so that boards which pinned the key accept it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon sign trashnet.excon
  excon sign trashnet.excon --key keys/line-2.key --expires-in 90

The signature covers the manifest, whose digests cover everything else. `tar xf FILE.excon && minisign -Vm manifest.json
-p excon.pub` checks it without this tool. Boards refuse to install an expired bundle; one that runs goes on running.")]
pub struct Sign {
    /// The bundle; signed in place
    #[arg(value_name = "FILE.excon")]
    file: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE.key", default_value = "excon.key", env = "EXCON_KEY", hide_env_values = true)]
    key: PathBuf,
    /// Days until boards refuse to install it [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_in: Option<u64>,
}

impl Sign {
    /// Signs.
    pub fn run(&self, format: Format) -> Result<()> {
        let key = keys::open(&self.key)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| Failure::input("this machine's clock is before 1970. Set it first"))?.as_secs();
        let members = key.sign(&self.file, self.expires_in.map(|days| now + days * 86_400))?;
        let (manifest, signed) = (&members.manifest, &members.signed);
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.signature/1", "file": self.file, "name": manifest.name,
                "version": manifest.version, "digest": members.digest(), "public_key": key.public(),
                "signed_at": signed.at, "expires": signed.expires }));
        }
        terminal::rows(&[
            ("signed", format!("{}, {} version {}", self.file.display(), manifest.name, manifest.version)),
            ("digest", members.digest()),
            ("public key", key.public()),
            ("expires", self.expires_in.map_or("never".into(), |days| format!("in {days} days, for installs"))),
        ])?;
        let file = self.file.display();
        terminal::next(&[format!("excon flash {file} --to user@board"), format!("excon-edge install {file}")])
    }
}
