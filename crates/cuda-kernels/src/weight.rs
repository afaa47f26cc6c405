//! Weights and their products.
//!
//! R rows, I inputs, O outputs

use libtorch_ext::cuda_kernel::{Arg, Launch};
use tch::{Kind, Tensor};

use crate::{Format, Result, sources};

/// Products of up to this many rows are our own.
pub const FEW: i64 = 8;

const WARP: i64 = 32;

/// What a product of few rows does besides.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fused<'a> {
    /// RMS norm (weight, epsilon) of the input.
    Norm(&'a Tensor, f64),
    /// The same, and `silu(gate) · up` of the output, whose weight holds the gate's rows before the others.
    NormSwiglu(&'a Tensor, f64),
    /// Adds to what the output holds.
    Add,
}

/// A weight (O, I) in a [`Format`].
#[derive(Debug)]
pub(crate) struct Weight {
    numbers: Tensor,
    scale: Option<Tensor>, // (O) fp32
    format: Format,
}

impl Weight {
    /// Rounds a weight (O, I) of any kind.
    pub fn new(weight: &Tensor, format: Format) -> Self {
        match format {
            Format::Bf16 => {
                // Detached: a weight that is bf16 already would be the same object, which its owner may empty.
                let numbers = weight.to_kind(Kind::BFloat16).contiguous().detach();
                Weight { numbers, scale: None, format }
            }
            Format::Int8 => {
                let wide = weight.to_kind(Kind::Float);
                let largest = wide.abs().amax([1], true); // (O, 1)
                let steps = largest.clamp_min(f64::from(f32::MIN_POSITIVE)).reciprocal() * 127.0;
                let numbers = (wide * steps).round().to_kind(Kind::Int8).contiguous();
                let scale = (largest / 127.0).view(-1).contiguous();
                Weight { numbers, scale: Some(scale), format }
            }
        }
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        bytes(&self.numbers) + self.scale.as_ref().map_or(0, bytes)
    }

    /// O.
    pub fn outputs(&self) -> i64 {
        self.size().0
    }

    fn size(&self) -> (i64, i64) {
        self.numbers.size2().expect("weights are (O, I)")
    }

    /// Up to [`FEW`] rows (R, I) fp32 into `output`, (R, O) fp32, or (R, O / 2) of SwiGLU.
    pub fn few(&self, engine: &dyn Launch, input: &Tensor, fused: Fused, output: &Tensor) -> Result<()> {
        let (rows, inputs) = input.size2().expect("inputs are (R, I)");
        let (kernel, norm) = match fused {
            Fused::Norm(gamma, eps) => ("normed_product", Some((gamma, eps))),
            Fused::NormSwiglu(gamma, eps) => ("normed_swiglu", Some((gamma, eps))),
            Fused::Add => ("product_added", None),
        };
        let weights = self.size().0;
        let outputs = if matches!(fused, Fused::NormSwiglu(..)) { weights / 2 } else { weights };
        debug_assert!(output.size() == [rows, outputs] && self.size().1 == inputs && rows <= FEW);
        let warps = weights / 2; // each computes two
        let a_block = sources::PRODUCT_THREADS / WARP;
        let blocks = [(warps + a_block - 1) / a_block, 1];
        let args = [
            Arg::Tensor(&self.numbers),
            self.scale.as_ref().into(),
            Arg::Tensor(input),
            norm.map(|(gamma, _)| gamma).into(),
            Arg::Tensor(output),
            Arg::Int(inputs),
            Arg::Int(outputs),
            Arg::Float(norm.map_or(0.0, |(_, eps)| eps)),
        ];
        engine.launch(&sources::product(self.format, rows), kernel, blocks, &args)
    }

    /// Any rows (R, I) bf16 → (R, O) bf16, by libtorch's product; int8 is widened for it.
    pub fn many(&self, engine: &dyn Launch, input: &Tensor) -> Result<Tensor> {
        let Some(scale) = &self.scale else { return Ok(input.matmul(&self.numbers.tr())) };
        let (outputs, inputs) = self.size();
        let wide = Tensor::empty([outputs, inputs], (Kind::BFloat16, engine.device()));
        let args = [Arg::Tensor(&self.numbers), Arg::Tensor(scale), Arg::Tensor(&wide), Arg::Int(inputs)];
        sources::launch_rows(engine, "widen_weight", outputs, &args)?;
        Ok(input.matmul(&wide.tr()))
    }
}

#[cfg(test)]
mod tests {
    use libtorch_ext::cuda_kernel::Emulated;
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Distance as a share of what is expected, which must be within `bound`.
    fn close(found: &Tensor, expected: &Tensor, bound: f64) {
        let distance = (found.to_kind(Kind::Float) - expected).norm().double_value(&[]);
        let off = distance / expected.norm().double_value(&[]);
        assert!(off < bound, "{off}");
    }

    /// The weight as the kernels read it.
    fn read(w: &Weight) -> Tensor {
        let numbers = w.numbers.to_kind(Kind::Float);
        w.scale.as_ref().map_or_else(|| numbers.shallow_clone(), |s| &numbers * s.unsqueeze(1))
    }

    #[test]
    fn int8_weights_lose_half_a_step_at_most() {
        let weight = Tensor::randn([6, 32], FLOAT);
        let _ = weight.get(3).zero_();
        let packed = Weight::new(&weight, Format::Int8);
        let step = weight.abs().amax([1], true) / 127.0;
        let lost = (read(&packed) - &weight).abs();
        assert!(lost.le_tensor(&(step * 0.5001)).all().int64_value(&[]) == 1);
    }

    #[test]
    fn products_of_few_rows_agree_with_plain_ones() {
        tch::manual_seed(3);
        let engine = Emulated;
        let (inputs, outputs) = (336, 10); // the last turn of a warp is not full
        let gamma = Tensor::rand([inputs], FLOAT) + 0.5;
        for format in [Format::Bf16, Format::Int8] {
            let weight = Weight::new(&Tensor::randn([outputs, inputs], FLOAT), format);
            for rows in [1, 3, FEW] {
                let x = Tensor::randn([rows, inputs], FLOAT) * 3.0;
                let root = (x.square().mean_dim([1i64].as_slice(), true, Kind::Float) + 1e-5).rsqrt();
                let normed = &x * root * &gamma;
                let plain = |x: &Tensor| x.matmul(&read(&weight).tr());

                let y = Tensor::zeros([rows, outputs], FLOAT);
                weight.few(&engine, &x, Fused::Norm(&gamma, 1e-5), &y).unwrap();
                close(&y, &plain(&normed), 1e-5);

                let before = Tensor::randn([rows, outputs], FLOAT);
                let y = before.copy();
                weight.few(&engine, &x, Fused::Add, &y).unwrap();
                close(&y, &(plain(&x) + before), 1e-5);

                let y = Tensor::zeros([rows, outputs / 2], FLOAT);
                weight.few(&engine, &x, Fused::NormSwiglu(&gamma, 1e-5), &y).unwrap();
                let both = plain(&normed).chunk(2, 1);
                close(&y, &(both[0].silu() * &both[1]), 1e-5);
            }
        }
    }

    #[test]
    fn products_of_many_rows_read_the_same_weights() {
        let engine = Emulated;
        for format in [Format::Bf16, Format::Int8] {
            let weight = Weight::new(&Tensor::randn([6, 320], FLOAT), format);
            let x = Tensor::randn([12, 320], FLOAT).to_kind(Kind::BFloat16);
            let y = weight.many(&engine, &x).unwrap();
            let expected = x.to_kind(Kind::Float).matmul(&read(&weight).tr());
            close(&y, &expected, 5e-3);
        }
    }
}
