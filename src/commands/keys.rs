//! `excon keys`: the key that signs bundles, and its public half that boards pin.

use crate::failure::{Failure, Result};
use crate::terminal::{self, Format};
use clap::{Args, Subcommand};
use excon_boards::key;
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Makes the keys that bundles are signed with
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon keys new                       excon.key, kept by the signer, and excon.pub, pinned on the boards
  excon keys new keys/line-2 --no-password

The format is minisign's (Ed25519). The key is protected by a password; EXCON_KEY_PASSWORD gives it where no one can
type. docs/flashing.md says how keys are pinned, rotated and lost.")]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a key pair, NAME.key and NAME.pub
    New {
        /// Where to, without an ending
        #[arg(value_name = "NAME", default_value = "excon")]
        name: PathBuf,
        /// Leave the secret key unprotected: whoever has the file can sign
        #[arg(long)]
        no_password: bool,
    },
}

impl Keys {
    /// Runs the subcommand.
    pub fn run(&self, format: Format) -> Result<()> {
        let Command::New { name, no_password } = &self.command;
        let password = if *no_password { None } else { Some(password("Password for the new key: ", true)?) };
        let (secret, public) = key::make(name, password)?;
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.keys/1", "secret": secret, "public": public }));
        }
        terminal::rows(&[
            ("secret key", format!("{}  keep it off the boards, and keep a copy", secret.display())),
            ("public key", public.display().to_string()),
        ])?;
        terminal::next(&[
            format!("excon sign FILE.excon --key {}", secret.display()),
            format!("ssh BOARD 'mkdir -p /var/lib/excon/keys' && scp {} BOARD:/var/lib/excon/keys/", public.display()),
        ])
    }
}

/// A password from the environment or the person at the terminal.
fn password(prompt: &str, twice: bool) -> Result<String> {
    if let Ok(password) = std::env::var("EXCON_KEY_PASSWORD") {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        let advice = "there is no terminal to ask for the key's password. Set EXCON_KEY_PASSWORD, or use --no-password";
        return Err(Failure::usage(advice));
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt).map_err(|e| Failure::input(format!("cannot read the password: {e}")))
    };
    let first = ask(prompt)?;
    if twice && ask("Once more: ")? != first {
        return Err(Failure::usage("the two passwords differ; nothing was made"));
    }
    Ok(first)
}

/// A key that signs, its password asked for where it has one.
pub fn open(path: &Path) -> Result<key::SigningKey> {
    let ask = || {
        password(&format!("Password of {}: ", path.display()), false)
            .map_err(|failure| excon_boards::Error::Key { path: path.into(), reason: failure.message })
    };
    Ok(key::SigningKey::open(path, ask)?)
}
