//! One of the two sides of a comparison, opened: a run, a bundle or an ONNX file, on this toolkit's own engine, on stock
//! tract, or in another runtime.
//!
//! An ONNX file alone takes classes and preprocessing from the other side. One of another program is imported for our
//! engines, as `excon convert` does it; another runtime gets the file itself, as it lies there.

use crate::failure::{Failure, Result};
use crate::model::Model;
use excon_convert::compare::{Look, NamedMap, maps_in, maps_of, watched};
use excon_convert::export;
use excon_convert::fold::Folded;
use excon_convert::import::{Imported, Scores, import};
use excon_convert::onnx::{self, pb::ModelProto};
use excon_convert::peer::{Peer, PeerEngine, Runtime};
use excon_convert::probe::Probe;
use excon_convert::weights::Weights;
use excon_edge::bundle::Bundle;
use excon_edge::engine::tract::TractEngine;
use excon_edge::engine::{self, Engine};
use excon_train::checkpoint::Run;
use excon_train::config::Device;
use std::path::Path;
use std::sync::Arc;

/// What runs a file.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Ours,
    Tract,
    Peer(Runtime),
}

impl On {
    /// What stands before the path, and the path.
    fn parse(given: &str) -> (Self, &Path) {
        let peers = Runtime::ALL.map(|runtime| (runtime.name(), Self::Peer(runtime)));
        let known = [("tract", Self::Tract)].into_iter().chain(peers);
        let of = |(name, on): (&str, Self)| Some((on, given.strip_prefix(name)?.strip_prefix(':')?));
        let (on, path) = known.into_iter().find_map(of).unwrap_or((Self::Ours, given));
        (on, Path::new(path))
    }

    fn start(self, bytes: &[u8], given: &str) -> Result<Arc<dyn Engine>> {
        Ok(match self {
            Self::Ours => engine::open(bytes, given)?.into(),
            Self::Tract => Arc::new(TractEngine::from_onnx(bytes, given)?),
            Self::Peer(runtime) => {
                let shapes = engine::open(bytes, given)?.shapes();
                Arc::new(PeerEngine::start(runtime, bytes, shapes)?)
            }
        })
    }
}

/// One of the two.
pub struct Form {
    /// As it was given.
    pub given: String,
    /// Its network.
    pub model: Model,
    /// Whether its logits are known but for a number that a picture adds to all of them.
    pub shifted: bool,
    on: On,
    inside: Inside,
}

/// Where its inner maps are to be found.
enum Inside {
    /// A run's, converted to be looked into.
    Run(Box<Run>),
    /// Another program's network, imported.
    Imported(Box<Folded>),
    /// Our own file's bytes.
    File(Vec<u8>),
    /// Another program's file, of whose maps nothing is known.
    Unknown,
}

/// Opens both.
pub fn open(a: &str, b: &str) -> Result<[Form; 2]> {
    let is_onnx = |given: &str| given.ends_with(".onnx");
    match (is_onnx(a), is_onnx(b)) {
        (true, true) => Err(Failure::usage(
            "an ONNX file alone says neither classes nor preprocessing; give a run or a bundle as one of the two",
        )),
        (true, false) => {
            let second = Form::open(b, None)?;
            Ok([Form::open(a, Some(&second.model))?, second])
        }
        (false, _) => {
            let first = Form::open(a, None)?;
            let second = Form::open(b, is_onnx(b).then_some(&first.model))?;
            Ok([first, second])
        }
    }
}

impl Form {
    fn open(given: &str, like: Option<&Model>) -> Result<Self> {
        let (on, path) = On::parse(given);
        let form = |model, inside| Self { given: given.to_string(), model, shifted: false, on, inside };
        if path.join("run.json").is_file() {
            if on != On::Ours {
                return Err(Failure::usage(format!(
                    "{given} is a run; what stands before the colon runs a bundle or an ONNX file"
                )));
            }
            let run = Run::open(path)?;
            return Ok(form(Model::from_run(&run, Device::Cpu)?, Inside::Run(Box::new(run))));
        }
        let Some(like) = like else {
            let bundle = Bundle::open(path)?;
            let model = Model::from_bundle(&bundle, path)?;
            // A bundle's calibration was fitted on our own engine.
            let model = if on == On::Ours { model } else { model.on(on.start(&bundle.model, given)?) };
            return Ok(form(model, Inside::File(bundle.model.clone())));
        };
        let bytes =
            std::fs::read(path).map_err(|e| Failure::input(format!("{} cannot be read: {e}", path.display())))?;
        if !is_foreign(&bytes) {
            return Ok(form(like.on(on.start(&bytes, given)?), Inside::File(bytes)));
        }
        let imported = import(path, &bytes, Some(like.preprocess.size))?;
        if let On::Peer(runtime) = on {
            let shifted = imported.scores != Scores::Logits;
            let engine = PeerEngine::foreign(runtime, &bytes, &imported)?;
            return Ok(Self { shifted, ..form(like.on(Arc::new(engine)), Inside::Unknown) });
        }
        let Imported { network, .. } = imported;
        let engine = on.start(&onnx::encode(&export::float(&network, &like.labels)), given)?;
        Ok(form(like.on(engine), Inside::Imported(Box::new(network))))
    }

    /// Whether it can say more of its layers than that it computes the same as any other engine of this toolkit.
    pub fn has_own_layers(&self) -> bool {
        matches!(self.on, On::Peer(_)) || matches!(self.inside, Inside::Run(_) | Inside::Imported(_))
    }

    /// A model whose values carry the names that this toolkit gives them, with its maps in order; none where there is none.
    pub fn layers(&self) -> Result<Option<(ModelProto, Vec<NamedMap>)>> {
        let of = |network: &Folded| (export::float(network, &[]), maps_of(network));
        Ok(match &self.inside {
            Inside::Run(run) => {
                let weights = Weights::read(&run.path.join("model.safetensors"))?;
                Some(of(&Folded::new(&run.manifest.graph, &weights, run.manifest.preprocess.size)?))
            }
            Inside::Imported(network) => Some(of(network)),
            Inside::File(bytes) => {
                let model = onnx::decode(bytes)?;
                let maps = maps_in(&model);
                Some((model, maps))
            }
            Inside::Unknown => None,
        })
    }

    /// What computes `maps` of a picture: the other runtime itself; tract for every engine of this toolkit, whose fused kernels
    /// hand out no inner map.
    pub fn look_into(&self, model: &ModelProto, maps: &[NamedMap]) -> Result<Look> {
        let (model, input) = (watched(model, maps), self.model.engine.shapes().input);
        Ok(match self.on {
            On::Peer(runtime) => {
                let values: Vec<&str> = maps.iter().map(|map| map.value.as_str()).collect();
                let peer = Peer::start(runtime, &onnx::encode(&model), input, &values)?;
                Box::new(move |image| Ok(peer.run(image)?))
            }
            _ => {
                let probe = Probe::new(&model, input)?;
                Box::new(move |image| probe.run(image))
            }
        })
    }
}

/// Whether a file lacks the outputs that this toolkit gives its own. One that cannot be read is for the engine to refuse.
fn is_foreign(bytes: &[u8]) -> bool {
    let Ok(model) = excon_edge::engine::onnx::read(bytes) else { return false };
    let has = |name: &str| model.graph.iter().flat_map(|graph| &graph.output).any(|output| output.name == name);
    !(has(export::LOGITS) && has(export::FEATURES))
}
