//! Precisions as dtypes.

use settings::Precision;
use tch::Kind;

/// Dtype of a precision.
pub trait TensorKind {
    /// Dtype of weights and activations.
    fn kind(self) -> Kind;
}

impl TensorKind for Precision {
    fn kind(self) -> Kind {
        match self {
            Precision::Fp32 | Precision::Int8 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }
}
