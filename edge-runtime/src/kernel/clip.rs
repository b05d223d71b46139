//! Activations that clip: none, ReLU, ReLU6. One description for the trainer's kernels and the int8 engine.

/// Values below `low` become `low`, values above `high` become `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// Lowest value that passes.
    pub low: f32,
    /// Highest value that passes; not below `low`.
    pub high: f32,
}

impl Clip {
    /// No activation.
    pub const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
    /// `max(x, 0)`.
    pub const RELU: Self = Self { low: 0.0, high: f32::INFINITY };
    /// `min(max(x, 0), 6)` (Sandler et al., MobileNetV2, 2018).
    pub const RELU6: Self = Self { low: 0.0, high: 6.0 };

    /// This clip followed by `next`, as one.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let clip = |v: f32| v.max(next.low).min(next.high);
        Self { low: clip(self.low), high: clip(self.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::Clip;

    #[test]
    fn two_clips_are_one() {
        let clips = [Clip::NONE, Clip::RELU, Clip::RELU6, Clip { low: 2.0, high: 3.0 }, Clip { low: -9.0, high: -1.0 }];
        for a in clips {
            for b in clips {
                for v in [-20.0f32, -3.0, 0.0, 1.0, 2.5, 6.0, 7.0] {
                    let apply = |c: Clip, v: f32| v.max(c.low).min(c.high);
                    assert_eq!(apply(a.then(b), v), apply(b, apply(a, v)), "{a:?} {b:?} {v}");
                }
            }
        }
    }
}
