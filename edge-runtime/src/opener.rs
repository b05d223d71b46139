//! Opening a bundle on the engine of one's choice: the one door through which the commands come.
//!
//! `auto` takes TensorRT only where its library, a device and a plan that is right for both are there, and else the CPU,
//! with a sentence that says why. `tensorrt` builds the plan where it is missing or stale, fits the constants on it, and
//! fails where it cannot. Whatever is opened has passed the bundle's golden inputs; constants that were fitted on
//! the engine stand in the bundle afterwards.

use crate::bundle::{Bundle, MODEL};
use crate::engine::Engine;
use crate::engine::tensorrt::{self, Home, How, Job, Progress, Ready, TensorRtEngine, plan::Found};
use crate::predictor::Predictor;
use crate::refit::{self, Refit};
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// What is to run the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// TensorRT where it is ready for this bundle, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// TensorRT.
    TensorRt,
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            tensorrt::NAME => Ok(Self::TensorRt),
            _ => Err("use auto, cpu or tensorrt".into()),
        }
    }
}

/// What an opener has to say while it works.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told<'a> {
    /// A sentence that should be known.
    Note(&'a str),
    /// A build is under way.
    Building(&'a Progress),
    /// A build has ended.
    Built,
}

/// Opens bundles.
pub struct Opener {
    choice: Choice,
    home: Home,
    how: How,
    tell: Box<dyn Fn(Told) + Send + Sync>,
}

/// A bundle that was opened.
pub struct Opened {
    /// The predictor.
    pub predictor: Predictor,
    /// The constants of this engine that stand in the bundle now, instead of the sealed ones.
    pub refit: Option<Refit>,
    /// Whether they were fitted just now, and are still to be kept.
    pub fresh: bool,
    /// TensorRT's engine, where that runs it.
    pub tensorrt: Option<Arc<TensorRtEngine>>,
}

impl Opener {
    /// An opener that tells what it does to `tell`.
    pub fn new(choice: Choice, home: Home, tell: impl Fn(Told) + Send + Sync + 'static) -> Self {
        Self { choice, home, how: How::default(), tell: Box::new(tell) }
    }

    /// An opener for the CPU.
    pub fn cpu() -> Self {
        Self::new(Choice::Cpu, Home::at(""), |_| ())
    }

    /// The same, which builds in another way.
    pub fn building(self, how: How) -> Self {
        Self { how, ..self }
    }

    /// The same for an install: `auto` builds where the bundle was made for TensorRT and there is one.
    pub fn installing(self, bundle: &Bundle) -> Self {
        let made_for_it = bundle.manifest.target.starts_with(tensorrt::NAME);
        match self.choice {
            Choice::Auto if made_for_it && self.home.is_set_up() => match self.home.ready() {
                Ok(_) => Self { choice: Choice::TensorRt, ..self },
                Err(_) => self,
            },
            _ => self,
        }
    }

    /// Opens a bundle; its constants are those of the engine where there are any. What is fitted is kept beside it.
    ///
    /// # Errors
    /// As [`Predictor::new`]; with [`Choice::TensorRt`] also when there is none, the network is not one for this device, or
    /// the build fails.
    pub fn open(&self, bundle: &mut Bundle) -> Result<Predictor> {
        let opened = self.open_unsaved(bundle)?;
        self.keep(&opened, &refit::beside(&bundle.path));
        Ok(opened.predictor)
    }

    /// As [`Opener::open`]; where fresh constants are kept is for the caller to say.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn open_unsaved(&self, bundle: &mut Bundle) -> Result<Opened> {
        match self.choice {
            Choice::Cpu => {}
            Choice::TensorRt => return self.on_tensorrt(bundle, false),
            Choice::Auto if !self.home.is_set_up() => {}
            Choice::Auto => match self.ready_made(bundle) {
                Ok(opened) => return Ok(opened),
                Err(error) => self.note(&format!("the CPU runs it: {error}")),
            },
        }
        let name = bundle.path.join(MODEL).display().to_string();
        let engine: Arc<dyn Engine> = Arc::from(crate::engine::open(&bundle.model, &name)?);
        Ok(Opened { predictor: Predictor::new(bundle, engine)?, refit: None, fresh: false, tensorrt: None })
    }

    /// Puts the constants of the engine that would run a bundle into it. Where that is the CPU nothing is opened.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn settle_constants(&self, bundle: &mut Bundle) -> Result<()> {
        match self.choice {
            Choice::Cpu => Ok(()),
            Choice::Auto if !self.home.is_set_up() => Ok(()),
            _ => self.open(bundle).map(drop),
        }
    }

    /// Writes fresh constants to `path`; a place that cannot be written is told and costs only them.
    pub fn keep(&self, opened: &Opened, path: &Path) {
        if let Some(Err(error)) = opened.refit.as_ref().filter(|_| opened.fresh).map(|refit| refit.write(path)) {
            self.note(&format!("constants were fitted on this engine and cannot be kept: {error}"));
        }
    }

    /// TensorRT as it is, without building or fitting anything.
    fn ready_made(&self, bundle: &mut Bundle) -> Result<Opened> {
        let engine = tensorrt::NAME.to_string();
        let mut reason = "TensorRT has no plan for this bundle".to_string();
        let master = match Job::master(bundle) {
            Err(Error::Bundle { reason, .. }) => return Err(Error::Unavailable { engine, reason }),
            master => master?,
        };
        // Before anything of TensorRT is loaded, which takes its time and memory.
        if self.home.has_plan(&master) {
            let ready = self.home.ready()?;
            let job = ready.job(bundle)?;
            match ready.cached(&self.home, &job, self.how.dla_core) {
                Found::Valid(plan) => {
                    let engine = Arc::new(ready.load(&job, &plan)?);
                    let refit = self.fitted_before(bundle, &engine);
                    return Self::prove(bundle, engine, refit, false);
                }
                Found::Stale(why) => reason = format!("TensorRT's plan for this bundle is stale: {why}"),
                Found::Absent => {}
            }
        }
        let path = bundle.path.display();
        let reason = format!("{reason}. Build it: excon-edge tensorrt build {path}");
        Err(Error::Unavailable { engine, reason })
    }

    /// TensorRT, built where it has to be or where it is to be built `anew`, and constants fitted on it.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub fn on_tensorrt(&self, bundle: &mut Bundle, anew: bool) -> Result<Opened> {
        let ready = self.home.ready()?;
        let job = ready.job(bundle)?;
        if let Some(note) = &job.note {
            self.note(note);
        }
        if self.how.dla_core.is_some() && !job.half {
            let target = tensorrt::HALF_TARGET;
            let reason = format!(
                "the deep-learning accelerator computes in 16-bit float and takes no quantize–dequantize pairs. Seal one \
                 for it: excon convert --target {target}"
            );
            return Err(Error::Refused { path: bundle.path.clone(), reason });
        }
        let found = ready.cached(&self.home, &job, self.how.dla_core);
        if let Found::Stale(why) = &found {
            self.note(&format!("the plan is built anew: {why}"));
        }
        let engine = Arc::new(match found {
            Found::Valid(plan) if !anew => ready.load(&job, &plan)?,
            _ => self.built(&ready, &job)?,
        });
        if let Some(refit) = self.fitted_before(bundle, &engine) {
            return Self::prove(bundle, engine, Some(refit), false);
        }
        let sealed = bundle.manifest.calibration.engine.clone();
        let refit = match Refit::fit(bundle, engine.clone(), engine.digest()) {
            Ok(None) => Err("the bundle carries no pictures to fit them on; seal it with --ship-calibration".into()),
            Ok(Some(refit)) => Ok(refit),
            Err(Error::Data { what, reason }) => Err(format!("{what}: {reason}")),
            Err(error) => return Err(error),
        };
        if let Err(why) = &refit {
            self.note(&format!("constants fitted on {sealed} stay: {why}"));
        }
        let refit = refit.ok();
        let fresh = refit.is_some();
        Self::prove(bundle, engine, refit, fresh)
    }

    fn prove(bundle: &mut Bundle, engine: Arc<TensorRtEngine>, refit: Option<Refit>, fresh: bool) -> Result<Opened> {
        // The sealed constants are not touched by an engine that does not pass.
        let mut settled = bundle.clone();
        if let Some(refit) = &refit {
            refit.apply(&mut settled);
        }
        let predictor = Predictor::new(&settled, engine.clone())?;
        *bundle = settled;
        Ok(Opened { predictor, refit, fresh, tensorrt: Some(engine) })
    }

    fn fitted_before(&self, bundle: &Bundle, engine: &TensorRtEngine) -> Option<Refit> {
        Refit::read(&refit::beside(&bundle.path), &bundle.digest, engine.digest()).unwrap_or_else(|error| {
            self.note(&error.to_string());
            None
        })
    }

    fn built(&self, ready: &Ready, job: &Job) -> Result<TensorRtEngine> {
        let watch = &mut |progress: &Progress| {
            (self.tell)(Told::Building(progress));
            true
        };
        let built = tensorrt::build(ready, &self.home, job, &self.how, watch);
        (self.tell)(Told::Built);
        let built = built?;
        if let Some(error) = &built.unsaved {
            self.note(&format!("the plan cannot be kept, and is built again at every start: {error}"));
        }
        ready.load(job, &built.plan)
    }

    fn note(&self, what: &str) {
        (self.tell)(Told::Note(what));
    }
}

/// Name of the folder that a monitor of this bundle is kept in beside those of other engines: one that was fitted here is
/// another reference, and a saved monitor belongs to one. None for sealed constants.
pub fn monitor_folder(bundle: &Bundle) -> Option<String> {
    let fitted_here = bundle.manifest.calibration.engine == tensorrt::NAME;
    fitted_here.then(|| format!("{}-{}", tensorrt::NAME, &bundle.reference.digest()[..8]))
}
