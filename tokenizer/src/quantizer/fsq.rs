//! Finite scalar quantization (Mentzer et al., 2023, arXiv 2309.15505): each dimension of a vector
//! is bounded and rounded to one of a few levels. The codebook is the grid of all combinations;
//! nothing is learned.
//!
//! B batch, N codes of an image, D code width

use base::{Codes, Mode, Scope};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::interface::{Quantized, Quantizer, QuantizerLosses, QuantizerSettings};
use crate::error::{Error, Result};

/// Widens the bounded range by this share, so that the outermost levels are reached, and so that
/// the shift of two levels is finite. The paper's listing narrows the range and takes a tangent for
/// the shift; this is the corrected form in common use (`vector-quantize-pytorch`).
const MARGIN: f64 = 1e-3;

/// Levels of the grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsqConfig {
    /// Levels of each dimension, at least 2; the paper recommends 5 or more. Their product is the
    /// number of codes: `[8, 5, 5, 5]` makes 1,000, `[8, 8, 8, 5, 5, 5]` 64,000.
    pub levels: Vec<i64>,
}

impl QuantizerSettings for FsqConfig {
    fn codebook_size(&self) -> i64 {
        self.levels.iter().fold(1, |product: i64, level| product.saturating_mul(*level))
    }

    fn code_dim(&self) -> i64 {
        self.levels.len() as i64
    }

    /// Rounding is not counted, as norms and activations are not.
    fn encode_flops(&self) -> f64 {
        0.0
    }

    /// The hyperbolic tangent in fp32.
    fn activation_bytes(&self) -> f64 {
        4.0 * self.code_dim() as f64
    }

    fn check(&self) -> Result<()> {
        match self.levels.iter().find(|level| **level < 2) {
            Some(found) => {
                Err(Error::Settings(format!("quantizer.levels must be 2 or more each, found {found}")))
            }
            None => Ok(()),
        }
    }

    fn build(&self, p: &Scope) -> Box<dyn Quantizer> {
        Box::new(Fsq::new(p, self))
    }
}

/// Quantizer of finite scalars. The code of a vector is its position on the grid in mixed radix,
/// the first dimension counting fastest.
#[derive(Debug)]
pub struct Fsq {
    // All (D).
    levels: Tensor,     // int64
    basis: Tensor,      // int64: product of the levels before
    half_width: Tensor, // int64: the level that becomes 0, ⌊levels/2⌋
    half_range: Tensor, // fp32: the bounded range is this far to both sides
    offset: Tensor,     // fp32: ½ for even levels, which have no middle one
    shift: Tensor,      // fp32: brings input 0 to bounded 0
}

impl Fsq {
    /// Has no variables; `p` gives the device.
    pub fn new(p: &Scope, config: &FsqConfig) -> Self {
        let device = p.vars().device();
        let whole = |numbers: Vec<i64>| Tensor::from_slice(&numbers).to_device(device);
        let real = |number: fn(i64) -> f64| {
            let numbers: Vec<f64> = config.levels.iter().map(|level| number(*level)).collect();
            Tensor::from_slice(&numbers).to_kind(Kind::Float).to_device(device)
        };
        let basis = config.levels.iter().scan(1, |product, level| {
            let before = *product;
            *product *= level;
            Some(before)
        });
        Fsq {
            levels: whole(config.levels.clone()),
            basis: whole(basis.collect()),
            half_width: whole(config.levels.iter().map(|level| level / 2).collect()),
            half_range: real(half_range),
            offset: real(offset),
            shift: real(|level| (offset(level) / half_range(level)).atanh()),
        }
    }

    /// (B, N, D) → fp32 in the levels' units, from −⌊L/2⌋ to ⌈L/2⌉ − 1.
    fn bound(&self, z: &Tensor) -> Tensor {
        (z.to_kind(Kind::Float) + &self.shift).tanh() * &self.half_range - &self.offset
    }

    /// Rounded (B, N, D) → codes (B, N) int64.
    fn codes(&self, rounded: &Tensor) -> Tensor {
        let digits = rounded.to_kind(Kind::Int64) + &self.half_width;
        (digits * &self.basis).sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
    }
}

fn half_range(level: i64) -> f64 {
    (level - 1) as f64 * (1.0 + MARGIN) / 2.0
}

fn offset(level: i64) -> f64 {
    if level % 2 == 0 { 0.5 } else { 0.0 }
}

impl Quantizer for Fsq {
    fn encode(&self, z: &Tensor) -> Tensor {
        self.codes(&self.bound(z).round())
    }

    /// In [-1, 1] per dimension.
    fn lookup(&self, codes: &Codes) -> Tensor {
        let digits = codes.tensor().unsqueeze(-1).divide_tensor_mode(&self.basis, "floor");
        let levels = digits.remainder_tensor(&self.levels) - &self.half_width;
        levels.to_kind(Kind::Float) / &self.half_width
    }

