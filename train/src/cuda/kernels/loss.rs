//! Losses, their gradients and the sums of a step: `loss.cu`.

use super::*;

impl Machine {
    /// Loss and hit of each row and the gradient of `weight` × their mean over the first `real` rows; labels repeat
    /// every `batch` rows.
    pub fn cross_entropy(
        &self,
        logits: &Matrix,
        labels: &Block,
        batch: usize,
        real: usize,
        weight: f32,
    ) -> Result<(Matrix, Block, Block)> {
        let gradient = self.matrix(logits.rows, logits.columns)?;
        let (losses, hits) = (self.pool.floats(logits.rows)?, self.pool.floats(logits.rows)?);
        let arguments = [
            at(logits.at()),
            at(labels.address()),
            int(batch),
            int(real),
            int(logits.columns),
            weight.into(),
            at(losses.address()),
            at(hits.address()),
            at(gradient.at()),
        ];
        self.each("cross_entropy", logits.rows, &arguments)?;
        Ok((gradient, losses, hits))
    }

    /// Rows divided by their norms, and the norms.
    pub fn normalise_rows(&self, x: &Matrix) -> Result<(Matrix, Block)> {
        let (z, norms) = (self.matrix(x.rows, x.columns)?, self.pool.floats(x.rows)?);
        self.each("normalise_rows", x.rows, &[at(x.at()), int(x.columns), at(z.at()), at(norms.address())])?;
        Ok((z, norms))
    }

    /// The gradient before [`Self::normalise_rows`], in place.
    pub fn normalise_rows_gradient(&self, gradient: &Matrix, z: &Matrix, norms: &Block) -> Result<()> {
        let arguments = [at(gradient.at()), at(z.at()), at(norms.address()), int(z.columns)];
        self.each("normalise_rows_gradient", z.rows, &arguments)
    }

    /// The contrastive loss' terms per row from similarities, which become their gradient; see `loss.cu`.
    pub fn supcon(
        &self,
        similarity: &Matrix,
        labels: &Block,
        (batch, real): (usize, usize),
        weights: Option<&Weights>,
        own_class: bool,
        (temperature, base): (f32, f32),
    ) -> Result<Block> {
        let terms = self.pool.floats(similarity.rows)?;
        let arguments = [
            at(similarity.at()),
            at(labels.address()),
            int(batch),
            int(real),
            int(similarity.rows),
            maybe(weights.map(|w| w.each.address())),
            maybe(weights.map(|w| w.total.address())),
            own_class.into(),
            temperature.into(),
            base.into(),
            at(terms.address()),
        ];
        self.each("supcon", similarity.rows, &arguments)?;
        Ok(terms)
    }

    /// Sums of a step: contrastive terms, cross entropies, hits, passing pictures.
    pub fn totals(
        &self,
        terms: Option<(&Block, usize)>,
        entropy: Option<(&Block, &Block, usize)>,
        predicted: Option<&Block>,
        labels: &Block,
        batch: usize,
    ) -> Result<Block> {
        let out = self.pool.floats(4)?;
        let arguments = [
            maybe(terms.map(|t| t.0.address())),
            int(terms.map_or(0, |t| t.1)),
            maybe(entropy.map(|e| e.0.address())),
            maybe(entropy.map(|e| e.1.address())),
            int(entropy.map_or(0, |e| e.2)),
            maybe(predicted.map(Block::address)),
            at(labels.address()),
            int(batch),
            at(out.address()),
        ];
        self.each("totals", 1, &arguments)?;
        Ok(out)
    }
}
