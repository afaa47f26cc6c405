//! Synthetic weights.

use std::borrow::Cow;
use std::path::PathBuf;

use base::Vars;
use base::synthetic::synthetic_values;
use tch::Kind;
use weights::{Origin, TensorInfo, TensorSource};

/// The interval that the values of a tensor of this name and shape are drawn from.
pub type Range = fn(name: &str, shape: &[i64]) -> (f64, f64);

/// Values for every variable of a network, as a source to load from.
pub(crate) struct RandomWeights {
    origin: Origin,
    seed: u64,
    range: Range,
    tensors: Vec<(String, Vec<i64>)>,
}

impl RandomWeights {
    pub fn new(vars: &Vars, seed: u64, range: Range) -> Self {
        let origin = Origin { path: PathBuf::from(format!("random:{seed}")), section: None };
        let tensors = vars.all().into_iter().map(|v| (v.name, v.tensor.size())).collect();
        RandomWeights { origin, seed, range, tensors }
    }
}

impl TensorSource for RandomWeights {
    fn names(&self) -> Vec<&str> {
        self.tensors.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        let (_, shape) = self.tensors.iter().find(|(n, _)| n == name)?;
        let bytes = 4 * shape.iter().product::<i64>() as u64;
        Some(TensorInfo { shape: shape.clone(), kind: Kind::Float, bytes })
    }

    fn bytes(&self, name: &str) -> weights::Result<Cow<'_, [u8]>> {
        let shape = self.info(name).map(|i| i.shape).unwrap_or_default();
        let (lo, hi) = (self.range)(name, &shape);
        let values = synthetic_values(name, self.seed, shape.iter().product::<i64>() as usize, lo, hi);
        Ok(Cow::Owned(values.iter().flat_map(|v| v.to_ne_bytes()).collect()))
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// The number of values that one output of a weight sums over.
pub(crate) fn fan_in(shape: &[i64]) -> f64 {
    shape[1..].iter().product::<i64>() as f64
}

/// Range of random weights in a network of convolutions and batch norms, whose scopes have `bn` in
/// their names.
pub(crate) fn conv_bn_range(name: &str, shape: &[i64]) -> (f64, f64) {
    match name.rsplit_once('.') {
        Some((_, "running_var")) => (0.8, 1.2),
        Some((_, "bias" | "running_mean")) => (-0.1, 0.1),
        Some((scope, _)) if scope.rsplit('.').next().is_some_and(|last| last.contains("bn")) => (0.8, 1.2),
        _ => {
            let bound = (6.0 / fan_in(shape)).sqrt();
            (-bound, bound)
        }
    }
}
