//! What a name of an ONNX graph stands for while it is imported: a constant, or a view of a layer's map.
//!
//! Exporters shuffle maps about: to channels-last and back, into rows and out again. None of it computes anything. A
//! [`View`] follows it by the order in which a map's axes lie in memory, so that transposes and reshapes cost nothing and
//! an operator asks only whether what it reads is a map, a row, or something it cannot take.

use super::constant::Constant;
use crate::fold::LayerId;
use std::sync::Arc;

/// Result of one step; the error is a sentence fragment.
pub(super) type Outcome<T> = Result<T, String>;

/// A value of the graph.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Constant(Constant),
    View(View),
}

/// An axis of a map, in ONNX's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Axis {
    Channel,
    Row,
    Column,
}

pub(super) const AXES: [Axis; 3] = [Axis::Channel, Axis::Row, Axis::Column];

/// What a view shows.
#[derive(Debug, Clone)]
pub(super) enum Of {
    /// A layer's map.
    Layer(LayerId),
    /// Its mean over rows and columns.
    Mean(LayerId),
    /// A linear layer on that mean: `classes × channels` and biases.
    Linear { map: LayerId, weight: Arc<[f32]>, bias: Vec<f32> },
    /// A map with zeros around it: above and left, below and right.
    Padded(LayerId, [usize; 2], [usize; 2]),
}

/// A computed value.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub of: Of,
    /// Channels, rows, columns of what is shown.
    pub shape: [usize; 3],
    /// The tensor's dimensions in the graph; the batch counts as 1.
    pub dims: Vec<usize>,
    /// Axes longer than 1, as they lie in memory.
    pub order: Vec<Axis>,
    /// Whether another node reads the same values, so that they must stay as they are.
    pub shared: bool,
    /// Behind the final softmax nothing may be computed.
    pub closed: bool,
}

impl View {
    /// A map as ONNX lays it out.
    pub fn map(of: Of, shape: [usize; 3]) -> Self {
        let order = AXES.into_iter().filter(|&a| shape[a as usize] > 1).collect();
        let dims = vec![1, shape[0], shape[1], shape[2]];
        Self { of, shape, dims, order, shared: false, closed: false }
    }

    /// A row of `n` values.
    pub fn row(of: Of, n: usize) -> Self {
        Self { dims: vec![1, n], ..Self::map(of, [n, 1, 1]) }
    }

    /// Which axes each dimension runs over.
    pub fn groups(&self) -> Outcome<Vec<Vec<Axis>>> {
        let mut axes = self.order.iter().copied().peekable();
        let group = |&dim: &usize| {
            let (mut group, mut size) = (vec![], 1);
            while size < dim {
                let axis = axes.next()?;
                size *= self.shape[axis as usize];
                group.push(axis);
            }
            (size == dim).then_some(group)
        };
        let groups: Option<_> = self.dims.iter().map(group).collect();
        groups.ok_or_else(|| format!("its input {:?} splits channels, rows or columns", self.dims))
    }

    /// Whether it is `batch × channels × rows × columns`.
    pub fn is_map(&self) -> bool {
        self.dims == [1, self.shape[0], self.shape[1], self.shape[2]] && self.order.is_sorted()
    }

    /// Demands [`View::is_map`].
    pub fn demand_map(&self) -> Outcome<()> {
        if self.is_map() {
            return Ok(());
        }
        Err(format!("its input {:?} is not batch × channels × rows × columns", self.dims))
    }

    /// The same values in other dimensions.
    pub fn reshaped(&self, dims: Vec<usize>) -> Outcome<Self> {
        let count = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count(&dims) != count(&self.dims) || dims.len() > 8 {
            return Err(format!("{:?} cannot become {dims:?}", self.dims));
        }
        Ok(Self { dims, ..self.clone() })
    }

    /// Dimensions in another order.
    pub fn transposed(&self, order: &[usize]) -> Outcome<Self> {
        let mut seen = order.to_vec();
        seen.sort_unstable();
        if !seen.into_iter().eq(0..self.dims.len()) {
            return Err(format!("its order {order:?} does not fit {:?}", self.dims));
        }
        let groups = self.groups()?;
        let dims = order.iter().map(|&i| self.dims[i]).collect();
        let axes = order.iter().flat_map(|&i| groups[i].clone()).collect();
        Ok(Self { dims, order: axes, ..self.clone() })
    }

    /// Numbers of a constant for each channel, where it is broadcast over everything else.
    pub fn per_channel(&self, constant: &Constant) -> Outcome<Vec<f64>> {
        let values = constant.floats()?;
        let channels = self.shape[0];
        if let [one] = values[..] {
            return Ok(vec![f64::from(one); channels]);
        }
        let refuse = || format!("a constant of {:?} is no number for each channel of {:?}", constant.dims, self.dims);
        let skip = self.dims.len().checked_sub(constant.dims.len()).ok_or_else(refuse)?;
        let groups = self.groups()?;
        let fits = constant.dims.iter().zip(&groups[skip..]).all(|(&d, g)| d == 1 || g[..] == [Axis::Channel]);
        if !fits || values.len() != channels {
            return Err(refuse());
        }
        Ok(values.iter().map(|&v| f64::from(v)).collect())
    }
}

/// An axis, counted from the end where it is negative.
pub(super) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_start).ok().filter(|&a| a < rank).ok_or_else(|| format!("it has no axis {axis}"))
}
