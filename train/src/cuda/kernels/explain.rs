//! Activation maps, masks, and which view a picture takes: `explain.cu`.

use super::*;

impl Machine {
    /// Class of each row.
    pub fn predict(&self, logits: &Matrix) -> Result<Block> {
        let predicted = self.pool.take(logits.rows * 4)?;
        self.each("predict", logits.rows, &[at(logits.at()), int(logits.columns), at(predicted.address())])?;
        Ok(predicted)
    }

    /// Class-activation map of each row's target class, at the features' resolution.
    pub fn activation_map(&self, features: &Map, weight: Address, target: &Block, relu: bool) -> Result<Block> {
        let map = self.pool.floats(features.pixels())?;
        let arguments = [
            at(features.at()),
            at(weight),
            at(target.address()),
            int(features.area()),
            int(features.channels),
            relu.into(),
            at(map.address()),
        ];
        self.each("activation_map", features.rows, &arguments)?;
        Ok(map)
    }

    /// Maps of height × width to `side` × `side`, min–max normalised.
    pub fn normalise_maps(
        &self,
        maps: &Block,
        rows: usize,
        (height, width): (usize, usize),
        side: usize,
    ) -> Result<Block> {
        let out = self.pool.floats(rows * side * side)?;
        let arguments = [at(maps.address()), int(height), int(width), int(side), at(out.address())];
        self.each("normalise_maps", rows, &arguments)?;
        Ok(out)
    }

    /// `masked` = the pictures where the map is above the limit, `fill` elsewhere.
    pub fn mask_above(&self, maps: &Block, pictures: &Map, limit: f32, fill: [f32; 3], masked: Address) -> Result<()> {
        let [r, g, b] = fill.map(Argument::Float);
        let arguments =
            [at(maps.address()), at(pictures.at()), limit.into(), r, g, b, long(pictures.pixels()), at(masked)];
        self.spread("mask_above", pictures.pixels(), &arguments)
    }

    /// `masked` = the pictures at their map's `count` largest pixels, `fill` elsewhere.
    pub fn mask_top(&self, maps: &Block, pictures: &Map, count: usize, fill: [f32; 3], masked: Address) -> Result<()> {
        let [r, g, b] = fill.map(Argument::Float);
        let arguments = [at(maps.address()), at(pictures.at()), int(count), r, g, b, int(pictures.area()), at(masked)];
        self.each("mask_top", pictures.rows, &arguments)
    }

    /// Replaces the first rows of `view` by the masked pictures that pass, mirrored where `mirror` says so.
    pub fn choose_view(
        &self,
        masked: &Map,
        predicted: &Block,
        labels: &Block,
        mirror: Option<&Block>,
        view: &Map,
    ) -> Result<()> {
        let arguments = [
            at(masked.at()),
            at(predicted.address()),
            at(labels.address()),
            maybe(mirror.map(Block::address)),
            int(masked.width),
            long(masked.pixels()),
            at(view.at()),
        ];
        self.spread("choose_view", masked.pixels(), &arguments)
    }

    /// How often each row counts when masked pictures that fail are background.
    pub fn row_weights(&self, predicted: &Block, labels: &Block, real: usize, rows: usize) -> Result<Weights> {
        let (each, total) = (Rc::new(self.pool.floats(rows)?), Rc::new(self.pool.floats(1)?));
        let arguments = [
            at(predicted.address()),
            at(labels.address()),
            int(real),
            int(rows),
            at(each.address()),
            at(total.address()),
        ];
        self.each("row_weights", 1, &arguments)?;
        Ok(Weights { each, total })
    }
}
