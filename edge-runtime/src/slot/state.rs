//! `slots.json`: which slot runs, what each holds, how the trial of a new one stands, and what may not come back.
//!
//! It is the only thing that decides what is active, and it changes by one rename. A slot that it does not describe is
//! empty, whatever lies in its folder.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Schema identifier of the file.
pub const SCHEMA: &str = "excon.slots/1";

/// Starts of a new bundle that may end without one checked prediction before it is given up.
pub const ATTEMPTS: u32 = 3;

/// One of the two places for a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `slots/a`
    A,
    /// `slots/b`
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known about a slot's bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is being tried.
    Trial,
    /// It has passed its trial.
    Committed,
    /// It failed its trial, or was left during it; only a new install brings it back.
    Failed,
}

/// A bundle in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// SHA-256 of its manifest.
    pub digest: String,
    /// Model name.
    pub name: String,
    /// Version counter.
    pub version: u64,
    /// Name of the pinned key that signed it, where one was pinned.
    pub signed_by: Option<String>,
    /// See [`Standing`].
    pub standing: Standing,
}

/// The health window of a new bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Checked predictions it has to pass.
    pub needed: u64,
    /// Passed so far.
    pub passed: u64,
    /// Starts since the last one that passed something.
    pub attempts: u32,
    /// Only predictions of whoever uses the bundle count; otherwise self-tests on the golden inputs do.
    pub live: bool,
}

/// The content of `slots.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The slot that `active` means; none before the first install.
    pub active: Option<Slot>,
    /// What is in slot a.
    pub a: Option<Record>,
    /// What is in slot b.
    pub b: Option<Record>,
    /// The trial of the active slot, while it lasts.
    pub trial: Option<Trial>,
    /// Greatest version that was ever committed, by model name: older ones are refused.
    pub greatest: BTreeMap<String, u64>,
    /// Latest signing time among accepted bundles, seconds since 1970: it cannot be earlier than that now.
    pub signed_at: u64,
    /// What happened last, in a sentence.
    pub last: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA.into(),
            active: None,
            a: None,
            b: None,
            trial: None,
            greatest: BTreeMap::new(),
            signed_at: 0,
            last: "nothing has been installed".into(),
        }
    }
}

impl State {
    /// What is in a slot.
    pub fn record(&self, slot: Slot) -> Option<&Record> {
        match slot {
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    pub(super) fn record_mut(&mut self, slot: Slot) -> &mut Option<Record> {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// The active slot and what is in it.
    pub fn running(&self) -> Option<(Slot, &Record)> {
        self.active.and_then(|slot| Some((slot, self.record(slot)?)))
    }

    /// The slot that a rollback would go to: the other one, unless it is empty or has failed.
    pub fn fallback(&self) -> Option<(Slot, &Record)> {
        let other = self.active?.other();
        self.record(other).filter(|r| r.standing == Standing::Committed).map(|r| (other, r))
    }

    /// The slot that an install goes into.
    pub fn inactive(&self) -> Slot {
        self.active.map_or(Slot::A, Slot::other)
    }

    /// Checks what a reader relies on.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("its schema is not {SCHEMA}"));
        }
        if self.active.is_some() && self.running().is_none() {
            return Err("the active slot is not described".into());
        }
        if self.trial.is_some() != self.running().is_some_and(|(_, r)| r.standing == Standing::Trial) {
            return Err("a trial and the active slot's standing contradict each other".into());
        }
        Ok(())
    }
}
