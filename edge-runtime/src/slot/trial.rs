//! The trial of a new bundle: each start is counted before the bundle is used, each checked prediction after, and what
//! crashes the board, hangs it or fails its checks is left again without anyone's help.

use super::{ATTEMPTS, Slots, Standing, State, Trial};
use crate::bundle::Trust;
use crate::file::{Disk, System};
use crate::{Error, Result};

/// How often progress is written down, as a share of the window.
const PARTS: u64 = 8;

impl<D: Disk> Slots<D> {
    /// Counts a start of the active bundle while it is on trial, before it is used. A bundle that has been started
    /// [`ATTEMPTS`] times and passed nothing is left for the other slot. Returns the state then.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written down.
    pub fn begin(&self, trust: &Trust) -> Result<State> {
        let mut state = self.state()?;
        let Some(trial) = &mut state.trial else { return Ok(state) };
        if trial.attempts >= ATTEMPTS {
            return self.fail(&format!("it was started {ATTEMPTS} times and did not pass one prediction"), trust);
        }
        trial.attempts += 1;
        self.save(&state)?;
        Ok(state)
    }

    /// Counts passed predictions of the bundle `digest`, and commits it when they are enough. Returns whether its trial
    /// is over.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written down.
    pub fn passed(&self, digest: &str, count: u64) -> Result<bool> {
        let mut state = self.state()?;
        let (Some((slot, record)), Some(trial)) = (state.running(), state.trial) else { return Ok(true) };
        if record.digest != digest {
            return Ok(true);
        }
        let passed = trial.passed.saturating_add(count);
        let over = passed >= trial.needed;
        let (name, version) = (record.name.clone(), record.version);
        if over {
            state.last = format!("{name} version {version} in slot {slot} was committed after {passed} predictions");
            let greatest = state.greatest.entry(name).or_insert(0);
            *greatest = version.max(*greatest);
            if let Some(record) = state.record_mut(slot) {
                record.standing = Standing::Committed;
            }
            state.trial = None;
        } else {
            state.trial = Some(Trial { passed, attempts: 0, ..trial });
        }
        self.save(&state)?;
        Ok(over)
    }

    /// Ends the trial with a failure: back to the other slot, or to none where nothing is in it.
    ///
    /// # Errors
    /// [`Error::Slots`] without a trial; [`Error::Write`] when it cannot be written down.
    pub fn fail(&self, why: &str, trust: &Trust) -> Result<State> {
        let mut state = self.state()?;
        let Some((slot, record)) = state.running().filter(|(_, r)| r.standing == Standing::Trial) else {
            return Err(self.refuse("no trial is under way"));
        };
        let intact = |(other, fallback): (_, &super::Record)| {
            crate::bundle::Members::open_on(&self.disk, &self.place(other), trust)
                .is_ok_and(|held| held.digest() == fallback.digest)
        };
        if state.fallback().is_some_and(intact) {
            return self.leave(state, true, why, trust);
        }
        state.last =
            format!("{} version {} in slot {slot} failed, and no other is there: {why}", record.name, record.version);
        if let Some(record) = state.record_mut(slot) {
            record.standing = Standing::Failed;
        }
        (state.active, state.trial) = (None, None);
        self.save(&state)?;
        Ok(state)
    }
}

#[cfg(feature = "tract")]
impl Slots<System> {
    /// Lets a bundle on trial prove itself: a start is counted, the bundle opened by `opener`, the golden inputs run;
    /// unless only live predictions count, as often as the trial still needs. Then it is committed, or left for the
    /// other one. Returns where that led. The caller holds the lock.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written down.
    pub fn prove(&self, trust: &Trust, opener: &crate::opener::Opener) -> Result<State> {
        let state = self.begin(trust)?;
        let Some(trial) = state.trial else { return Ok(state) };
        let tests = if trial.live { 1 } else { trial.needed.saturating_sub(trial.passed).max(1) };
        match self.self_tests(trust, opener, tests) {
            Ok(_) if trial.live => Ok(state),
            Ok(digest) => {
                self.passed(&digest, tests)?;
                self.state()
            }
            Err(error) => self.fail(&error.to_string(), trust),
        }
    }

    fn self_tests(&self, trust: &Trust, opener: &crate::opener::Opener, count: u64) -> Result<String> {
        let mut bundle = self.open_active(trust)?;
        // Building the predictor is the first self-test.
        let predictor = opener.open(&mut bundle)?;
        (1..count).try_for_each(|_| predictor.self_test(&bundle))?;
        Ok(bundle.digest)
    }
}

/// Counts the checked predictions of a process that uses a bundle on trial.
#[derive(Debug)]
pub struct Health {
    slots: Slots<System>,
    digest: String,
    step: u64,
    pending: u64,
    over: bool,
}

impl Health {
    /// For the bundle `digest`, of which `state` says how its trial stands.
    pub fn new(slots: Slots<System>, digest: &str, state: &State) -> Self {
        let needed = state.trial.map_or(0, |t| t.needed.saturating_sub(t.passed));
        let step = (needed / PARTS).max(1);
        Self { slots, digest: digest.into(), step, pending: 0, over: state.trial.is_none() }
    }

    /// One prediction has passed its check.
    ///
    /// # Errors
    /// [`Error::Write`] when progress cannot be written down.
    pub fn passed(&mut self) -> Result<()> {
        self.pending += u64::from(!self.over);
        if self.pending >= self.step { self.write() } else { Ok(()) }
    }

    /// A prediction has failed its check: a trial ends here. Returns the sentence that says where that led, or none
    /// when nothing was on trial.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written down.
    pub fn failed(&mut self, why: &str) -> Result<Option<String>> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(None);
        }
        self.pending = 0;
        let _lock = self.slots.lock()?;
        let state = self.slots.state()?;
        match state.running() {
            Some((_, record)) if record.digest == self.digest && state.trial.is_some() => {
                Ok(Some(self.slots.fail(why, &self.slots.trust()?)?.last))
            }
            _ => Ok(None),
        }
    }

    fn write(&mut self) -> Result<()> {
        let count = std::mem::take(&mut self.pending);
        let _lock = match self.slots.lock() {
            // Another process is writing its own progress, or rolling back: ours can wait.
            Err(Error::Busy { .. }) => {
                self.pending = count;
                return Ok(());
            }
            lock => lock?,
        };
        self.over = self.slots.passed(&self.digest, count)?;
        Ok(())
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.pending > 0 {
            let _ = self.write();
        }
    }
}
