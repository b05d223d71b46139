//! ExCon: view 1 is the clean picture masked by the explanation of its class, where the network still recognises it.
//!
//! Where it does not, view 1 is the backup random view. View 2 is always the first random view. Before `exp_epochs` the
//! step is plain SupCon.

use super::two_views::contrast;
use super::{Batch, Contrast, Needs, Purpose, Recipe, Step, stream};
use crate::config::TrainConfig;
use crate::explain::{ExplainConfig, explain};
use crate::loss::Background;
use crate::network::Network;
use crate::{Error, Result};
use candle_core::Tensor;
use rand::RngExt;

/// The ExCon recipe, and ExConB when its background is on.
#[derive(Debug, Clone, Copy)]
pub struct Excon {
    /// Constants of the step.
    pub contrast: Contrast,
    /// How pictures are explained and masked.
    pub explain: ExplainConfig,
    /// Treatment of masked pictures that fail.
    pub background: Background,
    /// First epoch (from 1) with explanations; 0 and 1 mean from the start.
    pub exp_epochs: usize,
    /// Control: view 1 is the clean picture of every row, nothing is explained.
    pub view1_unmasked: bool,
    /// Masked views are flipped with probability 0.5.
    pub flip_on_masked: bool,
    /// A black pixel after normalisation.
    pub black: [f32; 3],
}

impl Excon {
    /// The recipe of a configuration.
    ///
    /// # Errors
    /// When the mask rule is out of range.
    pub fn new(config: &TrainConfig, contrast: Contrast, black: [f32; 3]) -> Result<Self> {
        config.explain.check()?;
        Ok(Self {
            contrast,
            explain: config.explain,
            background: config.background,
            exp_epochs: config.exp_epochs,
            view1_unmasked: config.view1_unmasked,
            flip_on_masked: config.flip_on_masked,
            black,
        })
    }

    fn explains(&self, epoch: usize) -> bool {
        epoch >= self.exp_epochs
    }
}

impl Recipe for Excon {
    fn needs(&self, epoch: usize) -> Needs {
        Needs {
            standard: self.explains(epoch),
            random: if self.view1_unmasked && self.explains(epoch) { 1 } else { 2 },
        }
    }

    fn step(&self, network: &Network, batch: &Batch) -> Result<Step> {
        let two = |view1: &Tensor, background: Option<&Tensor>, treatment| {
            contrast(network, &self.contrast, [view1, &batch.first], background, treatment, &batch.labels)
        };
        if !self.explains(batch.epoch) {
            return two(&batch.second, None, Background::Off);
        }
        let missing = || Error::Setting { name: "batch".into(), reason: "the clean pictures are missing".into() };
        let standard = batch.standard.as_ref().ok_or_else(missing)?;
        if self.view1_unmasked {
            return two(standard, None, Background::Off);
        }
        let explained = explain(network, &self.explain, standard, &batch.labels, self.black)?;
        let view1 = self.first_view(batch, &explained.masked, &explained.passes)?;
        let failing: Vec<u32> = (0u32..).zip(&explained.passes).filter(|(_, pass)| !**pass).map(|(i, _)| i).collect();
        let mut step = if self.background == Background::Off || failing.is_empty() {
            two(&view1, None, Background::Off)?
        } else {
            let rows = Tensor::new(failing, standard.device())?;
            two(&view1, Some(&explained.masked.index_select(&rows, 0)?), self.background)?
        };
        step.explained = Some(explained);
        Ok(step)
    }

    fn trains_classifier(&self) -> bool {
        self.contrast.joint.is_some()
    }
}

impl Excon {
    /// View 1: the masked picture where it passes, else the backup.
    fn first_view(&self, batch: &Batch, masked: &Tensor, passes: &[bool]) -> Result<Tensor> {
        let (_, height, width, channels) = masked.dims4()?;
        let each = height * width * channels;
        let mut rows = batch.second.flatten_all()?.to_vec1::<f32>()?;
        let source = masked.flatten_all()?.to_vec1::<f32>()?;
        let pairs = rows.chunks_exact_mut(each).zip(source.chunks_exact(each)).zip(passes).zip(&batch.indices);
        for (((row, masked), _), &index) in pairs.filter(|((_, pass), _)| **pass) {
            row.copy_from_slice(masked);
            if self.flip_on_masked && stream(batch.seed, Purpose::MaskedFlip, batch.epoch, index).random_bool(0.5) {
                row.chunks_exact_mut(width * channels).for_each(|line| {
                    for x in 0..width / 2 {
                        let (a, b) = (x * channels, (width - 1 - x) * channels);
                        (0..channels).for_each(|c| line.swap(a + c, b + c));
                    }
                });
            }
        }
        Ok(Tensor::from_vec(rows, masked.shape(), masked.device())?)
    }
}
