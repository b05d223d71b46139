//! Batch norm with what follows it, and its gradients: `norm.cu`.

use super::*;

impl Machine {
    /// Batch statistics of `x`: mean, inverse deviation, factor, summand per channel. With `momentum` the running
    /// statistics move.
    pub fn norm_statistics(
        &self,
        x: &Map,
        weights: Option<&Weights>,
        norm: NormAt,
        momentum: Option<f32>,
    ) -> Result<Block> {
        let (chunk, chunks, tiles) = self.chunks(x.pixels(), x.channels);
        let sums = self.pool.floats(2 * chunks * x.channels)?;
        let each = maybe(weights.map(|w| w.each.address()));
        let (area, pixels, channels) = (int(x.area()), int(x.pixels()), int(x.channels));
        let arguments = [at(x.at()), each, area, pixels, channels, int(chunk), at(sums.address())];
        self.device().launch("norm_sums", (chunks, tiles), &arguments)?;
        let statistics = self.pool.floats(4 * x.channels)?;
        let running = |address| maybe(momentum.map(|_| address));
        let arguments = [
            at(sums.address()),
            int(chunks),
            channels,
            at(x.at()),
            pixels,
            maybe(weights.map(|w| w.total.address())),
            area,
            at(norm.gamma),
            at(norm.beta),
            (EPSILON as f32).into(),
            momentum.unwrap_or(0.0).into(),
            running(norm.mean),
            running(norm.variance),
            at(statistics.address()),
        ];
        self.each("norm_finish", x.channels / PACK, &arguments)?;
        Ok(statistics)
    }

    /// Factors and summands of `count` channels from their running statistics.
    pub fn norm_fold(&self, norms: NormAt, count: usize, scale: Address, shift: Address) -> Result<()> {
        let NormAt { gamma, beta, mean, variance } = norms;
        let arguments =
            [at(mean), at(variance), at(gamma), at(beta), (EPSILON as f32).into(), long(count), at(scale), at(shift)];
        self.spread("norm_fold", count, &arguments)
    }

    /// `to = clip(x · scale + shift + residual?)`; `to` may be `x`.
    pub fn norm_apply(
        &self,
        x: &Map,
        residual: Option<&Map>,
        (scale, shift): (Address, Address),
        clip: Clip,
        to: &Map,
    ) -> Result<()> {
        let residual = maybe(residual.map(Map::at));
        let arguments = [
            at(x.at()),
            residual,
            at(scale),
            at(shift),
            clip.low.into(),
            clip.high.into(),
            long(x.packs()),
            int(x.channels),
            at(to.at()),
        ];
        self.spread("norm_apply", x.packs(), &arguments)
    }

    /// Backward pass of a norm with batch statistics: from the gradient (one or two maps to be added) of its output and,
    /// where it ended in an activation, that output and its upper end, `gate`. Writes the parameters' gradients, returns that of `x` and, where
    /// `residual`, of the residual.
    pub fn norm_gradient(
        &self,
        gradient: [Option<&Map>; 2],
        gate: Option<(&Map, f32)>,
        x: &Map,
        statistics: &Block,
        weights: Option<&Weights>,
        gamma: Address,
        (gamma_gradient, beta_gradient): (Address, Address),
        residual: bool,
    ) -> Result<(Map, Option<Map>)> {
        let (chunk, chunks, tiles) = self.chunks(x.pixels(), x.channels);
        let sums = self.pool.floats(2 * chunks * x.channels)?;
        let [first, second] = gradient.map(|g| maybe(g.map(Map::at)));
        let high = Argument::Float(gate.map_or(f32::INFINITY, |(_, high)| high));
        let gate = maybe(gate.map(|(y, _)| y.at()));
        let (area, pixels, channels) = (int(x.area()), int(x.pixels()), int(x.channels));
        let statistics = at(statistics.address());
        let arguments =
            [first, second, gate, high, at(x.at()), statistics, pixels, channels, int(chunk), at(sums.address())];
        self.device().launch("norm_gradient_sums", (chunks, tiles), &arguments)?;
        let coefficients = self.pool.floats(3 * x.channels)?;
        let arguments = [
            at(sums.address()),
            int(chunks),
            channels,
            pixels,
            maybe(weights.map(|w| w.total.address())),
            area,
            at(gamma),
            statistics,
            at(gamma_gradient),
            at(beta_gradient),
            at(coefficients.address()),
        ];
        self.each("norm_gradient_finish", x.channels / PACK, &arguments)?;
        let dx = self.like(x)?;
        let dresidual = if residual { Some(self.like(x)?) } else { None };
        let arguments = [
            first,
            second,
            gate,
            high,
            at(x.at()),
            at(coefficients.address()),
            maybe(weights.map(|w| w.each.address())),
            area,
            long(x.packs()),
            channels,
            at(dx.at()),
            maybe(dresidual.as_ref().map(Map::at)),
        ];
        self.spread("norm_gradient_apply", x.packs(), &arguments)?;
        Ok((dx, dresidual))
    }
}
