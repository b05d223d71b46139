//! The flags of who may ask the service, the same for `serve` and `watch --serve`.

use excon_edge::{Error, Result};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// File whose first line callers have to show as a bearer token [default: EXCON_TOKEN, else none]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Let other machines ask without a token
    #[arg(long)]
    pub open: bool,
    /// PEM file of the certificate chain: HTTPS instead of HTTP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl AccessArgs {
    /// What callers have to show.
    ///
    /// # Errors
    /// [`Error::Read`] when the file cannot be read.
    pub fn token(&self) -> Result<Option<String>> {
        match &self.token_file {
            Some(file) => first_line(file).map(Some),
            None => Ok(std::env::var("EXCON_TOKEN").ok().filter(|t| !t.is_empty())),
        }
    }

    /// Certificate chain and key.
    pub fn tls(&self) -> Option<(PathBuf, PathBuf)> {
        self.tls_cert.clone().zip(self.tls_key.clone())
    }
}

fn first_line(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Read { path: file.into(), source })?;
    Ok(text.lines().next().unwrap_or_default().trim().to_string())
}
