//! Weights and their products.
//!
//! R rows, I inputs, O outputs

use libtorch_ext::cuda_kernel::{Arg, KernelLauncher};
use tch::{Kind, Tensor};

use crate::{Format, Result, sources};

/// Maximum number of rows of a product by these kernels; larger ones are libtorch's.
pub const GEMV_MAX_ROWS: i64 = 8;

const WARP: i64 = 32;

/// Operations fused with a product of few rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fused<'a> {
    /// RMS norm (weight, epsilon) of the input.
    Norm(&'a Tensor, f64),
    /// The same, and `silu(gate) · up` of the output; the weight has the gate's rows first.
    NormSwiglu(&'a Tensor, f64),
    /// Adds the product to the output.
    Add,
}

/// A weight (O, I) in a [`Format`].
#[derive(Debug)]
pub(crate) struct Weight {
    data: Tensor,
    scale: Option<Tensor>, // (O) fp32
    format: Format,
}

impl Weight {
    /// Rounds a weight (O, I) of any dtype.
    pub fn new(weight: &Tensor, format: Format) -> Self {
        match format {
            Format::Bf16 => {
                // Detached: a bf16 weight would stay the same object, which its owner may empty.
                let data = weight.to_kind(Kind::BFloat16).contiguous().detach();
                Weight { data, scale: None, format }
            }
            Format::Int8 => {
                let wide = weight.to_kind(Kind::Float);
                let largest = wide.abs().amax([1], true); // (O, 1)
                let steps = largest.clamp_min(f64::from(f32::MIN_POSITIVE)).reciprocal() * 127.0;
                let data = (wide * steps).round().to_kind(Kind::Int8).contiguous();
                let scale = (largest / 127.0).view(-1).contiguous();
                Weight { data, scale: Some(scale), format }
            }
        }
    }

    /// Bytes that a product reads.
    pub fn bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.numel() * t.kind().elt_size_in_bytes();
        bytes(&self.data) + self.scale.as_ref().map_or(0, bytes)
    }

    /// O.
    pub fn outputs(&self) -> i64 {
        self.size().0
    }

    fn size(&self) -> (i64, i64) {
        self.data.size2().expect("weights are (O, I)")
    }

    /// Product of up to [`GEMV_MAX_ROWS`] rows (R, I) fp32 into `output`, (R, O) fp32, or
    /// (R, O / 2) with SwiGLU.
    pub fn gemv(
        &self,
        launcher: &dyn KernelLauncher,
        input: &Tensor,
        fused: Fused,
        output: &Tensor,
    ) -> Result<()> {
        let (rows, inputs) = input.size2().expect("inputs are (R, I)");
        let (kernel, norm) = match fused {
            Fused::Norm(gamma, eps) => ("norm_gemv", Some((gamma, eps))),
            Fused::NormSwiglu(gamma, eps) => ("norm_gemv_swiglu", Some((gamma, eps))),
            Fused::Add => ("gemv_add", None),
        };
        let weights = self.size().0;
        let outputs = if matches!(fused, Fused::NormSwiglu(..)) { weights / 2 } else { weights };
        debug_assert!(output.size() == [rows, outputs] && self.size().1 == inputs && rows <= GEMV_MAX_ROWS);
        let warps = weights / 2; // each computes two
        let per_block = sources::GEMV_THREADS / WARP;
        let blocks = [(warps + per_block - 1) / per_block, 1];
        let args = [
            Arg::Tensor(&self.data),
            self.scale.as_ref().into(),
            Arg::Tensor(input),
            norm.map(|(gamma, _)| gamma).into(),
            Arg::Tensor(output),
            Arg::Int(inputs),
            Arg::Int(outputs),
            Arg::Float(norm.map_or(0.0, |(_, eps)| eps)),
        ];
        launcher.launch(&sources::gemv(self.format, rows), kernel, blocks, &args)
    }

    /// Product of any number of rows, (R, I) bf16 → (R, O) bf16, by libtorch. int8 weights are
    /// dequantized to bf16.
    pub fn gemm(&self, launcher: &dyn KernelLauncher, input: &Tensor) -> Result<Tensor> {
        let Some(scale) = &self.scale else { return Ok(input.matmul(&self.data.tr())) };
        let (outputs, inputs) = self.size();
        let wide = Tensor::empty([outputs, inputs], (Kind::BFloat16, launcher.device()));
        let args = [Arg::Tensor(&self.data), Arg::Tensor(scale), Arg::Tensor(&wide), Arg::Int(inputs)];
        sources::launch_rows(launcher, "dequantize_weight", outputs, &args)?;
        Ok(input.matmul(&wide.tr()))
    }
}

#[cfg(test)]
mod tests {
    use libtorch_ext::cuda_kernel::CpuEmulator;
    use tch::Device;

    use super::*;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Asserts that the relative distance is within `bound`.
    fn close(found: &Tensor, expected: &Tensor, bound: f64) {
        let distance = (found.to_kind(Kind::Float) - expected).norm().double_value(&[]);
        let off = distance / expected.norm().double_value(&[]);
        assert!(off < bound, "{off}");
    }

    /// The dequantized weight.
    fn read(w: &Weight) -> Tensor {
        let data = w.data.to_kind(Kind::Float);
        w.scale.as_ref().map_or_else(|| data.shallow_clone(), |s| &data * s.unsqueeze(1))
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
        let launcher = CpuEmulator;
        let (inputs, outputs) = (336, 10); // the last iteration of a warp is partial
        let gamma = Tensor::rand([inputs], FLOAT) + 0.5;
        for format in [Format::Bf16, Format::Int8] {
            let weight = Weight::new(&Tensor::randn([outputs, inputs], FLOAT), format);
            for rows in [1, 3, GEMV_MAX_ROWS] {
                let x = Tensor::randn([rows, inputs], FLOAT) * 3.0;
                let root = (x.square().mean_dim([1i64].as_slice(), true, Kind::Float) + 1e-5).rsqrt();
                let normed = &x * root * &gamma;
                let plain = |x: &Tensor| x.matmul(&read(&weight).tr());

                let y = Tensor::zeros([rows, outputs], FLOAT);
                weight.gemv(&launcher, &x, Fused::Norm(&gamma, 1e-5), &y).unwrap();
                close(&y, &plain(&normed), 1e-5);

                let before = Tensor::randn([rows, outputs], FLOAT);
                let y = before.copy();
                weight.gemv(&launcher, &x, Fused::Add, &y).unwrap();
                close(&y, &(plain(&x) + before), 1e-5);

                let y = Tensor::zeros([rows, outputs / 2], FLOAT);
                weight.gemv(&launcher, &x, Fused::NormSwiglu(&gamma, 1e-5), &y).unwrap();
                let both = plain(&normed).chunk(2, 1);
                close(&y, &(both[0].silu() * &both[1]), 1e-5);
            }
        }
    }

    #[test]
    fn products_of_many_rows_read_the_same_weights() {
        let launcher = CpuEmulator;
        for format in [Format::Bf16, Format::Int8] {
            let weight = Weight::new(&Tensor::randn([6, 320], FLOAT), format);
            let x = Tensor::randn([12, 320], FLOAT).to_kind(Kind::BFloat16);
            let y = weight.gemm(&launcher, &x).unwrap();
            let expected = x.to_kind(Kind::Float).matmul(&read(&weight).tr());
            close(&y, &expected, 5e-3);
        }
    }
}