    /// Without losses; the gradient passes the rounding unchanged.
    fn forward(&self, z: &Tensor, _mode: Mode) -> Quantized {
        let bounded = self.bound(z);
        let rounded = bounded.round();
        let codes = self.codes(&rounded.detach());
        let levels = &bounded + (rounded - &bounded).detach();
        let z = (levels / &self.half_width).to_kind(z.kind());
        Quantized { z, codes, losses: QuantizerLosses::default() }
    }
}

#[cfg(test)]
mod tests {
    use base::{Build, Vars};
    use tch::Device;

    use super::*;

    fn fsq(levels: &[i64]) -> Fsq {
        let vars = Vars::new(Device::Cpu, Kind::Float, Build::Random);
        let fsq = Fsq::new(&vars.root(), &FsqConfig { levels: levels.to_vec() });
        assert!(vars.all().is_empty());
        fsq
    }

    fn vectors(z: &Tensor) -> Vec<Vec<f64>> {
        Vec::try_from(z.squeeze_dim(0).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn every_code_has_its_own_vector_which_leads_back_to_it() {
        for levels in [&[2][..], &[2, 3], &[5, 4, 3], &[8, 5, 5, 5], &[7, 2, 16]] {
            let count: i64 = levels.iter().product();
            let q = fsq(levels);
            let codes = Codes::new(Tensor::arange(count, (Kind::Int64, Device::Cpu)).view([1, -1])).unwrap();
            let found = q.lookup(&codes);
            let mut distinct: Vec<String> = vectors(&found).iter().map(|v| format!("{v:?}")).collect();
            distinct.sort();
            distinct.dedup();
            assert_eq!(i64::try_from(distinct.len()).unwrap(), count);
            let z = ((found * &q.half_width + &q.offset) / &q.half_range).atanh() - &q.shift;
            assert_eq!(&q.encode(&z), codes.tensor());
        }
    }

    /// Inputs far out reach the outermost levels, the even dimensions' too.
    #[test]
    fn codes_and_vectors_are_those_computed_by_hand() {
        let q = fsq(&[3, 4]);
        let cases = [
            ([0.0f32, 0.0], 7, [0.0, 0.0]),
            ([0.5, 0.5], 10, [0.0, 0.5]),
            ([0.6, -0.3], 8, [1.0, 0.0]),
            ([-0.6, -0.5], 3, [-1.0, -0.5]),
            ([-5.0, -5.0], 0, [-1.0, -1.0]),
            ([5.0, 5.0], 11, [1.0, 0.5]),
        ];
        for (z, code, vector) in cases {
            let z = Tensor::from_slice(&z).view([1, 1, 2]);
            let codes = q.encode(&z);
            assert_eq!(codes.int64_value(&[0, 0]), code);
            assert_eq!(vectors(&q.lookup(&Codes::new(codes).unwrap())), [vector]);
            let quantized = q.forward(&z.to_kind(Kind::BFloat16), Mode::Train);
            assert_eq!((vectors(&quantized.z), quantized.z.kind()), (vec![vector.to_vec()], Kind::BFloat16));
        }
    }

    /// The gradient is that of the bounded value: half range · (1 − tanh²) / half width.
    #[test]
    fn the_gradient_passes_the_rounding_unchanged() {
        let q = fsq(&[5, 8]);
        let numbers = [0.3f32, -0.7, -1.2, 0.9];
        let z = Tensor::from_slice(&numbers).view([1, 2, 2]).set_requires_grad(true);
        q.forward(&z, Mode::Train).z.sum(Kind::Float).backward();
        let found = Vec::<f64>::try_from(z.grad().view([-1]).to_kind(Kind::Double)).unwrap();
        for (i, (z, found)) in numbers.iter().zip(found).enumerate() {
            let (half_range, half_width, shift) =
                [(2.002, 2.0, 0.0), (3.5035, 4.0, (0.5f64 / 3.5035).atanh())][i % 2];
            let expected = half_range * (1.0 - (f64::from(*z) + shift).tanh().powi(2)) / half_width;
            assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
        }
    }

    #[test]
    fn a_dimension_needs_two_levels() {
        let check = |levels: &[i64]| FsqConfig { levels: levels.to_vec() }.check().map_err(|e| e.to_string());
        assert_eq!(check(&[2, 5]), Ok(()));
        assert!(check(&[8, 1]).unwrap_err().contains("quantizer.levels must be 2 or more each, found 1"));
        assert_eq!(
            FsqConfig { levels: vec![1 << 40; 2] }.codebook_size(),
            i64::MAX,
            "and is refused as such"
        );
    }
}
