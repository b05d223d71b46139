//! Where a command's bundle comes from: a file, a folder, or the active slot. Pinned keys hold for all three.
//!
//! Whoever opens the active bundle to use it takes part in its trial: the start is counted before, each checked
//! prediction after, and a bundle that fails is left for the one before it.

use super::output;
use excon_edge::bundle::{Bundle, Trust};
use excon_edge::engine::tensorrt::Home;
use excon_edge::opener::{self, Choice, Opener};
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::session::{self, Overrides, Session};
use excon_edge::slot::{self, Health, Slots};
use excon_edge::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The word for the installed bundle.
pub const ACTIVE: &str = "active";
/// Digits of a digest in the name of a folder.
const SHORT: usize = 16;

/// The root of the slots.
#[derive(Debug, clap::Args)]
pub struct RootArgs {
    /// Folder of the slots and the pinned keys
    #[arg(long, value_name = "DIR", env = "EXCON_ROOT", default_value = slot::ROOT, hide_env_values = true)]
    pub root: PathBuf,
}

impl RootArgs {
    /// The slots below it.
    pub fn slots(&self) -> Slots {
        Slots::at(&self.root)
    }
}

/// What is to run the network.
#[derive(Debug, clap::Args)]
pub struct EngineArgs {
    /// What runs the network: auto (TensorRT where it is built for the bundle, else the CPU), cpu, or tensorrt
    #[arg(long, value_name = "ENGINE", env = "EXCON_ENGINE", default_value = "auto", hide_env_values = true)]
    pub engine: Choice,
    /// Folder of TensorRT's shim and plans [default: ROOT/tensorrt]
    #[arg(long, value_name = "DIR", env = "EXCON_TENSORRT", hide_env_values = true)]
    pub tensorrt: Option<PathBuf>,
}

impl EngineArgs {
    /// Where TensorRT lives.
    pub fn home(&self, root: &RootArgs) -> Home {
        Home::at(self.tensorrt.clone().unwrap_or_else(|| root.root.join("tensorrt")))
    }

    /// Opens bundles, and says on stderr what it does.
    pub fn opener(&self, root: &RootArgs) -> Opener {
        Opener::new(self.engine, self.home(root), output::building())
    }
}

/// A bundle, and the root for `active` and the pinned keys.
#[derive(Debug, clap::Args)]
pub struct BundleArgs {
    /// The bundle: a `.excon` file, a folder with its members, or `active` for the installed one
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub root: RootArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
}

impl BundleArgs {
    /// Opens the bundle to use it.
    ///
    /// # Errors
    /// As [`Bundle::open_trusted`] and [`Slots::open_active`].
    pub fn open(&self) -> Result<(Bundle, Checks)> {
        let slots = self.root.slots();
        let trust = slots.trust()?;
        match self.bundle == Path::new(ACTIVE) {
            true => open_active(slots, &trust, &self.opener()),
            false => Ok((Bundle::open_trusted(&self.bundle, &trust)?, Checks(None))),
        }
    }

    /// What opens it on the engine asked for.
    pub fn opener(&self) -> Opener {
        self.engine.opener(&self.root)
    }

    /// A predictor on the engine asked for; the bundle's constants are that engine's then.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn predictor(&self, bundle: &mut Bundle) -> Result<Predictor> {
        self.opener().open(bundle)
    }

    /// Opens the bundle to look at it: no trial is touched.
    ///
    /// # Errors
    /// As [`BundleArgs::open`].
    pub fn look(&self) -> Result<Bundle> {
        look(&self.bundle, &self.root)
    }

    /// The bundle and the monitor that a watch has saved in `folder`, to be changed: as long as the file lives, whoever
    /// else would write the state waits, then takes over what is written here.
    ///
    /// # Errors
    /// As [`BundleArgs::look`] and [`Session::open`]; [`Error::State`] where nothing was saved.
    pub fn saved(&self, folder: &Path) -> Result<(Bundle, Session, Option<File>)> {
        let mut bundle = self.look()?;
        self.opener().settle_constants(&mut bundle)?;
        let engine = bundle.manifest.calibration.engine.clone();
        let state = self.state(Some(folder), &bundle);
        let turn = state.as_deref().filter(|folder| folder.is_dir()).map(session::lock).transpose()?;
        let session = Session::open(&bundle, &engine, state.as_deref(), Overrides::default())?;
        if !session.is_saved() {
            let reason = "there is no saved monitor here; give the folder that `watch --state` was given".into();
            return Err(Error::State { path: folder.into(), reason });
        }
        Ok((bundle, session, turn))
    }

    /// The folder that a monitor of this bundle is kept in. The active bundle changes, and a monitor belongs to one, so
    /// there each has a folder of its own below; a rollback finds the monitor it had. So has each engine that constants
    /// were fitted on here.
    pub fn state(&self, folder: Option<&Path>, bundle: &Bundle) -> Option<PathBuf> {
        state(&self.bundle, folder, bundle)
    }
}

/// As [`BundleArgs::look`].
pub fn look(bundle: &Path, root: &RootArgs) -> Result<Bundle> {
    let slots = root.slots();
    let trust = slots.trust()?;
    if bundle == Path::new(ACTIVE) { slots.open_active(&trust) } else { Bundle::open_trusted(bundle, &trust) }
}

/// As [`BundleArgs::state`].
pub fn state(argument: &Path, folder: Option<&Path>, bundle: &Bundle) -> Option<PathBuf> {
    folder.map(|folder| {
        let mut place = folder.to_path_buf();
        if argument == Path::new(ACTIVE) {
            place.push(&bundle.digest[..SHORT]);
        }
        place.extend(opener::monitor_folder(bundle));
        place
    })
}

fn open_active(slots: Slots, trust: &Trust, opener: &Opener) -> Result<(Bundle, Checks)> {
    let mut state = slots.state()?;
    if state.trial.is_some() {
        match slots.lock().and_then(|_lock| slots.prove(trust, opener)) {
            Ok(now) => {
                if now.trial.is_none() {
                    output::note(&now.last);
                }
                state = now;
            }
            // Whoever is installing it counts, or we may not: then it is used and not counted.
            Err(Error::Busy { .. }) => state.trial = None,
            Err(error @ Error::Write { .. }) => {
                output::note(format_args!("this start does not count for the trial of the active bundle: {error}"));
                state.trial = None;
            }
            Err(error) => return Err(error),
        }
    }
    let bundle = slots.open_active(trust)?;
    let checks = state.trial.map(|_| Health::new(slots, &bundle.digest, &state));
    Ok((bundle, Checks(checks)))
}

/// The part that a process has in the trial of the bundle it uses; none for one that is not on trial.
pub struct Checks(Option<Health>);

impl Checks {
    /// Counts a prediction. One that fails its self-test ends the trial.
    ///
    /// # Errors
    /// [`Error::Engine`] when the trial ended so: the bundle is not the active one any more. [`Error::Write`] when it
    /// cannot be written down.
    pub fn see(&mut self, prediction: &Prediction, engine: &str) -> Result<()> {
        let Some(health) = &mut self.0 else { return Ok(()) };
        match prediction.verify(engine) {
            Ok(()) => health.passed(),
            Err(error) => match health.failed(&error.to_string())? {
                Some(reason) => Err(Error::Engine { engine: engine.into(), reason }),
                None => Ok(()),
            },
        }
    }
}
