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

    /// Backward pass of a norm with batch statistics of `x`. Writes the parameters' gradients, returns that of `x` and,
    /// where there is one, of the residual.
    pub fn norm_gradient(
        &self,
        after: &After,
        x: &Map,
        statistics: &Block,
        weights: Option<&Weights>,
        gamma: Address,
        (gamma_gradient, beta_gradient): (Address, Address),
    ) -> Result<(Map, Option<Map>)> {
        let (chunk, chunks, tiles) = self.chunks(x.pixels(), x.channels);
        let sums = self.pool.floats(2 * chunks * x.channels)?;
        let (area, pixels, channels) = (int(x.area()), int(x.pixels()), int(x.channels));
        let statistics = at(statistics.address());
        let tail = [at(x.at()), statistics, pixels, channels, int(chunk), at(sums.address())];
        let arguments = [&after.arguments()[..], &tail].concat();
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
        self.norm_gradient_apply(after, Some(x), coefficients.address(), weights)
    }

    /// Backward pass of a norm with running statistics, folded to `scale`: gradients of its input and of the residual.
    pub fn norm_eval_gradient(&self, after: &After, scale: Address) -> Result<(Map, Option<Map>)> {
        self.norm_gradient_apply(after, None, scale, None)
    }

    fn norm_gradient_apply(
        &self,
        after: &After,
        x: Option<&Map>,
        coefficients: Address,
        weights: Option<&Weights>,
    ) -> Result<(Map, Option<Map>)> {
        let Some(like) = after.gradient[0] else { return Err(crate::cuda::fail("a norm", "got no gradient")) };
        let dx = self.like(like)?;
        let dresidual = if after.residual { Some(self.like(like)?) } else { None };
        let tail = [
            maybe(x.map(Map::at)),
            at(coefficients),
            maybe(weights.map(|w| w.each.address())),
            int(like.area()),
            long(like.packs()),
            int(like.channels),
            at(dx.at()),
            maybe(dresidual.as_ref().map(Map::at)),
        ];
        self.spread("norm_gradient_apply", like.packs(), &[&after.arguments()[..], &tail].concat())?;
        Ok((dx, dresidual))
    }
}

impl After<'_> {
    /// The first arguments of the kernels that read it.
    fn arguments(&self) -> [Argument; 4] {
        let [first, second] = self.gradient.map(|g| maybe(g.map(Map::at)));
        let high = Argument::Float(self.gate.map_or(f32::INFINITY, |(_, high)| high));
        [first, second, maybe(self.gate.map(|(y, _)| y.at())), high]
    }
}
