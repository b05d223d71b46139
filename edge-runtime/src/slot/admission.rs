//! Whether a verified bundle may be installed here and now: not an older version, not another model, not expired.
//!
//! Expiry is safe with a wrong clock. A board without a battery wakes up in 1970, so a clock that is behind must not
//! make an expired bundle good: the time is taken to be at least the latest signing time this board has accepted, which
//! no one can set back. A clock that is ahead can only refuse an install, never stop what runs: expiry is asked here
//! alone, and the message names the clock.

use super::state::State;
use crate::bundle::Members;

/// What an install is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Accept a smaller version than was ever committed under this name.
    pub older: bool,
    /// Accept a model of another name than the one that runs.
    pub other_model: bool,
    /// The board's clock, seconds since 1970.
    pub now: u64,
}

impl Terms {
    /// The strict terms at the time of the system's clock.
    pub fn strict() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self { older: false, other_model: false, now: now.map_or(0, |d| d.as_secs()) }
    }
}

/// Refuses with a sentence that says what to do.
pub(super) fn admit(state: &State, members: &Members, terms: Terms) -> Result<(), String> {
    let manifest = &members.manifest;
    if let Some((_, running)) = state.running()
        && running.name != manifest.name
        && !terms.other_model
    {
        let (here, new) = (&running.name, &manifest.name);
        return Err(format!("this board runs the model `{here}`, not `{new}`. Change it with --other-model"));
    }
    let greatest = state.greatest.get(&manifest.name).copied().unwrap_or(0);
    if manifest.version < greatest && !terms.older {
        let version = manifest.version;
        return Err(format!(
            "version {version} of `{}` is older than {greatest}, which this board has run. Seal it with a higher \
             --model-version, or go back on purpose with --older",
            manifest.name
        ));
    }
    let Some(expires) = members.signed.expires else { return Ok(()) };
    let floor = state.signed_at.max(members.signed.at.unwrap_or(0));
    let now = terms.now.max(floor);
    if now < expires {
        return Ok(());
    }
    let source = match terms.now >= floor {
        true => "by this board's clock (`date` shows it; set it if it is wrong)",
        false => "counted from the last signature, since this board's clock is behind it",
    };
    Err(format!("it expired {} days ago {source}. Sign it anew: excon sign", (now - expires) / 86_400))
}
